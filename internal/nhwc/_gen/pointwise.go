package main

import "fmt"

// Offsets of the fields of pointwise.
const (
	eN = 8 * iota // pixels, or vectors of a flat loop
	eVectors
	ePitch
	eX
	eY
	eZ
	eOut
	eA
	eB
	eC
	eFloor
	eScalars // six values, 4 bytes apart
)

// registers loads the fields of pointwise that a kernel uses.
func registers(fields map[int]string) {
	p("\tMOVQ e+0(FP), DI")
	for f := eN; f <= eC; f += 8 {
		if r := fields[f]; r != "" {
			p("\tMOVQ %d(DI), %s", f, r)
		}
	}
}

// moments adds, for some vectors of channels, the sums over pixels of x−a and of
// its square to b and c.
func moments(vectors int) {
	text(fmt.Sprintf("moments%d", vectors), "e", "pointwise")
	registers(map[int]string{eN: "CX", ePitch: "DX", eX: "SI", eA: "R8", eB: "R9", eC: "R10"})
	for v := range vectors {
		p("\tVMOVUPS %d(R9), Y%d", to.vec*v, v)
		p("\tVMOVUPS %d(R10), Y%d", to.vec*v, 4+v)
		p("\tVMOVUPS %d(R8), Y%d", to.vec*v, 8+v)
	}
	p("pixel:")
	for v := range vectors {
		p("\tVMOVUPS %d(SI), Y%d", to.vec*v, 12+v)
		p("\tVSUBPS Y%d, Y%d, Y%d", 8+v, 12+v, 12+v)
		p("\tVADDPS Y%d, Y%d, Y%d", 12+v, v, v)
		p("\tVFMADD231PS Y%d, Y%d, Y%d", 12+v, 12+v, 4+v)
	}
	p("\tADDQ DX, SI")
	p("\tDECQ CX")
	p("\tJNZ pixel")
	for v := range vectors {
		p("\tVMOVUPS Y%d, %d(R9)", v, to.vec*v)
		p("\tVMOVUPS Y%d, %d(R10)", 4+v, to.vec*v)
	}
	p("\tVZEROUPPER")
	p("\tRET")
	p("")
}

// products adds, for some vectors of channels, the sums over pixels of the
// gradient out and of out·(x−a) to b and c. Where masked, out is first made zero
// where y is not positive.
func products(vectors int, masked bool) {
	name := "products"
	if masked {
		name = "maskedProducts"
	}
	text(fmt.Sprintf("%s%d", name, vectors), "e", "pointwise")
	fields := map[int]string{eN: "CX", ePitch: "DX", eX: "SI", eOut: "R11", eA: "R8", eB: "R9", eC: "R10"}
	if masked {
		fields[eY] = "BX"
	}
	registers(fields)
	for v := range vectors {
		p("\tVMOVUPS %d(R9), Y%d", to.vec*v, v)
		p("\tVMOVUPS %d(R10), Y%d", to.vec*v, 4+v)
		p("\tVMOVUPS %d(R8), Y%d", to.vec*v, 8+v)
	}
	zero(15)
	p("pixel:")
	for v := range vectors {
		p("\tVMOVUPS %d(R11), Y12", to.vec*v)
		if masked {
			p("\tVMOVUPS %d(BX), Y13", to.vec*v)
			if to == avx512 {
				p("\tVCMPPS $6, Y15, Y13, K1") // not y ≤ 0
				p("\tVMOVUPS.Z Y12, K1, Y12")
			} else {
				p("\tVCMPPS $6, Y15, Y13, Y13")
				p("\tVANDPS Y13, Y12, Y12")
			}
			p("\tVMOVUPS Y12, %d(R11)", to.vec*v)
		}
		p("\tVMOVUPS %d(SI), Y14", to.vec*v)
		p("\tVSUBPS Y%d, Y14, Y14", 8+v)
		p("\tVADDPS Y12, Y%d, Y%d", v, v)
		p("\tVFMADD231PS Y14, Y12, Y%d", 4+v)
	}
	p("\tADDQ DX, SI")
	p("\tADDQ DX, R11")
	if masked {
		p("\tADDQ DX, BX")
	}
	p("\tDECQ CX")
	p("\tJNZ pixel")
	for v := range vectors {
		p("\tVMOVUPS Y%d, %d(R9)", v, to.vec*v)
		p("\tVMOVUPS Y%d, %d(R10)", 4+v, to.vec*v)
	}
	p("\tVZEROUPPER")
	p("\tRET")
	p("")
}

// affine writes max(x·a + b [+ y], floor), or with two inputs x·a + y·b + c, for
// each pixel.
func affine(name string, emit func(offset string)) {
	text(name, "e", "pointwise")
	registers(map[int]string{eN: "CX", eVectors: "R12", ePitch: "DX", eX: "SI", eY: "BX", eOut: "R11", eA: "R8", eB: "R9", eC: "R10"})
	p("\tVBROADCASTSS %d(DI), Y15", eFloor)
	p("pixel:")
	p("\tXORQ AX, AX")
	p("\tMOVQ R12, R13")
	p("vector:")
	emit("(AX*1)")
	p("\tADDQ $%d, AX", to.vec)
	p("\tDECQ R13")
	p("\tJNZ vector")
	p("\tADDQ DX, SI")
	p("\tADDQ DX, BX")
	p("\tADDQ DX, R11")
	p("\tDECQ CX")
	p("\tJNZ pixel")
	p("\tVZEROUPPER")
	p("\tRET")
	p("")
}

// flat is a loop over vectors of up to four arrays, with up to six scalars in
// Y15, Y14, ….
func flat(name string, scalars int, emit func(offset string)) {
	text(name, "e", "pointwise")
	registers(map[int]string{eN: "CX", eX: "SI", eY: "BX", eZ: "DX", eOut: "R11"})
	for i := range scalars {
		p("\tVBROADCASTSS %d(DI), Y%d", eScalars+4*i, 15-i)
	}
	p("\tXORQ AX, AX")
	p("vector:")
	emit("(AX*1)")
	p("\tADDQ $%d, AX", to.vec)
	p("\tDECQ CX")
	p("\tJNZ vector")
	p("\tVZEROUPPER")
	p("\tRET")
	p("")
}

func pointwise() {
	for _, v := range []int{1, 4} {
		moments(v)
		products(v, false)
		products(v, true)
	}
	affine("affine", func(o string) {
		p("\tVMOVUPS (SI)%s, Y0", o)
		p("\tVMOVUPS (R8)%s, Y1", o)
		p("\tVFMADD213PS (R9)%s, Y1, Y0", o)
		p("\tVMAXPS Y0, Y15, Y0")
		p("\tVMOVUPS Y0, (R11)%s", o)
	})
	affine("affineAdd", func(o string) {
		p("\tVMOVUPS (SI)%s, Y0", o)
		p("\tVMOVUPS (R8)%s, Y1", o)
		p("\tVFMADD213PS (R9)%s, Y1, Y0", o)
		p("\tVADDPS (BX)%s, Y0, Y0", o)
		p("\tVMAXPS Y0, Y15, Y0")
		p("\tVMOVUPS Y0, (R11)%s", o)
	})
	affine("affinePair", func(o string) {
		p("\tVMOVUPS (R10)%s, Y0", o)
		p("\tVMOVUPS (SI)%s, Y1", o)
		p("\tVFMADD231PS (R8)%s, Y1, Y0", o)
		p("\tVMOVUPS (BX)%s, Y2", o)
		p("\tVFMADD231PS (R9)%s, Y2, Y0", o)
		p("\tVMOVUPS Y0, (R11)%s", o)
	})
	flat("add", 0, func(o string) {
		p("\tVMOVUPS (R11)%s, Y0", o)
		p("\tVADDPS (SI)%s, Y0, Y0", o)
		p("\tVMOVUPS Y0, (R11)%s", o)
	})
	// x is the gradient, y the momentum, out the weight; scalars are the decay,
	// the momentum, the gradient's share, the share of the gradient and that of
	// the velocity in the step.
	flat("sgd", 5, func(o string) {
		p("\tVMOVUPS (R11)%s, Y0", o)
		p("\tVMOVUPS (SI)%s, Y1", o)
		p("\tVFMADD231PS Y0, Y15, Y1")
		p("\tVMULPS (BX)%s, Y14, Y2", o)
		p("\tVFMADD231PS Y1, Y13, Y2")
		p("\tVMOVUPS Y2, (BX)%s", o)
		p("\tVFNMADD231PS Y1, Y12, Y0")
		p("\tVFNMADD231PS Y2, Y11, Y0")
		p("\tVMOVUPS Y0, (R11)%s", o)
	})
	// x is the gradient, y and z its averages, out the weight; scalars are the
	// decay, β1, 1−β1, β2, 1−β2, the step, ε, and the weight's own decay. The
	// second average's bias is in the step and in ε.
	flat("adam", 8, func(o string) {
		p("\tVMOVUPS (R11)%s, Y0", o)
		p("\tVMOVUPS (SI)%s, Y1", o)
		p("\tVFMADD231PS Y0, Y15, Y1")
		p("\tVMULPS (BX)%s, Y14, Y2", o)
		p("\tVFMADD231PS Y1, Y13, Y2")
		p("\tVMOVUPS Y2, (BX)%s", o)
		p("\tVMULPS Y1, Y1, Y1")
		p("\tVMULPS (DX)%s, Y12, Y3", o)
		p("\tVFMADD231PS Y1, Y11, Y3")
		p("\tVMOVUPS Y3, (DX)%s", o)
		p("\tVSQRTPS Y3, Y3")
		p("\tVADDPS Y9, Y3, Y3")
		p("\tVMULPS Y2, Y10, Y2")
		p("\tVDIVPS Y3, Y2, Y2")
		p("\tVMULPS Y0, Y8, Y0")
		p("\tVSUBPS Y2, Y0, Y0")
		p("\tVMOVUPS Y0, (R11)%s", o)
	})
	maxima()
}

// maxima writes the largest of a pixel's taps, channel by channel, and which tap
// it was: the first of equals. A NaN counts as larger than everything. n is the
// number of taps, a their offsets from x.
func maxima() {
	text("maxima", "e", "pointwise")
	registers(map[int]string{eN: "CX", eVectors: "R12", eX: "SI", eY: "BX", eOut: "R11", eA: "R8"})
	p("\tXORQ AX, AX")
	p("\tMOVL $1, R10")
	p("\tVMOVD R10, X15")
	p("\tVPBROADCASTD X15, Y15")
	p("vector:")
	p("\tMOVQ R8, R9")
	p("\tMOVQ CX, R13")
	p("\tMOVQ (R9), R10")
	p("\tADDQ AX, R10")
	p("\tVMOVUPS (SI)(R10*1), Y0")
	zero(1) // the best tap
	zero(2) // the tap
	p("\tJMP next")
	p("tap:")
	p("\tMOVQ (R9), R10")
	p("\tADDQ AX, R10")
	p("\tVMOVUPS (SI)(R10*1), Y3")
	p("\tVPADDD Y15, Y2, Y2")
	if to == avx512 {
		p("\tVCMPPS $7, Y0, Y0, K1")     // best is a number
		p("\tVCMPPS $6, Y0, Y3, K1, K1") // and not tap ≤ best
		p("\tVMOVUPS Y3, K1, Y0")
		p("\tVMOVDQU32 Y2, K1, Y1")
	} else {
		p("\tVCMPPS $6, Y0, Y3, Y4") // not tap ≤ best
		p("\tVCMPPS $3, Y0, Y0, Y5") // best is NaN
		p("\tVANDNPS Y4, Y5, Y4")
		p("\tVBLENDVPS Y4, Y3, Y0, Y0")
		p("\tVBLENDVPS Y4, Y2, Y1, Y1")
	}
	p("next:")
	p("\tADDQ $8, R9")
	p("\tDECQ R13")
	p("\tJNZ tap")
	p("\tVMOVUPS Y0, (R11)(AX*1)")
	if to == avx512 {
		p("\tVPMOVDB Y1, (BX)")
	} else {
		p("\tVEXTRACTI128 $1, Y1, X2")
		p("\tVPACKUSDW X2, X1, X1")
		p("\tVPACKUSWB X1, X1, X1")
		p("\tVMOVQ X1, (BX)")
	}
	p("\tADDQ $%d, BX", to.vec/4)
	p("\tADDQ $%d, AX", to.vec)
	p("\tDECQ R12")
	p("\tJNZ vector")
	p("\tVZEROUPPER")
	p("\tRET")
	p("")
}
