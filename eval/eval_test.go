package eval

import (
	"math"
	"testing"
)

func TestJudgeCountsClassesThatComeFirst(t *testing.T) {
	l := []float32{1, 3, 3, 0}
	for label, want := range []int{2, 0, 1, 3} {
		rank, nll, err := judge(l, label)
		if err != nil || rank != want {
			t.Errorf("class %d has rank %d (%v), want %d", label, rank, err, want)
		}
		p := math.Exp(float64(l[label])) / (math.E + 2*math.Exp(3) + 1)
		if math.Abs(nll+math.Log(p)) > 1e-12 {
			t.Errorf("class %d has loss %g, want %g", label, nll, -math.Log(p))
		}
	}
	if _, _, err := judge([]float32{1, float32(math.NaN())}, 0); err == nil {
		t.Error("NaN logits gave no error")
	}
	if _, _, err := judge(l, 4); err == nil {
		t.Error("a label out of range gave no error")
	}
}
