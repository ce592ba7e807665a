package peft

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/gonum/mat"

	"github.com/lowrank-go/lowrank/model"
)

// Base is the network that an adapter of another program is for.
type Base struct {
	Sites []Site
	// State are its tensors; nil where they are not at hand. Some files say a change only
	// by them: what adds to a bias or a norm, a start that was taken out of the kernel.
	State *model.StateDict
}

// short is a name out of a file, for messages.
func short(s string) string {
	const most = 80
	if len(s) > most {
		return fmt.Sprintf("%.*q…", most, s)
	}
	return fmt.Sprintf("%q", s)
}

// tensor is one of the base's, of the shape of another, as float32.
func (b Base) tensor(name string, like *model.Tensor, what string) ([]float32, *model.Tensor, error) {
	if b.State == nil {
		return nil, nil, fmt.Errorf("%w: %s changes %s, whose values are the base's and not in the file", ErrLossy, what, short(name))
	}
	t, ok := b.State.Get(name)
	if !ok {
		return nil, nil, fmt.Errorf("%w: %s, and the base has no %s", ErrFile, what, short(name))
	}
	if like != nil && t.Len() != like.Len() {
		return nil, nil, fmt.Errorf("%w: %s has shape %v, the base's %s %v", ErrFile, what, like.Shape, short(name), t.Shape)
	}
	v, err := t.Float32s()
	return v, t, err
}

// addTo puts into extra the base's tensor called name plus scale times t. Zeros change
// nothing, and need no base.
func (b Base) addTo(extra *model.StateDict, name string, t *model.Tensor, scale float64, what string) error {
	add, err := t.Float32s()
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrFile, what, err)
	}
	if !slices.ContainsFunc(add, func(x float32) bool { return x != 0 }) {
		return nil
	}
	was, like, err := b.tensor(name, t, what)
	if err != nil {
		return err
	}
	sum := slices.Clone(was)
	for i, x := range add {
		sum[i] += float32(scale * float64(x))
	}
	extra.Set(name, &model.Tensor{Shape: slices.Clone(like.Shape), Data: sum})
	return nil
}

// addBias is addTo for the bias of a site.
func (b Base) addBias(extra *model.StateDict, s *Site, t *model.Tensor, scale float64, what string) error {
	return b.addTo(extra, s.Name+".bias", t, scale, what)
}

// start computes what was taken out of a base's kernel of o×i when factors of a rank,
// whose product has a scale, began: a product of an o×r and an r×i matrix.
type start func(w *mat.Dense, rank int, scale float64) (b, a *mat.Dense, ok bool)

// pissa is the best approximation of the rank, the truncated singular value decomposition
// (Meng et al., PiSSA, 2024). PEFT divides its factors by the scale, which cancels.
func pissa(w *mat.Dense, rank int, _ float64) (b, a *mat.Dense, ok bool) {
	var svd mat.SVD
	if !svd.Factorize(w, mat.SVDThin) {
		return nil, nil, false
	}
	var u, v mat.Dense
	svd.UTo(&u)
	svd.VTo(&v)
	values := svd.Values(nil)
	if rank > len(values) {
		return nil, nil, false
	}
	o, i := w.Dims()
	b = mat.DenseCopyOf(u.Slice(0, o, 0, rank))
	for k := range rank {
		for r := range o {
			b.Set(r, k, b.At(r, k)*values[k])
		}
	}
	return b, mat.DenseCopyOf(v.Slice(0, i, 0, rank).T()), true
}

// olora is the projection on the first columns, times the scale (Büyükakyüz, OLoRA, 2024):
// PEFT begins with the first columns of Q and rows of R of W = Q·R.
func olora(w *mat.Dense, rank int, scale float64) (b, a *mat.Dense, ok bool) {
	o, i := w.Dims()
	k := min(o, i)
	if rank > k {
		return nil, nil, false
	}
	var qr mat.QR
	qr.Factorize(w.Slice(0, o, 0, k))
	var q mat.Dense
	qr.QTo(&q)
	b = mat.DenseCopyOf(q.Slice(0, o, 0, rank))
	a = mat.NewDense(rank, i, nil)
	a.Mul(b.T(), w)
	a.Scale(scale, a)
	return b, a, true
}

// lessStart is the change d, a LoRA, less the start that PEFT took out of the base.
func (b Base) lessStart(s *Site, d *Delta, of start) (*Delta, error) {
	if !s.Linear {
		return nil, fmt.Errorf("%w: %s: init_lora_weights by a decomposition, which PEFT has of linear layers only", ErrFile, s.Name)
	}
	if b.State == nil {
		return nil, fmt.Errorf("%w: %s was started by a decomposition of the base's kernel, which is not at hand", ErrLossy, s.Name)
	}
	if d.spec.Kind != LoRA {
		return nil, fmt.Errorf("%w: %s: a start of %s", ErrFile, s.Name, d.spec.Kind)
	}
	kernel, err := kernelIn(b.State, s.Name, s.Shape)
	if err != nil {
		return nil, err
	}
	o, i, r := s.Shape[0], s.Shape[1], d.spec.Rank[0]
	w := mat.NewDense(o, i, nil)
	for k, v := range kernel {
		w.Set(k/i, k%i, float64(v))
	}
	b0, a0, ok := of(w, r, d.Lambda())
	if !ok {
		return nil, fmt.Errorf("%w: %s: no start of rank %d of a kernel of %d×%d", ErrFile, s.Name, r, o, i)
	}
	return d.less(b0, a0)
}

// less is a LoRA of a linear layer less the product b·a, which has its rank: the LoRA of
// twice that with the factors [B −b/λ] and [A; a].
func (c *Change[T]) less(b, a *mat.Dense) (*Change[T], error) {
	spec := c.spec
	o, i, r := spec.Shape[0], spec.Shape[1], spec.Rank[0]
	spec.Rank = []int{2 * r}
	out, err := NewChange[T](spec)
	if err != nil {
		return nil, err
	}
	up, down := out.Factor("up").Value, out.Factor("down").Value
	wasUp, wasDown := c.Factor("up").Value, c.Factor("down").Value
	for row := range o {
		copy(up[row*2*r:], wasUp[row*r:(row+1)*r])
		for k := range r {
			up[row*2*r+r+k] = T(-b.At(row, k) / float64(c.Lambda()))
		}
	}
	copy(down, wasDown)
	for k := range r {
		for col := range i {
			down[(r+k)*i+col] = T(a.At(k, col))
		}
	}
	if c.magnitude != nil {
		copy(out.magnitude.Value, c.magnitude.Value)
	}
	return out, nil
}

// inputNorms is the change d with DoRA's norms of the inputs, as LyCORIS before 3.2 had
// them: W = m/n·(W₀ + ΔW), by the input channel, of norm n. It is a whole change, since no
// kind has such norms.
func (b Base) inputNorms(s *Site, d *Delta, m *model.Tensor) (*Delta, error) {
	if b.State == nil {
		return nil, fmt.Errorf("%w: %s has norms of its inputs, which want the base's kernel", ErrLossy, s.Name)
	}
	w, err := kernelIn(b.State, s.Name, s.Shape)
	if err != nil {
		return nil, err
	}
	norms, err := m.Float32s()
	if err != nil {
		return nil, fmt.Errorf("%w: %s: dora_scale: %w", ErrFile, s.Name, err)
	}
	sum := slices.Clone(w)
	d.Materialise(sum, w)
	inputs, taps := s.Shape[1], s.Shape[2]*s.Shape[3]
	squares := make([]float64, inputs)
	for k, v := range sum {
		squares[k/taps%inputs] += float64(v) * float64(v)
	}
	out, err := New(Spec{Kind: Full, Shape: s.Shape, Geometry: s.Geometry})
	if err != nil {
		return nil, err
	}
	diff := out.Factor("diff").Value
	for k, v := range sum {
		n := math.Sqrt(squares[k/taps%inputs])
		if n == 0 {
			return nil, fmt.Errorf("%w: %s: input %d has no norm to scale", ErrFile, s.Name, k/taps%inputs)
		}
		diff[k] = float32(float64(norms[k/taps%inputs])/n*float64(v)) - w[k]
	}
	return out, nil
}

// algorithms are LyCORIS's by the beginnings of the names of their tensors.
var algorithms = []struct{ begins, name string }{
	{"oft_", "OFT or BOFT"}, {"rescale", "OFT or BOFT"}, {"a1.", "GLoRA"}, {"a2.", "GLoRA"}, {"b1.", "GLoRA"}, {"b2.", "GLoRA"}, {"bm", "GLoRA"},
	{"on_input", "IA³"}, {"up_list", "DyLoRA"}, {"down_list", "DyLoRA"}, {"q_layer", "T-LoRA"}, {"p_layer", "T-LoRA"}, {"lambda_layer", "T-LoRA"},
	{"lora_A.", "LoRA of another program's names"}, {"scalar", "a change with a learned scale"},
}

// Algorithm names the algorithm of LyCORIS that a tensor's name, behind its module's, is
// of, where that is one that is not read; "" for all others.
func Algorithm(param string) string {
	for _, a := range algorithms {
		if strings.HasPrefix(param, a.begins) {
			return a.name
		}
	}
	return ""
}
