package main

// transpose writes the transpose of 16×16 values, each row next to the last, by
// blocks of 8×8.
func transpose() {
	decl.WriteString("//go:noescape\nfunc transpose16AVX2(dst, src *float32)\n")
	p("// func transpose16AVX2(dst, src *float32)")
	p("TEXT ·transpose16AVX2(SB), NOSPLIT, $0-16")
	p("\tMOVQ dst+0(FP), DI")
	p("\tMOVQ src+8(FP), SI")
	for i := range 2 {
		for j := range 2 {
			for r := range 8 {
				p("\tVMOVUPS %d(SI), Y%d", 64*(8*i+r)+32*j, r)
			}
			for r := 0; r < 8; r += 2 { // pairs of rows: a0 b0 a1 b1 | a4 b4 …
				p("\tVUNPCKLPS Y%d, Y%d, Y%d", r+1, r, 8+r)
				p("\tVUNPCKHPS Y%d, Y%d, Y%d", r+1, r, 9+r)
			}
			for q := range 2 { // quadruples: columns c and c+4 of four rows
				a := 8 + 4*q
				p("\tVSHUFPS $0x44, Y%d, Y%d, Y%d", a+2, a, 4*q)
				p("\tVSHUFPS $0xEE, Y%d, Y%d, Y%d", a+2, a, 4*q+1)
				p("\tVSHUFPS $0x44, Y%d, Y%d, Y%d", a+3, a+1, 4*q+2)
				p("\tVSHUFPS $0xEE, Y%d, Y%d, Y%d", a+3, a+1, 4*q+3)
			}
			for c := range 4 {
				p("\tVPERM2F128 $0x20, Y%d, Y%d, Y%d", 4+c, c, 8+c)
				p("\tVPERM2F128 $0x31, Y%d, Y%d, Y%d", 4+c, c, 12+c)
			}
			for c := range 8 {
				p("\tVMOVUPS Y%d, %d(DI)", 8+c, 64*(8*j+c)+32*i)
			}
		}
	}
	p("\tVZEROUPPER")
	p("\tRET")
	p("")
}
