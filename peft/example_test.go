package peft_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/peft"
)

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// kernel is a made-up pretrained kernel.
func kernel(seed uint64, n int) []float32 {
	rng := rand.New(rand.NewPCG(seed, 0))
	w := make([]float32, n)
	for i := range w {
		w[i] = float32(rng.NormFloat64())
	}
	return w
}

// A change starts as none, and learns: here one step towards a target kernel, by the
// gradient of the squared distance.
func Example() {
	delta, err := peft.New(peft.Spec{
		Kind:     peft.TKDCPD,
		Shape:    [4]int{64, 32, 3, 3},
		Geometry: conv.Geometry{Padding: [2]int{1, 1}},
		Rank:     []int{8, 8, 16},
	})
	check(err)
	base, target := kernel(1, 64*32*9), kernel(2, 64*32*9)
	check(delta.Init(rand.New(rand.NewPCG(1, 0)), peft.DefaultGain, base))

	distance := func() (d float64, gradient []float32) {
		w := append([]float32(nil), base...)
		delta.Materialise(w, base)
		for i := range w {
			w[i] -= target[i]
			d += float64(w[i] * w[i])
		}
		return d, w
	}
	before, gradient := distance()
	delta.Pull(gradient, base)
	for _, f := range delta.Factors() {
		for i, g := range f.Grad {
			f.Value[i] -= 0.1 * g
		}
	}
	after, _ := distance()
	fmt.Println(delta.Params(), "of", len(base), "parameters; nearer:", after < before)
	fmt.Println("for 16 maps of 32×32:", delta.Plan(16, 32, 32))
	// Output:
	// 1168 of 18432 parameters; nearer: true
	// for 16 maps of 32×32: chain
}

// What somebody's full fine-tuning changed, as a small change.
func ExampleExtract() {
	spec := peft.Spec{Kind: peft.Tucker2, Shape: [4]int{32, 16, 3, 3}, Rank: []int{4, 4}}
	made, err := peft.New(spec)
	check(err)
	for i, f := range made.Factors() {
		copy(f.Value, kernel(uint64(i), len(f.Value)))
	}
	tuned, err := made.Kernel(nil)
	check(err)
	spec.Rank = nil // whatever keeps nearly all of it
	found, relError, err := peft.Extract(context.Background(), spec, tuned, nil, peft.Rule{Energy: 0.999999})
	check(err)
	fmt.Printf("ranks %v, relative error below 0.001: %t\n", found.Spec().Rank, relError < 1e-3)
	lora, how, err := peft.Convert(context.Background(), found, peft.Spec{Kind: peft.LoRA}, nil, nil)
	check(err)
	fmt.Println("as LoRA: rank", lora.Spec().Rank, "by", how.Path, "exact:", how.Exact)
	// Output:
	// ranks [4 4], relative error below 0.001: true
	// as LoRA: rank [4] by [tucker2 lora] exact: true
}

// Two tasks in one file, of which one is merged.
func ExampleFile() {
	base := model.NewStateDict()
	base.Set("conv1.weight", &model.Tensor{Shape: []int{8, 4, 3, 3}, Data: kernel(1, 288)})
	base.Set("fc.weight", &model.Tensor{Shape: []int{10, 8}, Data: kernel(2, 80)})

	adapter := func(task string, seed uint64) *peft.Adapter {
		d, err := peft.New(peft.Spec{Kind: peft.LoRA, Shape: [4]int{8, 4, 3, 3}, Rank: []int{2}})
		check(err)
		for _, f := range d.Factors() {
			copy(f.Value, kernel(seed, len(f.Value)))
		}
		head := model.NewStateDict()
		head.Set("fc.weight", &model.Tensor{Shape: []int{3, 8}, Data: kernel(seed, 24)})
		return &peft.Adapter{Name: task, Norm: peft.NormFrozen, Modules: []peft.Module{{Name: "conv1", Delta: d}}, Extra: head}
	}
	file, err := peft.NewFile(base, []string{"conv1.weight"}, adapter("digits", 3), adapter("letters", 4))
	check(err)
	dir, err := os.MkdirTemp("", "peft")
	check(err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "tasks.safetensors")
	check(file.Write(path))

	read, err := peft.Read(path)
	check(err)
	check(read.Check(base, false))
	merged, err := peft.Add(base, []float64{1}, read.Adapter("letters"))
	check(err)
	head, _ := merged.Get("fc.weight")
	fmt.Println(merged.Names(), head.Shape)
	// Output:
	// [conv1.weight fc.weight] [3 8]
}
