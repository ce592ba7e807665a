package peft

import (
	"fmt"
	"math"
)

// DecathlonScore is the score of the Visual Decathlon challenge (Rebuffi, Bilen and
// Vedaldi 2017, eq. 3), S = Σ_d 1000·(max(0, E_d^max − E_d)/E_d^max)², with E_d the
// error on task d and E_d^max twice that of the reference, a network fine-tuned to
// the task: the reference itself scores 250 a task, no error at all 1000. Both are
// accuracies between 0 and 1, one a task; a reference without an error has no scale,
// which is an error, as is anything out of range.
func DecathlonScore(accuracy, reference []float64) (float64, error) {
	if len(accuracy) != len(reference) {
		return 0, fmt.Errorf("%w: %d accuracies against %d of the reference", ErrSpec, len(accuracy), len(reference))
	}
	var s float64
	for i, a := range accuracy {
		r := reference[i]
		if !(a >= 0 && a <= 1 && r >= 0 && r < 1) {
			return 0, fmt.Errorf("%w: task %d: accuracy %g against %g; want both from 0 to 1, and the reference below 1", ErrSpec, i, a, r)
		}
		most := 2 * (1 - r)
		s += 1000 * math.Pow(max(0, most-(1-a))/most, 2)
	}
	return s, nil
}
