package train

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/model"
)

// given is a learner whose logits are given and whose gradient is kept.
type given struct {
	logits, gradient []float32
	classes          int
	segments         bool
}

func (l *given) Forward(context.Context, *conv.Map, int) ([]float32, error) { return l.logits, nil }
func (l *given) Backward(_ context.Context, g []float32, _ int) error {
	l.gradient = append([]float32(nil), g...)
	return nil
}
func (l *given) Classes() int                    { return l.classes }
func (l *given) Segments() bool                  { return l.segments }
func (l *given) Statistics() [][]float32         { return nil }
func (l *given) Updated()                        {}
func (l *given) Diverged() string                { return "" }
func (l *given) SetState(*model.StateDict) error { return nil }
func (l *given) State() (*model.StateDict, error) {
	return model.NewStateDict(), nil
}
func (l *given) Params() []*graph.Param {
	return []*graph.Param{{Name: "p", Value: make([]float32, 1), Grad: make([]float32, 1)}}
}

// softmax is log softmax(x/t).
func softmax(x []float64, t float64) []float64 {
	var sum float64
	for _, v := range x {
		sum += math.Exp(v / t)
	}
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = v/t - math.Log(sum)
	}
	return out
}

// The loss and its gradient are the definition's, of images and of pixels: labels move the
// outputs behind the kept ones only, the teacher moves the kept ones only.
func TestKeptOutputsLearnFromTheTeacherAndTheOthersFromLabels(t *testing.T) {
	const kept, fresh, images, temperature, smoothing = 3, 4, 5, 2., .1
	const all = kept + fresh
	for _, segments := range []bool{false, true} {
		for _, share := range []float64{0, .3, 1} {
			// Each image has the same labels, for they come in any order.
			whole := stripes{n: images, classes: fresh, label: func(int) int { return 2 }}
			var data dataset.Set = whole
			labels := []int{2, 2, 2, 2, 2}
			if segments {
				class := func(_, x int) uint8 { return patches{stripes: whole}.at(2, x) }
				data, labels = patches{whole, class}, nil
				for i := range images * 12 * 12 {
					labels = append(labels, int(class(0, i%12)))
				}
			}
			rows, counted := len(labels), 0
			for _, l := range labels {
				if l != dataset.Ignore {
					counted++
				}
			}
			rng := rand.New(rand.NewPCG(6, 6))
			draw := func(n int) []float32 {
				v := make([]float32, n)
				for i := range v {
					v[i] = float32(2 * rng.NormFloat64())
				}
				return v
			}
			l := &given{logits: draw(rows * all), classes: all, segments: segments}
			taught := draw(rows * kept)
			job := &Job{Learner: l, Data: data, Preprocess: preprocess,
				Recipe:  Recipe{Epochs: 1, Batch: images, Smoothing: smoothing, Kept: kept, Teaching: share, Temperature: temperature},
				Teacher: func(context.Context, *conv.Map, int) ([]float32, error) { return taught, nil }}
			epochs, err := job.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			// The loss of one row by the definition.
			row := func(i int, x []float64) float64 {
				var sum float64
				if labels[i] != dataset.Ignore {
					for c, v := range softmax(x[kept:], 1) {
						target := smoothing / fresh
						if c == labels[i] {
							target += 1 - smoothing
						}
						sum -= (1 - share) * target * v / float64(counted)
					}
				}
				want := make([]float64, kept)
				for c := range want {
					want[c] = float64(taught[i*kept+c])
				}
				want, got := softmax(want, temperature), softmax(x[:kept], temperature)
				for c, v := range want {
					sum += share * temperature * temperature * math.Exp(v) * (v - got[c]) / float64(rows)
				}
				return sum
			}
			var loss, right float64
			for i := range rows {
				x := make([]float64, all)
				for c := range x {
					x[c] = float64(l.logits[i*all+c])
				}
				loss += row(i, x)
				if best(l.logits[i*all+kept:(i+1)*all]) == labels[i] {
					right++
				}
				for c := range x {
					const h = 1e-4
					was := x[c]
					x[c] = was + h
					up := row(i, x)
					x[c] = was - h
					down := row(i, x)
					x[c] = was
					if want := (up - down) / (2 * h); math.Abs(float64(l.gradient[i*all+c])-want) > 1e-7 {
						t.Fatalf("segments %v, share %g: row %d: the gradient of output %d is %g, want %g", segments, share, i, c, l.gradient[i*all+c], want)
					}
					if got := l.gradient[i*all+c]; got != 0 && (c < kept && share == 0 || c >= kept && share == 1) {
						t.Fatalf("segments %v, share %g: output %d learns: %g", segments, share, c, got)
					}
				}
			}
			if e := epochs[0]; math.Abs(e.Loss-loss) > 1e-6 || e.Accuracy != right/float64(counted) {
				t.Errorf("segments %v, share %g: loss %g and accuracy %g, want %g and %g", segments, share, e.Loss, e.Accuracy, loss, right/float64(counted))
			}
		}
	}
}

func TestWhatCannotBeKeptIsAnError(t *testing.T) {
	taught := func(n int) func(context.Context, *conv.Map, int) ([]float32, error) {
		return func(context.Context, *conv.Map, int) ([]float32, error) { return make([]float32, n), nil }
	}
	for name, c := range map[string]struct {
		classes, kept, label, taught int
		want                         error
	}{
		"all outputs": {2, 6, 0, 60, ErrRecipe}, "more classes than are left": {5, 2, 0, 20, ErrRecipe},
		"a label behind the last": {4, 2, 4, 20, dataset.ErrFormat}, "a teacher of all outputs": {4, 2, 3, 60, ErrRecipe},
		"what can": {4, 2, 3, 20, nil},
	} {
		data := stripes{n: 10, classes: c.classes, label: func(int) int { return c.label }}
		job := &Job{Learner: newLearner(t, small(t), graph.LearnerOptions{}), Data: data, Preprocess: preprocess, Teacher: taught(c.taught),
			Recipe: Recipe{Epochs: 1, Batch: 10, Kept: c.kept, Teaching: .5}}
		if _, err := job.Run(t.Context()); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}
