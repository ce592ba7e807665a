//go:build !(amd64 && gc && !noasm && !purego)

package nhwc

func best() int { return inGo }

const none = "nhwc: no kernels"

var (
	tilesAVX2   [tilePixels]func(*tile)
	tilesAVX512 [widePixels][widePanels]func(*tile)

	correlatePairsAVX512 [widePixels]func(*correlation)
)

func runDepthwise(int, *depthwise) { panic(none) }

func runCorrelate(int, *correlation) { panic(none) }

func runCorrelateDepthwise(int, *correlation) { panic(none) }

func runTransform(int, int, *transform) { panic(none) }

func runTranspose16(dst, src *float32) { panic(none) }

func runDepthwiseRows(*depthwise) { panic(none) }

func runPointwise(int, int, *pointwise) { panic(none) }
