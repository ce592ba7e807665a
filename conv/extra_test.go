package conv

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestOutputSizeIsTheNumberOfPlacesWhereTheKernelFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := drawKernel(t, rand.New(rand.NewPCG(1, 1)))
		size := [2]int{rapid.IntRange(1, 12).Draw(t, "h"), rapid.IntRange(1, 12).Draw(t, "w")}
		var want [2]int
		for a, n := range size {
			last := n - 1 + k.Padding[a] + k.Extra[a]
			for at := -k.Padding[a]; at+k.Dilation[a]*(k.Shape[2+a]-1) <= last; at += k.Stride[a] {
				want[a]++
			}
		}
		if h, w := k.OutputSize(size[0], size[1]); h != want[0] || w != want[1] {
			t.Fatalf("%d×%d, want %v", h, w, want)
		}
	})
}

// TensorFlow's and ONNX's paddings of an odd total.
func TestUpperPaddingOfAnEvenKernelKeepsTheSize(t *testing.T) {
	k, err := NewKernel([4]int{1, 1, 2, 1}, []float32{1, 10}, nil, Geometry{Extra: [2]int{1, 0}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewLayer(k)
	if err != nil {
		t.Fatal(err)
	}
	y, err := l.Forward(nil, &Map{N: 1, H: 3, W: 1, C: 1, Data: []float32{1, 2, 3}}, Epilogue{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	closeTo(t, y, &Map{N: 1, H: 3, W: 1, C: 1, Data: []float32{21, 32, 3}}, 2)
}

func TestGeometriesThatAreNegativeOrWithoutEndAreErrors(t *testing.T) {
	for _, g := range []Geometry{
		{Padding: [2]int{1, 1}, Extra: [2]int{-1, -2}},
		{Padding: [2]int{0, math.MaxInt}}, {Stride: [2]int{math.MaxInt, 1}}, {Dilation: [2]int{1, math.MaxInt}}, {Extra: [2]int{math.MaxInt, 1}}, {Extra: [2]int{math.MinInt, 1}},
	} {
		k := &Kernel{Shape: [4]int{1, 1, 1, 1}, Weight: []float32{1}, Geometry: g}
		if err := k.Validate(); !errors.Is(err, ErrShape) {
			t.Errorf("%+v: Validate gives %v", g, err)
		}
	}
}

func TestGeometryInJSONSaysNothingOfExtraPaddingThatIsNotThere(t *testing.T) {
	plain, err := json.Marshal(Geometry{}.Normal())
	if err != nil || strings.Contains(string(plain), "extra") {
		t.Errorf("%s (%v)", plain, err)
	}
	want := Geometry{Padding: [2]int{1, 0}, Extra: [2]int{0, 1}}.Normal()
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Geometry
	if err := json.Unmarshal(text, &got); err != nil || got != want {
		t.Errorf("%s came back as %+v (%v)", text, got, err)
	}
}
