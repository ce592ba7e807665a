package compress

import (
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/zoo/letters"
)

// What is measured before the work has the size and the cost of what the work gives.
func TestAnOutlineCostsWhatTheNetworkWill(t *testing.T) {
	net, err := letters.Net()
	if err != nil {
		t.Fatal(err)
	}
	for _, method := range []Method{Auto, CP, SVD, Separable} {
		opt := Options{Method: method, Rank: Rank{Rule: Ratio, Value: .3}, Seed: 1}
		planned, ok, err := Outline(net, opt)
		if err != nil || !ok {
			t.Fatalf("%s: %v, %v", method, ok, err)
		}
		got, _, err := Network(t.Context(), net, opt)
		if err != nil {
			t.Fatal(err)
		}
		if planned.Params() != got.Params() && method != Auto || planned.MACs() > got.MACs()*11/10 || planned.MACs() < got.MACs()*9/10 {
			t.Errorf("%s: planned %d parameters, %d MACs; are %d, %d", method, planned.Params(), planned.MACs(), got.Params(), got.MACs())
		}
	}
	if _, ok, err := Outline(net, Options{Method: Tucker}); ok || err != nil {
		t.Errorf("tucker's ranks are told ahead: %v", err)
	}
}

// The share of the work rises from 0 to 1, and moves while a large layer is fitted.
func TestTheShareOfTheWorkRises(t *testing.T) {
	small, large := kernel(t, [4]int{8, 8, 3, 3}, 2, .1, conv.Geometry{}), kernel(t, [4]int{48, 48, 3, 3}, 4, .1, conv.Geometry{})
	targets := []Target{{Name: "small", Chain: conv.NewDense(small)}, {Name: "large", Chain: conv.NewDense(large)}, {Name: "small too", Chain: conv.NewDense(small)}}
	last, within := -1., 0
	_, err := Layers(t.Context(), targets, Options{Share: func(done float64, name string) {
		if done < last || done > 1 {
			t.Errorf("%g after %g", done, last)
		}
		if name == "large" && done > .2 && done < .9 {
			within++
		}
		last = done
	}})
	if err != nil || last != 1 || within < 5 {
		t.Errorf("ends at %g, %d calls within the large layer, %v", last, within, err)
	}
}
