package train

import (
	"fmt"
	"math"
	"path"

	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/nn"
	"github.com/lowrank-go/lowrank/internal/parallel"
	"github.com/lowrank-go/lowrank/model"
)

// optimiser is the recipe's, with what it remembers of each parameter.
type optimiser struct {
	recipe *Recipe
	params []*graph.Param
	// memory has a slice for each parameter: the velocity; or the averages of the
	// gradient and of its square.
	memory      [2][][]float32
	rate, decay []float64 // factors of the rate, and decays
}

// memoryNames are what files call them.
var memoryNames = [2]string{"first", "second"}

func newOptimiser(r *Recipe, params []*graph.Param) *optimiser {
	o := &optimiser{recipe: r, params: params}
	kinds := 2
	if r.Optimiser == SGD {
		kinds = 1
	}
	for i := range kinds {
		for _, p := range params {
			o.memory[i] = append(o.memory[i], make([]float32, len(p.Value)))
		}
	}
	for _, p := range params {
		rate, decay := 1., r.Decay
		if p.Kind != graph.Weight && !r.DecayAll {
			decay = 0
		}
		for _, g := range r.Groups {
			if ok, _ := path.Match(g.Match, p.Name); ok { // patterns were checked
				rate, decay = g.Rate, g.Decay
			}
		}
		o.rate, o.decay = append(o.rate, rate), append(o.decay, decay)
	}
	return o
}

// step changes the parameters; t counts steps from 1.
func (o *optimiser) step(t int, rate float64, workers int) {
	r := o.recipe
	for i, p := range o.params {
		if r.Optimiser == SGD {
			s := nn.SGD{Rate: rate * o.rate[i], Momentum: r.Momentum, Decay: o.decay[i], Nesterov: r.Nesterov}
			s.Step(p.Value, o.memory[0][i], p.Grad, workers)
			continue
		}
		a := nn.Adam{Rate: rate * o.rate[i], Beta1: .9, Beta2: .999, Eps: 1e-8, Decay: o.decay[i], Decoupled: r.Optimiser == AdamW}
		a.Step(t, p.Value, o.memory[0][i], o.memory[1][i], p.Grad, workers)
	}
}

// gradientNorm is the norm of all gradients together. How it adds up depends on
// nothing but sizes.
func gradientNorm(params []*graph.Param, workers int) float64 {
	const size = 1 << 14
	type piece struct{ param, from int }
	var pieces []piece
	for i, p := range params {
		for from := 0; from < len(p.Grad); from += size {
			pieces = append(pieces, piece{i, from})
		}
	}
	sums := make([]float64, len(pieces))
	parallel.For(workers, len(pieces), func(i int) {
		g := params[pieces[i].param].Grad[pieces[i].from:]
		var s float64
		for _, v := range g[:min(size, len(g))] {
			s += float64(v) * float64(v)
		}
		sums[i] = s
	})
	var total float64
	for _, s := range sums {
		total += s
	}
	return math.Sqrt(total)
}

// clip scales the gradients down so that their norm is at most the recipe's.
func (o *optimiser) clip(workers int) {
	if o.recipe.Clip == 0 {
		return
	}
	norm := gradientNorm(o.params, workers)
	if !(norm > o.recipe.Clip) {
		return
	}
	scale := float32(o.recipe.Clip / norm)
	parallel.For(workers, len(o.params), func(i int) {
		for j := range o.params[i].Grad {
			o.params[i].Grad[j] *= scale
		}
	})
}

// save puts what is remembered into sd, under the parameters' names.
func (o *optimiser) save(sd *model.StateDict) error {
	for kind, memory := range o.memory {
		for i, m := range memory {
			if err := saveValues(sd, "optimiser."+memoryNames[kind], o.params[i], m); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *optimiser) load(sd *model.StateDict) error {
	for kind, memory := range o.memory {
		for i, m := range memory {
			if err := loadValues(sd, "optimiser."+memoryNames[kind], o.params[i], m); err != nil {
				return err
			}
		}
	}
	return nil
}

// saveValues puts values of a parameter into sd.
func saveValues(sd *model.StateDict, prefix string, p *graph.Param, values []float32) error {
	v, err := p.Export(values)
	if err != nil {
		return err
	}
	sd.Set(prefix+"."+p.Name, &model.Tensor{Shape: []int{len(v)}, Data: v})
	return nil
}

func loadValues(sd *model.StateDict, prefix string, p *graph.Param, dst []float32) error {
	name := prefix + "." + p.Name
	t, ok := sd.Get(name)
	if !ok {
		return fmt.Errorf("%w: no tensor %q", model.ErrCorrupt, name)
	}
	v, err := t.Float32s()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return p.Import(dst, v)
}
