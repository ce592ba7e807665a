package main

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
)

// correlate adds to mr rows of 16 sums the products of mr neighbouring values of
// a pixel of x with the 16 of the same pixel of y, over all pixels.
func correlate(mr int) {
	p("// func correlate%dAVX2(c *correlation)", mr)
	p("TEXT ·correlate%dAVX2(SB), NOSPLIT, $0-8", mr)
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
	sums := func(load bool) {
		for i := range mr {
			for h := range 2 {
				if load {
					p("\tVMOVUPS %d(AX), Y%d", 32*h, 2*i+h)
				} else {
					p("\tVMOVUPS Y%d, %d(AX)", 2*i+h, 32*h)
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

// correlateDepthwise adds to the sums of a number of taps, 16 channels each, the
// products of x at the tap with y, over a row of pixels. Sums of different taps
// lie cSumPitch apart; where the taps of x are is told by cRows.
func correlateDepthwise(taps int) {
	// R8, R9, R10, R11, R12 point to the taps' inputs.
	x := []string{"R8", "R9", "R10", "R11", "R12"}[:taps]
	p("// func correlateDepthwise%dAVX2(c *correlation)", taps)
	p("TEXT ·correlateDepthwise%dAVX2(SB), NOSPLIT, $0-8", taps)
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
	for i := range taps {
		p("\tVMOVUPS (AX), Y%d", 2*i)
		p("\tVMOVUPS 32(AX), Y%d", 2*i+1)
		p("\tADDQ DX, AX")
	}
	p("\tMOVQ %d(DI), CX", cColumns)
	p("\tPCALIGN $32")
	p("channel%d:", taps)
	p("\tVMOVUPS (BX), Y12")
	p("\tVMOVUPS 32(BX), Y13")
	p("\tADDQ R15, BX")
	for i, r := range x {
		p("\tVFMADD231PS (%s), Y12, Y%d", r, 2*i)
		p("\tVFMADD231PS 32(%s), Y13, Y%d", r, 2*i+1)
		p("\tADDQ R13, %s", r)
	}
	p("\tDECQ CX")
	p("\tJNZ channel%d", taps)
	p("\tMOVQ %d(DI), AX", cSum)
	for i := range taps {
		p("\tVMOVUPS Y%d, (AX)", 2*i)
		p("\tVMOVUPS Y%d, 32(AX)", 2*i+1)
		p("\tADDQ DX, AX")
	}
	p("\tVZEROUPPER")
	p("\tRET")
	p("")
}
