package synthetic

import (
	"math"
	"testing"
)

// The first outputs of SplitMix64 from seed 0 are e220a8397b1dcdaf,
// 6e789e6aa1b965f4 and 06c45d188009454f (the generator's published test vector);
// the numbers are their upper 53 bits.
func TestUniformIsSplitMix64(t *testing.T) {
	for i, z := range []uint64{0xe220a8397b1dcdaf, 0x6e789e6aa1b965f4, 0x06c45d188009454f} {
		if got, want := Uniform(0, 3)[i], (float64(z>>11)+.5)/(1<<53); got != want {
			t.Errorf("number %d is %v, want %v", i, got, want)
		}
	}
}

func TestNormalHasMeanZeroAndVarianceOne(t *testing.T) {
	const n = 100_001
	v := Normal(7, n)
	var sum, square float64
	for _, x := range v {
		sum += x / n
		square += x * x / n
	}
	if len(v) != n || math.Abs(sum) > .01 || math.Abs(square-1) > .02 {
		t.Errorf("%d numbers, mean %g, mean square %g", len(v), sum, square)
	}
}

func TestTensorHasTheNormsOfItsParts(t *testing.T) {
	clean, noisy := Tensor([3]int{7, 8, 9}, 3, 0, 1), Tensor([3]int{7, 8, 9}, 3, .5, 1)
	for i, v := range clean {
		noisy[i] -= v
	}
	if a, b := norm(clean), norm(noisy); math.Abs(a-1) > 1e-12 || math.Abs(b-.5) > 1e-12 {
		t.Errorf("norms %g and %g, want 1 and 0.5", a, b)
	}
}
