package dataset

import (
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"
)

// vector is x for gonum, whose assembly the race detector does not slow down.
func vector(x []float32) blas32.Vector { return blas32.Vector{N: len(x), Data: x, Inc: 1} }

// inputs loads a set.
func inputs(t *testing.T, s Set) (x [][]float32, labels []int) {
	t.Helper()
	for b, err := range Batches(t.Context(), s, Glyphs, 100, 0) {
		if err != nil {
			t.Fatal(err)
		}
		size := len(b.X) / len(b.Labels)
		for i, label := range b.Labels {
			x, labels = append(x, b.X[i*size:][:size]), append(labels, label)
		}
	}
	return x, labels
}

// linear is a score for every class, weights·x + bias.
type linear struct {
	weights [][]float32
	bias    []float32
}

func newLinear(classes, size int) *linear {
	m := &linear{make([][]float32, classes), make([]float32, classes)}
	for c := range m.weights {
		m.weights[c] = make([]float32, size)
	}
	return m
}

func (m *linear) scores(x []float32) []float64 {
	out := make([]float64, len(m.bias))
	for c, w := range m.weights {
		out[c] = float64(m.bias[c] + blas32.Dot(vector(w), vector(x)))
	}
	return out
}

// accuracy is the share of images whose class has the best score.
func (m *linear) accuracy(x [][]float32, labels []int) float64 {
	right := 0
	for i := range x {
		best, scores := 0, m.scores(x[i])
		for c, s := range scores {
			if s > scores[best] {
				best = c
			}
		}
		if best == labels[i] {
			right++
		}
	}
	return float64(right) / float64(len(x))
}

// softmax fits m by stochastic gradient descent on the cross-entropy.
func (m *linear) softmax(x [][]float32, labels []int, epochs int, rate float64) {
	r := rand.New(rand.NewPCG(1, 2))
	for range epochs {
		for _, i := range r.Perm(len(x)) {
			p := m.scores(x[i])
			top, sum := math.Inf(-1), 0.
			for _, s := range p {
				top = max(top, s)
			}
			for c, s := range p {
				p[c] = math.Exp(s - top)
				sum += p[c]
			}
			for c, w := range m.weights {
				g := p[c] / sum
				if c == labels[i] {
					g--
				}
				step := float32(rate * g)
				blas32.Axpy(-step, vector(x[i]), vector(w))
				m.bias[c] -= step
			}
		}
	}
}

// centroids makes m choose the class whose mean image is nearest.
func (m *linear) centroids(x [][]float32, labels []int) {
	count := make([]float32, len(m.bias))
	for i, label := range labels {
		count[label]++
		blas32.Axpy(1, vector(x[i]), vector(m.weights[label]))
	}
	for c, w := range m.weights {
		// ‖x − w‖² is least where w·x − ‖w‖²/2 is greatest.
		blas32.Scal(1/count[c], vector(w))
		m.bias[c] = -blas32.Dot(vector(w), vector(w)) / 2
	}
}

func TestLinearModelsCannotTellLetters(t *testing.T) {
	if testing.Short() {
		t.Skip("some seconds of training")
	}
	x, labels := inputs(t, openGlyphTask(t, "letters", Options{Split: Train, Limit: 1000}))
	y, truth := inputs(t, openGlyphTask(t, "letters", Options{Limit: 500}))
	soft := newLinear(26, len(x[0]))
	soft.softmax(x, labels, 5, 3e-4)
	near := newLinear(26, len(x[0]))
	near.centroids(x, labels)
	t.Logf("softmax: %.3f of what it has seen, %.3f of other images; nearest mean: %.3f, %.3f",
		soft.accuracy(x, labels), soft.accuracy(y, truth), near.accuracy(x, labels), near.accuracy(y, truth))
	if soft.accuracy(x, labels) < 0.3 {
		t.Error("softmax has not learned what it has seen")
	}
	for name, m := range map[string]*linear{"softmax": soft, "nearest mean": near} {
		if a := m.accuracy(y, truth); a > 0.2 {
			t.Errorf("%s tells %.1f %% of the letters", name, 100*a)
		}
	}
}
