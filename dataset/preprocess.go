package dataset

import (
	"fmt"
	"image"
	"math"

	"golang.org/x/image/draw"
)

// Preprocess says how an image becomes a network's input: it is resized,
// cropped, scaled to [0, 1] and normalised, (v/255 − Mean[c])/Std[c], in that
// order and as torchvision's Resize, CenterCrop, ToTensor and Normalize do it. A
// grey image gives three equal channels before normalisation. The zero value
// scales to [0, 1] and nothing else.
type Preprocess struct {
	// Resize is the length that the shorter side is brought to; the longer one
	// becomes ⌊Resize·longer/shorter⌋. 0 leaves images as they are, and so does
	// a side that has this length already. Weights are bilinear and widen with
	// the reduction (antialias); the result is within one level of 255 of
	// Pillow's, which rounds to 8 bits between the two directions.
	Resize int `json:"resize,omitempty"`
	// Crop is the width and height of the window taken from the centre; its
	// corner, where the margins are odd, is rounded to even. 0, 0 takes the
	// whole image.
	Crop [2]int `json:"crop"`
	// Pad puts an image that is smaller than Crop on black, in the centre.
	// Without it such an image is an error.
	Pad bool `json:"pad,omitempty"`
	// Mean and Std are in units of the scaled samples, in the order red, green,
	// blue. Std of all zeros is read as all ones.
	Mean [3]float32 `json:"mean"`
	Std  [3]float32 `json:"std"`
}

// ImageNet is what networks trained on ImageNet with torchvision's recipe
// expect: the shorter side resized to 256, 224×224 from the centre. Images of
// 256×256 are only cropped.
var ImageNet = Preprocess{
	Resize: 256,
	Crop:   [2]int{224, 224},
	Mean:   imageNetMean,
	Std:    imageNetStd,
}

// CIFAR makes 32×32 inputs with ImageNet's mean and deviation, which the widely
// used CIFAR-10 ResNets were trained with. Images of 32×32 keep their samples;
// others are resized and cropped to a square.
var CIFAR = Preprocess{
	Resize: 32,
	Crop:   [2]int{32, 32},
	Mean:   imageNetMean,
	Std:    imageNetStd,
}

// Glyphs makes 32×32 inputs with the mean and deviation of the 20,000 training
// images of glyphs:letters: 0.50 and 0.25 in each channel, as measured. The other
// tasks of glyphs differ by 0.02 at most. Images of other sizes are resized and
// cropped to a square.
var Glyphs = Preprocess{
	Resize: 32,
	Crop:   [2]int{32, 32},
	Mean:   [3]float32{0.5, 0.5, 0.5},
	Std:    [3]float32{0.25, 0.25, 0.25},
}

var (
	imageNetMean = [3]float32{0.485, 0.456, 0.406}
	imageNetStd  = [3]float32{0.229, 0.224, 0.225}
)

const (
	// maxSide bounds Resize and Crop.
	maxSide = 1 << 14
	// maxScratch bounds the pixels of the two passes of resizing, which take
	// 32 and 8 bytes each.
	maxScratch = 16 << 20
)

// Validate reports numbers that make no sense. The error wraps ErrSpec.
func (p Preprocess) Validate() error {
	if p.Resize < 0 || p.Resize > maxSide {
		return fmt.Errorf("%w: resize to %d; want 0 (as it is) to %d", ErrSpec, p.Resize, maxSide)
	}
	if w, h := p.Crop[0], p.Crop[1]; min(w, h) < 0 || max(w, h) > maxSide || (w == 0) != (h == 0) {
		return fmt.Errorf("%w: crop to %d×%d (width×height); want both 0 (no crop) or both within 1 to %d", ErrSpec, w, h, maxSide)
	}
	if p.Pad && p.Crop == [2]int{} {
		return fmt.Errorf("%w: padding needs the width and height of the crop to pad to", ErrSpec)
	}
	for c := range 3 {
		mean, std := float64(p.Mean[c]), float64(p.Std[c])
		if math.IsNaN(mean) || math.IsInf(mean, 0) {
			return fmt.Errorf("%w: mean %v; want finite numbers", ErrSpec, p.Mean)
		}
		if p.Std != [3]float32{} && !(std > 0 && !math.IsInf(std, 1)) {
			return fmt.Errorf("%w: standard deviations %v; want positive numbers, or all 0 for none", ErrSpec, p.Std)
		}
	}
	return nil
}

// Size is the width and height that an image of w×h pixels gets. The error wraps
// ErrSpec if p is not valid, ErrSize if the image is smaller than the crop and
// not to be padded, and ErrLimit if resizing it would take too much memory.
func (p Preprocess) Size(w, h int) (width, height int, err error) {
	if err := p.Validate(); err != nil {
		return 0, 0, err
	}
	return p.size(w, h)
}

func (p Preprocess) size(w, h int) (width, height int, err error) {
	if w < 1 || h < 1 {
		return 0, 0, fmt.Errorf("%w: an image of %d×%d pixels (width×height)", ErrSize, w, h)
	}
	if w > maxPixels/h {
		return 0, 0, fmt.Errorf("%w: an image of %d×%d pixels (width×height); at most %d pixels are accepted", ErrLimit, w, h, maxPixels)
	}
	// The longer side is at most maxSide·maxPixels here, so nothing overflows.
	rw64, rh64 := p.resized(w, h)
	if err := checkScratch(w, h, rw64, rh64); err != nil {
		return 0, 0, err
	}
	rw, rh := int(rw64), int(rh64)
	if p.Crop == [2]int{} {
		return rw, rh, nil
	}
	if !p.Pad && (rw < p.Crop[0] || rh < p.Crop[1]) {
		return 0, 0, fmt.Errorf("%w: %d×%d pixels (width×height) are fewer than the crop of %d×%d; set Resize or Pad", ErrSize, rw, rh, p.Crop[0], p.Crop[1])
	}
	return p.Crop[0], p.Crop[1], nil
}

// checkScratch reports resizing that would take too much memory.
func checkScratch(w, h int, rw, rh int64) error {
	if (rw != int64(w) || rh != int64(h)) && rw*max(int64(h), rh) > maxScratch {
		return fmt.Errorf("%w: an image of %d×%d pixels (width×height) resized to %d×%d", ErrLimit, w, h, rw, rh)
	}
	return nil
}

// resized is the size after resizing.
func (p Preprocess) resized(width, height int) (int64, int64) {
	w, h, short := int64(width), int64(height), int64(p.Resize)
	switch {
	case short == 0 || min(w, h) == short:
		return w, h
	case w <= h:
		return short, short * h / w
	default:
		return short * w / h, short
	}
}

// Apply makes the input of one image: height×width×3 samples, channels
// innermost. Errors are those of Size, or wrap ErrFormat if the image's own
// numbers don't agree.
func (p Preprocess) Apply(m Image) (x []float32, width, height int, err error) {
	width, height, err = p.Size(m.W, m.H)
	if err != nil {
		return nil, 0, 0, err
	}
	if err := m.validate(); err != nil {
		return nil, 0, 0, err
	}
	x = make([]float32, width*height*3)
	p.fill(x, width, height, m, p.table())
	return x, width, height, nil
}

// table holds the value of every sample for every channel.
type table [3][256]float32

func (p Preprocess) table() *table {
	t := new(table)
	for c := range t {
		std := p.Std[c]
		if std == 0 {
			std = 1
		}
		for v := range t[c] {
			// One rounding each, as in float32 arithmetic elsewhere.
			scaled := float32(v) / 255
			t[c][v] = float32(scaled-p.Mean[c]) / std
		}
	}
	return t
}

// fill writes the input of m, which p.size and m.validate have accepted, to x.
func (p Preprocess) fill(x []float32, width, height int, m Image, t *table) {
	if w, h := p.resized(m.W, m.H); w != int64(m.W) || h != int64(m.H) {
		m = resize(m, int(w), int(h))
	}
	if m.W < width || m.H < height {
		for i := 0; i < len(x); i += 3 {
			x[i], x[i+1], x[i+2] = t[0][0], t[1][0], t[2][0]
		}
	}
	sx, dx, w := window(m.W, width)
	sy, dy, h := window(m.H, height)
	for y := range h {
		src := m.Pix[((sy+y)*m.W+sx)*m.C:][:w*m.C]
		dst := x[((dy+y)*width+dx)*3:][:w*3]
		if m.C == 1 {
			for _, v := range src {
				dst[0], dst[1], dst[2] = t[0][v], t[1][v], t[2][v]
				dst = dst[3:]
			}
			continue
		}
		for len(src) >= 3 && len(dst) >= 3 {
			dst[0], dst[1], dst[2] = t[0][src[0]], t[1][src[1]], t[2][src[2]]
			src, dst = src[3:], dst[3:]
		}
	}
}

// window places a window of size want on a side of length have: n samples go
// from src on to dst on.
func window(have, want int) (src, dst, n int) {
	if have < want {
		return 0, (want - have) / 2, have
	}
	src = (have - want) / 2
	// Half to even, as round does in Python.
	if (have-want)%2 == 1 && src%2 == 1 {
		src++
	}
	return src, 0, want
}

// resize is m in w×h pixels.
func resize(m Image, w, h int) Image {
	var src image.Image
	bounds := image.Rect(0, 0, m.W, m.H)
	if m.C == 1 {
		src = &image.Gray{Pix: m.Pix, Stride: m.W, Rect: bounds}
	} else {
		rgba := image.NewRGBA(bounds)
		for i := range m.W * m.H {
			s, d := m.Pix[3*i:][:3], rgba.Pix[4*i:][:4]
			d[0], d[1], d[2], d[3] = s[0], s[1], s[2], 255
		}
		src = rgba
	}
	// With 16 bits the last rounding is ours: the scaler's own to 8 bits cuts
	// off the lower half, which darkens or lightens by up to half a level.
	dst := image.NewRGBA64(image.Rect(0, 0, w, h))
	draw.BiLinear.Scale(dst, dst.Rect, src, bounds, draw.Src, nil)
	out := Image{W: w, H: h, C: m.C, Pix: make([]uint8, w*h*m.C)}
	for i := range w * h {
		for c := range m.C {
			v := uint32(dst.Pix[8*i+2*c])<<8 | uint32(dst.Pix[8*i+2*c+1])
			out.Pix[i*m.C+c] = uint8((v + 128) / 257)
		}
	}
	return out
}
