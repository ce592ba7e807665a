package dataset

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// Augment says how a training image is changed at random, so that a network does
// not see the same input twice. The zero value changes nothing. What is drawn
// depends on a seed, the epoch and the image's number alone.
type Augment struct {
	// Area takes a window with this share of the image's area, from Area[0] to
	// Area[1], at a random place and with a random ratio of width to height,
	// and resizes it to the Crop of the Preprocess, in place of its Resize and
	// its central window (torchvision's RandomResizedCrop). 0, 0 is none.
	Area [2]float64 `json:"area"`
	// Ratio is the least and greatest ratio of Area's windows; its logarithm is
	// evenly spread. 0, 0 means 3/4 to 4/3.
	Ratio [2]float64 `json:"ratio"`
	// Pad is how far the input is shifted at most in each direction; black
	// comes in at the sides. It is a random crop after padding by Pad pixels.
	Pad int `json:"pad,omitempty"`
	// Flip mirrors half of the inputs, left to right.
	Flip bool `json:"flip,omitempty"`
}

// The usual choices for images of everyday things. Symbols are not to be
// mirrored.
var (
	// CIFARAugment shifts by up to 4 pixels and mirrors (He et al., Deep
	// residual learning for image recognition, 2016, section 4.2).
	CIFARAugment = Augment{Pad: 4, Flip: true}
	// ImageNetAugment takes windows of 8 to 100 % of the area and mirrors.
	ImageNetAugment = Augment{Area: [2]float64{0.08, 1}, Flip: true}
)

// Validate reports numbers that make no sense. The error wraps ErrSpec.
func (a Augment) Validate() error {
	if a.Pad < 0 || a.Pad > maxSide {
		return fmt.Errorf("%w: shifts by up to %d pixels; want 0 (none) to %d", ErrSpec, a.Pad, maxSide)
	}
	if lo, hi := a.Area[0], a.Area[1]; a.windows() && !(lo > 0 && lo <= hi && hi <= 1) {
		return fmt.Errorf("%w: windows of %v to %v of the area; want rising shares above 0 and up to 1, or 0, 0 for none", ErrSpec, lo, hi)
	}
	if lo, hi := a.Ratio[0], a.Ratio[1]; a.Ratio != [2]float64{} && !(lo > 0 && lo <= hi && !math.IsInf(hi, 1)) {
		return fmt.Errorf("%w: windows of ratio %v to %v; want rising positive numbers, or 0, 0 for 3/4 to 4/3", ErrSpec, lo, hi)
	}
	return nil
}

func (a Augment) windows() bool { return a.Area != [2]float64{} }

// draws are the random numbers of one image in one epoch.
func draws(seed, epoch uint64, image int) *rand.Rand {
	const golden = 0x9e3779b97f4a7c15
	return rand.New(rand.NewPCG(seed+golden*epoch, uint64(image)))
}

// window chooses a window of an image of w×h pixels. Its arithmetic is square
// roots, single products and quotients, which are rounded alike on every machine.
func (a Augment) window(r *rand.Rand, w, h int) (x, y, ww, wh int) {
	ratio := a.Ratio
	if ratio == [2]float64{} {
		ratio = [2]float64{3. / 4, 4. / 3}
	}
	all := float64(w) * float64(h)
	for range 10 {
		share := a.Area[0] + float64((a.Area[1]-a.Area[0])*r.Float64())
		area, q := all*share, spread(r, ratio)
		ww, wh = int(math.Round(math.Sqrt(area*q))), int(math.Round(math.Sqrt(area/q)))
		if ww >= 1 && ww <= w && wh >= 1 && wh <= h {
			return r.IntN(w - ww + 1), r.IntN(h - wh + 1), ww, wh
		}
	}
	// No luck: the largest window of a ratio within the bounds, in the centre.
	ww, wh = w, h
	switch q := float64(w) / float64(h); {
	case q < ratio[0]:
		wh = min(max(int(math.Round(float64(w)/ratio[0])), 1), h)
	case q > ratio[1]:
		ww = min(max(int(math.Round(float64(h)*ratio[1])), 1), w)
	}
	return (w - ww) / 2, (h - wh) / 2, ww, wh
}

// spread draws a number within bounds whose logarithm is evenly distributed, by
// halving the bounds' quotient 24 times: powers by math.Pow differ in the last
// bit from machine to machine.
func spread(r *rand.Rand, bounds [2]float64) float64 {
	v, f := bounds[0], bounds[1]/bounds[0]
	bits := r.Uint32()
	for range 24 {
		f = math.Sqrt(f)
		if bits&1 == 1 {
			v *= f
		}
		bits >>= 1
	}
	return v
}

// cut is the window of m with a corner at x, y.
func cut(m Image, x, y, w, h int) Image {
	if w == m.W && h == m.H {
		return m
	}
	out := Image{W: w, H: h, C: m.C, Pix: make([]uint8, 0, w*h*m.C)}
	for row := range h {
		out.Pix = append(out.Pix, m.Pix[((y+row)*m.W+x)*m.C:][:w*m.C]...)
	}
	return out
}

// moves are what was drawn for one image.
type moves struct {
	// window is the left, top, width and height of the part taken of the
	// image, if there is one.
	window [4]int
	dx, dy int
	mirror bool
}

// draw chooses the changes of an image of w×h pixels.
func (a Augment) draw(r *rand.Rand, w, h int) (m moves) {
	if a.windows() {
		x, y, ww, wh := a.window(r, w, h)
		m.window = [4]int{x, y, ww, wh}
	}
	if a.Pad > 0 {
		m.dx, m.dy = r.IntN(2*a.Pad+1)-a.Pad, r.IntN(2*a.Pad+1)-a.Pad
	}
	m.mirror = a.Flip && r.IntN(2) == 1
	return m
}

// apply shifts and mirrors an input of w×h pixels in place.
func (m moves) apply(x []float32, w, h int, black [3]float32) {
	if m.dx != 0 || m.dy != 0 {
		shift(x, w, h, m.dx, m.dy, black)
	}
	if m.mirror {
		mirror(x, w)
	}
}

// shift makes pixel (x, y) the one at (x+dx, y+dy), or black where there is none.
func shift(x []float32, w, h, dx, dy int, black [3]float32) {
	dark := func(row []float32) {
		for i := range row {
			row[i] = black[i%3]
		}
	}
	left, right := min(max(-dx, 0), w), min(max(dx, 0), w)
	for i := range h {
		y := i
		if dy < 0 {
			// From the bottom up, so that no row is read after it is written.
			y = h - 1 - i
		}
		row := x[y*w*3:][:w*3]
		if y+dy < 0 || y+dy >= h {
			dark(row)
			continue
		}
		from := x[(y+dy)*w*3:][:w*3]
		copy(row[left*3:], from[right*3:(w-left)*3])
		dark(row[:left*3])
		dark(row[(w-right)*3:])
	}
}

// mirror turns the rows of w pixels around.
func mirror(x []float32, w int) {
	for ; len(x) > 0; x = x[w*3:] {
		for i, j := 0, w-1; i < j; i, j = i+1, j-1 {
			p, q := (*[3]float32)(x[3*i:]), (*[3]float32)(x[3*j:])
			*p, *q = *q, *p
		}
	}
}
