package dataset

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"sync"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"
	"golang.org/x/image/webp"
)

const (
	// maxImageFile is the greatest size of an image file in bytes.
	maxImageFile = 64 << 20
	// maxPixels is the greatest number of pixels of an image.
	maxPixels = 64 << 20
)

// Decode reads a JPEG, PNG, GIF (its first frame), BMP, TIFF or WebP image, which it tells
// apart by their first bytes, with the decoders of the standard library and
// golang.org/x/image. Grey images have one channel, all
// others three; 16-bit samples lose their lower half, alpha is dropped, as by
// Pillow's convert("RGB"), and a camera's orientation mark has no effect. Errors
// wrap ErrFormat or ErrLimit, or are those of r. Decoding takes up to 20 bytes of
// memory a pixel (progressive JPEG), at most 64 Mi pixels and no more than 96 MiB and
// 128 bytes for each byte of the file. Images that are decoded at once wait for each
// other where they would take more than 1 GiB together.
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
	case bytes.HasPrefix(data, []byte("GIF8")):
		readConfig, read = gif.DecodeConfig, gif.Decode
	case bytes.HasPrefix(data, []byte("BM")):
		readConfig, read = bmp.DecodeConfig, bmp.Decode
	case bytes.HasPrefix(data, []byte("II*\x00")), bytes.HasPrefix(data, []byte("MM\x00*")):
		readConfig, read = tiff.DecodeConfig, tiff.Decode
	case len(data) > 12 && string(data[:4]) == "RIFF" && string(data[8:12]) == "WEBP":
		readConfig, read = webp.DecodeConfig, webp.Decode
	default:
		return c, nil, fmt.Errorf("%w: none of the image formats JPEG, PNG, GIF, BMP, TIFF and WebP: it begins with % x", ErrFormat, data[:min(len(data), 8)])
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
	if err := bounded(data, c); err != nil {
		return c, nil, err
	}
	return c, read, nil
}

// bounded reports an image whose decoding would be out of proportion to its file.
func bounded(data []byte, c image.Config) error {
	pixels := c.Width * c.Height
	if need, most := int64(pixels)*pixelCost(data, c), int64(96<<20+128*len(data)); need > most {
		return fmt.Errorf("%w: an image of %d×%d pixels, which takes %d MiB, in a file of %d bytes", ErrLimit, c.Width, c.Height, need>>20, len(data))
	}
	// A progressive JPEG goes over all pixels with each of its scans.
	const mostScans, mostWork = 500, 1 << 30
	if bytes.HasPrefix(data, []byte("\xff\xd8")) {
		if scans := bytes.Count(data, []byte("\xff\xda")); scans > mostScans || scans > 16 && scans*pixels > mostWork {
			return fmt.Errorf("%w: a JPEG image of %d×%d pixels in %d scans", ErrLimit, c.Width, c.Height, scans)
		}
	}
	return nil
}

// pixelCost is about how many bytes of memory decoding takes a pixel.
func pixelCost(data []byte, c image.Config) int64 {
	switch c.ColorModel {
	case color.RGBA64Model, color.NRGBA64Model:
		return 8 + 3
	case color.Gray16Model:
		return 2 + 1
	case color.GrayModel:
		return 1 + 1
	case color.YCbCrModel, color.CMYKModel:
		// Progressive ones keep their coefficients; the marker of their frame is ff c2.
		if bytes.HasPrefix(data, []byte("\xff\xd8")) && bytes.Contains(data[:min(len(data), 1<<16)], []byte("\xff\xc2")) {
			return 12 + 3 + 3
		}
	}
	if _, palette := c.ColorModel.(color.Palette); palette {
		return 1 + 3
	}
	return 4 + 3
}

// decoding bounds the memory of all images that are decoded at once.
var decoding = &gate{free: 1 << 30}

// gate lets work through whose weights add up to no more than what is free.
type gate struct {
	mu   sync.Mutex
	free int64
	wait sync.Cond
}

func init() { decoding.wait.L = &decoding.mu }

// enter waits until weight is free, or all of it where it is more than there ever is.
func (g *gate) enter(weight int64) (leave func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	weight = min(weight, 1<<30)
	for g.free < weight {
		g.wait.Wait()
	}
	g.free -= weight
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.free += weight
		g.wait.Broadcast()
	}
}

func decodeStandard(data []byte) (image.Image, error) {
	c, read, err := header(data)
	if err != nil {
		return nil, err
	}
	defer decoding.enter(int64(c.Width) * int64(c.Height) * pixelCost(data, c))()
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
