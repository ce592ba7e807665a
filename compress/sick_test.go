package compress

import (
	"math"
	"strings"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
)

// A layer whose weights are at the ends of float32 is left alone with a reason, or
// factorised as well as any; the layers around it are factorised in either case.
func TestOneSickLayerDoesNotStopTheOthers(t *testing.T) {
	for _, scale := range []float64{1e-36, 1e-38, 1e-40, 1e-42, 1e-44, 1e-45, 1e36} {
		for _, method := range []Method{Auto, Tucker, CP, SVD} {
			well := kernel(t, [4]int{24, 20, 3, 3}, 4, .1, conv.Geometry{})
			w := make([]float32, len(well.Weight))
			for i, v := range well.Weight {
				w[i] = float32(float64(v) * scale)
			}
			sick, err := conv.NewKernel(well.Shape, w, nil, conv.Geometry{})
			if err != nil {
				t.Fatal(err)
			}
			targets := []Target{{Name: "a", Chain: conv.NewDense(well)}, {Name: "sick", Chain: conv.NewDense(sick)}, {Name: "b", Chain: conv.NewDense(well)}}
			r, err := Layers(t.Context(), targets, Options{Method: method, Rank: Rank{Rule: Ratio, Value: .5}, Seed: 1})
			if err != nil {
				t.Fatalf("%s at %g: %v", method, scale, err)
			}
			if r[0].Reason != "" || r[2].Reason != "" || r[0].RelError != r[2].RelError {
				t.Errorf("%s at %g: the others are left alone: %q, %q", method, scale, r[0].Reason, r[2].Reason)
			}
			if s := r[1]; s.Reason == "" && s.RelError > 2*r[0].RelError+1e-3 || math.IsNaN(s.RelError) || s.Reason != "" && s.Chain != targets[1].Chain {
				t.Errorf("%s at %g: error %g, reason %q", method, scale, s.RelError, s.Reason)
			}
			if scale == 1e-42 && r[1].Reason != "" && !strings.Contains(r[1].Reason, "float32") {
				t.Errorf("%s: reason %q", method, r[1].Reason)
			}
		}
	}
}
