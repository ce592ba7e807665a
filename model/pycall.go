package model

import (
	"bytes"
	"math"
	"strings"
)

// storageTypes are torch's storage classes; "" is bytes without a type.
var storageTypes = map[string]DType{
	"DoubleStorage": F64, "FloatStorage": F32, "HalfStorage": F16, "BFloat16Storage": BF16,
	"LongStorage": I64, "IntStorage": I32, "ShortStorage": I16, "CharStorage": I8, "ByteStorage": U8, "BoolStorage": Bool,
	"UntypedStorage": "",
}

// unreadStorages are storage classes whose tensors are not read, with the bytes of an
// element, by which a legacy stream goes on behind them.
var unreadStorages = map[string]int{
	"ComplexFloatStorage": 8, "ComplexDoubleStorage": 16, "ComplexHalfStorage": 4,
	"QInt8Storage": 1, "QUInt8Storage": 1, "QInt32Storage": 4, "QUInt4x2Storage": 1, "QUInt2x4Storage": 1,
}

// elementSize is the number of bytes of an element, 1 where that is not known.
func (s *pyStorage) elementSize() int {
	if n := s.dtype.size(); n > 0 {
		return n
	}
	return max(unreadStorages[s.class], 1)
}

// torchTypes are torch's dtypes.
var torchTypes = map[string]DType{
	"float64": F64, "double": F64, "float32": F32, "float": F32, "float16": F16, "half": F16, "bfloat16": BF16,
	"int64": I64, "long": I64, "int32": I32, "int": I32, "int16": I16, "short": I16, "int8": I8,
	"uint64": U64, "uint32": U32, "uint16": U16, "uint8": U8, "bool": Bool,
}

// call is what stands for calling a global with arguments. It runs no Python, and returns
// errArguments where they are not such as the global takes.
type call func(u *unpickler, a pyTuple) (any, error)

// calls are the globals that have a meaning here. Every other call gives a pyObject. Set
// by init, since a call may call another.
var calls map[string]call

func init() {
	calls = map[string]call{
		"collections.OrderedDict": callDict,
		// A subclass of dict that is filled as one.
		"collections.defaultdict": func(u *unpickler, a pyTuple) (any, error) {
			return &pyDict{}, nil
		},
		"collections.Counter":                                 callDict,
		"_codecs.encode":                                      callEncode,
		"torch.Size":                                          callFirst,
		"torch._utils._rebuild_parameter":                     callFirst,
		"torch._utils._rebuild_parameter_with_state":          callFirst,
		"torch._tensor._rebuild_from_type_v2":                 callRebuildFrom,
		"torch._utils._rebuild_tensor":                        callTensor,
		"torch._utils._rebuild_tensor_v2":                     callTensor,
		"torch._utils._rebuild_tensor_v3":                     callTypedTensor,
		"torch._utils._rebuild_sparse_tensor":                 unread("a sparse tensor"),
		"torch._utils._rebuild_sparse_csr_tensor":             unread("a sparse tensor"),
		"torch._utils._rebuild_nested_tensor":                 unread("a nested tensor"),
		"torch._utils._rebuild_qtensor":                       unread("a quantised tensor"),
		"torch._utils._rebuild_meta_tensor_no_storage":        unread("a tensor without values (meta)"),
		"torch._utils._rebuild_wrapper_subclass":              unread("a tensor of another class"),
		"torch._utils._rebuild_device_tensor_from_numpy":      callFirst,
		"torch._utils._rebuild_device_tensor_from_cpu_tensor": callFirst,
		"torch.storage._load_from_bytes":                      callLoad,
		"numpy.dtype":                                         callDtype,
	}
	for _, builtins := range []string{"builtins.", "__builtin__."} {
		calls[builtins+"set"], calls[builtins+"frozenset"] = callSet, callSet
		calls[builtins+"dict"] = callDict
		calls[builtins+"bytes"], calls[builtins+"bytearray"] = callBytes, callBytes
	}
	for _, core := range []string{"numpy.core.", "numpy._core."} {
		calls[core+"multiarray.scalar"] = callScalar
		calls[core+"multiarray._reconstruct"] = func(*unpickler, pyTuple) (any, error) { return &pyArray{}, nil }
		calls[core+"numeric._frombuffer"] = callFromBuffer
	}
}

// errArguments: a global that has a meaning is called in a way that has none.
var errArguments = errorString("arguments of the wrong kind")

type errorString string

func (e errorString) Error() string { return string(e) }

// instance pushes what calling f would give.
func (u *unpickler) instance(f, args any) error {
	a, ok := args.(pyTuple)
	if !ok {
		return u.errorf(ErrCorrupt, "calling %s with %s", describe(f), describe(args))
	}
	if err := u.spend(containerCost); err != nil {
		return err
	}
	var class string
	switch f := f.(type) {
	case pyGlobal:
		class = f.String()
		if class == "copyreg._reconstructor" || class == "copy_reg._reconstructor" {
			// (class, base, state of the base)
			if g, ok := first(a).(pyGlobal); ok && len(a) == 3 {
				o := &pyObject{class: g.String()}
				o.items, _ = a[2].(*pyDict)
				u.push(o)
				return nil
			}
		}
		if build, ok := calls[class]; ok {
			v, err := build(u, a)
			if err == errArguments {
				return u.errorf(ErrCorrupt, "calling %s with %d arguments of the wrong kind", quoted(class), len(a))
			}
			if err != nil {
				return err
			}
			u.push(v)
			return nil
		}
	case *pyObject: // a function that another call would have made
		class = f.class
	default:
		return u.errorf(ErrRefused, "calling %s", describe(f))
	}
	u.push(&pyObject{class: class})
	return nil
}

func first(a pyTuple) any {
	if len(a) == 0 {
		return nil
	}
	return a[0]
}

// build gives the state of an object that a pickle sets after its making.
func (u *unpickler) build(obj, state any) error {
	switch o := obj.(type) {
	case *pyDict, *pyTensor, *pySet, *pyList, pyUnread:
		// The attributes of an OrderedDict (_metadata) or a tensor: nothing in them
		// is needed.
	case *pyObject:
		o.state = state
	case *pyDtype:
		// (version, order of bytes, subtype, names of fields, …)
		t, ok := state.(pyTuple)
		if !ok || len(t) < 5 {
			return u.errorf(ErrCorrupt, "a numpy.dtype with the state %s", describe(state))
		}
		o.big = t[1] == ">"
		if t[2] != nil || t[3] != nil {
			o.code = "structured"
		}
	case *pyArray:
		return u.array(o, state)
	default:
		return u.errorf(ErrRefused, "setting the state of %s", describe(obj))
	}
	return nil
}

// array fills an array of NumPy's: (version, shape, type, Fortran order, content).
func (u *unpickler) array(o *pyArray, state any) error {
	t, ok := state.(pyTuple)
	if ok && len(t) == 5 {
		t = t[1:] // a version
	}
	if !ok || len(t) != 4 {
		return u.errorf(ErrCorrupt, "an array with the state %s", describe(state))
	}
	o.shape, ok = ints(t[0])
	d, ok2 := t[1].(*pyDtype)
	o.fortran = t[2] == true
	if !ok || !ok2 {
		return u.errorf(ErrCorrupt, "an array with the state %s", describe(state))
	}
	o.dtype = d
	switch raw := t[3].(type) {
	case []byte:
		o.raw = raw
	case string: // Python 2's bytes
		o.raw = []byte(raw)
		return u.spend(len(raw))
	default: // a list of objects
		o.dtype = &pyDtype{code: "object"}
	}
	return nil
}

func unread(what string) call {
	return func(*unpickler, pyTuple) (any, error) { return pyUnread{what}, nil }
}

// callFirst is a call that is no more than its first argument here.
func callFirst(_ *unpickler, a pyTuple) (any, error) {
	if len(a) == 0 {
		return nil, errArguments
	}
	return a[0], nil
}

func callDict(u *unpickler, a pyTuple) (any, error) {
	d := &pyDict{}
	var pairs []any
	switch a := first(a).(type) {
	case nil:
		return d, nil
	case *pyDict:
		d.keys, d.values = append(d.keys, a.keys...), append(d.values, a.values...)
		return d, u.spend(2 * valueCost * len(a.keys))
	case *pyList:
		pairs = a.items
	case pyTuple:
		pairs = a
	default:
		return nil, errArguments
	}
	if err := u.spend(2 * valueCost * len(pairs)); err != nil {
		return nil, err
	}
	for _, p := range pairs {
		kv, ok := p.(pyTuple)
		if l, isList := p.(*pyList); isList {
			kv, ok = l.items, true
		}
		if !ok || len(kv) != 2 {
			return nil, errArguments
		}
		d.keys, d.values = append(d.keys, kv[0]), append(d.values, kv[1])
	}
	return d, nil
}

func callSet(_ *unpickler, a pyTuple) (any, error) {
	switch a := first(a).(type) {
	case nil:
		return &pySet{}, nil
	case *pyList:
		return &pySet{a.items}, nil
	}
	return nil, errArguments
}

func callBytes(_ *unpickler, a pyTuple) (any, error) {
	if b, ok := first(a).([]byte); ok {
		return b, nil
	}
	if len(a) == 0 {
		return []byte{}, nil
	}
	return &pyObject{class: "bytes"}, nil
}

// callEncode is how protocol 2 writes bytes: text of code points below 256.
func callEncode(u *unpickler, a pyTuple) (any, error) {
	if len(a) != 2 {
		return nil, errArguments
	}
	s, ok := a[0].(string)
	if enc, ok2 := a[1].(string); !ok || !ok2 || enc != "latin1" {
		return nil, errArguments
	}
	if err := u.spend(len(s)); err != nil {
		return nil, err
	}
	b := make([]byte, 0, len(s))
	for _, r := range s {
		if r > 0xff {
			return nil, errArguments
		}
		b = append(b, byte(r))
	}
	return b, nil
}

// callDtype is (code, align, copy).
func callDtype(_ *unpickler, a pyTuple) (any, error) {
	s, ok := first(a).(string)
	if !ok {
		// The type may be a class: dtype(float).
		return &pyDtype{code: "object"}, nil
	}
	return &pyDtype{code: strings.TrimLeft(s, "<>|="), big: strings.HasPrefix(s, ">")}, nil
}

// callScalar is the value of a number of NumPy's, and an object for anything else.
func callScalar(_ *unpickler, a pyTuple) (any, error) {
	if len(a) == 2 {
		d, ok := a[0].(*pyDtype)
		b, ok2 := a[1].([]byte)
		if ok && ok2 {
			if kind := npyKinds[d.code]; kind.size() > 0 && len(b) == kind.size() {
				if v, err := decode(kind, b, d.big); err == nil {
					if f, err := (&Tensor{Data: v}).Float64s(); err == nil {
						return f[0], nil
					}
				}
			}
		}
	}
	return &pyObject{class: "numpy.generic"}, nil
}

// callFromBuffer is an array: (bytes, dtype, shape, order).
func callFromBuffer(_ *unpickler, a pyTuple) (any, error) {
	if len(a) != 4 {
		return nil, errArguments
	}
	raw, ok := a[0].([]byte)
	d, ok2 := a[1].(*pyDtype)
	shape, ok3 := ints(a[2])
	if !ok || !ok2 || !ok3 {
		return nil, errArguments
	}
	return &pyArray{dtype: d, shape: shape, fortran: a[3] == "F", raw: raw}, nil
}

// callRebuildFrom is a tensor with attributes or of a subclass: (function, class,
// arguments, state).
func callRebuildFrom(u *unpickler, a pyTuple) (any, error) {
	if len(a) < 3 {
		return nil, errArguments
	}
	f, ok := a[0].(pyGlobal)
	args, ok2 := a[2].(pyTuple)
	if !ok || !ok2 {
		return nil, errArguments
	}
	if build, ok := calls[f.String()]; ok && f.name != "_rebuild_from_type_v2" {
		return build(u, args)
	}
	return pyUnread{"a tensor of another class"}, nil
}

// callTensor is (storage, offset, size, stride, …).
func callTensor(u *unpickler, a pyTuple) (any, error) { return u.tensor(a, nil) }

// callTypedTensor is (storage, offset, size, stride, …, dtype at 6).
func callTypedTensor(u *unpickler, a pyTuple) (any, error) {
	if len(a) < 7 {
		return nil, errArguments
	}
	g, ok := a[6].(pyGlobal)
	if !ok {
		return nil, errArguments
	}
	return u.tensor(a, &g)
}

func (u *unpickler) tensor(a pyTuple, kind *pyGlobal) (any, error) {
	if len(a) < 4 {
		return nil, errArguments
	}
	if o, ok := a[0].(*pyObject); ok {
		return nil, u.errorf(ErrRefused, "a tensor whose storage is %s", describe(o))
	}
	s, ok := a[0].(*pyStorage)
	offset, ok2 := a[1].(int64)
	size, ok3 := ints(a[2])
	stride, ok4 := ints(a[3])
	if !ok || !ok2 || !ok3 || !ok4 || len(size) != len(stride) || int64(int(offset)) != offset {
		return nil, errArguments
	}
	t := &pyTensor{storage: s, dtype: s.dtype, offset: int(offset), size: size, stride: stride}
	if kind != nil {
		if t.dtype = torchTypes[kind.name]; t.dtype == "" || kind.module != "torch" {
			return pyUnread{"a tensor of " + quoted(kind.String())}, nil
		}
	}
	if t.dtype == "" {
		return pyUnread{"a tensor of " + quoted(s.class)}, nil
	}
	return t, u.spend(128)
}

// callLoad is a storage or a tensor in a stream of its own, as pickle writes it where
// torch.save does not.
func callLoad(u *unpickler, a pyTuple) (any, error) {
	raw, ok := first(a).([]byte)
	if !ok {
		return nil, errArguments
	}
	if u.depth > 1 {
		return nil, u.errorf(ErrCorrupt, "streams within streams")
	}
	v, _, _, err := legacyStream(bytes.NewReader(raw), int64(len(raw)), u.depth+1)
	if err != nil {
		return nil, u.errorf(ErrCorrupt, "%v", err)
	}
	return v, u.spend(len(raw) / 8)
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
func (u *unpickler) storage(id any) (any, error) {
	t, ok := id.(pyTuple)
	if !ok || len(t) < 5 || len(t) > 6 || t[0] != "storage" {
		if ok && len(t) > 0 && t[0] != "storage" {
			return &pyObject{class: "persistent id"}, nil // the source of a module's class, in legacy streams
		}
		return nil, u.errorf(ErrCorrupt, "persistent id %s", describe(id))
	}
	class, ok := t[1].(pyGlobal)
	key, ok2 := t[2].(string)
	numel, ok3 := t[4].(int64)
	if !ok || !ok2 || !ok3 || numel < 0 || numel > math.MaxInt/16 {
		return nil, u.errorf(ErrCorrupt, "persistent id %s", describe(id))
	}
	s := &pyStorage{class: class.name, key: key, numel: int(numel), inner: u.inner}
	if class.module == "torch" || class.module == "torch.storage" {
		s.dtype = storageTypes[class.name]
	}
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
		if o, ok := u.seen[key]; ok && o.class != s.class {
			return nil, u.errorf(ErrCorrupt, "storage %q is both %s and %s", key, quoted(o.class), quoted(s.class))
		}
		u.seen[key] = s
	}
	return s, u.spend(128)
}
