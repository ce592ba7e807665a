// Package peft adapts convolutional networks to new tasks with few parameters: it
// parametrises changes ΔW of frozen kernels W₀, starts, combines, converts and
// rounds them, chooses their ranks, and reads and writes them in files.
//
// # Kinds
//
// A [Change] makes the kernel W₀ + λ·ΔW, of O×C×k×k here, from factors; of a kernel in
// g groups the formulas hold for each group, and O and C are those of a group, but for
// lora-view, loha and lokr, which take the weights as the one array they are in memory:
//
//	kind       ΔW[o,c,t], t = (h,w)                             parameters of a group
//	lora       Σ_r up[o,r]·down[r,c,t]                          R(O + C·k²)
//	lora-view  (B·A) with A (Rk × Ck), B (Ok × Rk), as memory   R·k²(C + O)
//	spatial    Σ_r column[o,r,h]·row[r,c,w]                     R·k(O + C)
//	cp         Σ_r out[o,r]·in[r,c]·tap[r,t]                    R(O + C + k²)
//	cp4        the same with tap[r,t] = row[r,h]·column[r,w]    R(O + C + 2k)
//	tucker2    Σ_ab out[o,a]·core[a,b,t]·in[b,c]                O·R₁ + C·R₂ + R₁R₂k²
//	tucker4    core[a,b,d,e]·row[h,d]·column[w,e] for the core  O·R₁ + C·R₂ + k(R₃+R₄) + R₁R₂R₃R₄
//	tkdcpd     Tucker-2 whose core is a CP                      O·R₁ + C·R₂ + R(R₁ + R₂ + k²)
//	loha       (w1a·w1b) ⊙ (w2a·w2b)                            2R(O + C·k²)
//	lokr       w1 ⊗ w2                                          o₁c₁ + R(o₂ + c₂k²)
//	parallel   point[o,c] at the middle tap                     O·C
//	series     Σ_p mix[o,p]·W₀[p,c,t]                           O²
//	axial      filters along the middle column or row           O·C·k, C·k or O·C·k/gcd(O,C)
//	full       ΔW itself                                        O·C·k²
//
// lora on O×(C·k²) is Hu et al. 2021 as every convolutional implementation but its own
// has it; lora-view is that of loralib, whose view of memory cuts the input channels
// into k parts and is no matricisation of the kernel; spatial is the matricisation
// (O·k)×(C·k). tucker4 is FLoRA's (Si et al. 2024), loha Hyeon-Woo et al. 2021 and
// LyCORIS, lokr LyCORIS, parallel and series Rebuffi et al. 2017 and 2018. Each may be
// wrapped as DoRA (Liu et al. 2024), which gives every output channel a learned norm,
// and anchored ([Change.Anchor]), ΔW = ⟦θ⟧ − ⟦θ₀⟧, which starts from a decomposition
// without changing the network.
//
// # Running
//
// A change is computed with in two ways, of which [Change.Plan] tells the cheaper:
// materialised, where [Change.Materialise] adds it to the kernel and [Change.Pull]
// makes factor gradients of the kernel's; or chained, where small convolutions
// ([Change.Stages]) run beside the frozen one. Merged, it costs nothing: the result is
// a kernel. Base weights are never written to.
//
// Many factors make the same ΔW, and a step of gradient descent depends on which;
// [Change.Precondition] rewrites the factors' gradients so that it does not.
//
// Products are computed in the precision of the change; results do not depend on
// the number of workers.
package peft
