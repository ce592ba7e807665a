package graph

import (
	"encoding/json"
	"fmt"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/model"
)

// manifestFormat is the version of the layout written here. Format 1 described residual
// networks alone; it is still read.
const manifestFormat = 2

// Manifest is what a file says beside its tensors: the network they belong to
// and which convolutions are chains. With it a network is rebuilt from the file
// alone.
//
// A convolution that is a chain stores stage i as <name>.<i>.weight, in
// PyTorch's order (outputs, inputs of a group, rows, columns), and the bias of
// the last stage as <name>.<i>.bias: the names of an nn.Sequential of Conv2d in
// its place.
type Manifest struct {
	Format int `json:"format"`
	// Network is the description of the network by the package that knows it.
	Network json.RawMessage `json:"network,omitempty"`
	// GeometryUnknown is set where the strides, paddings and dilations of the
	// convolutions were not known, and the stages hold 1, 0 and 1.
	GeometryUnknown bool `json:"geometry_unknown,omitempty"`
	// Chains is keyed by the convolution's name.
	Chains map[string]*ChainSpec `json:"chains,omitempty"`
}

// ChainSpec is a chain without its weights.
type ChainSpec struct {
	Kind   conv.Kind       `json:"kind"`
	Rank   []int           `json:"rank"`
	Groups int             `json:"groups"`
	Stages []conv.Geometry `json:"stages"`
}

// ReadManifest returns the manifest of sd, or nil if it has none.
func ReadManifest(sd *model.StateDict) (*Manifest, error) {
	text, ok := sd.Meta[model.ManifestKey]
	if !ok {
		return nil, nil
	}
	m := new(Manifest)
	if err := json.Unmarshal([]byte(text), m); err != nil {
		return nil, fmt.Errorf("%w: metadata %q: %w", model.ErrCorrupt, model.ManifestKey, err)
	}
	if m.Format < 1 || m.Format > manifestFormat {
		return nil, fmt.Errorf("%w: metadata %q has format %d, this version reads up to %d", model.ErrUnsupported, model.ManifestKey, m.Format, manifestFormat)
	}
	for name, c := range m.Chains {
		if c == nil || len(c.Stages) == 0 {
			return nil, fmt.Errorf("%w: metadata %q: chain %q has no stages", model.ErrCorrupt, model.ManifestKey, name)
		}
	}
	return m, nil
}

// Write stores the manifest in the metadata of sd.
func (m *Manifest) Write(sd *model.StateDict) error {
	m.Format = manifestFormat
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	sd.Meta[model.ManifestKey] = string(text)
	return nil
}

// Chain is the description of the convolution called name if it is a chain, and
// nil if it is an ordinary convolution or m is nil.
func (m *Manifest) Chain(name string) *ChainSpec {
	if m == nil {
		return nil
	}
	return m.Chains[name]
}

// Store puts the weights of c into sd, aliased, and its description into m. A
// chain of kind conv.Dense is stored as the ordinary convolution it is.
func (m *Manifest) Store(sd *model.StateDict, name string, c *conv.Chain) {
	put := func(name string, k *conv.Kernel) {
		sd.Set(name+".weight", &model.Tensor{Shape: append([]int(nil), k.Shape[:]...), Data: k.Weight})
		if k.Bias != nil {
			sd.Set(name+".bias", &model.Tensor{Shape: []int{len(k.Bias)}, Data: k.Bias})
		}
	}
	if c.Kind == conv.Dense {
		put(name, c.Stages[0])
		return
	}
	spec := &ChainSpec{Kind: c.Kind, Rank: c.Rank, Groups: c.Groups}
	for i, s := range c.Stages {
		put(fmt.Sprintf("%s.%d", name, i), s)
		spec.Stages = append(spec.Stages, s.Normal())
	}
	if m.Chains == nil {
		m.Chains = map[string]*ChainSpec{}
	}
	m.Chains[name] = spec
}

// Load takes the chain called name out of sd; used, where not nil, is told the
// name of every tensor taken.
func (s *ChainSpec) Load(sd *model.StateDict, name string, used func(string)) (*conv.Chain, error) {
	c := &conv.Chain{Kind: s.Kind, Rank: s.Rank, Groups: s.Groups}
	take := func(name string, dims int) ([]float32, []int, error) {
		t, ok := sd.Get(name)
		if !ok {
			return nil, nil, fmt.Errorf("%w: the manifest names a tensor %q that the file lacks", model.ErrCorrupt, name)
		}
		if len(t.Shape) != dims {
			return nil, nil, fmt.Errorf("%w: %s has shape %v, want %d dimensions", model.ErrCorrupt, name, t.Shape, dims)
		}
		v, err := t.Float32s()
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", name, err)
		}
		if used != nil {
			used(name)
		}
		return v, t.Shape, nil
	}
	for i, g := range s.Stages {
		stage := fmt.Sprintf("%s.%d", name, i)
		w, shape, err := take(stage+".weight", 4)
		if err != nil {
			return nil, err
		}
		var bias []float32
		if _, ok := sd.Get(stage + ".bias"); ok {
			if bias, _, err = take(stage+".bias", 1); err != nil {
				return nil, err
			}
		}
		k, err := conv.NewKernel([4]int(shape), w, bias, g)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", model.ErrCorrupt, stage, err)
		}
		c.Stages = append(c.Stages, k)
	}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("%w: chain %s: %w", model.ErrCorrupt, name, err)
	}
	return c, nil
}
