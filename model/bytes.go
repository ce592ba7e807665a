package model

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

// decode turns little-endian bytes (big-endian where big is set) into the slice
// of dtype; half-precision types become float32. len(b) is a multiple of the
// element size.
func decode(d DType, b []byte, big bool) (any, error) {
	var o binary.ByteOrder = binary.LittleEndian
	if big {
		o = binary.BigEndian
	}
	switch d {
	case F64:
		return each(b, 8, func(b []byte) float64 { return math.Float64frombits(o.Uint64(b)) }), nil
	case F32:
		if !big { // the case that matters is a plain loop
			out := make([]float32, len(b)/4)
			for i := range out {
				out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
			}
			return out, nil
		}
		return each(b, 4, func(b []byte) float32 { return math.Float32frombits(o.Uint32(b)) }), nil
	case F16:
		return each(b, 2, func(b []byte) float32 { return halfToFloat32(o.Uint16(b)) }), nil
	case BF16:
		return each(b, 2, func(b []byte) float32 { return math.Float32frombits(uint32(o.Uint16(b)) << 16) }), nil
	case I64:
		return each(b, 8, func(b []byte) int64 { return int64(o.Uint64(b)) }), nil
	case I32:
		return each(b, 4, func(b []byte) int32 { return int32(o.Uint32(b)) }), nil
	case I16:
		return each(b, 2, func(b []byte) int16 { return int16(o.Uint16(b)) }), nil
	case I8:
		return each(b, 1, func(b []byte) int8 { return int8(b[0]) }), nil
	case U64:
		return each(b, 8, o.Uint64), nil
	case U32:
		return each(b, 4, o.Uint32), nil
	case U16:
		return each(b, 2, o.Uint16), nil
	case U8:
		return append([]uint8{}, b...), nil
	case Bool:
		return each(b, 1, func(b []byte) bool { return b[0] != 0 }), nil
	}
	return nil, fmt.Errorf("%w: element type %q", ErrUnsupported, d)
}

func each[T any](b []byte, size int, f func([]byte) T) []T {
	out := make([]T, len(b)/size)
	for i := range out {
		out[i] = f(b[i*size : (i+1)*size])
	}
	return out
}

// appendBytes appends the elements of data, little-endian.
func appendBytes(dst []byte, data any) ([]byte, error) {
	if b, ok := data.([]bool); ok {
		for _, v := range b {
			if v {
				dst = append(dst, 1)
			} else {
				dst = append(dst, 0)
			}
		}
		return dst, nil
	}
	return binary.Append(dst, binary.LittleEndian, data)
}

// appendAs appends the elements, little-endian, as they are in a file of type d: rounded
// where that is a half-precision type.
func (t *Tensor) appendAs(dst []byte, d DType) ([]byte, error) {
	v, ok := t.Data.([]float32)
	if !ok || d == F32 {
		return appendBytes(dst, t.Data)
	}
	narrow := float32ToHalf
	if d == BF16 {
		narrow = float32ToBFloat16
	}
	for i, x := range v {
		h, fits := narrow(x)
		if !fits {
			return nil, fmt.Errorf("%w: element %d, %g, is beyond the range of %s", ErrUnsupported, i, x, d)
		}
		dst = binary.LittleEndian.AppendUint16(dst, h)
	}
	return dst, nil
}

// writeAs writes what appendAs appends, a piece at a time, so that the bytes of a tensor
// are not in memory beside its elements.
func (t *Tensor) writeAs(w io.Writer, d DType) error {
	const most = 1 << 18 // elements
	n := dataLen(t.Data)
	var buf []byte
	for i := 0; i < n; i += most {
		part := Tensor{Data: part(t.Data, i, min(i+most, n))}
		var err error
		if buf, err = part.appendAs(buf[:0], d); err != nil {
			return err
		}
		if _, err := w.Write(buf); err != nil {
			return err
		}
	}
	return nil
}

// part is data[i:j] of any of a Tensor's slices.
func part(data any, i, j int) any {
	switch v := data.(type) {
	case []float64:
		return v[i:j]
	case []float32:
		return v[i:j]
	case []int64:
		return v[i:j]
	case []int32:
		return v[i:j]
	case []int16:
		return v[i:j]
	case []int8:
		return v[i:j]
	case []uint64:
		return v[i:j]
	case []uint32:
		return v[i:j]
	case []uint16:
		return v[i:j]
	case []uint8:
		return v[i:j]
	case []bool:
		return v[i:j]
	}
	return data
}

// check reports a tensor whose data is of no known type or does not have as
// many elements as its shape says.
func (t *Tensor) check() error {
	n, ok := elements(t.Shape, math.MaxInt/8)
	d := t.DType()
	if !ok || d == "" {
		return fmt.Errorf("%w: shape %v of %T", ErrUnsupported, t.Shape, t.Data)
	}
	if have := dataLen(t.Data); have != n {
		return fmt.Errorf("%w: shape %v needs %d elements, got %d", ErrUnsupported, t.Shape, n, have)
	}
	return nil
}

func dataLen(data any) int {
	switch v := data.(type) {
	case []float64:
		return len(v)
	case []float32:
		return len(v)
	case []int64:
		return len(v)
	case []int32:
		return len(v)
	case []int16:
		return len(v)
	case []int8:
		return len(v)
	case []uint64:
		return len(v)
	case []uint32:
		return len(v)
	case []uint16:
		return len(v)
	case []uint8:
		return len(v)
	case []bool:
		return len(v)
	}
	return -1
}
