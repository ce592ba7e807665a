package peft

// place copies the array src into dst so that its first element lands at the index at.
func place[T Float](dst []T, into []int, src []T, from, at []int) {
	if len(into) == 0 {
		dst[0] = src[0]
		return
	}
	d, s := 1, 1
	for i := range into[1:] {
		d *= into[i+1]
		s *= from[i+1]
	}
	for i := range from[0] {
		place(dst[(at[0]+i)*d:], into[1:], src[i*s:], from[1:], at[1:])
	}
}
