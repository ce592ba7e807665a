package model

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

const npyMagic = "\x93NUMPY"

// npyKinds are NumPy's type codes without the byte order.
var npyKinds = map[string]DType{
	"f2": F16, "f4": F32, "f8": F64, "i1": I8, "i2": I16, "i4": I32, "i8": I64,
	"u1": U8, "u2": U16, "u4": U32, "u8": U64, "b1": Bool,
}

var npyCodes = map[DType]string{
	F16: "<f2", F32: "<f4", F64: "<f8", I8: "|i1", I16: "<i2", I32: "<i4", I64: "<i8",
	U8: "|u1", U16: "<u2", U32: "<u4", U64: "<u8", Bool: "|b1",
}

// ReadNPY reads one array in NumPy's format, version 1 to 3, of at most size
// bytes in all. Arrays in Fortran order are transposed to row-major. Structured
// types, objects, strings and complex numbers are refused.
func ReadNPY(r io.Reader, size int64) (*Tensor, error) {
	h, err := readNPYHeader(r, size)
	if err != nil {
		return nil, err
	}
	return h.body(r)
}

// npyHeader is what a .npy file says of its array.
type npyHeader struct {
	code    string // with the order of bytes
	kind    DType
	fortran bool
	shape   []int
	count   int   // of elements
	left    int64 // bytes of the file after the header
}

// readNPYHeader reads the header of a file of size bytes. Of a type that is not read it
// gives the code with the error, which wraps ErrUnsupported.
func readNPYHeader(r io.Reader, size int64) (h npyHeader, err error) {
	head := make([]byte, 8)
	if _, err := io.ReadFull(r, head); err != nil || string(head[:6]) != npyMagic {
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return h, err
		}
		return h, fmt.Errorf("%w: not a .npy file", ErrFormat)
	}
	width := 2
	switch head[6] {
	case 1:
	case 2, 3:
		width = 4
	default:
		return h, fmt.Errorf("%w: .npy version %d", ErrUnsupported, head[6])
	}
	length := make([]byte, 4)
	if _, err := io.ReadFull(r, length[:width]); err != nil {
		return h, fmt.Errorf("%w: .npy header: %w", ErrCorrupt, err)
	}
	n := int64(binary.LittleEndian.Uint32(length))
	size -= int64(8 + width)
	if n > size || n > 1<<20 {
		return h, fmt.Errorf("%w: .npy header of %d bytes", ErrCorrupt, n)
	}
	text, err := readFull(r, n, size)
	if err != nil {
		return h, fmt.Errorf("%w: .npy header: %w", ErrCorrupt, err)
	}
	h.left = size - n
	if h.code, h.fortran, h.shape, err = parseNPYHeader(string(text)); err != nil {
		return h, err
	}
	kind, ok := npyKinds[strings.TrimLeft(h.code, "<>|=")]
	if !ok || len(h.code) > 3 {
		return h, fmt.Errorf("%w: .npy element type %s", ErrUnsupported, quoted(h.code))
	}
	h.kind = kind
	if h.count, ok = elements(h.shape, int(min(h.left, math.MaxInt))); !ok || int64(h.count) > h.left/int64(kind.size()) {
		return h, fmt.Errorf("%w: .npy array of shape %v and type %q needs more than the %d bytes there are", ErrCorrupt, h.shape, h.code, h.left)
	}
	return h, nil
}

// body reads the array.
func (h npyHeader) body(r io.Reader) (*Tensor, error) {
	raw, err := readFull(r, int64(h.count*h.kind.size()), h.left)
	if err != nil {
		return nil, fmt.Errorf("%w: .npy array of shape %v: %w", ErrCorrupt, h.shape, err)
	}
	if h.fortran && len(h.shape) > 1 && h.count > 0 {
		raw = rowMajor(raw, h.shape, h.kind.size())
	}
	return newTensor(h.kind, h.shape, raw, strings.HasPrefix(h.code, ">"))
}

// rowMajor reorders an array whose first index runs fastest.
func rowMajor(raw []byte, shape []int, esize int) []byte {
	out := make([]byte, len(raw))
	stride := make([]int, len(shape))
	step := 1
	for i, d := range shape {
		stride[i] = step
		step *= d
	}
	index := make([]int, len(shape))
	at := 0
	for i := range len(raw) / esize {
		copy(out[i*esize:(i+1)*esize], raw[at*esize:])
		for d := len(shape) - 1; d >= 0; d-- {
			at += stride[d]
			if index[d]++; index[d] < shape[d] {
				break
			}
			at -= stride[d] * shape[d]
			index[d] = 0
		}
	}
	return out
}

// parseNPYHeader reads the Python dict {'descr': '<f4', 'fortran_order': False,
// 'shape': (3, 4), }, its keys in any order.
func parseNPYHeader(s string) (code string, fortran bool, shape []int, err error) {
	p := &literal{rest: s}
	p.want("{")
	seen := map[string]bool{}
	for p.err == nil && !p.has("}") {
		key := p.quoted()
		p.want(":")
		if seen[key] {
			p.fail("key %q twice", key)
		}
		seen[key] = true
		switch key {
		case "descr":
			if p.peek("[") {
				return "", false, nil, fmt.Errorf("%w: a structured .npy array", ErrUnsupported)
			}
			code = p.quoted()
		case "fortran_order":
			switch {
			case p.has("True"):
				fortran = true
			case p.has("False"):
			default:
				p.fail("fortran_order")
			}
		case "shape":
			p.want("(")
			shape = []int{}
			for p.err == nil && !p.has(")") {
				shape = append(shape, p.integer())
				if !p.has(",") {
					p.want(")")
					break
				}
			}
			if len(shape) > maxDims {
				p.fail("%d dimensions", len(shape))
			}
		default:
			p.fail("key %q", key)
		}
		if !p.has(",") {
			p.want("}")
			break
		}
	}
	if p.err == nil && strings.TrimSpace(p.rest) != "" {
		p.fail("text after the dict")
	}
	if p.err == nil && len(seen) != 3 {
		p.fail("want the keys descr, fortran_order and shape")
	}
	return code, fortran, shape, p.err
}

// literal parses a Python literal from the left; the first failure stays.
type literal struct {
	rest string
	err  error
}

func (p *literal) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("%w: .npy header: %s", ErrCorrupt, fmt.Sprintf(format, args...))
	}
}

func (p *literal) peek(s string) bool {
	p.rest = strings.TrimLeft(p.rest, " \t\r\n")
	return strings.HasPrefix(p.rest, s)
}

func (p *literal) has(s string) bool {
	if !p.peek(s) {
		return false
	}
	p.rest = p.rest[len(s):]
	return true
}

func (p *literal) want(s string) {
	if p.err == nil && !p.has(s) {
		p.fail("want %q at %.20q", s, p.rest)
	}
}

func (p *literal) quoted() string {
	for _, q := range []string{"'", `"`} {
		if p.has(q) {
			if s, rest, ok := strings.Cut(p.rest, q); ok {
				p.rest = rest
				return s
			}
		}
	}
	p.fail("want a string at %.20q", p.rest)
	return ""
}

func (p *literal) integer() int {
	p.peek("")
	i := 0
	for i < len(p.rest) && p.rest[i] >= '0' && p.rest[i] <= '9' {
		i++
	}
	n, err := strconv.Atoi(p.rest[:i])
	if err != nil {
		p.fail("want a whole number at %.20q", p.rest)
	}
	p.rest = strings.TrimPrefix(p.rest[i:], "L") // Python 2's long
	return n
}

// WriteNPY writes t atomically in NumPy's format, row-major.
func WriteNPY(path string, t *Tensor) error {
	return WriteAtomic(path, func(w io.Writer) error { return encodeNPY(w, t) })
}

func encodeNPY(w io.Writer, t *Tensor) error {
	if err := t.check(); err != nil {
		return err
	}
	dims := make([]string, len(t.Shape))
	for i, d := range t.Shape {
		dims[i] = strconv.Itoa(d)
	}
	shape := strings.Join(dims, ", ")
	if len(dims) == 1 {
		shape += ","
	}
	kind := t.FileType()
	if kind == BF16 { // which NumPy does not have
		kind = F32
	}
	dict := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", npyCodes[kind], shape)
	// Magic, version, length, dict, spaces and a newline fill multiples of 64.
	pad := 63 - (10+len(dict))%64
	head := []byte(npyMagic + "\x01\x00")
	head = binary.LittleEndian.AppendUint16(head, uint16(len(dict)+pad+1))
	head = append(head, dict...)
	head = append(head, strings.Repeat(" ", pad)...)
	head = append(head, '\n')
	if _, err := w.Write(head); err != nil {
		return err
	}
	return t.writeAs(w, kind)
}
