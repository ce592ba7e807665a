// Command gen writes kernels_amd64.s: the inner loops of convolution on NHWC
// maps for AVX2 and FMA. Run it with go generate.
package main

import (
	"bytes"
	"fmt"
	"os"
)

var out bytes.Buffer

func p(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) }

// Offsets of the fields of tile.
const (
	fX = 8 * iota
	fPixel
	fOffsets
	fSegments
	fLength
	fWeight
	fBias
	fOut
	fOutPixel
	fResidual
	fResidualPixel
	fReLU
	fTiles
	fResidualAt // where the kernel is in the residual; not a pointer to Go
)

// pixel is the address of pixel i's value, disp bytes on: R8 is pixel 0, R10
// pixel 3, R9 the distance of pixels.
func pixel(i, disp int) string {
	base := "R8"
	if i >= 3 {
		base = "R10"
	}
	if i%3 == 0 {
		return fmt.Sprintf("%d(%s)", disp, base)
	}
	return fmt.Sprintf("%d(%s)(R9*%d)", disp, base, i%3)
}

// tile is the product of mr pixels with a panel of 16 output channels, for one
// tile of pixels after another. SI is the tile's inputs, R15 its outputs, R14
// the tiles that are left.
func tile(mr int) {
	name := fmt.Sprintf("tile%dAVX2", mr)
	p("// func %s(t *tile)", name)
	p("TEXT ·%s(SB), NOSPLIT, $0-8", name)
	p("\tMOVQ t+0(FP), DI")
	p("\tMOVQ %d(DI), R9", fPixel)
	p("\tMOVQ %d(DI), SI", fX)
	p("\tMOVQ %d(DI), R15", fOut)
	p("\tMOVQ %d(DI), R14", fTiles)
	p("\tLEAQ (R9)(R9*2), R13")
	p("\tMOVQ %d(DI), AX", fResidual)
	p("\tMOVQ AX, %d(DI)", fResidualAt)
	p("tile%d:", mr)
	p("\tMOVQ %d(DI), R11", fOffsets)
	p("\tMOVQ %d(DI), R12", fSegments)
	p("\tMOVQ %d(DI), BX", fWeight)
	p("\tMOVQ %d(DI), AX", fBias)
	for i := range mr {
		p("\tVMOVUPS (AX), Y%d", 2*i)
		p("\tVMOVUPS 32(AX), Y%d", 2*i+1)
	}
	p("segment%d:", mr)
	p("\tMOVQ (R11), R8")
	p("\tADDQ SI, R8")
	p("\tLEAQ (R8)(R13*1), R10")
	p("\tMOVQ %d(DI), CX", fLength)
	step := func(u int) {
		p("\tVMOVUPS %d(BX), Y12", 64*u)
		p("\tVMOVUPS %d(BX), Y13", 64*u+32)
		for i := range mr {
			b := 14 + i%2
			p("\tVBROADCASTSS %s, Y%d", pixel(i, 4*u), b)
			p("\tVFMADD231PS Y%d, Y12, Y%d", b, 2*i)
			p("\tVFMADD231PS Y%d, Y13, Y%d", b, 2*i+1)
		}
	}
	p("\tSUBQ $4, CX")
	p("\tJLT tail%d", mr)
	p("\tPCALIGN $32")
	p("quad%d:", mr)
	for u := range 4 {
		step(u)
	}
	p("\tADDQ $16, R8")
	p("\tADDQ $16, R10")
	p("\tADDQ $256, BX")
	p("\tSUBQ $4, CX")
	p("\tJGE quad%d", mr)
	p("tail%d:", mr)
	p("\tADDQ $4, CX")
	p("\tJZ next%d", mr)
	p("single%d:", mr)
	step(0)
	p("\tADDQ $4, R8")
	p("\tADDQ $4, R10")
	p("\tADDQ $64, BX")
	p("\tDECQ CX")
	p("\tJNZ single%d", mr)
	p("next%d:", mr)
	p("\tADDQ $8, R11")
	p("\tDECQ R12")
	p("\tJNZ segment%d", mr)

	p("\tMOVQ %d(DI), AX", fResidualAt)
	p("\tTESTQ AX, AX")
	p("\tJZ activate%d", mr)
	p("\tMOVQ %d(DI), DX", fResidualPixel)
	for i := range mr {
		p("\tVADDPS (AX), Y%d, Y%d", 2*i, 2*i)
		p("\tVADDPS 32(AX), Y%d, Y%d", 2*i+1, 2*i+1)
		p("\tADDQ DX, AX")
	}
	p("\tMOVQ AX, %d(DI)", fResidualAt)
	p("activate%d:", mr)
	p("\tMOVQ %d(DI), AX", fReLU)
	p("\tTESTQ AX, AX")
	p("\tJZ store%d", mr)
	// The maximum's second source is returned where either is NaN; in Go's
	// order of operands that is the first.
	p("\tVXORPS Y15, Y15, Y15")
	for i := range 2 * mr {
		p("\tVMAXPS Y%d, Y15, Y%d", i, i)
	}
	p("store%d:", mr)
	p("\tMOVQ %d(DI), DX", fOutPixel)
	for i := range mr {
		p("\tVMOVUPS Y%d, (R15)", 2*i)
		p("\tVMOVUPS Y%d, 32(R15)", 2*i+1)
		p("\tADDQ DX, R15")
	}
	p("\tIMUL3Q $%d, R9, AX", mr)
	p("\tADDQ AX, SI")
	p("\tDECQ R14")
	p("\tJNZ tile%d", mr)
	p("\tVZEROUPPER")
	p("\tRET")
	p("")
}

// Offsets of the fields of depthwise that differ from tile's.
const (
	dTaps        = fSegments
	dChannels    = fLength
	dWeightPitch = fResidual
	dReLU        = fResidualPixel
	dTiles       = fReLU
)

// depthwise is mr pixels of a depthwise convolution; the number of channels is
// a multiple of 8.
func depthwise(mr int) {
	name := fmt.Sprintf("depthwise%dAVX2", mr)
	p("// func %s(d *depthwise)", name)
	p("TEXT ·%s(SB), NOSPLIT, $0-8", name)
	p("\tMOVQ d+0(FP), DI")
	p("\tMOVQ %d(DI), R9", fPixel)
	p("\tLEAQ (R9)(R9*2), R13")
	p("\tMOVQ %d(DI), SI", dWeightPitch)
	p("\tMOVQ %d(DI), R15", dChannels)
	p("\tXORQ DX, DX") // bytes of channels done
	p("\tVXORPS Y15, Y15, Y15")
	block := func(label string, vectors int) {
		p("%s%d:", label, mr)
		p("\tMOVQ %d(DI), AX", fBias)
		for v := range vectors {
			p("\tVMOVUPS %d(AX)(DX*1), Y%d", 32*v, v)
		}
		for i := 1; i < mr; i++ {
			for v := range vectors {
				p("\tVMOVAPS Y%d, Y%d", v, i*vectors+v)
			}
		}
		p("\tMOVQ %d(DI), BX", fWeight)
		p("\tADDQ DX, BX")
		p("\tMOVQ %d(DI), R11", fOffsets)
		p("\tMOVQ %d(DI), R12", dTaps)
		p("%stap%d:", label, mr)
		p("\tMOVQ %d(DI), R8", fX)
		p("\tADDQ (R11), R8")
		p("\tADDQ DX, R8")
		p("\tLEAQ (R8)(R13*1), R10")
		for v := range vectors {
			p("\tVMOVUPS %d(BX), Y%d", 32*v, 12+v)
		}
		for i := range mr {
			for v := range vectors {
				p("\tVFMADD231PS %s, Y%d, Y%d", pixel(i, 32*v), 12+v, i*vectors+v)
			}
		}
		p("\tADDQ SI, BX")
		p("\tADDQ $8, R11")
		p("\tDECQ R12")
		p("\tJNZ %stap%d", label, mr)
		p("\tMOVQ %d(DI), AX", dReLU)
		p("\tTESTQ AX, AX")
		p("\tJZ %sstore%d", label, mr)
		for i := range mr * vectors {
			p("\tVMAXPS Y%d, Y15, Y%d", i, i)
		}
		p("%sstore%d:", label, mr)
		p("\tMOVQ %d(DI), AX", fOut)
		p("\tADDQ DX, AX")
		for i := range mr {
			for v := range vectors {
				p("\tVMOVUPS Y%d, %d(AX)", i*vectors+v, 32*v)
			}
			if i < mr-1 {
				p("\tADDQ %d(DI), AX", fOutPixel)
			}
		}
		p("\tADDQ $%d, DX", 32*vectors)
		p("\tSUBQ $%d, R15", 8*vectors)
	}
	p("\tSUBQ $16, R15")
	p("\tJLT half%d", mr)
	block("wide", 2)
	p("\tJGE wide%d", mr)
	p("half%d:", mr)
	p("\tADDQ $16, R15")
	p("\tJZ done%d", mr)
	block("narrow", 1)
	p("done%d:", mr)
	p("\tVZEROUPPER")
	p("\tRET")
	p("")
}

// depthwiseRows is 4 pixels of a depthwise convolution of stride 1, whose taps
// are rows of three neighbours, for one tile of pixels after another: an input is
// loaded once for the three outputs in a row that see it. The number of channels
// is a multiple of 8. Where rows of taps begin is told by the offsets.
func depthwiseRows() {
	const mr = 4
	p("// func depthwiseRowsAVX2(d *depthwise)")
	p("TEXT ·depthwiseRowsAVX2(SB), NOSPLIT, $0-8")
	p("\tMOVQ d+0(FP), DI")
	p("\tMOVQ %d(DI), R9", fPixel)
	p("\tLEAQ (R9)(R9*2), R13")
	p("\tMOVQ %d(DI), SI", dWeightPitch)
	p("\tMOVQ %d(DI), R14", fX) // the tile's inputs
	p("\tMOVQ %d(DI), AX", fOut)
	p("\tMOVQ %d(DI), CX", dTiles)
	p("tile:")
	p("\tMOVQ %d(DI), R15", dChannels)
	p("\tXORQ DX, DX") // bytes of channels done
	block := func(label string, vectors int) {
		p("%s:", label)
		p("\tMOVQ %d(DI), BX", fBias)
		for v := range vectors {
			p("\tVMOVUPS %d(BX)(DX*1), Y%d", 32*v, v)
		}
		for i := 1; i < mr; i++ {
			for v := range vectors {
				p("\tVMOVAPS Y%d, Y%d", v, i*vectors+v)
			}
		}
		p("\tMOVQ %d(DI), BX", fWeight)
		p("\tADDQ DX, BX")
		p("\tMOVQ %d(DI), R11", fOffsets)
		p("\tMOVQ %d(DI), R12", dTaps)
		p("%srow:", label)
		p("\tMOVQ (R11), R8")
		p("\tADDQ R14, R8")
		p("\tADDQ DX, R8")
		p("\tLEAQ (R8)(R13*1), R10")
		for t := range 3 {
			for v := range vectors {
				at := fmt.Sprintf("%d(BX)", 32*v)
				if t > 0 {
					at += fmt.Sprintf("(SI*%d)", t)
				}
				p("\tVMOVUPS %s, Y%d", at, 8+2*t+v)
			}
		}
		for j := range mr + 2 {
			for v := range vectors {
				p("\tVMOVUPS %s, Y%d", pixel(j, 32*v), 14+v)
			}
			for t := range 3 {
				if i := j - t; i >= 0 && i < mr {
					for v := range vectors {
						p("\tVFMADD231PS Y%d, Y%d, Y%d", 14+v, 8+2*t+v, i*vectors+v)
					}
				}
			}
		}
		p("\tLEAQ (BX)(SI*2), BX")
		p("\tADDQ SI, BX")
		p("\tADDQ $8, R11")
		p("\tDECQ R12")
		p("\tJNZ %srow", label)
		p("\tMOVQ %d(DI), BX", dReLU)
		p("\tTESTQ BX, BX")
		p("\tJZ %sstore", label)
		p("\tVXORPS Y15, Y15, Y15")
		for i := range mr * vectors {
			p("\tVMAXPS Y%d, Y15, Y%d", i, i)
		}
		p("%sstore:", label)
		p("\tLEAQ (AX)(DX*1), BX")
		for i := range mr {
			for v := range vectors {
				p("\tVMOVUPS Y%d, %d(BX)", i*vectors+v, 32*v)
			}
			if i < mr-1 {
				p("\tADDQ %d(DI), BX", fOutPixel)
			}
		}
		p("\tADDQ $%d, DX", 32*vectors)
		p("\tSUBQ $%d, R15", 8*vectors)
	}
	p("\tSUBQ $16, R15")
	p("\tJLT half")
	block("wide", 2)
	p("\tJGE wide")
	p("half:")
	p("\tADDQ $16, R15")
	p("\tJZ next")
	block("narrow", 1)
	p("next:")
	p("\tLEAQ (R14)(R9*4), R14")
	p("\tMOVQ %d(DI), BX", fOutPixel)
	p("\tLEAQ (AX)(BX*4), AX")
	p("\tDECQ CX")
	p("\tJNZ tile")
	p("\tVZEROUPPER")
	p("\tRET")
	p("")
}

func main() {
	p("// Code generated by _gen/main.go; DO NOT EDIT.")
	p("")
	p("//go:build amd64 && gc && !noasm && !purego")
	p("")
	p(`#include "funcdata.h"`)
	p(`#include "textflag.h"`)
	p("")
	for mr := 1; mr <= 6; mr++ {
		tile(mr)
	}
	for _, mr := range []int{1, 4} {
		depthwise(mr)
	}
	depthwiseRows()
	for mr := 1; mr <= 6; mr++ {
		correlate(mr)
	}
	for taps := 1; taps <= 5; taps++ {
		correlateDepthwise(taps)
	}
	winograd()
	transpose()
	pointwise()
	if err := os.WriteFile("kernels_amd64.s", append(bytes.TrimRight(out.Bytes(), "\n"), 0x0a), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
