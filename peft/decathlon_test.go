package peft

import (
	"math"
	"testing"
)

// Table 1 of Rebuffi, Bilen and Vedaldi 2017; published scores are of unrounded
// accuracies.
func TestDecathlonScoresOfThePaper(t *testing.T) {
	table := []struct {
		name     string
		accuracy []float64
		score    float64
	}{
		{"scratch+", []float64{59.67, 59.59, 76.08, 92.45, 39.63, 96.90, 56.66, 88.74, 96.78, 44.17}, 1826},
		{"feature extractor", []float64{59.67, 23.31, 63.11, 80.33, 45.37, 68.16, 73.69, 58.79, 43.54, 26.80}, 544},
		{"finetune", []float64{59.87, 60.34, 82.12, 92.82, 55.53, 97.53, 81.41, 87.69, 96.55, 51.20}, 2500},
		{"lwf", []float64{59.87, 61.15, 82.23, 92.34, 58.83, 97.57, 83.05, 88.08, 96.10, 50.04}, 2515},
		{"bn adapt", []float64{59.87, 43.05, 78.62, 92.07, 51.60, 95.82, 74.14, 84.83, 94.10, 43.51}, 1363},
		{"res. adapt.", []float64{59.67, 56.68, 81.20, 93.88, 50.85, 97.05, 66.24, 89.62, 96.13, 47.45}, 2118},
		{"decay", []float64{59.67, 61.87, 81.20, 93.88, 57.13, 97.57, 81.67, 89.62, 96.13, 50.12}, 2621},
		{"finetune all", []float64{59.23, 63.73, 81.31, 93.30, 57.02, 97.47, 83.43, 89.82, 96.17, 50.28}, 2643},
		{"dom-pred", []float64{59.18, 63.52, 81.12, 93.29, 54.93, 97.20, 82.29, 89.82, 95.99, 50.10}, 2503},
		{"large", []float64{67.00, 67.69, 84.69, 94.28, 59.41, 97.43, 84.86, 89.92, 96.59, 52.39}, 3131},
	}
	share := func(percent []float64) []float64 {
		v := make([]float64, len(percent))
		for i, p := range percent {
			v[i] = p / 100
		}
		return v
	}
	reference := share(table[2].accuracy)
	for _, row := range table {
		got, err := DecathlonScore(share(row.accuracy), reference)
		if err != nil || math.Abs(got-row.score) > 2.5 {
			t.Errorf("%s: %.1f, published %g (%v)", row.name, got, row.score, err)
		}
	}
	for _, bad := range [][2][]float64{{{0.5}, {0.5, 0.5}}, {{1.5}, {0.5}}, {{0.5}, {1}}, {{math.NaN()}, {0.5}}} {
		if _, err := DecathlonScore(bad[0], bad[1]); err == nil {
			t.Errorf("no error for %v", bad)
		}
	}
}
