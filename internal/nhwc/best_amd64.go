//go:build amd64 && gc && !noasm && !purego

package nhwc

import "golang.org/x/sys/cpu"

// best is the widest set that the processor has. GODEBUG=cpu.avx512f=off or
// cpu.avx2=off in the environment leaves a set out.
func best() int {
	x := &cpu.X86
	switch {
	case !x.HasAVX2 || !x.HasFMA:
		return inGo
	case x.HasAVX512F && x.HasAVX512VL && x.HasAVX512DQ && x.HasAVX512BW && x.HasBMI2:
		return inAVX512
	}
	return inAVX2
}

func runDepthwise(m int, d *depthwise) {
	switch {
	case kernels == inAVX512 && m == depthwisePixels:
		depthwise4AVX512(d)
	case kernels == inAVX512:
		depthwise1AVX512(d)
	case m == depthwisePixels:
		depthwise4AVX2(d)
	default:
		depthwise1AVX2(d)
	}
}

func runDepthwiseRows(d *depthwise) {
	if kernels == inAVX512 {
		depthwiseRowsAVX512(d)
		return
	}
	depthwiseRowsAVX2(d)
}

func runTranspose16(dst, src *float32) { transpose16AVX2(dst, src) }

func runCorrelate(m int, c *correlation) {
	if kernels == inAVX512 {
		correlatesAVX512[m-1](c)
		return
	}
	correlatesAVX2[m-1](c)
}

func runCorrelateDepthwise(taps int, c *correlation) {
	if kernels == inAVX512 {
		correlatesDepthwiseAVX512[taps-1](c)
		return
	}
	correlatesDepthwiseAVX2[taps-1](c)
}

// The structures of the kinds below are on their callers' stacks, where they stay
// only because these calls name what they call.

func runTransform(set, kind int, t *transform) {
	wide := set == inAVX512
	switch kind {
	case inputKind:
		if wide {
			winogradInputAVX512(t)
		} else {
			winogradInputAVX2(t)
		}
	case edgeKind:
		winogradInputEdgeAVX512(t)
	case outputKind:
		if wide {
			winogradOutputAVX512(t)
		} else {
			winogradOutputAVX2(t)
		}
	case spreadKind:
		if wide {
			winogradSpreadAVX512(t)
		} else {
			winogradSpreadAVX2(t)
		}
	case weightKind:
		if wide {
			winogradWeightAVX512(t)
		} else {
			winogradWeightAVX2(t)
		}
	case gatherKind:
		if wide {
			winogradGatherAVX512(t)
		} else {
			winogradGatherAVX2(t)
		}
	default:
		panic("nhwc: bad transform")
	}
}

func runPointwise(set, kind int, e *pointwise) {
	wide := set == inAVX512
	switch kind {
	case moments1Kind:
		if wide {
			moments1AVX512(e)
		} else {
			moments1AVX2(e)
		}
	case moments4Kind:
		if wide {
			moments4AVX512(e)
		} else {
			moments4AVX2(e)
		}
	case products1Kind:
		if wide {
			products1AVX512(e)
		} else {
			products1AVX2(e)
		}
	case products4Kind:
		if wide {
			products4AVX512(e)
		} else {
			products4AVX2(e)
		}
	case maskedProducts1Kind:
		if wide {
			maskedProducts1AVX512(e)
		} else {
			maskedProducts1AVX2(e)
		}
	case maskedProducts4Kind:
		if wide {
			maskedProducts4AVX512(e)
		} else {
			maskedProducts4AVX2(e)
		}
	case affineKind:
		if wide {
			affineAVX512(e)
		} else {
			affineAVX2(e)
		}
	case affineAddKind:
		if wide {
			affineAddAVX512(e)
		} else {
			affineAddAVX2(e)
		}
	case affinePairKind:
		if wide {
			affinePairAVX512(e)
		} else {
			affinePairAVX2(e)
		}
	case addKind:
		if wide {
			addAVX512(e)
		} else {
			addAVX2(e)
		}
	case sgdKind:
		if wide {
			sgdAVX512(e)
		} else {
			sgdAVX2(e)
		}
	case adamKind:
		if wide {
			adamAVX512(e)
		} else {
			adamAVX2(e)
		}
	case maximaKind:
		if wide {
			maximaAVX512(e)
		} else {
			maximaAVX2(e)
		}
	default:
		panic("nhwc: bad loop")
	}
}
