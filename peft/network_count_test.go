package peft

import "testing"

// layer is a convolution of a published network.
type layer struct{ out, in, k int }

// inner are the convolutions but the stem of a residual network: stages of blocks on
// widths, 3×3 and 3×3 or 1×1, 3×3, 1×1, and projections where the shape changes and
// the network has them.
func inner(blocks, widths []int, stem int, bottleneck, projections bool) []layer {
	var all []layer
	in := stem
	for i, n := range blocks {
		w := widths[i]
		for b := range n {
			out := w
			if bottleneck {
				out = 4 * w
				all = append(all, layer{w, in, 1}, layer{w, w, 3}, layer{out, w, 1})
			} else {
				all = append(all, layer{w, in, 3}, layer{w, w, 3})
			}
			if b == 0 && (i > 0 || in != out) && projections {
				all = append(all, layer{out, in, 1})
			}
			in = out
		}
	}
	return all
}

// The counts of published networks. Kinds of taps are plain LoRA of their first rank
// on 1×1 convolutions, where they could gain nothing.
func TestParametersOfWholeNetworks(t *testing.T) {
	wide := []int{64, 128, 256, 512}
	nets := [][]layer{
		inner([]int{3, 3, 3}, []int{16, 32, 64}, 16, false, false),
		inner([]int{2, 2, 2, 2}, wide, 64, false, true),
		inner([]int{3, 4, 6, 3}, wide, 64, false, true),
		inner([]int{3, 4, 6, 3}, wide, 64, true, true),
	}
	for _, c := range []struct {
		name string
		spec Spec
		want [4]int
	}{
		{"lora 4", Spec{Kind: LoRA, Rank: []int{4}}, [4]int{25152, 142848, 291328, 316928}},
		{"lora 8", Spec{Kind: LoRA, Rank: []int{8}}, [4]int{50304, 285696, 582656, 633856}},
		{"loralib 1", Spec{Kind: LoRAView, Rank: []int{1}}, [4]int{11664, 66432, 133248, 109440}},
		{"loralib 4", Spec{Kind: LoRAView, Rank: []int{4}}, [4]int{46656, 265728, 532992, 437760}},
		{"tucker2 8,8", Spec{Kind: Tucker2, Rank: []int{8, 8}}, [4]int{20736, 77824, 146432, 401408}},
		{"cp 16", Spec{Kind: CP, Rank: []int{16}}, [4]int{23328, 139520, 260608, 786688}},
		{"tkdcpd 8,8,16", Spec{Kind: TKDCPD, Rank: []int{8, 8, 16}}, [4]int{17568, 75008, 140800, 398592}},
		{"parallel", Spec{Kind: Parallel}, [4]int{29696, 1220608, 2342912, 1257472}},
		{"series", Spec{Kind: Series}, [4]int{32256, 1392640, 2514944, 1257472}},
		{"full", Spec{Kind: Full}, [4]int{267264, 11157504, 21258240, 23445504}},
		{"dora", Spec{Kind: LoRA, Rank: []int{4}, DoRA: true}, [4]int{25152 + 672, 142848 + 4736, 291328 + 8448, 316928 + 26496}},
	} {
		for i, net := range nets {
			total := 0
			for _, l := range net {
				s := c.spec
				s.Shape = [4]int{l.out, l.in, l.k, l.k}
				if l.k == 1 {
					switch s.Kind {
					case Parallel, Series:
						continue // they are for the 3×3
					case CP, Tucker2, TKDCPD:
						s.Kind, s.Rank = LoRA, s.Rank[:1]
					}
				}
				if s.Params() == 0 {
					t.Fatalf("%+v is not valid", s)
				}
				total += s.Params()
			}
			if total != c.want[i] {
				t.Errorf("%s, network %d: %d parameters, want %d", c.name, i, total, c.want[i])
			}
		}
	}
}
