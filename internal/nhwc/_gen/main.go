// Command gen writes kernels_amd64.s and kernels_amd64.go: the inner loops of
// convolution on NHWC maps for AVX2 with FMA and for AVX-512. Run it with go
// generate.
//
// A loop that is the same in both widths is written once, in terms of Y registers
// and of vec, their width; the products, whose tiles fill the registers, once for each.
package main

import (
	"bytes"
	"fmt"
	"go/format"
	"os"
	"regexp"
)

// isa is a vector instruction set.
type isa struct {
	suffix string // of function names
	vec    int    // bytes of a vector
}

var (
	avx2   = isa{"AVX2", 32}
	avx512 = isa{"AVX512", 64}
)

var (
	out, decl bytes.Buffer
	to        isa // what p writes for
	vector    = regexp.MustCompile(`\bY(\d+)\b`)
)

// p writes a line. With AVX-512, Y registers become Z registers.
func p(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if to == avx512 {
		line = vector.ReplaceAllString(line, "Z$1")
	}
	out.WriteString(line + "\n")
}

// text begins the function of a name, which takes one pointer.
func text(name, argument, kind string) {
	frame(name, argument, kind, "NOSPLIT, $0-8")
}

func frame(name, argument, kind, attributes string) {
	p("// func %s%s(%s *%s)", name, to.suffix, argument, kind)
	p("TEXT ·%s%s(SB), %s", name, to.suffix, attributes)
	fmt.Fprintf(&decl, "//go:noescape\nfunc %s%s(%s *%s)\n\n", name, to.suffix, argument, kind)
}

// zero makes register r zero.
func zero(r int) {
	if to == avx512 {
		p("\tVPXORD Y%d, Y%d, Y%d", r, r, r)
		return
	}
	p("\tVXORPS Y%d, Y%d, Y%d", r, r, r)
}

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
	// AVX-512's alone:
	fPanel   // bytes from a panel of weights to the next
	fHalf    // bytes from the inputs of a tile's first half to the second's
	fOutHalf // the same of the outputs
	fStep    // bytes from the inputs of a tile to those of the next
	fOutStep // the same of the outputs
	fMask    // channels of the last panel
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
	text(fmt.Sprintf("tile%d", mr), "t", "tile")
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

// A depthwise kernel's loads, products and stores. In blocks of a single vector
// AVX-512 counts the channels by its mask K1.

func load(vectors int, from string, r int) {
	if vectors == 1 && to == avx512 {
		p("\tVMOVUPS.Z %s, K1, Y%d", from, r)
		return
	}
	p("\tVMOVUPS %s, Y%d", from, r)
}

func multiply(vectors int, from string, weight, sum int) {
	if vectors == 1 && to == avx512 {
		p("\tVFMADD231PS %s, Y%d, K1, Y%d", from, weight, sum)
		return
	}
	p("\tVFMADD231PS %s, Y%d, Y%d", from, weight, sum)
}

func store(vectors, r int, at string) {
	if vectors == 1 && to == avx512 {
		p("\tVMOVUPS Y%d, K1, %s", r, at)
		return
	}
	p("\tVMOVUPS Y%d, %s", r, at)
}

// mask makes K1 the mask of the channels of a vector when R15 are left. It uses
// BX.
func mask(vectors int) {
	if vectors == 1 && to == avx512 {
		p("\tMOVL $0xFFFF, BX")
		p("\tBZHIL R15, BX, BX")
		p("\tKMOVW BX, K1")
	}
}

// depthwise is mr pixels of a depthwise convolution; the number of channels is
// a multiple of 8.
func depthwise(mr int) {
	text(fmt.Sprintf("depthwise%d", mr), "d", "depthwise")
	p("\tMOVQ d+0(FP), DI")
	p("\tMOVQ %d(DI), R9", fPixel)
	p("\tLEAQ (R9)(R9*2), R13")
	p("\tMOVQ %d(DI), SI", dWeightPitch)
	p("\tMOVQ %d(DI), R15", dChannels)
	p("\tXORQ DX, DX") // bytes of channels done
	zero(15)
	block := func(label string, vectors int) {
		p("%s%d:", label, mr)
		mask(vectors)
		p("\tMOVQ %d(DI), AX", fBias)
		for v := range vectors {
			load(vectors, fmt.Sprintf("%d(AX)(DX*1)", to.vec*v), v)
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
			load(vectors, fmt.Sprintf("%d(BX)", to.vec*v), 12+v)
		}
		for i := range mr {
			for v := range vectors {
				multiply(vectors, pixel(i, to.vec*v), 12+v, i*vectors+v)
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
				store(vectors, i*vectors+v, fmt.Sprintf("%d(AX)", to.vec*v))
			}
			if i < mr-1 {
				p("\tADDQ %d(DI), AX", fOutPixel)
			}
		}
		p("\tADDQ $%d, DX", to.vec*vectors)
		p("\tSUBQ $%d, R15", to.vec/4*vectors)
	}
	p("\tSUBQ $%d, R15", to.vec/2)
	p("\tJLT half%d", mr)
	block("wide", 2)
	p("\tJGE wide%d", mr)
	p("half%d:", mr)
	p("\tADDQ $%d, R15", to.vec/2)
	p("\tJZ done%d", mr)
	block("narrow", 1)
	p("\tJGT narrow%d", mr)
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
	text("depthwiseRows", "d", "depthwise")
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
		mask(vectors)
		p("\tMOVQ %d(DI), BX", fBias)
		for v := range vectors {
			load(vectors, fmt.Sprintf("%d(BX)(DX*1)", to.vec*v), v)
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
				at := fmt.Sprintf("%d(BX)", to.vec*v)
				if t > 0 {
					at += fmt.Sprintf("(SI*%d)", t)
				}
				load(vectors, at, 8+2*t+v)
			}
		}
		for j := range mr + 2 {
			for v := range vectors {
				load(vectors, pixel(j, to.vec*v), 14+v)
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
		zero(15)
		for i := range mr * vectors {
			p("\tVMAXPS Y%d, Y15, Y%d", i, i)
		}
		p("%sstore:", label)
		p("\tLEAQ (AX)(DX*1), BX")
		for i := range mr {
			for v := range vectors {
				store(vectors, i*vectors+v, fmt.Sprintf("%d(BX)", to.vec*v))
			}
			if i < mr-1 {
				p("\tADDQ %d(DI), BX", fOutPixel)
			}
		}
		p("\tADDQ $%d, DX", to.vec*vectors)
		p("\tSUBQ $%d, R15", to.vec/4*vectors)
	}
	p("\tSUBQ $%d, R15", to.vec/2)
	p("\tJLT half")
	block("wide", 2)
	p("\tJGE wide")
	p("half:")
	p("\tADDQ $%d, R15", to.vec/2)
	p("\tJZ next")
	block("narrow", 1)
	p("\tJGT narrow")
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
	const constraint = "//go:build amd64 && gc && !noasm && !purego"
	p("// Code generated by _gen/main.go; DO NOT EDIT.")
	p("")
	p(constraint)
	p("")
	p(`#include "funcdata.h"`)
	p(`#include "textflag.h"`)
	p("")
	decl.WriteString("// Code generated by _gen/main.go; DO NOT EDIT.\n\n" + constraint + "\n\npackage nhwc\n\n")
	for _, to = range []isa{avx2, avx512} {
		tiles()
		for _, mr := range []int{1, 4} {
			depthwise(mr)
		}
		depthwiseRows()
		correlations()
		winograd()
		pointwise()
	}
	to = avx2
	transpose()
	source, err := format.Source(decl.Bytes())
	if err != nil {
		fail(err)
	}
	for name, text := range map[string][]byte{
		"kernels_amd64.s":  append(bytes.TrimRight(out.Bytes(), "\n"), '\n'),
		"kernels_amd64.go": source,
	} {
		if err := os.WriteFile(name, text, 0o644); err != nil {
			fail(err)
		}
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// tiles writes the kernels of products and a table of them.
func tiles() {
	if to == avx2 {
		decl.WriteString("// tilesAVX2[m-1] is the tile of m pixels.\nvar tilesAVX2 = [tilePixels]func(*tile){")
		for mr := 1; mr <= 6; mr++ {
			fmt.Fprintf(&decl, "tile%dAVX2, ", mr)
		}
		decl.WriteString("}\n\n")
		for mr := 1; mr <= 6; mr++ {
			tile(mr)
		}
		return
	}
	decl.WriteString("// tilesAVX512[m-1][q-1] is the tile of m pixels and q panels.\nvar tilesAVX512 = [widePixels][widePanels]func(*tile){\n")
	for mr := 1; mr <= widePixels; mr++ {
		fmt.Fprintf(&decl, "{tile%dx1AVX512, tile%dx2AVX512},\n", mr, mr)
	}
	decl.WriteString("}\n\n")
	for mr := 1; mr <= widePixels; mr++ {
		for q := 1; q <= widePanels; q++ {
			wideTile(mr, q)
		}
	}
}
