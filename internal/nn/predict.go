package nn

// Predict writes the class of the highest of each row of logits, the lowest of
// equals, to dst, which has a value for each row; classes is at most 256.
func Predict(dst []uint8, logits []float32, classes, workers int) {
	spread(workers, len(dst), classes, func(from, to int) {
		for i := from; i < to; i++ {
			row := logits[i*classes : (i+1)*classes]
			best, most := 0, row[0]
			for c, v := range row {
				if v > most {
					best, most = c, v
				}
			}
			dst[i] = uint8(best)
		}
	})
}
