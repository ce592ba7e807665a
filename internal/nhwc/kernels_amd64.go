//go:build amd64 && gc && !noasm && !purego

package nhwc

import "golang.org/x/sys/cpu"

var accelerated = cpu.X86.HasAVX2 && cpu.X86.HasFMA

//go:noescape
func tile1AVX2(t *tile)

//go:noescape
func tile2AVX2(t *tile)

//go:noescape
func tile3AVX2(t *tile)

//go:noescape
func tile4AVX2(t *tile)

//go:noescape
func tile5AVX2(t *tile)

//go:noescape
func tile6AVX2(t *tile)

//go:noescape
func depthwise1AVX2(d *depthwise)

//go:noescape
func depthwise4AVX2(d *depthwise)

func runTile(m int, t *tile) {
	switch m {
	case 1:
		tile1AVX2(t)
	case 2:
		tile2AVX2(t)
	case 3:
		tile3AVX2(t)
	case 4:
		tile4AVX2(t)
	case 5:
		tile5AVX2(t)
	case 6:
		tile6AVX2(t)
	default:
		panic("nhwc: bad tile")
	}
}

func runDepthwise(m int, d *depthwise) {
	if m == 4 {
		depthwise4AVX2(d)
	} else {
		depthwise1AVX2(d)
	}
}

//go:noescape
func correlate1AVX2(c *correlation)

//go:noescape
func correlate2AVX2(c *correlation)

//go:noescape
func correlate3AVX2(c *correlation)

//go:noescape
func correlate4AVX2(c *correlation)

//go:noescape
func correlate5AVX2(c *correlation)

//go:noescape
func correlate6AVX2(c *correlation)

//go:noescape
func correlateDepthwise1AVX2(c *correlation)

//go:noescape
func correlateDepthwise2AVX2(c *correlation)

//go:noescape
func correlateDepthwise3AVX2(c *correlation)

//go:noescape
func correlateDepthwise4AVX2(c *correlation)

//go:noescape
func correlateDepthwise5AVX2(c *correlation)

//go:noescape
func winogradInputAVX2(t *transform)

//go:noescape
func winogradOutputAVX2(t *transform)

//go:noescape
func winogradSpreadAVX2(t *transform)

//go:noescape
func winogradWeightAVX2(t *transform)

//go:noescape
func winogradGatherAVX2(t *transform)

//go:noescape
func depthwiseRowsAVX2(d *depthwise)

func runDepthwiseRows(d *depthwise) { depthwiseRowsAVX2(d) }

//go:noescape
func transpose16AVX2(dst, src *float32)

func runTranspose16(dst, src *float32) { transpose16AVX2(dst, src) }

func runTransform(kind int, t *transform) {
	switch kind {
	case inputKind:
		winogradInputAVX2(t)
	case outputKind:
		winogradOutputAVX2(t)
	case spreadKind:
		winogradSpreadAVX2(t)
	case weightKind:
		winogradWeightAVX2(t)
	case gatherKind:
		winogradGatherAVX2(t)
	default:
		panic("nhwc: bad transform")
	}
}

func runCorrelate(m int, c *correlation) {
	switch m {
	case 1:
		correlate1AVX2(c)
	case 2:
		correlate2AVX2(c)
	case 3:
		correlate3AVX2(c)
	case 4:
		correlate4AVX2(c)
	case 5:
		correlate5AVX2(c)
	case 6:
		correlate6AVX2(c)
	default:
		panic("nhwc: bad tile")
	}
}

func runCorrelateDepthwise(taps int, c *correlation) {
	switch taps {
	case 1:
		correlateDepthwise1AVX2(c)
	case 2:
		correlateDepthwise2AVX2(c)
	case 3:
		correlateDepthwise3AVX2(c)
	case 4:
		correlateDepthwise4AVX2(c)
	case 5:
		correlateDepthwise5AVX2(c)
	default:
		panic("nhwc: bad number of taps")
	}
}

//go:noescape
func moments1AVX2(e *pointwise)

//go:noescape
func moments4AVX2(e *pointwise)

//go:noescape
func products1AVX2(e *pointwise)

//go:noescape
func products4AVX2(e *pointwise)

//go:noescape
func maskedProducts1AVX2(e *pointwise)

//go:noescape
func maskedProducts4AVX2(e *pointwise)

//go:noescape
func affineAVX2(e *pointwise)

//go:noescape
func affineAddAVX2(e *pointwise)

//go:noescape
func affinePairAVX2(e *pointwise)

//go:noescape
func sgdAVX2(e *pointwise)

//go:noescape
func adamAVX2(e *pointwise)

//go:noescape
func maximaAVX2(e *pointwise)

func runPointwise(kind int, e *pointwise) {
	switch kind {
	case moments1Kind:
		moments1AVX2(e)
	case moments4Kind:
		moments4AVX2(e)
	case products1Kind:
		products1AVX2(e)
	case products4Kind:
		products4AVX2(e)
	case maskedProducts1Kind:
		maskedProducts1AVX2(e)
	case maskedProducts4Kind:
		maskedProducts4AVX2(e)
	case affineKind:
		affineAVX2(e)
	case affineAddKind:
		affineAddAVX2(e)
	case affinePairKind:
		affinePairAVX2(e)
	case sgdKind:
		sgdAVX2(e)
	case adamKind:
		adamAVX2(e)
	case maximaKind:
		maximaAVX2(e)
	default:
		panic("nhwc: bad loop")
	}
}
