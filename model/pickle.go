package model

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The values that an unpickler makes: nil, bool, int64, *big.Int, float64,
// string, []byte, and these.
type (
	pyTuple []any
	pyList  struct{ items []any }
	pySet   struct{ items []any }
	pyDict  struct{ keys, values []any } // in insertion order; a key may repeat, the last counts
	// pyGlobal is an allowed global, not yet called.
	pyGlobal struct{ module, name string }
	// pyOpaque is a value that is read over: a dtype, a device.
	pyOpaque struct{ what string }
	// pyDtype is a numpy.dtype.
	pyDtype struct{ code string }
	// pyStorage is a reference to numbers stored elsewhere in the file.
	pyStorage struct {
		dtype DType // "" for untyped bytes
		key   string
		numel int
		first int // element that a view starts at, in the legacy format
	}
	// pyTensor is a strided view of a storage.
	pyTensor struct {
		storage      *pyStorage
		dtype        DType
		offset       int
		size, stride []int
	}
	pyMark struct{}
)

// allowed are the globals that a pickle may name, and the storage classes in
// storageTypes. Calling them is done by call; none of it runs Python.
var allowed = map[string]bool{
	"collections.OrderedDict": true, "__builtin__.set": true, "builtins.set": true,
	"__builtin__.frozenset": true, "builtins.frozenset": true, "_codecs.encode": true,
	"torch._utils._rebuild_tensor": true, "torch._utils._rebuild_tensor_v2": true, "torch._utils._rebuild_tensor_v3": true,
	"torch._utils._rebuild_parameter": true, "torch._utils._rebuild_parameter_with_state": true,
	"torch.Size": true, "torch.device": true,
	"numpy.dtype": true, "numpy.core.multiarray.scalar": true, "numpy._core.multiarray.scalar": true,
}

// storageTypes are torch's storage classes; "" is bytes without a type.
var storageTypes = map[string]DType{
	"DoubleStorage": F64, "FloatStorage": F32, "HalfStorage": F16, "BFloat16Storage": BF16,
	"LongStorage": I64, "IntStorage": I32, "ShortStorage": I16, "CharStorage": I8, "ByteStorage": U8, "BoolStorage": Bool,
	"UntypedStorage": "",
}

// torchTypes are torch's dtypes.
var torchTypes = map[string]DType{
	"float64": F64, "double": F64, "float32": F32, "float": F32, "float16": F16, "half": F16, "bfloat16": BF16,
	"int64": I64, "long": I64, "int32": I32, "int": I32, "int16": I16, "short": I16, "int8": I8,
	"uint64": U64, "uint32": U32, "uint16": U16, "uint8": U8, "bool": Bool,
}

// maxSteps bounds the instructions of a pickle. A checkpoint of a thousand
// tensors has about fifty thousand.
const maxSteps = 8 << 20

// unpickler runs one pickle held in memory. What it makes is bounded by the
// pickle's length: every instruction has at least one byte and makes one value
// of fixed size, or one that holds values taken off the stack or a copy of its
// own bytes. The few calls that copy a value they are given, which the memo
// could feed to them again and again, are charged to budget.
type unpickler struct {
	data   []byte
	pos    int
	where  string // for errors: "data.pkl"
	stack  []any
	memo   map[int]any
	start  int // of the instruction at work
	budget int
	// seen, where not nil, collects the storages by key.
	seen map[string]*pyStorage
}

// spend charges n copied values.
func (u *unpickler) spend(n int) error {
	if u.budget -= n; u.budget < 0 {
		return u.errorf(ErrCorrupt, "the pickle copies more than it holds")
	}
	return nil
}

func (u *unpickler) errorf(kind error, format string, args ...any) error {
	return fmt.Errorf("%s: %w: %s at byte %d", u.where, kind, fmt.Sprintf(format, args...), u.start)
}

func (u *unpickler) take(n int) ([]byte, error) {
	if n < 0 || n > len(u.data)-u.pos {
		return nil, u.errorf(ErrCorrupt, "pickle needs %d more bytes, has %d,", n, len(u.data)-u.pos)
	}
	b := u.data[u.pos : u.pos+n : u.pos+n]
	u.pos += n
	return b, nil
}

// line is the text up to the next newline, as protocol 0 writes arguments.
func (u *unpickler) line() (string, error) {
	rest := u.data[u.pos:]
	i := bytes.IndexByte(rest[:min(len(rest), 1<<16)], '\n')
	if i < 0 {
		return "", u.errorf(ErrCorrupt, "unterminated line")
	}
	u.pos += i + 1
	return strings.TrimSuffix(string(rest[:i]), "\r"), nil
}

func (u *unpickler) push(v any) { u.stack = append(u.stack, v) }

func (u *unpickler) pop() (any, error) {
	if len(u.stack) == 0 {
		return nil, u.errorf(ErrCorrupt, "empty stack")
	}
	v := u.stack[len(u.stack)-1]
	if _, mark := v.(pyMark); mark {
		return nil, u.errorf(ErrCorrupt, "unexpected mark")
	}
	u.stack = u.stack[:len(u.stack)-1]
	return v, nil
}

func (u *unpickler) top() (any, error) {
	v, err := u.pop()
	if err == nil {
		u.push(v)
	}
	return v, err
}

// popMark takes everything above the last mark, and the mark.
func (u *unpickler) popMark() ([]any, error) {
	for i := len(u.stack) - 1; i >= 0; i-- {
		if _, mark := u.stack[i].(pyMark); mark {
			items := append([]any(nil), u.stack[i+1:]...)
			u.stack = u.stack[:i]
			return items, nil
		}
	}
	return nil, u.errorf(ErrCorrupt, "no mark on the stack")
}

// sized reads a length of n bytes and then that many bytes.
func (u *unpickler) sized(n int) ([]byte, error) {
	b, err := u.take(n)
	if err != nil {
		return nil, err
	}
	var size uint64
	for i := n - 1; i >= 0; i-- {
		size = size<<8 | uint64(b[i])
	}
	if size > uint64(len(u.data)-u.pos) {
		return nil, u.errorf(ErrCorrupt, "a length of %d with %d bytes left,", size, len(u.data)-u.pos)
	}
	return u.take(int(size))
}

// run executes the pickle up to its STOP and returns the object.
func (u *unpickler) run() (any, error) {
	u.memo = map[int]any{}
	u.budget = len(u.data)
	for steps := 0; ; steps++ {
		u.start = u.pos
		if steps == maxSteps {
			return nil, u.errorf(ErrUnsupported, "a pickle of more than %d instructions", maxSteps)
		}
		op, err := u.take(1)
		if err != nil {
			return nil, err
		}
		if op[0] == '.' {
			v, err := u.pop()
			if err == nil && len(u.stack) > 0 {
				return nil, u.errorf(ErrCorrupt, "%d values left on the stack", len(u.stack))
			}
			return v, err
		}
		if err := u.step(op[0]); err != nil {
			return nil, err
		}
	}
}

func (u *unpickler) step(op byte) error {
	switch op {
	case 0x80: // PROTO
		b, err := u.take(1)
		if err == nil && b[0] > 5 {
			err = u.errorf(ErrUnsupported, "pickle protocol %d", b[0])
		}
		return err
	case 0x95: // FRAME
		_, err := u.take(8)
		return err
	case '(': // MARK
		u.push(pyMark{})
	case '0': // POP
		if n := len(u.stack); n > 0 {
			u.stack = u.stack[:n-1]
			return nil
		}
		return u.errorf(ErrCorrupt, "empty stack")
	case '1': // POP_MARK
		_, err := u.popMark()
		return err
	case '2': // DUP
		v, err := u.top()
		if err != nil {
			return err
		}
		u.push(v)
	case 'N':
		u.push(nil)
	case 0x88:
		u.push(true)
	case 0x89:
		u.push(false)
	case 'I', 'L', 'F', 'J', 'K', 'M', 0x8a, 0x8b, 'G':
		return u.number(op)
	case 'S', 'V', 'T', 'U', 'X', 0x8c, 0x8d, 'B', 'C', 0x8e, 0x96:
		return u.text(op)
	case ']':
		u.push(&pyList{})
	case '}':
		u.push(&pyDict{})
	case ')':
		u.push(pyTuple{})
	case 0x8f:
		u.push(&pySet{})
	case 'l', 't', 0x91, 'd':
		items, err := u.popMark()
		if err != nil {
			return err
		}
		switch op {
		case 'l':
			u.push(&pyList{items})
		case 't':
			u.push(pyTuple(items))
		case 0x91:
			u.push(&pySet{items})
		case 'd':
			d := &pyDict{}
			if err := u.fill(d, items); err != nil {
				return err
			}
			u.push(d)
		}
	case 0x85, 0x86, 0x87: // TUPLE1..3
		n := int(op - 0x84)
		t := make(pyTuple, n)
		for i := n - 1; i >= 0; i-- {
			var err error
			if t[i], err = u.pop(); err != nil {
				return err
			}
		}
		u.push(t)
	case 'a', 'e', 0x90, 's', 'u':
		return u.extend(op)
	case 'p', 'q', 'r', 0x94, 'g', 'h', 'j':
		return u.memory(op)
	case 'c', 0x93:
		return u.global(op)
	case 'R', 0x81: // REDUCE, NEWOBJ
		args, err := u.pop()
		if err != nil {
			return err
		}
		f, err := u.pop()
		if err != nil {
			return err
		}
		v, err := u.call(f, args)
		if err != nil {
			return err
		}
		u.push(v)
	case 'b': // BUILD
		state, err := u.pop()
		if err != nil {
			return err
		}
		obj, err := u.top()
		if err != nil {
			return err
		}
		switch obj.(type) {
		case *pyDict, *pyTensor, pyDtype, *pySet:
			// The attributes of an OrderedDict (_metadata), a tensor or a
			// dtype: nothing in them is needed.
			_ = state
		default:
			return u.errorf(ErrRefused, "setting the state of %s", describe(obj))
		}
	case 'P': // PERSID
		id, err := u.line()
		if err != nil {
			return err
		}
		return u.errorf(ErrUnsupported, "persistent id %q", id)
	case 'Q': // BINPERSID
		id, err := u.pop()
		if err != nil {
			return err
		}
		s, err := u.storage(id)
		if err != nil {
			return err
		}
		u.push(s)
	case 'i', 'o', 0x92: // INST, OBJ, NEWOBJ_EX
		return u.errorf(ErrRefused, "building an object by instruction %#x", op)
	case 0x82, 0x83, 0x84: // EXT1, EXT2, EXT4
		return u.errorf(ErrRefused, "an extension registry code")
	default:
		return u.errorf(ErrCorrupt, "unknown pickle instruction %#x", op)
	}
	return nil
}

func (u *unpickler) number(op byte) error {
	fixed := map[byte]int{'J': 4, 'K': 1, 'M': 2, 'G': 8}
	if n, ok := fixed[op]; ok {
		b, err := u.take(n)
		if err != nil {
			return err
		}
		switch op {
		case 'J':
			u.push(int64(int32(binary.LittleEndian.Uint32(b))))
		case 'K':
			u.push(int64(b[0]))
		case 'M':
			u.push(int64(binary.LittleEndian.Uint16(b)))
		case 'G':
			u.push(math.Float64frombits(binary.BigEndian.Uint64(b)))
		}
		return nil
	}
	if op == 0x8a || op == 0x8b { // LONG1, LONG4: two's complement, little-endian
		n := 1
		if op == 0x8b {
			n = 4
		}
		b, err := u.sized(n)
		if err != nil {
			return err
		}
		if len(b) > 1<<10 {
			return u.errorf(ErrUnsupported, "an integer of %d bytes", len(b))
		}
		u.push(long(b))
		return nil
	}
	s, err := u.line()
	if err != nil {
		return err
	}
	switch op {
	case 'I':
		switch s {
		case "00":
			u.push(false)
			return nil
		case "01":
			u.push(true)
			return nil
		}
	case 'L':
		s = strings.TrimSuffix(s, "L")
	case 'F':
		v, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return u.errorf(ErrCorrupt, "number %.40q", s)
		}
		u.push(v)
		return nil
	}
	v, ok := new(big.Int).SetString(s, 10)
	if !ok || len(s) > 1<<10 {
		return u.errorf(ErrCorrupt, "number %.40q", s)
	}
	u.push(small(v))
	return nil
}

func long(b []byte) any {
	rev := make([]byte, len(b))
	for i, c := range b {
		rev[len(b)-1-i] = c
	}
	v := new(big.Int).SetBytes(rev)
	if len(b) > 0 && b[len(b)-1]&0x80 != 0 {
		v.Sub(v, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	return small(v)
}

func small(v *big.Int) any {
	if v.IsInt64() {
		return v.Int64()
	}
	return v
}

func (u *unpickler) text(op byte) error {
	switch op {
	case 'S', 'V':
		s, err := u.line()
		if err != nil {
			return err
		}
		if op == 'S' {
			if len(s) < 2 || s[0] != s[len(s)-1] || s[0] != '\'' && s[0] != '"' {
				return u.errorf(ErrCorrupt, "string %.40q", s)
			}
			s = s[1 : len(s)-1]
		}
		if strings.Contains(s, `\`) {
			return u.errorf(ErrUnsupported, "escapes in a string of pickle protocol 0")
		}
		u.push(s)
		return nil
	}
	width := map[byte]int{'T': 4, 'U': 1, 'X': 4, 0x8c: 1, 0x8d: 8, 'B': 4, 'C': 1, 0x8e: 8, 0x96: 8}[op]
	b, err := u.sized(width)
	if err != nil {
		return err
	}
	switch op {
	case 'B', 'C', 0x8e, 0x96:
		u.push(b)
	case 'T', 'U':
		// Python 2's str: text here, by whatever bytes it has.
		u.push(string(b))
	default:
		if !utf8.Valid(b) {
			return u.errorf(ErrCorrupt, "text that is not UTF-8")
		}
		u.push(string(b))
	}
	return nil
}

func (u *unpickler) fill(d *pyDict, items []any) error {
	if len(items)%2 != 0 {
		return u.errorf(ErrCorrupt, "a key without a value")
	}
	for i := 0; i < len(items); i += 2 {
		d.keys = append(d.keys, items[i])
		d.values = append(d.values, items[i+1])
	}
	return nil
}

// extend adds values to the container below them.
func (u *unpickler) extend(op byte) error {
	var items []any
	var err error
	switch op {
	case 'a', 's':
		n := 1
		if op == 's' {
			n = 2
		}
		items = make([]any, n)
		for i := n - 1; i >= 0; i-- {
			if items[i], err = u.pop(); err != nil {
				return err
			}
		}
	default:
		if items, err = u.popMark(); err != nil {
			return err
		}
	}
	obj, err := u.top()
	if err != nil {
		return err
	}
	switch c := obj.(type) {
	case *pyList:
		if op == 'a' || op == 'e' {
			c.items = append(c.items, items...)
			return nil
		}
	case *pySet:
		if op == 0x90 {
			c.items = append(c.items, items...)
			return nil
		}
	case *pyDict:
		if op == 's' || op == 'u' {
			return u.fill(c, items)
		}
	}
	return u.errorf(ErrCorrupt, "adding to %s", describe(obj))
}

// memory stores the top of the stack in the memo or fetches from it.
func (u *unpickler) memory(op byte) error {
	var key int
	switch op {
	case 0x94: // MEMOIZE
		key = len(u.memo)
	case 'p', 'g':
		s, err := u.line()
		if err != nil {
			return err
		}
		if key, err = strconv.Atoi(s); err != nil {
			return u.errorf(ErrCorrupt, "memo key %.40q", s)
		}
	case 'q', 'h':
		b, err := u.take(1)
		if err != nil {
			return err
		}
		key = int(b[0])
	case 'r', 'j':
		b, err := u.take(4)
		if err != nil {
			return err
		}
		key = int(binary.LittleEndian.Uint32(b))
	}
	switch op {
	case 'g', 'h', 'j':
		v, ok := u.memo[key]
		if !ok {
			return u.errorf(ErrCorrupt, "memo has no entry %d", key)
		}
		u.push(v)
		return nil
	}
	v, err := u.top()
	if err != nil {
		return err
	}
	u.memo[key] = v
	return nil
}

// global pushes an allowed global and refuses any other.
func (u *unpickler) global(op byte) error {
	var module, name string
	if op == 'c' {
		var err error
		if module, err = u.line(); err != nil {
			return err
		}
		if name, err = u.line(); err != nil {
			return err
		}
	} else {
		n, err := u.pop()
		if err != nil {
			return err
		}
		m, err := u.pop()
		if err != nil {
			return err
		}
		var ok, ok2 bool
		name, ok = n.(string)
		module, ok2 = m.(string)
		if !ok || !ok2 {
			return u.errorf(ErrCorrupt, "a global named by %s and %s", describe(m), describe(n))
		}
	}
	full := module + "." + name
	_, isStorage := storageTypes[name]
	_, isType := torchTypes[name]
	switch {
	case allowed[full]:
	case isStorage && (module == "torch" || module == "torch.storage"):
	case isType && module == "torch":
	default:
		return u.errorf(ErrRefused, "global %.200s", full)
	}
	u.push(pyGlobal{module, name})
	return nil
}

// call stands for calling an allowed global.
func (u *unpickler) call(f, args any) (any, error) {
	g, ok := f.(pyGlobal)
	if !ok {
		return nil, u.errorf(ErrRefused, "calling %s", describe(f))
	}
	full := g.module + "." + g.name
	a, ok := args.(pyTuple)
	if !ok {
		return nil, u.errorf(ErrCorrupt, "calling %s with %s", full, describe(args))
	}
	bad := func() (any, error) {
		return nil, u.errorf(ErrCorrupt, "calling %s with %d arguments of the wrong kind", full, len(a))
	}
	switch full {
	case "collections.OrderedDict":
		d := &pyDict{}
		if len(a) == 0 {
			return d, nil
		}
		pairs, ok := a[0].(*pyList)
		if !ok {
			return bad()
		}
		if err := u.spend(len(pairs.items)); err != nil {
			return nil, err
		}
		for _, p := range pairs.items {
			switch p := p.(type) {
			case pyTuple:
				if len(p) != 2 {
					return bad()
				}
				d.keys, d.values = append(d.keys, p[0]), append(d.values, p[1])
			case *pyList:
				if len(p.items) != 2 {
					return bad()
				}
				d.keys, d.values = append(d.keys, p.items[0]), append(d.values, p.items[1])
			default:
				return bad()
			}
		}
		return d, nil
	case "__builtin__.set", "builtins.set", "__builtin__.frozenset", "builtins.frozenset":
		if len(a) == 0 {
			return &pySet{}, nil
		}
		if l, ok := a[0].(*pyList); ok {
			return &pySet{l.items}, nil
		}
		return bad()
	case "_codecs.encode":
		// How protocol 2 writes bytes: text of code points below 256.
		if len(a) != 2 {
			return bad()
		}
		s, ok := a[0].(string)
		if enc, ok2 := a[1].(string); !ok || !ok2 || enc != "latin1" {
			return bad()
		}
		if err := u.spend(len(s)); err != nil {
			return nil, err
		}
		b := make([]byte, 0, len(s))
		for _, r := range s {
			if r > 0xff {
				return bad()
			}
			b = append(b, byte(r))
		}
		return b, nil
	case "torch.Size":
		if len(a) == 1 {
			return a[0], nil
		}
		return bad()
	case "torch.device":
		return pyOpaque{"torch.device"}, nil
	case "numpy.dtype":
		if len(a) > 0 {
			if s, ok := a[0].(string); ok {
				return pyDtype{s}, nil
			}
		}
		return bad()
	case "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar":
		return numpyScalar(a), nil
	case "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state":
		if len(a) > 0 {
			if t, ok := a[0].(*pyTensor); ok {
				return t, nil
			}
		}
		return bad()
	case "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3":
		return u.tensor(g.name, a, bad)
	}
	return nil, u.errorf(ErrRefused, "calling %s", full)
}

// numpyScalar is the value of a NumPy number, or opaque.
func numpyScalar(a pyTuple) any {
	if len(a) == 2 {
		d, ok := a[0].(pyDtype)
		b, ok2 := a[1].([]byte)
		if kind, known := npyKinds[strings.TrimLeft(d.code, "<|=")]; ok && ok2 && known && len(b) == kind.size() {
			if v, err := decode(kind, b, false); err == nil {
				t := &Tensor{Data: v}
				if f, err := t.Float64s(); err == nil {
					return f[0]
				}
			}
		}
	}
	return pyOpaque{"numpy scalar"}
}

// tensor is (storage, offset, size, stride, …[, dtype]).
func (u *unpickler) tensor(name string, a pyTuple, bad func() (any, error)) (any, error) {
	if len(a) < 4 {
		return bad()
	}
	s, ok := a[0].(*pyStorage)
	offset, ok2 := a[1].(int64)
	size, ok3 := ints(a[2])
	stride, ok4 := ints(a[3])
	if !ok || !ok2 || !ok3 || !ok4 || len(size) != len(stride) {
		return bad()
	}
	t := &pyTensor{storage: s, dtype: s.dtype, offset: int(offset), size: size, stride: stride}
	if name == "_rebuild_tensor_v3" {
		if len(a) < 7 {
			return bad()
		}
		g, ok := a[6].(pyGlobal)
		if !ok {
			return bad()
		}
		t.dtype = torchTypes[g.name]
	}
	if t.dtype == "" {
		return nil, u.errorf(ErrUnsupported, "a tensor of untyped bytes")
	}
	return t, nil
}

// maxDims is the largest number of dimensions of a tensor, NumPy's.
const maxDims = 64

// ints reads a tuple or list of at most maxDims integers, none negative.
func ints(v any) ([]int, bool) {
	var items []any
	switch v := v.(type) {
	case pyTuple:
		items = v
	case *pyList:
		items = v.items
	default:
		return nil, false
	}
	if len(items) > maxDims {
		return nil, false
	}
	out := make([]int, len(items))
	for i, x := range items {
		n, ok := x.(int64)
		if !ok || n < 0 || n > math.MaxInt {
			return nil, false
		}
		out[i] = int(n)
	}
	return out, true
}

// storage reads a persistent id: ('storage', class, key, location, numel) and,
// in the legacy format, a view (key, offset, size) or None.
func (u *unpickler) storage(id any) (*pyStorage, error) {
	t, ok := id.(pyTuple)
	if !ok || len(t) < 5 || len(t) > 6 {
		return nil, u.errorf(ErrCorrupt, "persistent id %s", describe(id))
	}
	kind, ok := t[0].(string)
	class, ok2 := t[1].(pyGlobal)
	key, ok3 := t[2].(string)
	numel, ok4 := t[4].(int64)
	if !ok || !ok2 || !ok3 || !ok4 || kind != "storage" || numel < 0 || numel > math.MaxInt/8 {
		return nil, u.errorf(ErrCorrupt, "persistent id %s", describe(id))
	}
	dtype, ok := storageTypes[class.name]
	if !ok {
		return nil, u.errorf(ErrUnsupported, "a storage of class %s.%s", class.module, class.name)
	}
	s := &pyStorage{dtype: dtype, key: key, numel: int(numel)}
	if len(t) == 6 && t[5] != nil {
		view, ok := t[5].(pyTuple)
		if !ok || len(view) != 3 {
			return nil, u.errorf(ErrCorrupt, "storage view %s", describe(t[5]))
		}
		first, ok := view[1].(int64)
		if !ok || first < 0 || first > numel {
			return nil, u.errorf(ErrCorrupt, "storage view offset %s", describe(view[1]))
		}
		s.first = int(first)
	}
	if u.seen != nil {
		if o, ok := u.seen[key]; ok && o.dtype != dtype {
			return nil, u.errorf(ErrCorrupt, "storage %q is both %s and %s", key, o.dtype, dtype)
		}
		u.seen[key] = s
	}
	return s, nil
}

// describe names a value for an error, in few words.
func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case pyGlobal:
		return v.module + "." + v.name
	case string:
		return fmt.Sprintf("the string %.40q", v)
	case pyTuple:
		return fmt.Sprintf("a tuple of %d", len(v))
	case *pyList:
		return "a list"
	case *pyDict:
		return "a dict"
	case *pySet:
		return "a set"
	case *pyTensor:
		return "a tensor"
	case *pyStorage:
		return "a storage"
	case pyOpaque:
		return v.what
	case pyDtype:
		return "a numpy.dtype"
	case []byte:
		return "bytes"
	case *big.Int:
		return "a large integer"
	default:
		return fmt.Sprint(v) // bool, int64, float64
	}
}
