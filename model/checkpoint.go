package model

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// stateKeys are where training programs put a state dict, in the order they are
// preferred where what lies there is of one size.
var stateKeys = []string{"state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "state", "module"}

// averageKeys are parts of keys whose state dicts follow another one: an average of it, a
// teacher, an older one. Nobody but the caller can say that they are wanted.
var averageKeys = []string{"ema", "swa", "avg", "average", "averaged", "teacher", "target", "momentum", "shadow", "old", "prev", "best"}

// besideKeys are parts of keys under which there are no networks.
var besideKeys = []string{"optim", "optimizer", "optimizers", "sched", "scheduler", "schedulers", "scaler", "amp"}

// saveStateDict is what to do about files that hold a program and not its weights alone.
const saveStateDict = `torch.save(model.state_dict(), "weights.pth")`

// hasPart reports whether one of the words of a key, which _ and others divide, is one of
// parts.
func hasPart(key string, parts []string) bool {
	words := strings.FieldsFunc(strings.ToLower(key), func(r rune) bool { return r == '_' || r == '-' || r == '.' || r == ' ' })
	return slices.ContainsFunc(words, func(w string) bool { return slices.Contains(parts, w) })
}

// leaf is a tensor of a mapping by its name.
type leaf struct {
	name  string
	value any // *pyTensor, *pyArray or pyUnread
}

// mapping is a state dict that may be the one wanted.
type mapping struct {
	key    []string // from the root on
	dict   *pyDict
	leaves []leaf
	// kernels counts the tensors of two dimensions or more, values their elements.
	kernels, values int
}

func (m *mapping) path() string { return strings.Join(m.key, ".") }

// class is how much the key says that this is the network.
func (m *mapping) class() int {
	switch {
	case m.kernels == 0:
		return 0
	case len(m.key) == 0:
		return 2
	case slices.ContainsFunc(m.key, func(k string) bool { return hasPart(k, averageKeys) }):
		return 1
	case slices.Contains(stateKeys, m.key[len(m.key)-1]):
		return 3
	}
	return 2
}

// finder lists the mappings of a checkpoint.
type finder struct {
	found  []*mapping
	nodes  int // values that may yet be visited
	module *pyObject
	at     string // where module is
}

// maxNesting is how deep dicts are looked into.
const maxNesting = 16

// maxNodes bounds the values that are looked at.
const maxNodes = 4 << 20

var errTooMany = fmt.Errorf("%w: more than %d entries", ErrCorrupt, maxNodes)

func (f *finder) visit() error {
	if f.nodes--; f.nodes < 0 {
		return errTooMany
	}
	return nil
}

// keyName is a key that is text or a number.
func keyName(k any) (string, bool) {
	switch k := k.(type) {
	case string:
		return k, len(k) <= 1<<12
	case int64:
		return fmt.Sprint(k), true
	}
	return "", false
}

func isLeaf(v any) bool {
	switch v := v.(type) {
	case *pyTensor, pyUnread:
		return true
	case *pyArray:
		return v.dtype != nil
	}
	return false
}

// own reports whether the dict d under a key is a state dict by itself and not a part of
// the one around it: it has the name of one, or has names with dots, which are whole.
func own(key string, d *pyDict) bool {
	if slices.Contains(stateKeys, key) || hasPart(key, averageKeys) {
		return true
	}
	for i, k := range d.keys {
		if s, ok := k.(string); ok && isLeaf(d.values[i]) && strings.Contains(s, ".") {
			return true
		}
	}
	return false
}

// walk lists the mapping of v and those within.
func (f *finder) walk(key []string, v any) error {
	if err := f.visit(); err != nil {
		return err
	}
	if len(key) > maxNesting {
		return nil
	}
	if o, ok := v.(*pyObject); ok && f.module == nil && o.isModule() {
		f.module, f.at = o, strings.Join(key, ".")
	}
	var items []any
	switch v := v.(type) {
	case *pyList:
		items = v.items
	case pyTuple:
		items = v
	default:
		d := asDict(v)
		if d == nil {
			return nil
		}
		m := &mapping{key: slices.Clone(key), dict: d}
		f.found = append(f.found, m)
		return f.fill(m, "", key, d, false)
	}
	for i, x := range items {
		switch x.(type) {
		case *pyList, pyTuple, *pyDict, *pyObject:
			if err := f.walk(append(key, strconv.Itoa(i)), x); err != nil {
				return err
			}
		}
	}
	return nil
}

// fill puts the tensors of d into m, their names after prefix, and walks what is not a
// part of m. With all everything is a part.
func (f *finder) fill(m *mapping, prefix string, key []string, d *pyDict, all bool) error {
	if len(key) > maxNesting {
		return nil
	}
	for i, k := range d.keys {
		if err := f.visit(); err != nil {
			return err
		}
		name, ok := keyName(k)
		if !ok {
			continue
		}
		v := d.values[i]
		if isLeaf(v) {
			if len(prefix)+len(name) > 1<<12 {
				return fmt.Errorf("%w: a name of more than 4096 bytes", ErrCorrupt)
			}
			m.add(prefix+name, v)
			continue
		}
		sub := asDict(v)
		at := append(key, name)
		var err error
		switch {
		case all && sub != nil:
			err = f.fill(m, prefix+name+".", at, sub, true)
		case all || hasPart(name, besideKeys):
		case sub == nil || own(name, sub):
			err = f.walk(at, v)
		default:
			err = f.fill(m, prefix+name+".", at, sub, false)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// optimizerLeaves end the names of what optimizers keep for each weight.
var optimizerLeaves = []string{"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "grad_avg", "sqr_avg", "acc_delta", "sum", "prev", "exp_inf", "ax", "mu", "master_param", "fp32_param"}

func (m *mapping) add(name string, v any) {
	m.leaves = append(m.leaves, leaf{name, v})
	if slices.Contains(optimizerLeaves, name[strings.LastIndexByte(name, '.')+1:]) {
		return
	}
	var size []int
	switch v := v.(type) {
	case *pyTensor:
		if v.dtype != F64 && v.dtype != F32 && v.dtype != F16 && v.dtype != BF16 {
			return
		}
		size = v.size
	case *pyArray:
		if !strings.HasPrefix(v.dtype.code, "f") {
			return
		}
		size = v.shape
	}
	if n, ok := elements(size, math.MaxInt/16); ok && len(size) > 1 && n > 0 {
		m.kernels++
		m.values += n
	}
}

// better orders mappings: the network first.
func better(a, b *mapping) int {
	last := func(m *mapping) int {
		if len(m.key) == 0 {
			return len(stateKeys)
		}
		if i := slices.Index(stateKeys, m.key[len(m.key)-1]); i >= 0 {
			return i
		}
		return len(stateKeys)
	}
	return cmp.Or(cmp.Compare(b.class(), a.class()), cmp.Compare(b.kernels, a.kernels), cmp.Compare(b.values, a.values), cmp.Compare(last(a), last(b)))
}

// gather makes a state dict of what a pickle held, of a file of size bytes.
func (o ReadOptions) gather(obj any, from storages, size int64, bigEndian bool) (*StateDict, error) {
	f := &finder{nodes: maxNodes}
	if err := f.walk(make([]string, 0, maxNesting+2), obj); err != nil {
		return nil, err
	}
	root := asDict(obj)
	best, err := f.choose(o.Key, obj, root)
	if err != nil {
		return nil, err
	}
	g := &gatherer{sd: NewStateDict(), from: from, big: bigEndian, budget: 8<<20 + int(min(size, 1<<40))*4, cache: map[storageKey][]byte{}}
	g.sd.Source = f.source(best)
	if root != nil && best.dict != root {
		for i, k := range root.keys {
			name, ok := k.(string)
			if !ok {
				continue
			}
			switch v := root.values[i].(type) {
			case bool, int64, float64, string:
				g.sd.Meta[name] = fmt.Sprint(v)
			}
		}
	}
	return g.sd, g.run(best.leaves)
}

// choose finds the mapping of a key, or, without one, the network's.
func (f *finder) choose(key string, obj any, root *pyDict) (*mapping, error) {
	if key != "" {
		return f.keyed(key, obj)
	}
	list := slices.Clone(f.found)
	slices.SortStableFunc(list, better)
	// A known key with a part of a network is not the network.
	for len(list) > 1 && list[0].class() == 3 && list[1].class() >= 2 && list[0].kernels*2 < list[1].kernels {
		list = list[1:]
	}
	if len(list) > 0 && len(list[0].leaves) > 0 && (list[0].kernels > 0 || f.module == nil) {
		return list[0], nil
	}
	// Without kernels: whatever has tensors, as an array or a scalar may be all that a
	// file is for.
	for _, m := range list {
		if len(m.leaves) > 0 && f.module == nil {
			return m, nil
		}
	}
	switch v := obj.(type) {
	case *pyObject:
		if f.module == v {
			return nil, fmt.Errorf("%w: a whole pickled module, of class %s, whose code is not run here; save its weights alone, with %s", ErrRefused, quoted(v.class), saveStateDict)
		}
		return nil, fmt.Errorf("%w: the checkpoint is %s, which is not built here; save the weights alone, with %s", ErrRefused, describe(obj), saveStateDict)
	case pyGlobal:
		return nil, fmt.Errorf("%w: the checkpoint is the global %s", ErrRefused, describe(obj))
	case *pyTensor, *pyArray:
		return nil, fmt.Errorf("%w: the checkpoint is %s, want a dict of tensors", ErrFormat, describe(obj))
	}
	if f.module != nil {
		return nil, fmt.Errorf("%w: %s holds a whole pickled module, of class %s, whose code is not run here, and there are no weights beside it; save them alone, with %s",
			ErrRefused, quoted(f.at), quoted(f.module.class), saveStateDict)
	}
	if root == nil && len(f.found) == 0 {
		return nil, fmt.Errorf("%w: the checkpoint is %s, want a dict of tensors", ErrFormat, describe(obj))
	}
	return nil, fmt.Errorf("%w: the checkpoint holds no tensors", ErrFormat)
}

// keyed finds what a key names: keys and positions from the root on, with dots between.
func (f *finder) keyed(key string, obj any) (*mapping, error) {
	v, path := obj, []string{}
	if key != "." {
		var ok bool
		if v, path, ok = f.lookUp(obj, key, 0); !ok {
			var has []string
			for _, m := range f.found {
				if len(m.key) > 0 && len(m.leaves) > 0 && len(has) < 8 {
					has = append(has, fmt.Sprintf("%s (%d tensors)", quoted(m.path()), len(m.leaves)))
				}
			}
			if len(has) == 0 {
				has = []string{"no state dicts under keys"}
			}
			return nil, fmt.Errorf("%w %s; the checkpoint has %s", ErrKey, quoted(key), strings.Join(has, ", "))
		}
	}
	d := asDict(v)
	if d == nil {
		return nil, fmt.Errorf("%w %s is %s, want a dict of tensors", ErrKey, quoted(key), describe(v))
	}
	if key != "." {
		// The key may be of a dict that has the state dict within.
		in := &finder{nodes: f.nodes}
		if err := in.walk(path, v); err != nil {
			return nil, err
		}
		if m, err := in.choose("", v, d); err == nil {
			return m, nil
		}
	}
	m := &mapping{key: path, dict: d}
	if err := f.fill(m, "", nil, d, true); err != nil {
		return nil, err
	}
	if len(m.leaves) == 0 {
		return nil, fmt.Errorf("%w %s: no tensors there", ErrKey, quoted(key))
	}
	return m, nil
}

// ErrKey: a key that a checkpoint does not have, or where no tensors lie.
var ErrKey = errors.New("key")

// lookUp follows a key from v on, and gives the steps that it took.
func (f *finder) lookUp(v any, key string, depth int) (any, []string, bool) {
	if key == "" {
		return v, nil, true
	}
	if depth > maxNesting || f.visit() != nil {
		return nil, nil, false
	}
	step := func(name, rest string, v any) (any, []string, bool) {
		x, path, ok := f.lookUp(v, rest, depth+1)
		return x, append([]string{name}, path...), ok
	}
	var items []any
	switch v := v.(type) {
	case *pyList:
		items = v.items
	case pyTuple:
		items = v
	}
	for i, x := range items {
		if rest, ok := cutKey(key, fmt.Sprint(i)); ok {
			return step(fmt.Sprint(i), rest, x)
		}
	}
	if d := asDict(v); d != nil {
		for i := len(d.keys) - 1; i >= 0; i-- {
			name, ok := keyName(d.keys[i])
			if !ok || name == "" || f.visit() != nil {
				continue
			}
			if rest, ok := cutKey(key, name); ok {
				if x, path, ok := step(name, rest, d.values[i]); ok {
					return x, path, true
				}
			}
		}
	}
	return nil, nil, false
}

// cutKey is what follows name and a dot in key, or nothing where key is name.
func cutKey(key, name string) (rest string, ok bool) {
	if key == name {
		return "", true
	}
	return strings.CutPrefix(key, name+".")
}

// source says what was chosen and what was not.
func (f *finder) source(best *mapping) Source {
	s := Source{Key: best.path()}
	for _, m := range f.found {
		if m.dict != best.dict && m.kernels > 0 && len(m.key) > 0 {
			s.Others = append(s.Others, Other{Key: m.path(), Tensors: len(m.leaves)})
		}
		if len(m.key) == 0 && m.dict != best.dict {
			for _, k := range m.dict.keys {
				name, ok := keyName(k)
				first := len(best.key) > 0 && name == best.key[0]
				if ok && !first && !slices.ContainsFunc(f.found, func(m *mapping) bool { return m.kernels > 0 && len(m.key) > 0 && m.key[0] == name }) {
					s.Beside = append(s.Beside, name)
				}
			}
		}
	}
	return s
}

// storageKey tells storages apart.
type storageKey struct {
	inner *legacyStorages
	key   string
}

// gatherer makes tensors of views.
type gatherer struct {
	sd     *StateDict
	from   storages
	big    bool
	budget int // bytes that tensors may yet take
	cache  map[storageKey][]byte
	// left counts the views of a storage that are yet to come, after which its bytes go.
	left map[storageKey]int
}

func (s *pyStorage) id() storageKey { return storageKey{s.inner, s.key} }

func (g *gatherer) run(leaves []leaf) error {
	g.left = map[storageKey]int{}
	for _, l := range leaves {
		if t, ok := l.value.(*pyTensor); ok {
			g.left[t.storage.id()]++
		}
	}
	for _, l := range leaves {
		var t *Tensor
		var err error
		switch v := l.value.(type) {
		case *pyTensor:
			t, err = g.tensor(v)
		case *pyArray:
			t, err = g.array(v)
		case pyUnread:
			g.sd.LeaveOut(l.name, v.what+", which is not read")
			continue
		}
		if err != nil {
			if errors.Is(err, ErrUnsupported) {
				g.sd.LeaveOut(l.name, err.Error())
				continue
			}
			return fmt.Errorf("tensor %s: %w", quoted(l.name), err)
		}
		g.sd.Set(l.name, t)
	}
	if g.sd.Len() == 0 {
		return fmt.Errorf("%w: the checkpoint holds no tensors that are read: %s is %s", ErrFormat, quoted(leaves[0].name), describe(leaves[0].value))
	}
	return nil
}

// array is an array of NumPy's.
func (g *gatherer) array(v *pyArray) (*Tensor, error) {
	kind, ok := npyKinds[v.dtype.code]
	if !ok {
		return nil, fmt.Errorf("%w: an array of %s", ErrUnsupported, quoted(v.dtype.code))
	}
	n, ok := elements(v.shape, len(v.raw)/kind.size())
	if !ok || n*kind.size() != len(v.raw) {
		return nil, fmt.Errorf("%w: an array of shape %v with %d bytes", ErrCorrupt, v.shape, len(v.raw))
	}
	if g.budget -= n * kind.wide(); g.budget < 0 {
		return nil, fmt.Errorf("%w: more arrays than the file can hold", ErrCorrupt)
	}
	raw := v.raw
	if v.fortran && len(v.shape) > 1 && n > 0 {
		raw = rowMajor(raw, v.shape, kind.size())
	}
	return newTensor(kind, slices.Clone(v.shape), raw, v.dtype.big)
}

// tensor copies a view out of its storage, in row-major order.
func (g *gatherer) tensor(v *pyTensor) (*Tensor, error) {
	raw, err := g.storage(v.storage)
	if err != nil {
		return nil, err
	}
	esize := v.dtype.size()
	n, ok := elements(v.size, g.budget/v.dtype.wide())
	if !ok {
		return nil, fmt.Errorf("%w: shape %v is too large for a storage of %d bytes", ErrCorrupt, v.size, len(raw))
	}
	g.budget -= n * v.dtype.wide()
	have := len(raw) / esize
	shape := append([]int(nil), v.size...)
	if n == 0 {
		return newTensor(v.dtype, shape, nil, false)
	}
	// The last element that the view reaches must be there.
	first := v.offset + v.storage.first
	last := first
	contiguous, run := true, 1
	for i := len(v.size) - 1; i >= 0; i-- {
		if v.size[i] > 1 {
			if v.stride[i] > (have-1)/(v.size[i]-1) {
				return nil, fmt.Errorf("%w: stride %v of shape %v leaves the storage of %d elements", ErrCorrupt, v.stride, v.size, have)
			}
			last += v.stride[i] * (v.size[i] - 1)
			contiguous = contiguous && v.stride[i] == run
		}
		run *= v.size[i]
	}
	if first < 0 || first >= have || last < first || last >= have {
		return nil, fmt.Errorf("%w: offset %d, stride %v and shape %v leave the storage of %d elements", ErrCorrupt, first, v.stride, v.size, have)
	}
	if contiguous {
		return newTensor(v.dtype, shape, raw[first*esize:(first+n)*esize], g.big)
	}
	packed := make([]byte, n*esize)
	index := make([]int, len(v.size))
	at := first
	for i := range n {
		copy(packed[i*esize:], raw[at*esize:(at+1)*esize])
		for d := len(index) - 1; d >= 0; d-- {
			at += v.stride[d]
			if index[d]++; index[d] < v.size[d] {
				break
			}
			at -= v.stride[d] * v.size[d]
			index[d] = 0
		}
	}
	return newTensor(v.dtype, shape, packed, g.big)
}

// storage is the content of a storage, which is kept until its last view is made.
func (g *gatherer) storage(s *pyStorage) ([]byte, error) {
	id := s.id()
	b, ok := g.cache[id]
	if !ok {
		from := g.from
		if s.inner != nil {
			from = s.inner
		}
		var err error
		if b, err = from.load(s); err != nil {
			return nil, fmt.Errorf("storage %s: %w", quoted(s.key), err)
		}
		// Views may overlap and half precision widens: some slack, but no bombs.
		g.budget += 2 * len(b)
		g.cache[id] = b
	}
	if g.left[id]--; g.left[id] <= 0 {
		delete(g.cache, id)
	}
	return b, nil
}
