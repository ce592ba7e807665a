package nn

import "github.com/lowrank-go/lowrank/conv"

// between is where a place along a side of an output lies in the input: the share
// low of place at and the share high of place next.
type between struct {
	at, next  int
	low, high float32
}

// places are those of out places over in, both seen as covering the same side
// (PyTorch's align_corners=False): the centre of output i is at (i+½)·in/out − ½,
// and what lies before the first centre or behind the last is as they are. As in
// PyTorch they are computed in float32.
func places(in, out int) []between {
	p := make([]between, out)
	scale := float32(in) / float32(out)
	for i := range p {
		at := max(scale*(float32(i)+.5)-.5, 0)
		low := min(int(at), in-1)
		high := at - float32(low)
		p[i] = between{low, min(low+1, in-1), 1 - high, high}
	}
	return p
}

// Bilinear resizes x to h×w, into dst (resized), as PyTorch's interpolate does with
// mode bilinear and align_corners=False; like that it does not widen its weights
// where it reduces.
func Bilinear(dst, x *conv.Map, h, w, workers int) *conv.Map {
	dst = dst.Resize(x.N, h, w, x.C)
	rows, cols := places(x.H, h), places(x.W, w)
	c := x.C
	spread(workers, x.N*h, w*c, func(from, to int) {
		line := make([]float32, x.W*c)
		for row := from; row < to; row++ {
			y := rows[row%h]
			image := x.Data[row/h*x.H*x.W*c:]
			a, b := image[y.at*x.W*c:][:len(line)], image[y.next*x.W*c:][:len(line)]
			for i := range line {
				line[i] = y.low*a[i] + y.high*b[i]
			}
			for ox, p := range cols {
				out := dst.Data[(row*w+ox)*c:][:c]
				a, b := line[p.at*c:][:c], line[p.next*c:][:c]
				for i := range out {
					out[i] = p.low*a[i] + p.high*b[i]
				}
			}
		}
	})
	return dst
}

// BilinearBackward writes the gradient of Bilinear's input, h×w, to dx (resized),
// from that of its output.
func BilinearBackward(dx, dy *conv.Map, h, w, workers int) *conv.Map {
	dx = dx.Resize(dy.N, h, w, dy.C)
	rows, cols := places(h, dy.H), places(w, dy.W)
	c := dy.C
	// The rows of the output that see a row of the input: first and behind the last.
	seen := make([][2]int, h)
	for y := range seen {
		seen[y][0] = dy.H
	}
	for i, p := range rows {
		for _, y := range []int{p.at, p.next} {
			seen[y] = [2]int{min(seen[y][0], i), max(seen[y][1], i+1)}
		}
	}
	// A row of the input is gathered by one goroutine, so sums have one order.
	spread(workers, dy.N*h, (1+2*dy.H/h)*dy.W*c, func(from, to int) {
		line := make([]float32, dy.W*c)
		for row := from; row < to; row++ {
			n, y := row/h, row%h
			clear(line)
			for i := seen[y][0]; i < seen[y][1]; i++ {
				share := float32(0)
				if rows[i].at == y {
					share += rows[i].low
				}
				if rows[i].next == y {
					share += rows[i].high
				}
				g := dy.Data[(n*dy.H+i)*dy.W*c:][:len(line)]
				for k := range line {
					line[k] += share * g[k]
				}
			}
			out := dx.Data[row*w*c:][:w*c]
			clear(out)
			for ox, p := range cols {
				g := line[ox*c:][:c]
				a, b := out[p.at*c:][:c], out[p.next*c:][:c]
				for k, v := range g {
					a[k] += p.low * v
					b[k] += p.high * v
				}
			}
		}
	})
	return dx
}
