package dataset

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
)

const (
	// maxImageFile is the greatest size of an image file in bytes.
	maxImageFile = 64 << 20
	// maxPixels is the greatest number of pixels of an image.
	maxPixels = 64 << 20
)

// Decode reads a JPEG or PNG image, which it tells apart by their first bytes,
// with the decoders of the standard library. Grey images have one channel, all
// others three; 16-bit samples lose their lower half, alpha is dropped, as by
// Pillow's convert("RGB"), and a camera's orientation mark has no effect. Errors
// wrap ErrFormat or ErrLimit, or are those of r. Decoding takes up to 20 bytes of
// memory a pixel (progressive JPEG), at most 64 Mi pixels.
//
// The chroma of JPEG images is interpolated as libjpeg does it, because networks
// are trained on what Pillow reads with libjpeg. What remains is the rounding of
// the cosine transform: a few levels of 255 at most.
func Decode(r io.Reader) (Image, error) {
	data, err := readImageFile(r)
	if err != nil {
		return Image{}, err
	}
	return decode(data)
}

func readImageFile(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxImageFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxImageFile {
		return nil, fmt.Errorf("%w: an image file of more than %d bytes", ErrLimit, maxImageFile)
	}
	return data, nil
}

func decode(data []byte) (Image, error) {
	m, err := decodeStandard(data)
	if err != nil {
		return Image{}, err
	}
	return FromImage(m), nil
}

// header reads the size of an image, and gives the function that reads the rest.
func header(data []byte) (c image.Config, read func(io.Reader) (image.Image, error), err error) {
	var readConfig func(io.Reader) (image.Config, error)
	switch {
	case len(data) == 0:
		return c, nil, fmt.Errorf("%w: an empty image file", ErrFormat)
	case bytes.HasPrefix(data, []byte("\xff\xd8")):
		readConfig, read = jpeg.DecodeConfig, jpeg.Decode
	case bytes.HasPrefix(data, []byte("\x89PNG\r\n\x1a\n")):
		readConfig, read = png.DecodeConfig, png.Decode
	default:
		return c, nil, fmt.Errorf("%w: neither a JPEG nor a PNG image: it begins with % x", ErrFormat, data[:min(len(data), 8)])
	}
	c, err = readConfig(bytes.NewReader(data))
	if err != nil {
		return c, nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if c.Width < 1 || c.Height < 1 {
		return c, nil, fmt.Errorf("%w: an image of %d×%d pixels", ErrFormat, c.Width, c.Height)
	}
	if c.Width > maxPixels/c.Height {
		return c, nil, fmt.Errorf("%w: an image of %d×%d pixels; at most %d pixels are accepted", ErrLimit, c.Width, c.Height, maxPixels)
	}
	return c, read, nil
}

func decodeStandard(data []byte) (image.Image, error) {
	_, read, err := header(data)
	if err != nil {
		return nil, err
	}
	m, err := read(bytes.NewReader(data))
	if err != nil {
		// The data is all there is: what ends early here is truncated.
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return m, nil
}

// FromImage is m in 8 bits without alpha: one channel if m is a Gray or Gray16
// image, else three with the colours of color.NRGBA. Chroma of a YCbCr image that
// is no sub-image is interpolated, as in [Decode].
func FromImage(m image.Image) Image {
	b := m.Bounds()
	out := Image{W: b.Dx(), H: b.Dy(), C: 3}
	switch m.(type) {
	case *image.Gray, *image.Gray16:
		out.C = 1
	}
	out.Pix = make([]uint8, out.W*out.H*out.C)
	row := func(y int) []uint8 { return out.Pix[y*out.W*out.C:][:out.W*out.C] }
	switch m := m.(type) {
	case *image.Gray:
		for y := range out.H {
			copy(row(y), m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):])
		}
	case *image.Gray16:
		for y := range out.H {
			src := m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):]
			for x := range row(y) {
				row(y)[x] = src[2*x]
			}
		}
	case *image.YCbCr:
		if b.Min != (image.Point{}) {
			convert(out, m)
			break
		}
		fromYCbCr(out.Pix, m)
	case *image.NRGBA:
		for y := range out.H {
			dropFourth(row(y), m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):])
		}
	case *image.RGBA:
		if !m.Opaque() {
			convert(out, m)
			break
		}
		for y := range out.H {
			dropFourth(row(y), m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):])
		}
	case *image.Paletted:
		var table [256][3]uint8
		for i, c := range m.Palette {
			v := color.NRGBAModel.Convert(c).(color.NRGBA)
			table[i] = [3]uint8{v.R, v.G, v.B}
		}
		for y := range out.H {
			src := m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):]
			for x := range out.W {
				copy(row(y)[3*x:], table[src[x]][:])
			}
		}
	default:
		convert(out, m)
	}
	return out
}

// dropFourth packs as many pixels of four samples as dst has room for into
// pixels of three.
func dropFourth(dst, src []uint8) {
	n := len(dst) / 3
	src = src[:4*n]
	for len(src) >= 4 && len(dst) >= 3 {
		dst[0], dst[1], dst[2] = src[0], src[1], src[2]
		dst, src = dst[3:], src[4:]
	}
}

// convert is FromImage for any image, a pixel at a time.
func convert(out Image, m image.Image) {
	b := m.Bounds()
	for y := range out.H {
		for x := range out.W {
			c := color.NRGBAModel.Convert(m.At(b.Min.X+x, b.Min.Y+y)).(color.NRGBA)
			p := out.Pix[(y*out.W+x)*3:][:3]
			p[0], p[1], p[2] = c.R, c.G, c.B
		}
	}
}
