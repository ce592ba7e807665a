package cpd_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/cpd"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/model/factors"
)

// From a .npy file to factors in a .npz file.
func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "data.npy")
	if err := writeExample(path); err != nil {
		fmt.Println(err)
		return
	}

	file, err := model.ReadFile(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	array, _ := file.Get(file.Names()[0]) // the only one of a .npy file
	x, err := array.Dense()
	if err != nil {
		fmt.Println(err)
		return
	}
	r, err := cpd.ALS(context.Background(), x, 2, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%v, weights %.1f, error below 1e-9: %v\n", x.Shape(), r.Weights, r.RelError < 1e-9)

	out := model.NewStateDict()
	factors.PutKruskal(out, &r.Kruskal)
	if err := model.WriteNPZ(filepath.Join(dir, "factors.npz"), out); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(out.Names())
	// Output:
	// (3, 3, 2), weights [6.0 5.0], error below 1e-9: true
	// [weights factor0 factor1 factor2]
}

// writeExample writes a tensor of rank 2.
func writeExample(path string) error {
	x, err := planes().Reconstruct()
	if err != nil {
		return err
	}
	return model.WriteNPY(path, &model.Tensor{Shape: x.Shape(), Data: x.Data()})
}

// Ratings of films by people in seasons, few of which are known: what a person who
// has seen little would think of the rest.
func ExampleALSSparse() {
	people, films, seasons := []float64{1, 2, 3, 4}, []float64{1, 3, 2}, []float64{1, 2}
	x := &cpd.Sparse{Shape: []int{4, 3, 2}, Unknown: true}
	for i, p := range people {
		for j, f := range films {
			for k, s := range seasons {
				if (i+2*j+k)%3 != 0 { // seen
					x.Index = append(x.Index, i, j, k)
					x.Values = append(x.Values, p*f*s)
				}
			}
		}
	}
	r, err := cpd.ALSSparse(context.Background(), x, 1, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	all, err := r.Reconstruct()
	if err != nil {
		fmt.Println(err)
		return
	}
	v, err := all.At(3, 0, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%d of 24 known; (3,0,0) is %.3f\n", len(x.Values), v)
	// Output: 16 of 24 known; (3,0,0) is 4.000
}

// planes is a 3×3×2 tensor of two components, of weights 6 and 5, made of unit
// vectors.
func planes() *cpd.Kruskal {
	return &cpd.Kruskal{
		Weights: []float64{6, 5},
		Factors: []*mat.Dense{
			mat.NewDense(3, 2, []float64{1, 0, 0, 0.6, 0, 0.8}),
			mat.NewDense(3, 2, []float64{0, 1, 0.8, 0, 0.6, 0}),
			mat.NewDense(2, 2, []float64{1, 0, 0, 1}),
		},
	}
}

// Two components whose columns all but coincide in every mode: ALS takes tiny
// steps along the valley between them, LM goes straight.
func ExampleLM() {
	u := mat.NewDense(4, 2, []float64{
		1, 1,
		1, 1.2,
		1, 0.8,
		1, 1.4,
	})
	x, err := (&cpd.Kruskal{Factors: []*mat.Dense{u, u, u}}).Reconstruct()
	if err != nil {
		fmt.Println(err)
		return
	}
	set := &cpd.Settings{MaxSweeps: 100}
	als, err := cpd.ALS(context.Background(), x, 2, set)
	if err != nil {
		fmt.Println(err)
		return
	}
	lm, err := cpd.LM(context.Background(), x, 2, set)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("ALS is exact:", als.RelError < 1e-9)
	fmt.Println("LM is exact:", lm.RelError < 1e-9)
	// Output:
	// ALS is exact: false
	// LM is exact: true
}

func ExampleALS() {
	truth := planes()
	x, err := truth.Reconstruct()
	if err != nil {
		fmt.Println(err)
		return
	}
	r, err := cpd.ALS(context.Background(), x, 2, &cpd.Settings{Seed: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("weights %.3f\n", r.Weights)
	fmt.Println("exact", r.RelError < 1e-10)
	score, err := cpd.Score(truth, &r.Kruskal)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("score %.3f\n", score)
	// Output:
	// weights [6.000 5.000]
	// exact true
	// score 1.000
}

// Several random starts, each with its own progress.
func ExampleSettings() {
	v := make([]float64, 4*4*4) // the matrix product of 2×2 matrices, rank 7
	for i := range 8 {
		a, b, c := i>>2, i>>1&1, i&1
		v[(a*2+b)*16+(b*2+c)*4+c*2+a] = 1
	}
	x := tensor.New(tensor.WithShape(4, 4, 4), tensor.WithBacking(v))
	starts := 0
	r, err := cpd.ALS(context.Background(), x, 6, &cpd.Settings{
		Init:      cpd.InitRandom,
		Starts:    10,
		MaxSweeps: 1000,
		Progress:  func(start, _ int, _ float64) { starts = start + 1 },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%d starts, best error at rank 6: %.3f\n", starts, r.RelError)
	// Output: 10 starts, best error at rank 6: 0.354
}

// Before factors are rounded, perturbed or trained, their scale should be spread
// where it does least harm.
func ExampleKruskal_Balanced() {
	k := planes()
	fmt.Printf("as given %.1f\n", k.Sensitivity())
	fmt.Printf("balanced %.1f\n", k.Balanced().Sensitivity())
	fmt.Printf("least    %.1f\n", k.LeastSensitivity())
	// Output:
	// as given 311.0
	// balanced 152.9
	// least    152.9
}
