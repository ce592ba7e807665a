package peft

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/model"
)

// Site is a convolution, or a linear layer as a 1×1 one, that may be changed.
type Site struct {
	// Name is that of its module in the state dict, "layer1.0.conv1".
	Name string
	// Shape is the kernel's, O×C/g×kh×kw.
	Shape [4]int
	conv.Geometry
	// Linear layers have weights of two dimensions in files.
	Linear bool
}

// Module is the change of one site.
type Module struct {
	Name   string
	Linear bool
	*Delta
}

// NormPolicy says what an adapter does with batch norms; it is part of the method,
// since it moves accuracy as much as the kind of change does.
type NormPolicy string

// The policies.
const (
	// NormFrozen runs the base's running statistics and affine parameters.
	NormFrozen NormPolicy = "frozen-eval"
	// NormStats takes the new task's statistics only (AdaBN).
	NormStats NormPolicy = "stats-only"
	// NormAffine trains scale and shift on the base's statistics.
	NormAffine NormPolicy = "affine"
	// NormAffineStats trains scale and shift, and takes the new statistics.
	NormAffineStats NormPolicy = "affine+stats"
)

// Adapter is all that a task changes in a network: kernels, the policy of its batch
// norms, and tensors that stand in place of the base's.
type Adapter struct {
	// Name is the task's; it may be empty where a file has one adapter.
	Name    string
	Norm    NormPolicy
	Modules []Module
	// Extra are the head, norm parameters, running statistics and biases, by their
	// names in the base's state dict; nil for none.
	Extra *model.StateDict
	// Added describes, as JSON in the way of the package that knows the network, what
	// those of Extra's tensors are parts of that the base has no place for; nil for none.
	Added json.RawMessage
}

// exchangeable reports an adapter with what no other program's file describes.
func (a *Adapter) exchangeable() error {
	if len(a.Added) > 0 {
		return fmt.Errorf("%w: the adapter adds layers to the network, which the format cannot describe", ErrLossy)
	}
	return a.Validate()
}

// Validate reports modules that come twice or have no change, and an unknown policy.
func (a *Adapter) Validate() error {
	switch a.Norm {
	case "", NormFrozen, NormStats, NormAffine, NormAffineStats:
	default:
		return fmt.Errorf("%w: adapter %q: batch-norm policy %q; want %s, %s, %s or %s", ErrFile, a.Name, a.Norm, NormFrozen, NormStats, NormAffine, NormAffineStats)
	}
	seen := map[string]bool{}
	for _, m := range a.Modules {
		if m.Delta == nil || m.Name == "" || seen[m.Name] {
			return fmt.Errorf("%w: adapter %q: module %q comes twice, or without a name or a change", ErrFile, a.Name, m.Name)
		}
		seen[m.Name] = true
	}
	return nil
}

// Params is the number of learned values of all changes; Extra does not count.
func (a *Adapter) Params() int {
	n := 0
	for _, m := range a.Modules {
		n += m.Params()
	}
	return n
}

// extras is Extra, never nil.
func (a *Adapter) extras() *model.StateDict {
	if a.Extra == nil {
		return model.NewStateDict()
	}
	return a.Extra
}

// Hash is the SHA-256, in hexadecimal, of the tensors called names: for each, in
// sorted order, its name, element type, shape and elements, little-endian. A name that
// sd lacks is an error that wraps ErrBase.
func Hash(sd *model.StateDict, names []string) (string, error) {
	h := sha256.New()
	sorted := slices.Compact(slices.Sorted(slices.Values(names)))
	for _, name := range sorted {
		t, ok := sd.Get(name)
		if !ok {
			return "", fmt.Errorf("%w: it has no tensor %q", ErrBase, name)
		}
		fmt.Fprintf(h, "%q %s %v\n", name, t.DType(), t.Shape)
		if err := binary.Write(h, binary.LittleEndian, t.Data); err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// kernel is the base's kernel that a module changes.
func (m *Module) kernel(sd *model.StateDict) ([]float32, error) {
	return kernelIn(sd, m.Name, m.spec.Shape)
}

// kernelIn is the kernel of a module in a state dict, of the given shape but for ones
// at the end.
func kernelIn(sd *model.StateDict, module string, shape [4]int) ([]float32, error) {
	name := module + ".weight"
	t, ok := sd.Get(name)
	if !ok {
		return nil, fmt.Errorf("%w: it has no tensor %q, which the adapter changes", ErrBase, name)
	}
	if !slices.Equal(trim(t.Shape), trim(shape[:])) {
		return nil, fmt.Errorf("%w: %q has shape %v, the adapter changes one of %v", ErrBase, name, t.Shape, shape)
	}
	v, err := t.Float32s()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return v, nil
}

// trim is a shape without its last ones: a linear layer's is a 1×1 kernel's.
func trim(shape []int) []int {
	for len(shape) > 0 && shape[len(shape)-1] == 1 {
		shape = shape[:len(shape)-1]
	}
	return shape
}

// Add is a copy of the base with the adapters in it, Σᵢ weights[i]·ΔWᵢ added to
// every kernel and Extra's tensors in place of the base's. It works on tensors alone and
// leaves the network's description as it is: adapt.Merge extends that too. The base keeps every bit,
// so that to unmerge is to drop the result; changes that are zero, and tensors that
// nothing changes, keep theirs. With DoRA each adapter's norms are those with the
// base alone. Tensors that stand in place of others cannot be mixed: two adapters
// that both have one, or one with a weight other than 1, are an error. So are shapes
// and names that do not fit the base, which wrap ErrBase.
func Add(base *model.StateDict, weights []float64, adapters ...*Adapter) (*model.StateDict, error) {
	if len(weights) != len(adapters) {
		return nil, fmt.Errorf("%w: %d weights for %d adapters", ErrSpec, len(weights), len(adapters))
	}
	out := model.NewStateDict()
	for _, name := range base.Names() {
		t, _ := base.Get(name)
		out.Set(name, t)
	}
	for k, v := range base.Meta {
		out.Meta[k] = v
	}
	kernels := map[string][]float32{}
	placed := map[string]bool{}
	for i, a := range adapters {
		if err := a.Validate(); err != nil {
			return nil, err
		}
		for _, m := range a.Modules {
			w, err := m.kernel(base)
			if err != nil {
				return nil, fmt.Errorf("adapter %q: %w", a.Name, err)
			}
			sum, ok := kernels[m.Name]
			if !ok {
				sum = slices.Clone(w)
				kernels[m.Name] = sum
			}
			m.addWeighted(sum, w, float32(weights[i]))
		}
		for _, name := range a.extras().Names() {
			t, _ := a.Extra.Get(name)
			was, ok := base.Get(name)
			switch {
			case placed[name] || weights[i] != 1:
				return nil, fmt.Errorf("%w: adapter %q, of weight %g, has its own %q, which cannot be mixed", ErrLossy, a.Name, weights[i], name)
			case ok && !isHead(name, was, t) && !slices.Equal(was.Shape, t.Shape):
				return nil, fmt.Errorf("%w: %q has shape %v, the adapter's %v", ErrBase, name, was.Shape, t.Shape)
			}
			placed[name] = true
			out.Set(name, t)
		}
	}
	for name, k := range kernels {
		t, _ := base.Get(name + ".weight")
		if placed[name+".weight"] {
			return nil, fmt.Errorf("%w: %q is both changed and replaced", ErrFile, name)
		}
		out.Set(name+".weight", &model.Tensor{Shape: slices.Clone(t.Shape), Data: k})
	}
	return out, nil
}

// addWeighted adds weight times the change of base to dst.
func (c *Change[T]) addWeighted(dst, base []T, weight T) {
	if weight == 1 {
		c.Materialise(dst, base)
		return
	}
	d := make([]T, len(base))
	c.Materialise(d, base)
	for i, v := range d {
		if v != 0 {
			dst[i] += weight * v
		}
	}
}

// isHead tells a head for other classes, which may have another first dimension: the
// tensor of a linear layer.
func isHead(name string, was, is *model.Tensor) bool {
	if len(was.Shape) != len(is.Shape) || len(is.Shape) == 0 || len(is.Shape) > 2 {
		return false
	}
	module, _ := splitName(name)
	return (module == "fc" || module == "linear" || module == "classifier") && slices.Equal(was.Shape[1:], is.Shape[1:])
}

// splitName cuts a tensor's name into its module and the parameter.
func splitName(name string) (module, param string) {
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '.' {
			return name[:i], name[i+1:]
		}
	}
	return "", name
}
