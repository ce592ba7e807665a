package main

import "fmt"

// Sizes of AVX-512's tiles: 14 pixels of two panels are 28 sums, which leaves two
// registers for the weights and two for inputs.
const (
	widePixels  = 14
	widePanels  = 2
	halfPixels  = 7  // whose addresses one base register reaches
	wideSums    = 28 // rows of a correlation's tile
	widePrepare = 30 // the first register that a tile's sums and weights leave
)

// widePixel is the address of pixel i's value, disp bytes on. A tile of more than
// seven pixels has two halves, the first at R8, the second at R10; R9, R13 and DX
// are one, three and five times the distance of pixels.
func widePixel(i, first, disp int) string {
	base := "R8"
	if i >= first {
		base, i = "R10", i-first
	}
	return fmt.Sprintf("%d(%s)", disp, base) + [halfPixels]string{"", "(R9*1)", "(R9*2)", "(R13*1)", "(R9*4)", "(DX*1)", "(R13*2)"}[i]
}

// wideTile is the product of mr pixels with one or two panels of 16 output
// channels, for one tile of pixels after another. The last panel may be narrow. SI
// is the tile's inputs, R15 its outputs, R14 the tiles that are left.
func wideTile(mr, panels int) {
	first := mr
	if mr > halfPixels {
		first = (mr + 1) / 2
	}
	sum := func(i, q int) int { return i*panels + q }
	text(fmt.Sprintf("tile%dx%d", mr, panels), "t", "tile")
	p("\tMOVQ t+0(FP), DI")
	p("\tMOVQ %d(DI), R9", fPixel)
	p("\tMOVQ %d(DI), SI", fX)
	p("\tMOVQ %d(DI), R15", fOut)
	p("\tMOVQ %d(DI), R14", fTiles)
	p("\tLEAQ (R9)(R9*2), R13")
	p("\tMOVQ %d(DI), AX", fResidual)
	p("\tMOVQ AX, %d(DI)", fResidualAt)
	p("\tMOVQ %d(DI), AX", fMask)
	p("\tKMOVW AX, K1")
	p("tile:")
	p("\tMOVQ %d(DI), R11", fOffsets)
	p("\tMOVQ %d(DI), R12", fSegments)
	p("\tMOVQ %d(DI), BX", fWeight)
	p("\tMOVQ %d(DI), AX", fBias)
	p("\tLEAQ (R9)(R9*4), DX")
	for i := range mr {
		for q := range panels {
			if i == 0 {
				p("\tVMOVUPS %d(AX), Y%d", 64*q, q)
			} else {
				p("\tVMOVAPS Y%d, Y%d", q, sum(i, q))
			}
		}
	}
	p("\tMOVQ %d(DI), AX", fPanel)
	p("segment:")
	p("\tMOVQ (R11), R8")
	p("\tADDQ SI, R8")
	if mr > first {
		p("\tMOVQ %d(DI), R10", fHalf)
		p("\tADDQ R8, R10")
	}
	p("\tMOVQ %d(DI), CX", fLength)
	step := func(u int) {
		weight := widePrepare - 2
		p("\tVMOVUPS %d(BX), Y%d", 64*u, weight)
		if panels == 2 {
			p("\tVMOVUPS %d(BX)(AX*1), Y%d", 64*u, weight+1)
		}
		for i := range mr {
			if panels == 1 {
				p("\tVFMADD231PS.BCST %s, Y%d, Y%d", widePixel(i, first, 4*u), weight, sum(i, 0))
				continue
			}
			b := widePrepare + i%2
			p("\tVBROADCASTSS %s, Y%d", widePixel(i, first, 4*u), b)
			p("\tVFMADD231PS Y%d, Y%d, Y%d", b, weight, sum(i, 0))
			p("\tVFMADD231PS Y%d, Y%d, Y%d", b, weight+1, sum(i, 1))
		}
	}
	advance := func(n int) {
		p("\tADDQ $%d, R8", 4*n)
		if mr > first {
			p("\tADDQ $%d, R10", 4*n)
		}
		p("\tADDQ $%d, BX", 64*n)
	}
	const unroll = 4
	p("\tSUBQ $%d, CX", unroll)
	p("\tJLT tail")
	p("\tPCALIGN $32")
	p("several:")
	for u := range unroll {
		step(u)
	}
	advance(unroll)
	p("\tSUBQ $%d, CX", unroll)
	p("\tJGE several")
	p("tail:")
	p("\tADDQ $%d, CX", unroll)
	p("\tJZ next")
	p("single:")
	step(0)
	advance(1)
	p("\tDECQ CX")
	p("\tJNZ single")
	p("next:")
	p("\tADDQ $8, R11")
	p("\tDECQ R12")
	p("\tJNZ segment")

	// each calls f with the address of every pixel's outputs, or of what lies as
	// they do, of which the first are in AX, as well as in back.
	each := func(back string, f func(i int)) {
		p("\tMOVQ %d(DI), DX", fOutPixel)
		for i := range mr {
			if i == first {
				p("\tMOVQ %s, AX", back)
				p("\tADDQ %d(DI), AX", fOutHalf)
			}
			f(i)
			if i < mr-1 && i != first-1 {
				p("\tADDQ DX, AX")
			}
		}
	}
	p("\tMOVQ %d(DI), AX", fResidualAt)
	p("\tTESTQ AX, AX")
	p("\tJZ activate")
	p("\tMOVQ AX, BX")
	each("BX", func(i int) {
		if panels == 2 {
			p("\tVADDPS (AX), Y%d, Y%d", sum(i, 0), sum(i, 0))
		}
		p("\tVADDPS %d(AX), Y%d, K1, Y%d", 64*(panels-1), sum(i, panels-1), sum(i, panels-1))
	})
	p("\tADDQ %d(DI), BX", fOutStep)
	p("\tMOVQ BX, %d(DI)", fResidualAt)
	p("activate:")
	p("\tMOVQ %d(DI), AX", fReLU)
	p("\tTESTQ AX, AX")
	p("\tJZ store")
	zero(31) // see tile
	for i := range mr * panels {
		p("\tVMAXPS Y%d, Y31, Y%d", i, i)
	}
	p("store:")
	p("\tMOVQ R15, AX")
	each("R15", func(i int) {
		if panels == 2 {
			p("\tVMOVUPS Y%d, (AX)", sum(i, 0))
		}
		p("\tVMOVUPS Y%d, K1, %d(AX)", sum(i, panels-1), 64*(panels-1))
	})
	p("\tADDQ %d(DI), SI", fStep)
	p("\tADDQ %d(DI), R15", fOutStep)
	p("\tDECQ R14")
	p("\tJNZ tile")
	p("\tVZEROUPPER")
	p("\tRET")
	p("")
}
