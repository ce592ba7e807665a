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
