package model

import (
	"errors"
	"fmt"
	"math"

	"gorgonia.org/tensor"
)

// Errors that others wrap.
var (
	// ErrFormat: the content is none that this package reads.
	ErrFormat = errors.New("not a known model file")
	// ErrCorrupt: the content contradicts its own format.
	ErrCorrupt = errors.New("corrupt file")
	// ErrRefused: a pickle asks for something other than tensors and plain
	// containers.
	ErrRefused = errors.New("refused")
	// ErrUnsupported: legal content that this package cannot represent.
	ErrUnsupported = errors.New("unsupported")
	// ErrNotFinite: a tensor holds NaN or an infinity.
	ErrNotFinite = errors.New("not finite")
)

// DType names the type of a tensor's elements, as safetensors does.
type DType string

// The element types of a Tensor, and the half-precision types that only files
// have.
const (
	F64  DType = "F64"
	F32  DType = "F32"
	F16  DType = "F16"
	BF16 DType = "BF16"
	I64  DType = "I64"
	I32  DType = "I32"
	I16  DType = "I16"
	I8   DType = "I8"
	U64  DType = "U64"
	U32  DType = "U32"
	U16  DType = "U16"
	U8   DType = "U8"
	Bool DType = "BOOL"
)

// size is the number of bytes of an element, 0 for an unknown type.
func (d DType) size() int {
	switch d {
	case F64, I64, U64:
		return 8
	case F32, I32, U32:
		return 4
	case F16, BF16, I16, U16:
		return 2
	case I8, U8, Bool:
		return 1
	}
	return 0
}

// Tensor is an array in row-major order.
type Tensor struct {
	// Shape is empty for a scalar.
	Shape []int
	// Data has one element for each index of Shape: []float32, []float64,
	// []int64, []int32, []int16, []int8, []uint64, []uint32, []uint16, []uint8
	// or []bool.
	Data any
	// Stored is F16 or BF16 where float32 elements are in a file of that type: one they
	// came from, which has them exactly, or one to be written, which rounds them.
	Stored DType
}

// newTensor makes a tensor of the bytes of a file.
func newTensor(d DType, shape []int, raw []byte, big bool) (*Tensor, error) {
	v, err := decode(d, raw, big)
	t := &Tensor{Shape: shape, Data: v}
	if d == F16 || d == BF16 {
		t.Stored = d
	}
	return t, err
}

// wide is the number of bytes of an element in memory.
func (d DType) wide() int {
	if d == F16 || d == BF16 {
		return 4
	}
	return d.size()
}

// FileType is the type that the elements have in a file: Stored, or DType.
func (t *Tensor) FileType() DType {
	if t.Stored != "" && t.DType() == F32 {
		return t.Stored
	}
	return t.DType()
}

// DType is the type of the elements, "" if Data is none of the slices listed.
func (t *Tensor) DType() DType {
	switch t.Data.(type) {
	case []float64:
		return F64
	case []float32:
		return F32
	case []int64:
		return I64
	case []int32:
		return I32
	case []int16:
		return I16
	case []int8:
		return I8
	case []uint64:
		return U64
	case []uint32:
		return U32
	case []uint16:
		return U16
	case []uint8:
		return U8
	case []bool:
		return Bool
	}
	return ""
}

// Len is the number of elements, the product of Shape.
func (t *Tensor) Len() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// IsFloat reports whether the elements are float32 or float64.
func (t *Tensor) IsFloat() bool {
	d := t.DType()
	return d == F32 || d == F64
}

// Float32s returns the elements as float32: Data itself where it is that, else
// float64 rounded to nearest even. Other types are an error.
func (t *Tensor) Float32s() ([]float32, error) {
	switch v := t.Data.(type) {
	case []float32:
		return v, nil
	case []float64:
		return convert[float64, float32](v), nil
	}
	return nil, fmt.Errorf("%w: elements are %s, want a floating-point type", ErrUnsupported, t.DType())
}

// Float64s returns the elements as float64: Data itself where it is that, else
// widened; integers above 2⁵³ are rounded, and booleans are 0 and 1.
func (t *Tensor) Float64s() ([]float64, error) {
	switch v := t.Data.(type) {
	case []float64:
		return v, nil
	case []float32:
		return convert[float32, float64](v), nil
	case []int64:
		return convert[int64, float64](v), nil
	case []int32:
		return convert[int32, float64](v), nil
	case []int16:
		return convert[int16, float64](v), nil
	case []int8:
		return convert[int8, float64](v), nil
	case []uint64:
		return convert[uint64, float64](v), nil
	case []uint32:
		return convert[uint32, float64](v), nil
	case []uint16:
		return convert[uint16, float64](v), nil
	case []uint8:
		return convert[uint8, float64](v), nil
	case []bool:
		out := make([]float64, len(v))
		for i, b := range v {
			if b {
				out[i] = 1
			}
		}
		return out, nil
	}
	return nil, fmt.Errorf("%w: elements are %s, want numbers", ErrUnsupported, t.DType())
}

type number interface {
	~float32 | ~float64 | ~int64 | ~int32 | ~int16 | ~int8 | ~uint64 | ~uint32 | ~uint16 | ~uint8
}

func convert[S, D number](src []S) []D {
	dst := make([]D, len(src))
	for i, v := range src {
		dst[i] = D(v)
	}
	return dst
}

// elements is the product of shape, or ok false where a dimension is negative
// or the tensor would have more than limit elements.
func elements(shape []int, limit int) (n int, ok bool) {
	n = 1
	for _, d := range shape {
		if d < 0 {
			return 0, false
		}
		n *= min(d, 1)
	}
	if n == 0 {
		return 0, true
	}
	for _, d := range shape {
		if n > limit/d {
			return 0, false
		}
		n *= d
	}
	return n, true
}

// StateDict is an ordered list of named tensors.
type StateDict struct {
	names   []string
	tensors map[string]*Tensor
	// Meta is what the file says beside its tensors. It is never nil.
	Meta map[string]string
	// Source says where in its file the state dict lay.
	Source Source
}

// NewStateDict returns an empty state dict.
func NewStateDict() *StateDict {
	return &StateDict{tensors: map[string]*Tensor{}, Meta: map[string]string{}}
}

// Names lists the tensors in order. The slice must not be changed.
func (sd *StateDict) Names() []string { return sd.names }

// Len is the number of tensors.
func (sd *StateDict) Len() int { return len(sd.names) }

// Get returns the tensor called name.
func (sd *StateDict) Get(name string) (*Tensor, bool) {
	t, ok := sd.tensors[name]
	return t, ok
}

// Set adds a tensor at the end, or replaces the one of that name in its place.
func (sd *StateDict) Set(name string, t *Tensor) {
	if _, ok := sd.tensors[name]; !ok {
		sd.names = append(sd.names, name)
	}
	sd.tensors[name] = t
}

// Delete removes the tensor called name, if there is one.
func (sd *StateDict) Delete(name string) {
	if _, ok := sd.tensors[name]; !ok {
		return
	}
	delete(sd.tensors, name)
	for i, n := range sd.names {
		if n == name {
			sd.names = append(sd.names[:i:i], sd.names[i+1:]...)
			return
		}
	}
}

// Elements is the number of elements of all floating-point tensors.
func (sd *StateDict) Elements() int {
	n := 0
	for _, t := range sd.tensors {
		if t.IsFloat() {
			n += t.Len()
		}
	}
	return n
}

// CheckFinite returns an error wrapping ErrNotFinite that names the first NaN
// or infinity, if there is one.
func (sd *StateDict) CheckFinite() error {
	for _, name := range sd.names {
		at := -1
		var bad float64
		switch v := sd.tensors[name].Data.(type) {
		case []float32:
			at = firstNotFinite(v)
			if at >= 0 {
				bad = float64(v[at])
			}
		case []float64:
			at = firstNotFinite(v)
			if at >= 0 {
				bad = v[at]
			}
		}
		if at >= 0 {
			return fmt.Errorf("%w: %s has %g at element %d", ErrNotFinite, visible(name), bad, at)
		}
	}
	return nil
}

// CheckFloat32 is CheckFinite also for numbers of float64 that are none of float32: what
// runs networks would make infinities of them.
func (sd *StateDict) CheckFloat32() error {
	if err := sd.CheckFinite(); err != nil {
		return err
	}
	for _, name := range sd.names {
		v, ok := sd.tensors[name].Data.([]float64)
		if !ok {
			continue
		}
		for i, x := range v {
			if math.IsInf(float64(float32(x)), 0) {
				return fmt.Errorf("%w: %s has %g at element %d, which is beyond float32", ErrNotFinite, visible(name), x, i)
			}
		}
	}
	return nil
}

func firstNotFinite[T float32 | float64](v []T) int {
	for i, x := range v {
		if x-x != 0 { // NaN and ±Inf only
			return i
		}
	}
	return -1
}

// Dense is the array as a tensor of float64, whose memory is Data where that is of
// float64. Scalars are errors, which wrap ErrUnsupported.
func (t *Tensor) Dense() (*tensor.Dense, error) {
	v, err := t.Float64s()
	if err != nil {
		return nil, err
	}
	if len(t.Shape) == 0 || len(v) == 0 {
		return nil, fmt.Errorf("%w: shape %v; want at least one dimension and one value", ErrUnsupported, t.Shape)
	}
	return tensor.New(tensor.WithShape(t.Shape...), tensor.WithBacking(v)), nil
}
