package model

import (
	"fmt"
	"math"
)

// halfToFloat32 widens an IEEE 754 binary16, exactly.
func halfToFloat32(h uint16) float32 {
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

// float32ToHalf rounds to the nearest binary16, of two to the even one. fits is false
// where a finite number is beyond the largest, 65504.
func float32ToHalf(f float32) (h uint16, fits bool) {
	b := math.Float32bits(f)
	sign := uint16(b>>16) & 0x8000
	exp, frac := int(b>>23&0xff), b&0x7fffff
	switch {
	case exp == 0xff && frac != 0: // NaN: the payload's upper bits, never none
		return sign | 0x7c00 | max(uint16(frac>>13), 1), true
	case exp == 0xff:
		return sign | 0x7c00, true
	case exp < 127-14-11: // below half of the smallest
		return sign, true
	}
	// The significand as a whole number, of which shift bits are to go.
	m, shift := frac|0x800000, 13
	if exp < 127-14 { // subnormal
		shift += 127 - 14 - exp
		exp = 127 - 15
	}
	kept := m >> shift
	rest, half := m-kept<<shift, uint32(1)<<(shift-1)
	if rest > half || rest == half && kept&1 == 1 {
		kept++
	}
	// The implicit bit adds one to the exponent's field, where it is.
	v := uint32(exp-127+15)<<10 + kept
	if exp >= 127-14 {
		v -= 0x400
	}
	return sign | uint16(v), v < 0x7c00
}

// float32ToBFloat16 rounds to the nearest bfloat16, of two to the even one. fits is false
// where a finite number is beyond the largest.
func float32ToBFloat16(f float32) (h uint16, fits bool) {
	b := math.Float32bits(f)
	if f != f {
		return uint16(b>>16) | 0x40&-boolBit(b>>16&0x7f == 0), true
	}
	h = uint16((b + 0x7fff + b>>16&1) >> 16)
	return h, h&0x7f80 != 0x7f80 || b&0x7f800000 == 0x7f800000
}

func boolBit(b bool) uint16 {
	if b {
		return 1
	}
	return 0
}

// FloatType is the type of most floating-point elements in the file that sd came from: F64,
// F32, F16 or BF16; F32 where there are none.
func (sd *StateDict) FloatType() DType {
	n := map[DType]int{}
	best := F32
	for _, name := range sd.names {
		if t := sd.tensors[name]; t.IsFloat() {
			n[t.FileType()] += t.Len()
		}
	}
	for _, d := range []DType{F64, F16, BF16} {
		if n[d] > n[best] {
			best = d
		}
	}
	return best
}

// SetFloatType makes d, F32, F16 or BF16, the type that floating-point tensors are written
// with: those of float64 too, which become float32 in memory. Numbers that d cannot hold
// are an error, which wraps ErrUnsupported; sd is then as it was.
func (sd *StateDict) SetFloatType(d DType) error {
	if d != F32 && d != F16 && d != BF16 {
		return fmt.Errorf("%w: writing %s; want %s, %s or %s", ErrUnsupported, d, F32, F16, BF16)
	}
	to := map[string]*Tensor{}
	for _, name := range sd.names {
		t := sd.tensors[name]
		if !t.IsFloat() {
			continue
		}
		v, err := t.Float32s()
		if err != nil {
			return err
		}
		n := &Tensor{Shape: t.Shape, Data: v}
		if d != F32 {
			n.Stored = d
			for i, x := range v {
				fits := true
				if d == F16 {
					_, fits = float32ToHalf(x)
				} else {
					_, fits = float32ToBFloat16(x)
				}
				if !fits {
					return fmt.Errorf("%w: %s has %g at element %d, beyond the range of %s", ErrUnsupported, quoted(name), x, i, d)
				}
			}
		}
		to[name] = n
	}
	for name, t := range to {
		sd.tensors[name] = t
	}
	return nil
}
