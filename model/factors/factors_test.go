package factors

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"

	"github.com/lowrank-go/lowrank/cpd"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/tkdcpd"
	"github.com/lowrank-go/lowrank/tucker"
)

// waves is a tensor without exact low rank.
func waves(shape ...int) *model.Tensor {
	n := 1
	for _, d := range shape {
		n *= d
	}
	v := make([]float64, n)
	for i := range v {
		v[i] = float64(i*i%23) - 7.25
	}
	return &model.Tensor{Shape: shape, Data: v}
}

// throughFile writes and reads.
func throughFile(t *testing.T, sd *model.StateDict) *model.StateDict {
	t.Helper()
	path := filepath.Join(t.TempDir(), "factors.npz")
	if err := model.WriteNPZ(path, sd); err != nil {
		t.Fatal(err)
	}
	back, err := model.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return back
}

func TestKruskalTensorsSurviveAFile(t *testing.T) {
	x, err := waves(5, 4, 3).Dense()
	if err != nil {
		t.Fatal(err)
	}
	r, err := cpd.ALS(context.Background(), x, 2, &cpd.Settings{MaxSweeps: 5})
	if err != nil {
		t.Fatal(err)
	}
	sd := model.NewStateDict()
	PutKruskal(sd, &r.Kruskal)
	k, err := Kruskal(throughFile(t, sd))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(k.Weights, r.Weights) || len(k.Factors) != 3 {
		t.Fatalf("weights %v and %d factors, want %v and 3", k.Weights, len(k.Factors), r.Weights)
	}
	for n, u := range k.Factors {
		if !mat.Equal(u, r.Factors[n]) {
			t.Errorf("factor %d has changed", n)
		}
	}
	// Without weights they are 1.
	plain := model.NewStateDict()
	PutKruskal(plain, &cpd.Kruskal{Factors: r.Factors})
	if k, err := Kruskal(plain); err != nil || !slices.Equal(k.Weights, []float64{1, 1}) {
		t.Errorf("weights %v, %v", k.Weights, err)
	}
}

func TestTuckerTensorsSurviveAFile(t *testing.T) {
	x, err := waves(5, 4, 3).Dense()
	if err != nil {
		t.Fatal(err)
	}
	r, err := tucker.HOSVD(context.Background(), x, &tucker.Settings{Modes: []int{0, 2}, Ranks: []int{2, 2}})
	if err != nil {
		t.Fatal(err)
	}
	sd := model.NewStateDict()
	if err := PutTucker(sd, &r.Tucker); err != nil {
		t.Fatal(err)
	}
	d, err := Tucker(throughFile(t, sd))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(d.Core.Data().([]float64), r.Core.Data().([]float64)) || !slices.Equal(d.Ranks(), []int{2, 4, 2}) || d.Factors[1] != nil {
		t.Errorf("ranks %v, factor 1 %v", d.Ranks(), d.Factors[1])
	}
	for _, n := range []int{0, 2} {
		if !mat.Equal(d.Factors[n], r.Factors[n]) {
			t.Errorf("factor %d has changed", n)
		}
	}
}

func TestTuckerTensorsWithACPDSurviveAFile(t *testing.T) {
	x, err := waves(5, 4, 3, 2).Dense()
	if err != nil {
		t.Fatal(err)
	}
	r, err := tkdcpd.Decompose(context.Background(), x, &tkdcpd.Settings{Modes: []int{0, 2}, Ranks: []int{3, 2}, Rank: 4})
	if err != nil {
		t.Fatal(err)
	}
	sd := model.NewStateDict()
	if err := PutTKDCPD(sd, &r.Tensor); err != nil {
		t.Fatal(err)
	}
	d, err := TKDCPD(throughFile(t, sd))
	if err != nil {
		t.Fatal(err)
	}
	for n, u := range r.Core.Factors {
		if !mat.Equal(u, d.Core.Factors[n]) {
			t.Errorf("factor %d of the core has changed", n)
		}
		if f := r.Factors[n]; (f == nil) != (d.Factors[n] == nil) || f != nil && !mat.Equal(f, d.Factors[n]) {
			t.Errorf("factor %d has changed", n)
		}
	}
}

func TestFactorsThatDoNotFitAreErrors(t *testing.T) {
	bad := func(names map[string]*model.Tensor) *model.StateDict {
		sd := model.NewStateDict()
		for name, x := range names {
			sd.Set(name, x)
		}
		return sd
	}
	for name, sd := range map[string]*model.StateDict{
		"nothing":       model.NewStateDict(),
		"a vector":      bad(map[string]*model.Tensor{"factor0": waves(3)}),
		"other columns": bad(map[string]*model.Tensor{"factor0": waves(3, 2), "factor1": waves(3, 1)}),
		"weights":       bad(map[string]*model.Tensor{"factor0": waves(3, 2), "weights": waves(3)}),
		"weight matrix": bad(map[string]*model.Tensor{"factor0": waves(3, 2), "weights": waves(2, 1)}),
	} {
		if _, err := Kruskal(sd); !errors.Is(err, model.ErrFormat) {
			t.Errorf("Kruskal of %s: error %v", name, err)
		}
	}
	for name, sd := range map[string]*model.StateDict{
		"nothing":       model.NewStateDict(),
		"a scalar core": bad(map[string]*model.Tensor{"core": {Data: []float64{1}}}),
		"a vector":      bad(map[string]*model.Tensor{"core": waves(2, 2), "factor0": waves(2)}),
		"other ranks":   bad(map[string]*model.Tensor{"core": waves(2, 2), "factor0": waves(5, 3)}),
	} {
		if _, err := Tucker(sd); !errors.Is(err, model.ErrFormat) {
			t.Errorf("Tucker of %s: error %v", name, err)
		}
	}
	for name, sd := range map[string]*model.StateDict{
		"nothing":    model.NewStateDict(),
		"no core":    bad(map[string]*model.Tensor{"factor0": waves(5, 3)}),
		"a vector":   bad(map[string]*model.Tensor{"core0": waves(2)}),
		"other rank": bad(map[string]*model.Tensor{"core0": waves(2, 3), "core1": waves(4, 2)}),
		"no matrix":  bad(map[string]*model.Tensor{"core0": waves(2, 3), "core1": waves(4, 3), "factor0": waves(2)}),
		"no product": bad(map[string]*model.Tensor{"core0": waves(2, 3), "core1": waves(4, 3), "factor1": waves(6, 3)}),
	} {
		if _, err := TKDCPD(sd); !errors.Is(err, model.ErrFormat) {
			t.Errorf("TKDCPD of %s: error %v", name, err)
		}
	}
	if err := PutTKDCPD(model.NewStateDict(), &tkdcpd.Tensor{}); err == nil {
		t.Error("no error for an empty core")
	}
	if err := PutTucker(model.NewStateDict(), &tucker.Tucker{}); err == nil {
		t.Error("no error for an empty Tucker tensor")
	}
}
