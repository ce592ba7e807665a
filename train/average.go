package train

import (
	"fmt"

	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/parallel"
	"github.com/lowrank-go/lowrank/model"
)

// average is an exponential moving average of a learner's parameters and statistics.
type average struct {
	decay  float64
	params []*graph.Param
	// live are the learner's own values, parameters first; slow is their average.
	live, slow [][]float32
}

func newAverage(decay float64, l Learner) *average {
	if decay == 0 {
		return nil
	}
	a := &average{decay: decay, params: l.Params()}
	for _, p := range a.params {
		a.live = append(a.live, p.Value)
	}
	a.live = append(a.live, l.Statistics()...)
	for _, v := range a.live {
		a.slow = append(a.slow, append([]float32(nil), v...))
	}
	return a
}

// add takes in the values after step t, counted from 1.
func (a *average) add(t, workers int) {
	if a == nil {
		return
	}
	share := float32(1 - min(a.decay, float64(1+t)/float64(10+t)))
	parallel.For(workers, len(a.live), func(i int) {
		slow := a.slow[i]
		for j, v := range a.live[i] {
			slow[j] += share * (v - slow[j])
		}
	})
}

// with calls f while the learner has the average's values.
func (a *average) with(l Learner, f func() error) error {
	if a == nil {
		return f()
	}
	a.swap()
	l.Updated()
	err := f()
	a.swap()
	l.Updated()
	return err
}

func (a *average) swap() {
	for i, live := range a.live {
		for j, slow := range a.slow[i] {
			live[j], a.slow[i][j] = slow, live[j]
		}
	}
}

func (a *average) save(sd *model.StateDict) error {
	if a == nil {
		return nil
	}
	for i, p := range a.params {
		if err := saveValues(sd, "average", p, a.slow[i]); err != nil {
			return err
		}
	}
	for i, s := range a.slow[len(a.params):] {
		sd.Set(fmt.Sprintf("average.statistic.%d", i), &model.Tensor{Shape: []int{len(s)}, Data: append([]float32(nil), s...)})
	}
	return nil
}

func (a *average) load(sd *model.StateDict) error {
	if a == nil {
		return nil
	}
	for i, p := range a.params {
		if err := loadValues(sd, "average", p, a.slow[i]); err != nil {
			return err
		}
	}
	for i, s := range a.slow[len(a.params):] {
		name := fmt.Sprintf("average.statistic.%d", i)
		t, ok := sd.Get(name)
		if !ok || t.Len() != len(s) {
			return fmt.Errorf("%w: no tensor %q of %d values", model.ErrCorrupt, name, len(s))
		}
		v, err := t.Float32s()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		copy(s, v)
	}
	return nil
}
