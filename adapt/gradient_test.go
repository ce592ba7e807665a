package adapt

import (
	"context"
	"errors"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"

	"github.com/lowrank-go/lowrank/peft"
)

func TestGradientsDependOnTheSeedAndNotOnTheWorkers(t *testing.T) {
	b, set := base(t, "cifar_projection"), glyphs(t)
	o := Options{Method: "lora", Seed: 1, Batch: 32}
	one, err := Gradients(t.Context(), b, set, o, 100, 1)
	if err != nil {
		t.Fatal(err)
	}
	three, err := Gradients(t.Context(), b, set, o, 100, 3)
	if err != nil {
		t.Fatal(err)
	}
	if !maps.EqualFunc(one, three, slices.Equal) {
		t.Error("the number of workers changes them")
	}
	o.Seed = 2
	other, err := Gradients(t.Context(), b, set, o, 100, 1)
	if err != nil {
		t.Fatal(err)
	}
	if maps.EqualFunc(one, other, slices.Equal) {
		t.Error("the seed changes nothing")
	}
	o.Classes = set.Classes()
	o.Start, o.Gradients = FromGradient, one
	if _, err := New(b, o); err != nil {
		t.Error(err)
	}
	o.Layers = []string{"layer3.*"}
	some, err := Gradients(t.Context(), b, set, o, 100, 1)
	if err != nil || len(some) == 0 || len(some) >= len(one) {
		t.Errorf("%d kernels of %d, %v", len(some), len(one), err)
	}
}

// With fixed norms the mean over batches is that of one batch of all.
func TestGradientsAreMeansOverImages(t *testing.T) {
	b, set := base(t, "cifar_pad"), glyphs(t)
	o := Options{Method: "lora", Norms: peft.NormFrozen, Seed: 1, Batch: 80}
	whole, err := Gradients(t.Context(), b, set, o, 80, 2)
	if err != nil {
		t.Fatal(err)
	}
	o.Batch = 16
	parts, err := Gradients(t.Context(), b, set, o, 80, 2)
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range whole {
		d := slices.Clone(x)
		for i, v := range parts[name] {
			d[i] -= v
		}
		if e := norm(d) / norm(x); !(e < 1e-3) {
			t.Errorf("%s: differ by %g", name, e)
		}
	}
}

func TestGradientsOfNothingAreErrors(t *testing.T) {
	b, set := base(t, "cifar_pad"), glyphs(t)
	for what, o := range map[string]Options{"no kernels": {Method: BN}, "no method": {}, "layers": {Method: "lora", Layers: []string{"["}}} {
		if _, err := Gradients(t.Context(), b, set, o, 0, 0); !errors.Is(err, ErrOption) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := Gradients(t.Context(), b, set, Options{Method: "lora"}, -1, 0); !errors.Is(err, ErrOption) {
		t.Errorf("fewer than no images: %v", err)
	}
	if _, err := Gradients(t.Context(), base(t, "fcn_cifar"), set, Options{Method: "lora"}, 0, 0); !errors.Is(err, ErrOption) {
		t.Errorf("a segmentation network: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Gradients(ctx, b, set, Options{Method: "lora"}, 0, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// Of Gaussian classes the discriminant tells the odds, and of features that are all alike
// how frequent classes are.
func TestTheDiscriminantTellsTheOdds(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	const images, width = 4000, 3
	x, labels := mat.NewDense(images, width, nil), make([]int, images)
	for i := range images {
		labels[i] = i % 2
		for j := range width {
			x.Set(i, j, rng.NormFloat64())
		}
		x.Set(i, 0, x.At(i, 0)+2*float64(labels[i])) // the log odds are 2·x₀ − 2
	}
	w, b := make([]float32, 3*width), make([]float32, 3)
	if err := discriminate(w, b, x, labels, 3); err != nil {
		t.Fatal(err)
	}
	slope, offset := float64(w[width]-w[0]), float64(b[1]-b[0])
	if math.Abs(slope-2) > .15 || math.Abs(offset+2) > .15 {
		t.Errorf("log odds %g·x %+g, want 2·x − 2", slope, offset)
	}
	if b[2] > b[0]-3 {
		t.Errorf("a class that was not seen has %g, another %g", b[2], b[0])
	}
	if err := discriminate(w, b, mat.NewDense(4, width, nil), []int{0, 0, 0, 1}, 3); err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(w, func(v float32) bool { return v != 0 }) || !(b[0] > b[1] && b[1] > b[2]) {
		t.Errorf("of nothing: weights %v, biases %v", w, b)
	}
}
