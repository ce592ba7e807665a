package main

import (
	"fmt"
	"math"
)

// Offsets of the fields of transform.
const (
	wVectors = 8 * iota
	wSrc
	wSrcRow
	wSrcColumn
	wDst
	wDstRow
	wDstColumn
	wBias
	wResidual
	wFloor
	wBiasAt // where the kernel is; not pointers to Go
	wResidualAt
	wOffset  // bytes from src to the square
	wRows    // a bit for each row of the square that is there
	wColumns // the same for columns
)

// The transforms of F(4×4, 3×3) with the points 0, ±√½, ±√2 and ∞, each given
// by its one-dimensional form: operations on inputs in Y0, Y1, … that leave
// outputs in the registers returned. winograd.go says what they compute.
type oneD struct {
	name      string
	in, out   int
	constants []float64 // in Y15, Y14, …
	emit      func() []int
	output    bool // has a bias, a residual and a floor
	edge      bool // some of the inputs are not there but zeros
}

const (
	na = -2. / 3
	nb = 1. / 6
)

var transforms = []oneD{
	{name: "winogradInput", in: 6, out: 6, constants: []float64{2.5, 2, .5, math.Sqrt2 / 2, math.Sqrt2}, emit: func() []int {
		p("\tVMOVAPS Y4, Y6")
		p("\tVFNMADD231PS Y2, Y15, Y6")
		p("\tVADDPS Y0, Y6, Y6")
		p("\tVFNMADD231PS Y3, Y15, Y5")
		p("\tVADDPS Y1, Y5, Y5")
		p("\tVMOVAPS Y4, Y7")
		p("\tVFNMADD231PS Y2, Y14, Y7")
		p("\tVMOVAPS Y3, Y8")
		p("\tVFNMADD231PS Y1, Y14, Y8")
		p("\tVFNMADD231PS Y2, Y13, Y4")
		p("\tVFNMADD231PS Y1, Y13, Y3")
		p("\tVMOVAPS Y7, Y9")
		p("\tVFMADD231PS Y8, Y12, Y9")
		p("\tVFNMADD231PS Y8, Y12, Y7")
		p("\tVMOVAPS Y4, Y10")
		p("\tVFMADD231PS Y3, Y11, Y10")
		p("\tVFNMADD231PS Y3, Y11, Y4")
		return []int{6, 9, 7, 10, 4, 5}
	}},
	{name: "winogradOutput", in: 6, out: 4, constants: []float64{2, .5, math.Sqrt2 / 2, math.Sqrt2}, output: true, emit: func() []int {
		p("\tVADDPS Y1, Y2, Y6")
		p("\tVSUBPS Y2, Y1, Y7")
		p("\tVADDPS Y3, Y4, Y8")
		p("\tVSUBPS Y4, Y3, Y9")
		p("\tVMULPS Y7, Y13, Y7")
		p("\tVMULPS Y9, Y12, Y9")
		p("\tVADDPS Y6, Y0, Y0")
		p("\tVADDPS Y8, Y0, Y0")
		p("\tVADDPS Y7, Y9, Y1")
		p("\tVMULPS Y6, Y14, Y2")
		p("\tVFMADD231PS Y8, Y15, Y2")
		p("\tVFMADD231PS Y7, Y14, Y5")
		p("\tVFMADD231PS Y9, Y15, Y5")
		return []int{0, 1, 2, 5}
	}},
	{name: "winogradSpread", in: 4, out: 6, constants: []float64{2, .5, math.Sqrt2 / 2, math.Sqrt2}, emit: func() []int {
		p("\tVMOVAPS Y0, Y4")
		p("\tVFMADD231PS Y2, Y14, Y4")
		p("\tVMOVAPS Y1, Y5")
		p("\tVFMADD231PS Y3, Y14, Y5")
		p("\tVMOVAPS Y0, Y6")
		p("\tVFMADD231PS Y2, Y15, Y6")
		p("\tVMOVAPS Y1, Y7")
		p("\tVFMADD231PS Y3, Y15, Y7")
		p("\tVMOVAPS Y4, Y8")
		p("\tVFMADD231PS Y5, Y13, Y8")
		p("\tVFNMADD231PS Y5, Y13, Y4")
		p("\tVMOVAPS Y6, Y9")
		p("\tVFMADD231PS Y7, Y12, Y9")
		p("\tVFNMADD231PS Y7, Y12, Y6")
		return []int{0, 8, 4, 9, 6, 3}
	}},
	{name: "winogradWeight", in: 3, out: 6, constants: []float64{2, .5, na, na * math.Sqrt2 / 2, nb, nb * math.Sqrt2}, emit: func() []int {
		p("\tVMOVAPS Y0, Y3")
		p("\tVFMADD231PS Y2, Y14, Y3")
		p("\tVMULPS Y3, Y13, Y3")
		p("\tVMOVAPS Y0, Y4")
		p("\tVFMADD231PS Y2, Y15, Y4")
		p("\tVMULPS Y4, Y11, Y4")
		p("\tVMOVAPS Y3, Y5")
		p("\tVFMADD231PS Y1, Y12, Y5")
		p("\tVFNMADD231PS Y1, Y12, Y3")
		p("\tVMOVAPS Y4, Y6")
		p("\tVFMADD231PS Y1, Y10, Y6")
		p("\tVFNMADD231PS Y1, Y10, Y4")
		return []int{0, 5, 3, 6, 4, 2}
	}},
	{name: "winogradGather", in: 6, out: 3, constants: []float64{na, nb, na * math.Sqrt2 / 2, nb * math.Sqrt2, na / 2, 2 * nb}, emit: func() []int {
		p("\tVADDPS Y1, Y2, Y6")
		p("\tVSUBPS Y2, Y1, Y7")
		p("\tVADDPS Y3, Y4, Y8")
		p("\tVSUBPS Y4, Y3, Y9")
		p("\tVFMADD231PS Y6, Y15, Y0")
		p("\tVFMADD231PS Y8, Y14, Y0")
		p("\tVMULPS Y7, Y13, Y1")
		p("\tVFMADD231PS Y9, Y12, Y1")
		p("\tVFMADD231PS Y6, Y11, Y5")
		p("\tVFMADD231PS Y8, Y10, Y5")
		return []int{0, 1, 5}
	}},
}

// grid is the address of element i of a row whose first is in base, the fourth
// in base3, elements step apart.
func grid(i int, base, base3, step string) string {
	if i >= 3 {
		base = base3
	}
	if i%3 == 0 {
		return fmt.Sprintf("(%s)", base)
	}
	return fmt.Sprintf("(%s)(%s*%d)", base, step, i%3)
}

// winograd writes the two-dimensional transforms: the columns of a square of
// vectors, then the rows of the result, for a vector of channels after another.
func winograd() {
	list := transforms
	if to == avx512 {
		edge := transforms[0]
		edge.name, edge.edge = "winogradInputEdge", true
		list = append(append([]oneD(nil), transforms...), edge)
	}
	for _, t := range list {
		temporary := to.vec * t.out * t.in
		frame(t.name, "t", "transform", fmt.Sprintf("0, $%d-8", temporary+to.vec))
		p("\tNO_LOCAL_POINTERS")
		p("\tMOVQ t+0(FP), DI")
		p("\tLEAQ %d(SP), BX", to.vec-1)
		p("\tANDQ $~%d, BX", to.vec-1)
		for i, c := range t.constants {
			p("\tMOVL $0x%08x, AX // %.6g", math.Float32bits(float32(c)), c)
			p("\tVMOVD AX, X%d", 15-i)
			p("\tVBROADCASTSS X%d, Y%d", 15-i, 15-i)
		}
		p("\tMOVQ %d(DI), SI", wSrc)
		if t.edge {
			// A row that is not there has an empty mask, with which nothing is read.
			p("\tADDQ %d(DI), SI", wOffset)
			for i := range t.in {
				p("\tMOVQ %d(DI), AX", wRows)
				p("\tSHRQ $%d, AX", i)
				p("\tANDQ $1, AX")
				p("\tNEGQ AX")
				p("\tKMOVW AX, K%d", i+1)
			}
		}
		p("\tMOVQ %d(DI), R9", wSrcRow)
		p("\tLEAQ (R9)(R9*2), R13")
		p("\tMOVQ %d(DI), R15", wDst)
		p("\tMOVQ %d(DI), DX", wDstColumn)
		p("\tLEAQ (DX)(DX*2), R14")
		p("\tMOVQ %d(DI), CX", wVectors)
		if t.output {
			p("\tMOVQ %d(DI), AX", wBias)
			p("\tMOVQ AX, %d(DI)", wBiasAt)
			p("\tMOVQ %d(DI), AX", wResidual)
			p("\tMOVQ AX, %d(DI)", wResidualAt)
		}
		p("%s:", t.name)
		p("\tMOVQ SI, R8")
		for j := range t.in {
			p("\tLEAQ (R8)(R13*1), R10")
			for i := range t.in {
				if t.edge {
					zero(i)
				} else {
					p("\tVMOVUPS %s, Y%d", grid(i, "R8", "R10", "R9"), i)
				}
			}
			if t.edge {
				p("\tMOVQ %d(DI), AX", wColumns)
				p("\tBTQ $%d, AX", j)
				p("\tJCC column%d", j)
				for i := range t.in {
					p("\tVMOVUPS %s, K%d, Y%d", grid(i, "R8", "R10", "R9"), i+1, i)
				}
				p("column%d:", j)
			}
			if j < t.in-1 {
				p("\tADDQ %d(DI), R8", wSrcColumn)
			}
			for i, y := range t.emit() {
				p("\tVMOVAPS Y%d, %d(BX)", y, to.vec*(i*t.in+j))
			}
		}
		p("\tMOVQ R15, R11")
		if t.output {
			p("\tMOVQ %d(DI), AX", wResidualAt)
			p("\tMOVQ %d(DI), R8", wBiasAt)
			p("\tLEAQ %d(R8), R9", to.vec)
			p("\tMOVQ R9, %d(DI)", wBiasAt)
		}
		for i := range t.out {
			p("\tLEAQ (R11)(R14*1), R12")
			for j := range t.in {
				p("\tVMOVAPS %d(BX), Y%d", to.vec*(i*t.in+j), j)
			}
			outs := t.emit()
			if t.output {
				p("\tVMOVUPS (R8), Y11")
				for _, y := range outs {
					p("\tVADDPS Y11, Y%d, Y%d", y, y)
				}
				p("\tTESTQ AX, AX")
				p("\tJZ floor%d", i)
				p("\tLEAQ (AX)(R14*1), R10")
				for j, y := range outs {
					p("\tVADDPS %s, Y%d, Y%d", grid(j, "AX", "R10", "DX"), y, y)
				}
				p("\tADDQ %d(DI), AX", wDstRow)
				p("floor%d:", i)
				p("\tVBROADCASTSS %d(DI), Y11", wFloor)
				for _, y := range outs {
					p("\tVMAXPS Y%d, Y11, Y%d", y, y)
				}
			}
			for j, y := range outs {
				p("\tVMOVUPS Y%d, %s", y, grid(j, "R11", "R12", "DX"))
			}
			if i < t.out-1 {
				p("\tADDQ %d(DI), R11", wDstRow)
			}
		}
		if t.output {
			p("\tMOVQ %d(DI), R9", wSrcRow)
			p("\tMOVQ %d(DI), AX", wResidualAt)
			p("\tTESTQ AX, AX")
			p("\tJZ next")
			p("\tADDQ $%d, AX", to.vec)
			p("\tMOVQ AX, %d(DI)", wResidualAt)
			p("next:")
		}
		p("\tADDQ $%d, SI", to.vec)
		p("\tADDQ $%d, R15", to.vec)
		p("\tDECQ CX")
		p("\tJNZ %s", t.name)
		p("\tVZEROUPPER")
		p("\tRET")
		p("")
	}
}
