package peft

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"gonum.org/v1/gonum/mat"

	"github.com/lowrank-go/lowrank/model"
)

// noise is a tensor of a shape with random elements.
func noise(rng *rand.Rand, shape ...int) *model.Tensor {
	n := 1
	for _, d := range shape {
		n *= d
	}
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(rng.NormFloat64())
	}
	return &model.Tensor{Shape: shape, Data: v}
}

func asMatrix(t *model.Tensor) *mat.Dense {
	v, _ := t.Float64s()
	rows := t.Shape[0]
	return mat.NewDense(rows, len(v)/rows, slices.Clone(v))
}

func stateOf(pairs ...any) *model.StateDict {
	sd := model.NewStateDict()
	for i := 0; i < len(pairs); i += 2 {
		sd.Set(pairs[i].(string), pairs[i+1].(*model.Tensor))
	}
	return sd
}

// wantKernel compares a merged kernel with one computed in float64.
func wantKernel(t *testing.T, base *model.StateDict, a *Adapter, name string, want []float64) {
	t.Helper()
	merged, err := Add(base, []float64{1}, a)
	if err != nil {
		t.Fatal(err)
	}
	x, _ := merged.Get(name)
	got, err := x.Float64s()
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if math.Abs(got[i]-want[i]) > 1e-5 {
			t.Fatalf("%s: element %d is %g, want %g", name, i, got[i], want[i])
		}
	}
}

const linearPrefix = "base_model.model.fc.lora_"

// Of a kernel Σ σₖ uₖ vₖᵀ PiSSA takes out the first r terms, and OLoRA s times the projection
// on the first r columns, C(CᵀC)⁻¹Cᵀ: both are known here without a decomposition.
func TestStartsByDecompositionAreTakenOutAgain(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	const o, i, r, alpha = 7, 9, 2, 3
	s := float64(alpha) / r
	u, v := make([]float64, o*4), make([]float64, i*4)
	orthonormal(u, o, 4, rng)
	orthonormal(v, i, 4, rng)
	sigma := []float64{5, 3, 1, .5}
	w := make([]float32, o*i)
	first := make([]float64, o*i) // the first r terms
	for a := range o {
		for b := range i {
			for k, x := range sigma {
				e := x * u[a*4+k] * v[b*4+k]
				w[a*i+b] += float32(e)
				if k < r {
					first[a*i+b] += e
				}
			}
		}
	}
	base := stateOf("fc.weight", &model.Tensor{Shape: []int{o, i}, Data: w})
	up, down := noise(rng, o, r), noise(rng, r, i)
	sd := stateOf(linearPrefix+"A.weight", down, linearPrefix+"B.weight", up)
	site := Site{Name: "fc", Shape: [4]int{o, i, 1, 1}, Linear: true}
	b := Base{Sites: []Site{site}, State: base}

	var product, taken, gram mat.Dense
	product.Mul(asMatrix(up), asMatrix(down))
	kernel := asMatrix(&model.Tensor{Shape: []int{o, i}, Data: w})
	c := kernel.Slice(0, o, 0, r)
	gram.Mul(c.T(), c)
	if err := gram.Inverse(&gram); err != nil {
		t.Fatal(err)
	}
	taken.Product(c, &gram, c.T(), kernel)
	for start, out := range map[string]func(int) float64{
		"pissa": func(k int) float64 { return first[k] },
		"olora": func(k int) float64 { return s * taken.RawMatrix().Data[k] },
	} {
		config := fmt.Sprintf(`{"peft_type":"LORA","r":%d,"lora_alpha":%d,"init_lora_weights":%q}`, r, alpha, start)
		a, err := b.DecodePEFT([]byte(config), sd)
		if err != nil {
			t.Fatal(err)
		}
		want := make([]float64, o*i)
		for k := range want {
			want[k] = float64(w[k]) + s*product.RawMatrix().Data[k] - out(k)
		}
		wantKernel(t, base, a, "fc.weight", want)
		if _, err := DecodePEFT([]byte(config), sd, []Site{site}); !errors.Is(err, ErrLossy) {
			t.Errorf("%s without the base's kernel: %v", start, err)
		}
	}
	for start, kind := range map[string]error{"corda": ErrFile, "loftq": ErrFile, "pissa_niter_16": ErrFile, "something": ErrFile, "gaussian": nil, "eva": nil} {
		config := fmt.Sprintf(`{"peft_type":"LORA","r":%d,"lora_alpha":%d,"init_lora_weights":%q}`, r, alpha, start)
		if _, err := b.DecodePEFT([]byte(config), sd); !errors.Is(err, kind) || err != nil && !strings.Contains(err.Error(), start) {
			t.Errorf("%s: %v", start, err)
		}
	}
	// Of convolutions PEFT has no such start.
	b.Sites[0].Linear = false
	if _, err := b.DecodePEFT([]byte(`{"peft_type":"LORA","r":2,"lora_alpha":3,"init_lora_weights":"pissa"}`), sd); !errors.Is(err, ErrFile) {
		t.Errorf("pissa of a convolution: %v", err)
	}
}

// What PEFT's modules hold, saved without save_pretrained, has the adapter's name in it.
func TestNamesOfAdaptersAreTakenOutOfPEFTsNames(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	site := Site{Name: "fc", Shape: [4]int{4, 5, 1, 1}, Linear: true}
	base := stateOf("fc.weight", noise(rng, 4, 5), "fc.bias", noise(rng, 4), "bn.weight", noise(rng, 3))
	b := Base{Sites: []Site{site}, State: base}
	up, down, bias, norm := noise(rng, 4, 2), noise(rng, 2, 5), noise(rng, 4), noise(rng, 3)
	config := []byte(`{"peft_type":"LORA","r":2,"lora_alpha":1}`)
	plain := stateOf(linearPrefix+"A.weight", down, linearPrefix+"B.weight", up, linearPrefix+"B.bias", bias, "base_model.model.bn.weight", norm)
	module := stateOf(linearPrefix+"A.default.weight", down, linearPrefix+"B.default.weight", up, linearPrefix+"B.default.bias", bias,
		"base_model.model.bn.original_module.weight", noise(rng, 3), "base_model.model.bn.modules_to_save.default.weight", norm)
	want, _ := base.Get("fc.bias")
	for name, sd := range map[string]*model.StateDict{"saved": plain, "module": module} {
		a, err := b.DecodePEFT(config, sd)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(a.Modules) != 1 || a.Extra.Len() != 2 {
			t.Fatalf("%s: %v, %v", name, a.Modules, a.Extra.Names())
		}
		got, _ := a.Extra.Get("fc.bias")
		for i, x := range got.Data.([]float32) {
			// A bias of lora_B is scaled as its product is.
			if w := want.Data.([]float32)[i] + .5*bias.Data.([]float32)[i]; math.Abs(float64(x-w)) > 1e-6 {
				t.Errorf("%s: bias %d is %g, want %g", name, i, x, w)
			}
		}
	}
	module.Set(linearPrefix+"A.other.weight", down)
	if _, err := b.DecodePEFT(config, module); !errors.Is(err, ErrFile) || !strings.Contains(err.Error(), "two adapters") {
		t.Errorf("two adapters: %v", err)
	}
	if _, err := b.DecodePEFT([]byte(`{"peft_type":"LORA","r":2,"use_dora":true}`), plain); !errors.Is(err, ErrFile) || !strings.Contains(err.Error(), "use_dora") {
		t.Errorf("DoRA without norms: %v", err)
	}
	base.Delete("fc.bias")
	if _, err := b.DecodePEFT(config, plain); !errors.Is(err, ErrFile) || !strings.Contains(err.Error(), "bias of lora_B") {
		t.Errorf("a bias that the base has not: %v", err)
	}
}

func TestLyCORISChangesOfBiasesNormsAndInputNormsAreRead(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	const o, i, k = 4, 3, 2
	site := Site{Name: "layer.0.conv", Shape: [4]int{o, i, k, k}}
	w := noise(rng, o, i, k, k)
	base := stateOf("layer.0.conv.weight", w, "layer.0.conv.bias", noise(rng, o), "layer.0.bn.weight", noise(rng, o), "layer.0.bn.bias", noise(rng, o))
	b := Base{Sites: []Site{site}, State: base}
	up, down, scale := noise(rng, o, 2, 1, 1), noise(rng, 2, i, k, k), noise(rng, 1, i, 1, 1)
	for _, prefix := range []string{"lycoris", "lora_unet", "lora", "some_thing"} {
		p := prefix + "_layer_0_conv."
		n := prefix + "_layer_0_bn."
		sd := stateOf(p+"lora_up.weight", up, p+"lora_down.weight", down, p+"alpha", &model.Tensor{Data: []float32{1}}, p+"dora_scale", scale,
			p+"diff_b", noise(rng, o), n+"w_norm", noise(rng, o), n+"b_norm", noise(rng, o))
		a, err := b.DecodeLyCORIS(sd, "")
		if err != nil {
			t.Fatal(err)
		}
		// W·scale/‖W‖ by the input, W being W₀ + ½·up·down.
		sum := make([]float64, o*i*k*k)
		norms := make([]float64, i)
		for x := range o {
			for y := range i * k * k {
				e := float64(w.Data.([]float32)[x*i*k*k+y])
				for r := range 2 {
					e += .5 * float64(up.Data.([]float32)[x*2+r]) * float64(down.Data.([]float32)[r*i*k*k+y])
				}
				sum[x*i*k*k+y] = e
				norms[y/(k*k)] += e * e
			}
		}
		for j := range sum {
			in := j / (k * k) % i
			sum[j] *= float64(scale.Data.([]float32)[in]) / math.Sqrt(norms[in])
		}
		wantKernel(t, base, a, "layer.0.conv.weight", sum)
		for name, change := range map[string]string{"layer.0.conv.bias": p + "diff_b", "layer.0.bn.weight": n + "w_norm", "layer.0.bn.bias": n + "b_norm"} {
			was, _ := base.Get(name)
			add, _ := sd.Get(change)
			want := make([]float64, o)
			for j := range want {
				want[j] = float64(was.Data.([]float32)[j]) + float64(add.Data.([]float32)[j])
			}
			wantKernel(t, base, a, name, want)
		}
		if _, err := DecodeLyCORIS(sd, []Site{site}, prefix); !errors.Is(err, ErrLossy) {
			t.Errorf("without the base's tensors: %v", err)
		}
	}
}

func TestOtherAlgorithmsOfLyCORISAreNamed(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	b := Base{Sites: []Site{{Name: "conv", Shape: [4]int{4, 4, 1, 1}}}}
	for param, name := range map[string]string{"oft_blocks": "OFT", "a1.weight": "GLoRA", "on_input": "IA³", "up_list.0": "DyLoRA"} {
		if _, err := b.DecodeLyCORIS(stateOf("lycoris_conv."+param, noise(rng, 4, 4)), ""); !errors.Is(err, ErrFile) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", param, err)
		}
	}
}

func TestAWholeCheckpointOfLoralibIsRead(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	w := noise(rng, 4, 3, 3, 3)
	b := Base{Sites: []Site{{Name: "conv", Shape: [4]int{4, 3, 3, 3}}}, State: stateOf("conv.weight", w)}
	sd := stateOf("conv.conv.weight", w, "conv.lora_A", noise(rng, 6, 9), "conv.lora_B", noise(rng, 12, 6), "fc.weight", noise(rng, 2, 4))
	a, err := b.DecodeLoralib(sd, 1)
	if err != nil || len(a.Modules) != 1 || a.Extra.Len() != 1 {
		t.Fatalf("%v, %v", a, err)
	}
	sd.Set("conv.conv.weight", noise(rng, 4, 3, 3, 3))
	if _, err := b.DecodeLoralib(sd, 1); !errors.Is(err, ErrBase) {
		t.Errorf("another kernel: %v", err)
	}
}

func TestPatternsAreBounded(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	var b Base
	sd := model.NewStateDict()
	for i := range 40 {
		name := fmt.Sprintf("layer%d.conv", i)
		b.Sites = append(b.Sites, Site{Name: name, Shape: [4]int{3, 2, 1, 1}})
		sd.Set(peftPrefix+name+".lora_A.weight", noise(rng, 1, 2, 1, 1))
		sd.Set(peftPrefix+name+".lora_B.weight", noise(rng, 3, 1, 1, 1))
	}
	patterns := func(n int, key func(int) string) []byte {
		var text strings.Builder
		for i := range n {
			fmt.Fprintf(&text, `%q:4,`, key(i))
		}
		return []byte(`{"peft_type":"LORA","r":1,"rank_pattern":{` + strings.TrimSuffix(text.String(), ",") + `}}`)
	}
	start := time.Now()
	many := patterns(3000, func(i int) string { return fmt.Sprintf("(a|b)*c%d[xyz]+", i) })
	if _, err := b.DecodePEFT(many, sd); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d > time.Minute {
		t.Errorf("3000 patterns took %v", d)
	}
	for name, config := range map[string][]byte{
		"one of a megabyte": patterns(1, func(int) string { return strings.Repeat("(a?)", 1<<18) }),
		"a million names":   patterns(1_000_000, func(i int) string { return fmt.Sprint("m", i) }),
	} {
		start := time.Now()
		_, err := b.DecodePEFT(config, sd)
		if !errors.Is(err, ErrFile) || len(err.Error()) > 500 || time.Since(start) > time.Minute {
			t.Errorf("%s: %.100s after %v", name, fmt.Sprint(err), time.Since(start))
		}
	}
}
