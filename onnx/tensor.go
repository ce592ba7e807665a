package onnx

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/lowrank-go/lowrank/internal/onnxpb"
)

// Type is the type of a tensor's elements, by ONNX's number.
type Type int32

// The element types that Tensor reads.
const (
	Float    = Type(onnxpb.TensorProto_FLOAT)
	Uint8    = Type(onnxpb.TensorProto_UINT8)
	Int8     = Type(onnxpb.TensorProto_INT8)
	Uint16   = Type(onnxpb.TensorProto_UINT16)
	Int16    = Type(onnxpb.TensorProto_INT16)
	Int32    = Type(onnxpb.TensorProto_INT32)
	Int64    = Type(onnxpb.TensorProto_INT64)
	Bool     = Type(onnxpb.TensorProto_BOOL)
	Float16  = Type(onnxpb.TensorProto_FLOAT16)
	Double   = Type(onnxpb.TensorProto_DOUBLE)
	Uint32   = Type(onnxpb.TensorProto_UINT32)
	Uint64   = Type(onnxpb.TensorProto_UINT64)
	BFloat16 = Type(onnxpb.TensorProto_BFLOAT16)
)

// String is ONNX's name of the type, FLOAT16.
func (t Type) String() string {
	if name, ok := onnxpb.TensorProto_DataType_name[int32(t)]; ok {
		return name
	}
	return fmt.Sprintf("element type %d", int32(t))
}

// Size is the bytes of an element, 0 for types that Tensor does not read.
func (t Type) Size() int {
	switch t {
	case Uint8, Int8, Bool:
		return 1
	case Uint16, Int16, Float16, BFloat16:
		return 2
	case Float, Int32, Uint32:
		return 4
	case Double, Int64, Uint64:
		return 8
	}
	return 0
}

// IsFloat tells floating-point types.
func (t Type) IsFloat() bool {
	return t == Float || t == Float16 || t == Double || t == BFloat16
}

// Tensor is a constant. Its values are read, anew, by each call that returns them.
type Tensor struct {
	Name string
	// Dims is empty for a scalar.
	Dims []int
	Type Type
	// Filled is set where all values are one, of a ConstantOfShape node.
	Filled bool
	// open gives the elements little-endian, as raw_data has them.
	open func() (io.ReadCloser, error)
	// from is what is converted to Type, of a Cast.
	from *Tensor
}

// Len is the number of elements.
func (t *Tensor) Len() int {
	n := 1
	for _, d := range t.Dims {
		n *= d
	}
	return n
}

// length is the number of elements of a shape, whose bytes a model may have.
func length(dims []int64, size int) (int64, error) {
	n := int64(1)
	for _, d := range dims {
		if d < 0 || d > mostBytes {
			return 0, fmt.Errorf("%w: a dimension of %d", ErrCorrupt, d)
		}
		if d == 0 {
			return 0, nil
		}
	}
	for _, d := range dims {
		if n > math.MaxInt64/8/d {
			return 0, fmt.Errorf("%w: shape %v is too large", ErrCorrupt, dims)
		}
		n *= d
	}
	if n*int64(size) > math.MaxInt {
		return 0, fmt.Errorf("%w: shape %v is too large", ErrUnsupported, dims)
	}
	return n, nil
}

// Tensor is the constant that a message of the model describes. That its values fit its
// shape is checked here, but for lists of integers.
func (m *Model) Tensor(p *onnxpb.TensorProto) (*Tensor, error) {
	t, err := m.tensor(p)
	if err != nil {
		return nil, fmt.Errorf("tensor %q: %w", p.GetName(), err)
	}
	return t, nil
}

func (m *Model) tensor(p *onnxpb.TensorProto) (*Tensor, error) {
	t := &Tensor{Name: p.GetName(), Type: Type(p.GetDataType())}
	size := t.Type.Size()
	n, err := length(p.Dims, max(size, 1))
	if err != nil {
		return nil, err
	}
	for _, d := range p.Dims {
		t.Dims = append(t.Dims, int(d))
	}
	if size == 0 {
		return nil, fmt.Errorf("%w: values of %v", ErrUnsupported, t.Type)
	}
	if p.GetDataLocation() == onnxpb.TensorProto_EXTERNAL {
		e, err := m.external(p)
		if err != nil {
			return nil, err
		}
		if e.n != n*int64(size) {
			return nil, wrongLength(t, e.n)
		}
		t.open = e.open
		return t, nil
	}
	fields, err := m.values(p)
	if err != nil {
		return nil, err
	}
	if len(fields) > 1 {
		return nil, fmt.Errorf("%w: values in two places", ErrCorrupt)
	}
	if len(fields) == 0 {
		if n != 0 {
			return nil, wrongLength(t, 0)
		}
		t.open = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(nil)), nil }
		return t, nil
	}
	f := fields[0]
	if f.integers {
		// Each takes 1 to 10 bytes.
		if n > f.n || 10*n < f.n {
			return nil, fmt.Errorf("%w: shape %v of %v does not have the integers of %d bytes that are there", ErrCorrupt, t.Dims, t.Type, f.n)
		}
		t.open = func() (io.ReadCloser, error) {
			r, err := f.open()
			if err != nil {
				return nil, err
			}
			return struct {
				io.Reader
				io.Closer
			}{&integers{r: bufio.NewReaderSize(r, 1<<14), size: size, left: n}, r}, nil
		}
		return t, nil
	}
	if n*int64(size) != f.n {
		return nil, wrongLength(t, f.n)
	}
	t.open = f.open
	return t, nil
}

func wrongLength(t *Tensor, n int64) error {
	return fmt.Errorf("%w: shape %v of %v does not have the %d bytes that are there", ErrCorrupt, t.Dims, t.Type, n)
}

// content is a field with a tensor's values.
type content struct {
	field    protowire.Number
	n        int64 // bytes
	integers bool  // varints, not elements
	open     func() (io.ReadCloser, error)
}

// values are the fields of a tensor that have values, in the file or in the message.
func (m *Model) values(p *onnxpb.TensorProto) ([]content, error) {
	var out []content
	inMemory := func(field protowire.Number, integers bool, b []byte) {
		if len(b) > 0 {
			out = append(out, content{field, int64(len(b)), integers, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }})
		}
	}
	if len(p.FloatData) > 0 {
		inMemory(4, false, pack(p.FloatData, func(b []byte, v float32) []byte {
			return binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}))
	}
	if len(p.Int32Data) > 0 {
		inMemory(5, true, pack(p.Int32Data, func(b []byte, v int32) []byte { return protowire.AppendVarint(b, uint64(int64(v))) }))
	}
	if len(p.Int64Data) > 0 {
		inMemory(7, true, pack(p.Int64Data, func(b []byte, v int64) []byte { return protowire.AppendVarint(b, uint64(v)) }))
	}
	inMemory(9, false, p.RawData)
	if len(p.DoubleData) > 0 {
		inMemory(10, false, pack(p.DoubleData, func(b []byte, v float64) []byte {
			return binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
		}))
	}
	if len(p.Uint64Data) > 0 {
		inMemory(11, true, pack(p.Uint64Data, protowire.AppendVarint))
	}
	spans, err := m.places(p.ProtoReflect().GetUnknown())
	if err != nil {
		return nil, err
	}
	for _, s := range spans {
		out = append(out, content{s.field, s.n, s.field == 5 || s.field == 7 || s.field == 11, func() (io.ReadCloser, error) { return m.openSpan(s) }})
	}
	return out, nil
}

func pack[T any](values []T, add func([]byte, T) []byte) []byte {
	var b []byte
	for _, v := range values {
		b = add(b, v)
	}
	return b
}

// places are the spans that a tensor's unknown fields stand for.
func (m *Model) places(unknown []byte) ([]span, error) {
	var out []span
	for len(unknown) > 0 {
		num, typ, n := protowire.ConsumeTag(unknown)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		k := protowire.ConsumeFieldValue(num, typ, unknown[n:])
		if k < 0 {
			return nil, protowire.ParseError(k)
		}
		if num == placeField {
			s, err := m.place(unknown[n : n+k])
			if err != nil {
				return nil, err
			}
			out = append(out, s)
		}
		unknown = unknown[n+k:]
	}
	return out, nil
}

// openSpan reads the values of a span.
func (m *Model) openSpan(s span) (io.ReadCloser, error) {
	if s.from != nil {
		return s.from.open()
	}
	return io.NopCloser(io.NewSectionReader(m.src, s.off, s.n)), nil
}

// place is the span that a place field's value stands for.
func (m *Model) place(value []byte) (span, error) {
	if b, n := protowire.ConsumeBytes(value); n >= 0 {
		if i, k := protowire.ConsumeVarint(b); k > 0 && i < uint64(len(m.spans)) {
			return m.spans[i], nil
		}
	}
	return span{}, fmt.Errorf("%w: a tensor of another model", ErrCorrupt)
}

// integers turns varints into little-endian elements of size bytes.
type integers struct {
	r    *bufio.Reader
	size int
	left int64
	rest []byte
	buf  [8]byte
}

func (i *integers) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if len(i.rest) == 0 {
			if i.left == 0 {
				if _, err := i.r.ReadByte(); err != io.EOF {
					return n, fmt.Errorf("%w: more integers than the shape has", ErrCorrupt)
				}
				break
			}
			v, err := binary.ReadUvarint(i.r)
			if err != nil {
				return n, fmt.Errorf("%w: packed integers: %w", ErrCorrupt, err)
			}
			i.left--
			binary.LittleEndian.PutUint64(i.buf[:], v)
			i.rest = i.buf[:i.size]
		}
		k := copy(p[n:], i.rest)
		n, i.rest = n+k, i.rest[k:]
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// each calls f with the elements' bytes, some at a time.
func (t *Tensor) each(f func(b []byte)) error {
	r, err := t.open()
	if err != nil {
		return fmt.Errorf("tensor %q: %w", t.Name, err)
	}
	defer r.Close()
	left := int64(t.Len()) * int64(t.Type.Size())
	buf := make([]byte, min(left, 1<<18)) // whole elements of any type
	for left > 0 {
		b := buf[:min(left, int64(len(buf)))]
		if _, err := io.ReadFull(r, b); err != nil {
			return fmt.Errorf("tensor %q: %w", t.Name, err)
		}
		f(b)
		left -= int64(len(b))
	}
	// Values that are left over make the reader fail.
	if _, err := r.Read(make([]byte, 1)); err != io.EOF {
		return fmt.Errorf("tensor %q: %w", t.Name, err)
	}
	return nil
}

// Bytes are the elements, little-endian, as ONNX's raw_data has them.
func (t *Tensor) Bytes() ([]byte, error) {
	if t.from != nil {
		return t.castBytes()
	}
	out := make([]byte, 0, t.Len()*t.Type.Size())
	err := t.each(func(b []byte) { out = append(out, b...) })
	return out, err
}

// Float32s are the elements of any type of floating point, rounded to float32.
func (t *Tensor) Float32s() ([]float32, error) {
	if t.from != nil {
		return t.castFloat32s()
	}
	out := make([]float32, 0, t.Len())
	le := binary.LittleEndian
	var f func(b []byte)
	switch t.Type {
	case Float:
		f = func(b []byte) {
			for i := 0; i < len(b); i += 4 {
				out = append(out, math.Float32frombits(le.Uint32(b[i:])))
			}
		}
	case Double:
		f = func(b []byte) {
			for i := 0; i < len(b); i += 8 {
				out = append(out, float32(math.Float64frombits(le.Uint64(b[i:]))))
			}
		}
	case Float16:
		f = func(b []byte) {
			for i := 0; i < len(b); i += 2 {
				out = append(out, fromHalf(le.Uint16(b[i:])))
			}
		}
	case BFloat16:
		f = func(b []byte) {
			for i := 0; i < len(b); i += 2 {
				out = append(out, math.Float32frombits(uint32(le.Uint16(b[i:]))<<16))
			}
		}
	default:
		return nil, fmt.Errorf("tensor %q: %w: elements are %v, want a floating-point type", t.Name, ErrUnsupported, t.Type)
	}
	return out, t.each(f)
}

// Int64s are the elements of any type of integers or of booleans; unsigned ones above
// the largest int64 become negative.
func (t *Tensor) Int64s() ([]int64, error) {
	if t.from != nil {
		return t.castInt64s()
	}
	size := t.Type.Size()
	if t.Type.IsFloat() {
		return nil, fmt.Errorf("tensor %q: %w: elements are %v, want integers", t.Name, ErrUnsupported, t.Type)
	}
	signed := t.Type == Int8 || t.Type == Int16 || t.Type == Int32
	out := make([]int64, 0, t.Len())
	return out, t.each(func(b []byte) {
		var buf [8]byte
		for i := 0; i < len(b); i += size {
			copy(buf[:], b[i:i+size])
			v := int64(binary.LittleEndian.Uint64(buf[:]))
			if signed {
				shift := 64 - 8*size
				v = v << shift >> shift
			}
			out = append(out, v)
		}
	})
}

// fromHalf widens an IEEE 754 binary16, exactly.
func fromHalf(h uint16) float32 {
	sign := uint32(h>>15) << 31
	exp, frac := uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch exp {
	case 0:
		// Zero or subnormal: frac·2⁻²⁴.
		return math.Float32frombits(math.Float32bits(float32(frac)*0x1p-24) | sign)
	case 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+127-15)<<23 | frac<<13)
}

// toHalf rounds to the nearest binary16, ties to even; what is too large becomes an
// infinity.
func toHalf(f float32) uint16 {
	b := math.Float32bits(f)
	sign, exp, frac := uint16(b>>16&0x8000), int(b>>23&0xff)-127, b&0x7fffff
	switch {
	case exp == 128 && frac != 0:
		return sign | 0x7e00
	case exp > 15:
		return sign | 0x7c00
	case exp < -25:
		return sign
	}
	// The significand with its leading one; subnormals lose more of it.
	frac |= 0x800000
	drop := 13
	base := uint32(exp+14) << 10 // the leading one adds 1 to the exponent
	if exp < -14 {
		drop, base = 13+(-14-exp), 0
	}
	half := uint32(1) << (drop - 1)
	kept, rest := frac>>drop, frac&(1<<drop-1)
	if rest > half || rest == half && kept&1 == 1 {
		kept++
	}
	return sign | uint16(base+kept)
}

// Encode are values as little-endian elements of a floating-point type, rounded to
// nearest even.
func Encode(values []float32, t Type) ([]byte, error) {
	le := binary.LittleEndian
	var add func(b []byte, v float32) []byte
	switch t {
	case Float:
		add = func(b []byte, v float32) []byte { return le.AppendUint32(b, math.Float32bits(v)) }
	case Double:
		add = func(b []byte, v float32) []byte { return le.AppendUint64(b, math.Float64bits(float64(v))) }
	case Float16:
		add = func(b []byte, v float32) []byte { return le.AppendUint16(b, toHalf(v)) }
	case BFloat16:
		add = func(b []byte, v float32) []byte {
			u := math.Float32bits(v)
			if v != v {
				return le.AppendUint16(b, uint16(u>>16)|0x40)
			}
			return le.AppendUint16(b, uint16((u+0x7fff+u>>16&1)>>16))
		}
	default:
		return nil, fmt.Errorf("%w: writing values as %v", ErrUnsupported, t)
	}
	b := make([]byte, 0, len(values)*t.Size())
	for _, v := range values {
		b = add(b, v)
	}
	return b, nil
}

// NewTensor is a message with values as raw data of a floating-point type.
func NewTensor(name string, dims []int, values []float32, t Type) (*onnxpb.TensorProto, error) {
	n := 1
	p := &onnxpb.TensorProto{Name: &name}
	for _, d := range dims {
		p.Dims = append(p.Dims, int64(d))
		n *= d
	}
	if n != len(values) {
		return nil, fmt.Errorf("tensor %q: %w: shape %v with %d values", name, ErrCorrupt, dims, len(values))
	}
	kind := int32(t)
	p.DataType = &kind
	var err error
	p.RawData, err = Encode(values, t)
	return p, err
}
