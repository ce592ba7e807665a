package figures

import (
	"bytes"
	"encoding/json"
	"math"
	"testing"
)

type inner struct {
	Loss float64 `json:"loss"`
}

type report struct {
	inner
	Name   string             `json:"name"`
	Errors []float64          `json:"errors"`
	Before *inner             `json:"before,omitempty"`
	None   *inner             `json:"none"`
	Gone   *float64           `json:"gone,omitempty"`
	Zero   float64            `json:"zero,omitempty"`
	List   []inner            `json:"list"`
	Nil    []inner            `json:"nil"`
	Empty  []int              `json:"empty,omitempty"`
	Map    map[string]float64 `json:"map"`
	Any    any                `json:"any"`
	Array  [2]float32
	Skip   float64 `json:"-"`
	hidden float64
	Raw    json.RawMessage `json:"raw"`
	Bytes  []byte          `json:"bytes"`
}

func TestFiguresThatAreNotFiniteAreNullAndTheRestIsAsEver(t *testing.T) {
	make := func(v float64) report {
		return report{inner: inner{v}, Name: `<a> & "b"`, Errors: []float64{1, v, 1e300}, Before: &inner{v}, List: []inner{{2}, {v}},
			Map: map[string]float64{"b": v, "a": 1}, Any: v, Array: [2]float32{float32(v), 1}, Skip: v, hidden: v, Raw: []byte(`{"x":1}`), Bytes: []byte("ab")}
	}
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		var got, want bytes.Buffer
		if err := Encode(&got, make(bad)); err != nil {
			t.Fatal(err)
		}
		// The same report with a figure that is found by its digits.
		enc := json.NewEncoder(&want)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(make(7777)); err != nil {
			t.Fatal(err)
		}
		if w := bytes.ReplaceAll(want.Bytes(), []byte("7777"), []byte("null")); !bytes.Equal(got.Bytes(), w) {
			t.Errorf("%g:\n%s\nwant\n%s", bad, got.Bytes(), w)
		}
	}
	var b bytes.Buffer
	if err := Encode(&b, make(0.5)); err != nil || !json.Valid(b.Bytes()) {
		t.Errorf("%v: %s", err, b.Bytes())
	}
	if err := Encode(&b, func() {}); err == nil {
		t.Error("a function was written")
	}
}
