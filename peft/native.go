package peft

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/lowrank-go/lowrank/internal/infile"
	"github.com/lowrank-go/lowrank/model"
)

// MetaKey is the key of a safetensors file's metadata that holds, as JSON, what its
// tensors do not say.
const MetaKey = "lowrank.adapters"

// fileFormat is the version of the layout.
const fileFormat = 1

// File is adapters of one base network. Its safetensors file has the tensors
//
//	<adapter>/<module>.<kind>.<factor>          layer1.0.conv1.tucker2.core
//	<adapter>/<module>.<kind>.<factor>.anchor   of anchored changes, θ₀
//	<adapter>/<name>                            Extra
//
// without <adapter>/ where the name is empty, and in its metadata the descriptions of
// all changes, the batch-norm policies and what the base must be.
type File struct {
	// Base is the Hash of the base's tensors called Frozen; "" for none.
	Base     string
	Frozen   []string
	Adapters []*Adapter
	// Meta is other metadata, which is kept.
	Meta map[string]string
}

type fileMeta struct {
	Format   int           `json:"format"`
	Base     string        `json:"base_sha256,omitempty"`
	Frozen   []string      `json:"frozen,omitempty"`
	Adapters []adapterMeta `json:"adapters"`
}

type adapterMeta struct {
	Name    string       `json:"name,omitempty"`
	Norm    NormPolicy   `json:"norm,omitempty"`
	Modules []moduleMeta `json:"modules,omitempty"`
	Extra   []string     `json:"extra,omitempty"`
	// Added is Adapter.Added.
	Added json.RawMessage `json:"added,omitempty"`
}

type moduleMeta struct {
	Name   string `json:"name"`
	Linear bool   `json:"linear,omitempty"`
	Spec   Spec   `json:"spec"`
}

// NewFile is a file for a base of which the tensors called frozen must be the same,
// bit for bit, wherever it is applied: usually all that the adapters do not replace.
func NewFile(base *model.StateDict, frozen []string, adapters ...*Adapter) (*File, error) {
	hash, err := Hash(base, frozen)
	if err != nil {
		return nil, err
	}
	return &File{Base: hash, Frozen: slices.Clone(frozen), Adapters: adapters}, nil
}

// Check reports a base whose frozen tensors are not those that the file was made for,
// or whose kernels have other shapes than the changes; the error wraps ErrBase. With
// force only the shapes count.
func (f *File) Check(base *model.StateDict, force bool) error {
	if f.Base != "" && !force {
		hash, err := Hash(base, f.Frozen)
		if err != nil {
			return err
		}
		if hash != f.Base {
			return fmt.Errorf("%w: its %d frozen tensors have SHA-256 %s, the adapter was made for %s", ErrBase, len(f.Frozen), hash, f.Base)
		}
	}
	for _, a := range f.Adapters {
		for _, m := range a.Modules {
			if _, err := m.kernel(base); err != nil {
				return fmt.Errorf("adapter %q: %w", a.Name, err)
			}
		}
	}
	return nil
}

// Adapter is the one called name, or nil.
func (f *File) Adapter(name string) *Adapter {
	for _, a := range f.Adapters {
		if a.Name == name {
			return a
		}
	}
	return nil
}

func prefix(adapter string) string {
	if adapter == "" {
		return ""
	}
	return adapter + "/"
}

func (m *moduleMeta) key(adapter string) string {
	return prefix(adapter) + m.Name + "." + string(m.Spec.Kind) + "."
}

// checkNames reports adapters that cannot share a file.
func (f *File) checkNames() error {
	seen := map[string]bool{}
	for _, a := range f.Adapters {
		if strings.Contains(a.Name, "/") || seen[a.Name] {
			return fmt.Errorf("%w: adapter %q comes twice or has a / in its name", ErrFile, a.Name)
		}
		seen[a.Name] = true
		if err := a.Validate(); err != nil {
			return err
		}
	}
	return nil
}

// StateDict is the file as tensors and metadata, aliased. The error wraps ErrFile.
func (f *File) StateDict() (*model.StateDict, error) {
	if err := f.checkNames(); err != nil {
		return nil, err
	}
	sd := model.NewStateDict()
	for k, v := range f.Meta {
		sd.Meta[k] = v
	}
	meta := fileMeta{Format: fileFormat, Base: f.Base, Frozen: f.Frozen}
	var twice error
	set := func(name string, t *model.Tensor) {
		if _, ok := sd.Get(name); ok && twice == nil {
			twice = fmt.Errorf("%w: two tensors would be called %q", ErrFile, name)
		}
		sd.Set(name, t)
	}
	for _, a := range f.Adapters {
		am := adapterMeta{Name: a.Name, Norm: a.Norm, Added: a.Added}
		for _, m := range a.Modules {
			mm := moduleMeta{m.Name, m.Linear, m.spec}
			am.Modules = append(am.Modules, mm)
			for _, x := range m.factors {
				set(mm.key(a.Name)+x.Name, &model.Tensor{Shape: x.Shape, Data: x.Value})
			}
			for i, v := range m.anchor {
				x := m.net.factors[i]
				set(mm.key(a.Name)+x.Name+".anchor", &model.Tensor{Shape: x.Shape, Data: v})
			}
		}
		for _, name := range a.extras().Names() {
			t, _ := a.Extra.Get(name)
			set(prefix(a.Name)+name, t)
			am.Extra = append(am.Extra, name)
		}
		meta.Adapters = append(meta.Adapters, am)
	}
	if twice != nil {
		return nil, twice
	}
	text, err := json.Marshal(meta)
	if err != nil {
		return nil, err
	}
	sd.Meta[MetaKey] = string(text)
	return sd, nil
}

// FromStateDict is the inverse of File.StateDict; the tensors are copied, Extra's are
// aliased. Tensors that are missing, of another shape, not finite or that nothing
// names are errors, which wrap ErrFile, as are descriptions that make no sense.
func FromStateDict(sd *model.StateDict) (*File, error) {
	text, ok := sd.Meta[MetaKey]
	if !ok {
		return nil, fmt.Errorf("%w: no metadata %q", ErrFile, MetaKey)
	}
	var meta fileMeta
	if err := json.Unmarshal([]byte(text), &meta); err != nil {
		return nil, fmt.Errorf("%w: metadata %q: %w", ErrFile, MetaKey, err)
	}
	if meta.Format != fileFormat {
		return nil, fmt.Errorf("%w: metadata %q has format %d, this version reads %d", ErrFile, MetaKey, meta.Format, fileFormat)
	}
	if err := sd.CheckFinite(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFile, err)
	}
	f := &File{Base: meta.Base, Frozen: meta.Frozen}
	for k, v := range sd.Meta {
		if k != MetaKey {
			if f.Meta == nil {
				f.Meta = map[string]string{}
			}
			f.Meta[k] = v
		}
	}
	rest := newReader(sd)
	for _, am := range meta.Adapters {
		a := &Adapter{Name: am.Name, Norm: am.Norm, Added: am.Added}
		for _, mm := range am.Modules {
			d, err := readChange(rest, mm, mm.key(am.Name))
			if err != nil {
				return nil, fmt.Errorf("%w: %s%s: %w", ErrFile, prefix(am.Name), mm.Name, err)
			}
			a.Modules = append(a.Modules, Module{mm.Name, mm.Linear, d})
		}
		for _, name := range am.Extra {
			t, err := rest.take(prefix(am.Name) + name)
			if err != nil {
				return nil, err
			}
			if a.Extra == nil {
				a.Extra = model.NewStateDict()
			}
			a.Extra.Set(name, t)
		}
		f.Adapters = append(f.Adapters, a)
	}
	if err := rest.finished(); err != nil {
		return nil, err
	}
	return f, f.checkNames()
}

func readChange(r *reader, mm moduleMeta, key string) (*Delta, error) {
	// What the factors take must be in the file, before memory is made for it.
	if need, have := mm.Spec.Params(), r.elements(key); need > have {
		return nil, fmt.Errorf("%s has %d values, the file %d", mm.Spec.Kind, need, have)
	}
	d, err := New(mm.Spec)
	if err != nil {
		return nil, err
	}
	for _, x := range d.factors {
		if err := r.copyTo(x.Value, key+x.Name, x.Shape); err != nil {
			return nil, err
		}
	}
	for i := range d.anchor {
		x := d.net.factors[i]
		if err := r.copyTo(d.anchor[i], key+x.Name+".anchor", x.Shape); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// reader hands out tensors by name, and remembers which.
type reader struct {
	sd   *model.StateDict
	used map[string]bool
}

func newReader(sd *model.StateDict) *reader { return &reader{sd: sd, used: map[string]bool{}} }

func (r *reader) take(name string) (*model.Tensor, error) {
	t, ok := r.sd.Get(name)
	if !ok {
		return nil, fmt.Errorf("%w: no tensor %q", ErrFile, name)
	}
	if r.used[name] {
		return nil, fmt.Errorf("%w: tensor %q is named twice", ErrFile, name)
	}
	r.used[name] = true
	return t, nil
}

// copyTo copies a tensor of the shape, but for ones at the end, to dst.
func (r *reader) copyTo(dst []float32, name string, shape []int) error {
	t, err := r.take(name)
	if err != nil {
		return err
	}
	if !slices.Equal(trim(t.Shape), trim(shape)) {
		return fmt.Errorf("%w: %q has shape %v, want %v", ErrFile, name, t.Shape, shape)
	}
	v, err := t.Float32s()
	if err != nil {
		return fmt.Errorf("%w: %q: %w", ErrFile, name, err)
	}
	copy(dst, v)
	return nil
}

// elements is the number of elements of all tensors whose names begin with key.
func (r *reader) elements(key string) int {
	n := 0
	for _, name := range r.sd.Names() {
		if strings.HasPrefix(name, key) {
			t, _ := r.sd.Get(name)
			n += t.Len()
		}
	}
	return n
}

// finished reports the first tensor that nobody took.
func (r *reader) finished() error {
	for _, name := range r.sd.Names() {
		if !r.used[name] {
			return fmt.Errorf("%w: tensor %q is of nothing that is known", ErrFile, name)
		}
	}
	return nil
}

// Write writes the file atomically.
func (f *File) Write(path string) error {
	sd, err := f.StateDict()
	if err != nil {
		return err
	}
	return model.WriteSafetensors(path, sd)
}

// Read reads a file that Write wrote.
func Read(path string) (*File, error) {
	file, size, err := infile.OpenFile(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	sd, err := model.ReadSafetensors(file, size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f, err := FromStateDict(sd)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}
