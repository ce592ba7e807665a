package main

import "fmt"

// Offsets of the fields of correlation.
const (
	cX = 8 * iota
	cPixel
	cRows
	cRowCount
	cColumns
	cY
	cYPixel
	cYRow
	cSum
	cSumPitch
	cYPanel   // bytes from a panel of y to the next
	cSumPanel // the same of the sums
)

// correlate adds to mr rows of 16 sums the products of mr neighbouring values of
// a pixel of x with the 16 of the same pixel of y, over all pixels. With AVX-512 a
// row of sums is one register.
func correlate(mr int) {
	text(fmt.Sprintf("correlate%d", mr), "c", "correlation")
	p("\tMOVQ c+0(FP), DI")
	p("\tMOVQ %d(DI), R9", cPixel)
	p("\tMOVQ %d(DI), R10", cYPixel)
	p("\tMOVQ %d(DI), R11", cRows)
	p("\tMOVQ %d(DI), R12", cRowCount)
	p("\tMOVQ %d(DI), R13", cX)
	p("\tMOVQ %d(DI), BX", cY)
	p("\tMOVQ %d(DI), SI", cYRow)
	p("\tMOVQ %d(DI), AX", cSum)
	p("\tMOVQ %d(DI), DX", cSumPitch)
	vectors := 64 / to.vec // of a row of sums
	sums := func(load bool) {
		for i := range mr {
			for h := range vectors {
				if load {
					p("\tVMOVUPS %d(AX), Y%d", to.vec*h, vectors*i+h)
				} else {
					p("\tVMOVUPS Y%d, %d(AX)", vectors*i+h, to.vec*h)
				}
			}
			p("\tADDQ DX, AX")
		}
	}
	sums(true)
	p("row%d:", mr)
	p("\tMOVQ (R11), R8")
	p("\tADDQ R13, R8")
	p("\tMOVQ BX, R15")
	p("\tMOVQ %d(DI), CX", cColumns)
	step := func() {
		if to == avx512 {
			p("\tVMOVUPS (R15), Y31")
			for i := range mr {
				p("\tVFMADD231PS.BCST %d(R8), Y31, Y%d", 4*i, i)
			}
			p("\tADDQ R10, R15")
			p("\tADDQ R9, R8")
			return
		}
		p("\tVMOVUPS (R15), Y12")
		p("\tVMOVUPS 32(R15), Y13")
		p("\tADDQ R10, R15")
		for i := range mr {
			b := 14 + i%2
			p("\tVBROADCASTSS %d(R8), Y%d", 4*i, b)
			p("\tVFMADD231PS Y%d, Y12, Y%d", b, 2*i)
			p("\tVFMADD231PS Y%d, Y13, Y%d", b, 2*i+1)
		}
		p("\tADDQ R9, R8")
	}
	p("\tSUBQ $4, CX")
	p("\tJLT few%d", mr)
	p("\tPCALIGN $32")
	p("quad%d:", mr)
	for range 4 {
		step()
	}
	p("\tSUBQ $4, CX")
	p("\tJGE quad%d", mr)
	p("few%d:", mr)
	p("\tADDQ $4, CX")
	p("\tJZ next%d", mr)
	p("pixel%d:", mr)
	step()
	p("\tDECQ CX")
	p("\tJNZ pixel%d", mr)
	p("next%d:", mr)
	p("\tADDQ SI, BX")
	p("\tADDQ $8, R11")
	p("\tDECQ R12")
	p("\tJNZ row%d", mr)
	p("\tMOVQ %d(DI), AX", cSum)
	sums(false)
	p("\tVZEROUPPER")
	p("\tRET")
	p("")
}

// correlatePair is correlate for two panels of y at a time, with AVX-512: fewer
// loads for a product.
func correlatePair(mr int) {
	text(fmt.Sprintf("correlate%dx2", mr), "c", "correlation")
	p("\tMOVQ c+0(FP), DI")
	p("\tMOVQ %d(DI), R9", cPixel)
	p("\tMOVQ %d(DI), R10", cYPixel)
	p("\tMOVQ %d(DI), R11", cRows)
	p("\tMOVQ %d(DI), R12", cRowCount)
	p("\tMOVQ %d(DI), R13", cX)
	p("\tMOVQ %d(DI), BX", cY)
	p("\tMOVQ %d(DI), SI", cYRow)
	p("\tMOVQ %d(DI), R14", cYPanel)
	// each calls f with the number of a sum and its address.
	each := func(f func(sum int, at string)) {
		p("\tMOVQ %d(DI), AX", cSum)
		p("\tMOVQ %d(DI), DX", cSumPitch)
		p("\tMOVQ %d(DI), CX", cSumPanel)
		for i := range mr {
			f(2*i, "(AX)")
			f(2*i+1, "(AX)(CX*1)")
			if i < mr-1 {
				p("\tADDQ DX, AX")
			}
		}
	}
	each(func(sum int, at string) { p("\tVMOVUPS %s, Y%d", at, sum) })
	step := func() {
		p("\tVMOVUPS (R15), Y28")
		p("\tVMOVUPS (R15)(R14*1), Y29")
		p("\tADDQ R10, R15")
		for i := range mr {
			b := 30 + i%2
			p("\tVBROADCASTSS %d(R8), Y%d", 4*i, b)
			p("\tVFMADD231PS Y%d, Y28, Y%d", b, 2*i)
			p("\tVFMADD231PS Y%d, Y29, Y%d", b, 2*i+1)
		}
		p("\tADDQ R9, R8")
	}
	p("row:")
	p("\tMOVQ (R11), R8")
	p("\tADDQ R13, R8")
	p("\tMOVQ BX, R15")
	p("\tMOVQ %d(DI), CX", cColumns)
	p("\tSUBQ $2, CX")
	p("\tJLT few")
	p("\tPCALIGN $32")
	p("pair:")
	step()
	step()
	p("\tSUBQ $2, CX")
	p("\tJGE pair")
	p("few:")
	p("\tADDQ $2, CX")
	p("\tJZ next")
	step()
	p("next:")
	p("\tADDQ SI, BX")
	p("\tADDQ $8, R11")
	p("\tDECQ R12")
	p("\tJNZ row")
	each(func(sum int, at string) { p("\tVMOVUPS Y%d, %s", sum, at) })
	p("\tVZEROUPPER")
	p("\tRET")
	p("")
}

// correlateDepthwise adds to the sums of a number of taps, 16 channels each, the
// products of x at the tap with y, over a row of pixels. Sums of different taps
// lie cSumPitch apart; where the taps of x are is told by cRows.
func correlateDepthwise(taps int) {
	// R8, R9, R10, R11, R12 point to the taps' inputs.
	x := []string{"R8", "R9", "R10", "R11", "R12"}[:taps]
	text(fmt.Sprintf("correlateDepthwise%d", taps), "c", "correlation")
	p("\tMOVQ c+0(FP), DI")
	p("\tMOVQ %d(DI), AX", cRows)
	for i, r := range x {
		p("\tMOVQ %d(AX), %s", 8*i, r)
		p("\tADDQ %d(DI), %s", cX, r)
	}
	p("\tMOVQ %d(DI), BX", cY)
	p("\tMOVQ %d(DI), R13", cPixel)
	p("\tMOVQ %d(DI), R15", cYPixel)
	p("\tMOVQ %d(DI), DX", cSumPitch)
	p("\tMOVQ %d(DI), AX", cSum)
	vectors := 64 / to.vec
	for i := range taps {
		for v := range vectors {
			p("\tVMOVUPS %d(AX), Y%d", to.vec*v, vectors*i+v)
		}
		p("\tADDQ DX, AX")
	}
	p("\tMOVQ %d(DI), CX", cColumns)
	p("\tPCALIGN $32")
	p("channel%d:", taps)
	for v := range vectors {
		p("\tVMOVUPS %d(BX), Y%d", to.vec*v, 12+v)
	}
	p("\tADDQ R15, BX")
	for i, r := range x {
		for v := range vectors {
			p("\tVFMADD231PS %d(%s), Y%d, Y%d", to.vec*v, r, 12+v, vectors*i+v)
		}
		p("\tADDQ R13, %s", r)
	}
	p("\tDECQ CX")
	p("\tJNZ channel%d", taps)
	p("\tMOVQ %d(DI), AX", cSum)
	for i := range taps {
		for v := range vectors {
			p("\tVMOVUPS Y%d, %d(AX)", vectors*i+v, to.vec*v)
		}
		p("\tADDQ DX, AX")
	}
	p("\tVZEROUPPER")
	p("\tRET")
	p("")
}

// correlations writes the kernels of sums of products.
func correlations() {
	most := 6
	if to == avx512 {
		most = wideSums
	}
	fmt.Fprintf(&decl, "// correlates%s[m-1] is the correlation of m rows of sums.\nvar correlates%s = [%d]func(*correlation){", to.suffix, to.suffix, most)
	for mr := 1; mr <= most; mr++ {
		fmt.Fprintf(&decl, "correlate%d%s, ", mr, to.suffix)
	}
	decl.WriteString("}\n\n")
	for mr := 1; mr <= most; mr++ {
		correlate(mr)
	}
	if to == avx512 {
		decl.WriteString("// correlatePairsAVX512[m-1] is the correlation of m rows of sums of two panels.\nvar correlatePairsAVX512 = [widePixels]func(*correlation){")
		for mr := 1; mr <= widePixels; mr++ {
			fmt.Fprintf(&decl, "correlate%dx2AVX512, ", mr)
		}
		decl.WriteString("}\n\n")
		for mr := 1; mr <= widePixels; mr++ {
			correlatePair(mr)
		}
	}
	fmt.Fprintf(&decl, "// correlatesDepthwise%s[n-1] is the correlation of n taps.\nvar correlatesDepthwise%s = [depthwiseTaps]func(*correlation){", to.suffix, to.suffix)
	for taps := 1; taps <= 5; taps++ {
		fmt.Fprintf(&decl, "correlateDepthwise%d%s, ", taps, to.suffix)
	}
	decl.WriteString("}\n\n")
	for taps := 1; taps <= 5; taps++ {
		correlateDepthwise(taps)
	}
}
