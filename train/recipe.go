package train

import (
	"errors"
	"fmt"
	"math"
	"path"
	"slices"

	"github.com/lowrank-go/lowrank/dataset"
)

// ErrRecipe is wrapped by errors about recipes that make no sense.
var ErrRecipe = errors.New("train: bad recipe")

// The optimisers.
const (
	SGD   = "sgd"
	Adam  = "adam"
	AdamW = "adamw"
)

// The schedules of the rate after the warm-up.
const (
	Cosine   = "cosine"   // half a cosine wave down to 0
	Steps    = "steps"    // times Gamma at each of Milestones
	Constant = "constant" // as it is
)

// Recipe says how to train. It is what a checkpoint holds to recognise its own job.
type Recipe struct {
	Epochs int `json:"epochs"`
	// Batch is the number of images of a step; 0 means 128. The last batch of an
	// epoch has what is left.
	Batch int `json:"batch"`
	// Optimiser is SGD, Adam or AdamW; "" means SGD.
	Optimiser string `json:"optimiser"`
	// Rate is the learning rate at its peak; 0 means 0.1 for SGD, 0.001 for the others.
	Rate float64 `json:"rate"`
	// Momentum and Nesterov are of SGD.
	Momentum float64 `json:"momentum"`
	Nesterov bool    `json:"nesterov,omitempty"`
	// Decay is the weight decay, of weights; with DecayAll, of biases and batch norms
	// too.
	Decay    float64 `json:"decay"`
	DecayAll bool    `json:"decay_all,omitempty"`
	// Warmup is the number of epochs, which may be a fraction, in which the rate rises
	// from 0.
	Warmup float64 `json:"warmup"`
	// Schedule is Cosine, Steps or Constant; "" means Cosine.
	Schedule string `json:"schedule"`
	// Milestones are epochs, and Gamma what the rate is multiplied by at each; 0 means
	// 0.1.
	Milestones []float64 `json:"milestones,omitempty"`
	Gamma      float64   `json:"gamma,omitempty"`
	// Smoothing is the share of each label that is spread over all classes.
	Smoothing float64 `json:"smoothing,omitempty"`
	// Mixup, where above 0, mixes each image and its label with another of the batch
	// (Zhang et al. 2018); the shares are from Beta(Mixup, Mixup), one for a batch.
	Mixup float64 `json:"mixup,omitempty"`
	// Clip, where above 0, is the greatest norm of the gradient of all parameters
	// together, as the learner gives it: preconditioned, where it is.
	Clip float64 `json:"clip,omitempty"`
	// EMA, where above 0, is the decay, per step, of an average of the weights and
	// statistics, which is then what is validated and what comes out. Early on it is
	// at most (1+step)/(10+step).
	EMA float64 `json:"ema,omitempty"`
	// Teaching is the share of the loss that is the divergence from the teacher's
	// outputs (Hinton et al. 2015), where there is one, at Temperature; 0 means 4.
	Teaching    float64 `json:"teaching,omitempty"`
	Temperature float64 `json:"temperature,omitempty"`
	// Kept is how many outputs the learner had before, where what it could do then is
	// not to be forgotten while it learns the outputs behind them (Li & Hoiem 2017): the
	// first Kept have no labels, which count from the output after them, and are all
	// that the teacher, which has no others, teaches.
	Kept int `json:"kept,omitempty"`
	// Groups change the rate and the decay of some parameters; of several that match
	// one the last counts.
	Groups  []Group         `json:"groups,omitempty"`
	Augment dataset.Augment `json:"augment"`
	Seed    uint64          `json:"seed"`
}

// Group is settings for the parameters whose name matches a pattern of path.Match.
type Group struct {
	Match string `json:"match"`
	// Rate multiplies the recipe's rate.
	Rate float64 `json:"rate"`
	// Decay is in place of the recipe's.
	Decay float64 `json:"decay"`
}

// withDefaults is r with zeros that mean something else replaced.
func (r Recipe) withDefaults() Recipe {
	if r.Batch == 0 {
		r.Batch = 128
	}
	if r.Optimiser == "" {
		r.Optimiser = SGD
	}
	if r.Rate == 0 {
		r.Rate = 1e-3
		if r.Optimiser == SGD {
			r.Rate = .1
		}
	}
	if r.Schedule == "" {
		r.Schedule = Cosine
	}
	if r.Gamma == 0 {
		r.Gamma = .1
	}
	if r.Temperature == 0 {
		r.Temperature = 4
	}
	return r
}

// Validate reports numbers that make no sense. The error wraps ErrRecipe.
func (r Recipe) Validate() error {
	r = r.withDefaults()
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrRecipe}, args...)...)
	}
	within := func(v, low, high float64) bool { return v >= low && v <= high }
	switch {
	case r.Epochs < 0:
		return fail("%d epochs", r.Epochs)
	case r.Batch < 1:
		return fail("batches of %d images", r.Batch)
	case !slices.Contains([]string{SGD, Adam, AdamW}, r.Optimiser):
		return fail("optimiser %q; want %s, %s or %s", r.Optimiser, SGD, Adam, AdamW)
	case !slices.Contains([]string{Cosine, Steps, Constant}, r.Schedule):
		return fail("schedule %q; want %s, %s or %s", r.Schedule, Cosine, Steps, Constant)
	case !(r.Rate > 0) || math.IsInf(r.Rate, 1):
		return fail("a rate of %g; want a number above 0", r.Rate)
	case !within(r.Momentum, 0, 1) || r.Momentum == 1:
		return fail("a momentum of %g; want 0 or more and below 1", r.Momentum)
	case r.Nesterov && r.Momentum == 0:
		return fail("Nesterov's method without momentum")
	case !within(r.Decay, 0, 10):
		return fail("a weight decay of %g; want 0 to 10", r.Decay)
	case !(r.Warmup >= 0) || r.Epochs > 0 && r.Warmup > float64(r.Epochs):
		return fail("a warm-up of %g epochs of %d", r.Warmup, r.Epochs)
	case !(r.Gamma > 0) || math.IsInf(r.Gamma, 1):
		return fail("a gamma of %g; want a number above 0", r.Gamma)
	case !within(r.Smoothing, 0, 1):
		return fail("a label smoothing of %g; want 0 to 1", r.Smoothing)
	case !within(r.Mixup, 0, 100):
		return fail("a mixup of %g; want 0 to 100", r.Mixup)
	case !(r.Clip >= 0):
		return fail("a gradient norm of at most %g", r.Clip)
	case !within(r.EMA, 0, 1) || r.EMA == 1:
		return fail("an averaging decay of %g; want 0 or more and below 1", r.EMA)
	case !within(r.Teaching, 0, 1):
		return fail("a share of %g for the teacher; want 0 to 1", r.Teaching)
	case r.Kept < 0:
		return fail("%d outputs are kept; want 0 or more", r.Kept)
	case !(r.Temperature > 0) || math.IsInf(r.Temperature, 1):
		return fail("a temperature of %g; want a number above 0", r.Temperature)
	}
	if err := r.Augment.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrRecipe, err)
	}
	for _, m := range r.Milestones {
		if !(m >= 0) {
			return fail("a milestone at epoch %g", m)
		}
	}
	for _, g := range r.Groups {
		if _, err := path.Match(g.Match, ""); err != nil {
			return fail("pattern %q: %v", g.Match, err)
		}
		if !(g.Rate >= 0) || !within(g.Decay, 0, 10) {
			return fail("group %q with a rate of %g and a decay of %g", g.Match, g.Rate, g.Decay)
		}
	}
	return nil
}

// rate is the learning rate of a step, counted from 0, of an epoch that has steps.
func (r *Recipe) rate(step, steps int) float64 {
	at := float64(step) / float64(steps) // in epochs
	// The step that ends the warm-up is the first at the full rate.
	if warm := r.Warmup * float64(steps); float64(step)+1 < warm {
		return r.Rate * float64(step+1) / warm
	}
	switch r.Schedule {
	case Steps:
		rate := r.Rate
		for _, m := range r.Milestones {
			if at >= m {
				rate *= r.Gamma
			}
		}
		return rate
	case Cosine:
		left := float64(r.Epochs) - r.Warmup
		if left <= 0 {
			return r.Rate
		}
		return r.Rate * (1 + math.Cos(math.Pi*min(max(at-r.Warmup, 0)/left, 1))) / 2
	}
	return r.Rate
}
