package dataset

import "image"

// The parts of JFIF's conversion from YCbCr to RGB that a chroma sample
// contributes, in units of 1/65536; the two that add up to green are rounded
// after adding.
var chromaRed, chromaBlue, chromaGreenB, chromaGreenR = func() (red, blue, greenB, greenR [256]int32) {
	const half = 1 << 15
	for i := range int32(256) {
		v := i - 128
		red[i] = (91881*v + half) >> 16   // 1.40200
		blue[i] = (116130*v + half) >> 16 // 1.77200
		greenB[i] = -22554*v + half       // 0.34414
		greenR[i] = -46802 * v            // 0.71414
	}
	return
}()

// fromYCbCr converts m, whose rectangle begins at 0, 0, to pixels of three
// samples. Chroma planes of half width, or half width and height, are
// interpolated as libjpeg does it by default ("fancy upsampling"): an output
// sample is three quarters of the nearest and one quarter of the second nearest
// chroma sample, in each direction that is subsampled. Other planes are repeated.
//
// The standard library's own conversion repeats them all, which is off by 2
// levels rms and by dozens at coloured edges.
func fromYCbCr(pix []uint8, m *image.YCbCr) {
	w, h := m.Rect.Dx(), m.Rect.Dy()
	var kind upsampling
	cw, ch := w, h
	switch m.SubsampleRatio {
	case image.YCbCrSubsampleRatio420:
		kind, cw, ch = upsample2x2, (w+1)/2, (h+1)/2
	case image.YCbCrSubsampleRatio422:
		kind, cw = upsample2x1, (w+1)/2
	}
	// libjpeg repeats planes that are too narrow for it to interpolate.
	if cw <= 2 {
		kind = repeated
	}
	cb, cr := make([]uint8, 2*cw), make([]uint8, 2*cw)
	sums := make([]uint16, cw)
	for y := range h {
		switch kind {
		case upsample2x2:
			// Even rows lie nearer to the chroma row above, odd ones to
			// the row below.
			near := y / 2
			far := min(max(near-1+y%2*2, 0), ch-1)
			n, f := near*m.CStride, far*m.CStride
			widen2x2(cb, m.Cb[n:][:cw], m.Cb[f:][:cw], sums)
			widen2x2(cr, m.Cr[n:][:cw], m.Cr[f:][:cw], sums)
		case upsample2x1:
			widen2x1(cb, m.Cb[y*m.CStride:][:cw])
			widen2x1(cr, m.Cr[y*m.CStride:][:cw])
		default:
			for x := range w {
				o := m.COffset(x, y)
				cb[x], cr[x] = m.Cb[o], m.Cr[o]
			}
		}
		luma := m.Y[y*m.YStride:][:w]
		b, r := cb[:len(luma)], cr[:len(luma)]
		dst := pix[y*w*3:][:w*3]
		for x, v := range luma {
			l, i, j := int32(v), b[x], r[x]
			p := dst[3*x:][:3]
			p[0] = clamp(l + chromaRed[j])
			p[1] = clamp(l + (chromaGreenB[i]+chromaGreenR[j])>>16)
			p[2] = clamp(l + chromaBlue[i])
		}
	}
}

type upsampling int

const (
	repeated upsampling = iota
	upsample2x1
	upsample2x2
)

func clamp(v int32) uint8 {
	if uint32(v) > 255 {
		// 0 for negative numbers, 255 for the others.
		return uint8(^(v >> 31))
	}
	return uint8(v)
}

// widen2x1 doubles the width of src, which has at least two samples. Rounding
// goes down and up in turn, so that it has no bias.
func widen2x1(dst, src []uint8) {
	last := len(src) - 1
	at := func(i int) int { return int(src[i]) }
	for i := 1; i < last; i++ {
		d := dst[2*i:][:2]
		d[0] = uint8((3*at(i) + at(i-1) + 1) >> 2)
		d[1] = uint8((3*at(i) + at(i+1) + 2) >> 2)
	}
	dst[0], dst[1] = src[0], uint8((3*at(0)+at(1)+2)>>2)
	dst[2*last], dst[2*last+1] = uint8((3*at(last)+at(last-1)+1)>>2), src[last]
}

// widen2x2 is a row of twice the width, at a quarter of the way from near to
// far. sums is scratch of the length of near.
func widen2x2(dst, near, far []uint8, sums []uint16) {
	far = far[:len(near)]
	sums = sums[:len(near)]
	for i, v := range near {
		sums[i] = 3*uint16(v) + uint16(far[i])
	}
	last := len(sums) - 1
	for i := 1; i < last; i++ {
		s := 3 * sums[i]
		d := dst[2*i:][:2]
		d[0] = uint8((s + sums[i-1] + 8) >> 4)
		d[1] = uint8((s + sums[i+1] + 7) >> 4)
	}
	dst[0], dst[1] = uint8((4*sums[0]+8)>>4), uint8((3*sums[0]+sums[1]+7)>>4)
	dst[2*last], dst[2*last+1] = uint8((3*sums[last]+sums[last-1]+8)>>4), uint8((4*sums[last]+7)>>4)
}
