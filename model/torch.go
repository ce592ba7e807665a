package model

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"path"
	"strings"
)

// stateKeys are where a checkpoint's state dict lies when it is not the object
// itself, in the order they are tried.
var stateKeys = []string{"state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "ema_state_dict", "state_dict_ema", "model_ema"}

// ReadTorch reads a PyTorch checkpoint of size bytes, a zip archive (torch 1.6
// and later) or a legacy stream.
//
// The state dict is the object itself, where it is a dict that holds a tensor,
// or the dict under the first of the keys state_dict, model_state_dict,
// model_state, model, net, network, weights, params, ema_state_dict,
// state_dict_ema, model_ema that the object has; dicts in it are flattened with
// dots. Numbers, strings and booleans beside it become Meta. Names are kept as
// they are.
//
// Tensors may be views: strides, offsets and shared storages are honoured.
func ReadTorch(r io.ReaderAt, size int64) (*StateDict, error) {
	head := make([]byte, 4)
	if _, err := r.ReadAt(head, 0); err != nil && err != io.EOF {
		return nil, err
	}
	if bytes.Equal(head, []byte("PK\x03\x04")) {
		return readTorchZip(r, size)
	}
	return readTorchLegacy(r, size)
}

// storages gives the bytes of a storage by key.
type storages interface {
	load(s *pyStorage) ([]byte, error)
}

// gatherer makes a state dict of what a pickle held.
type gatherer struct {
	sd     *StateDict
	from   storages
	big    bool
	budget int // bytes that tensors may yet take
	nodes  int // values that may yet be visited
	cache  map[string][]byte
}

func gather(obj any, from storages, bigEndian bool) (*StateDict, error) {
	g := &gatherer{sd: NewStateDict(), from: from, big: bigEndian, budget: 1 << 20, nodes: 1 << 20, cache: map[string][]byte{}}
	d, ok := obj.(*pyDict)
	if !ok {
		return nil, fmt.Errorf("%w: the checkpoint is %s, want a dict of tensors", ErrFormat, describe(obj))
	}
	state := d
	if !hasTensor(d) {
		for _, key := range stateKeys {
			if v, ok := d.get(key).(*pyDict); ok {
				state = v
				break
			}
		}
	}
	if state != d {
		for i, k := range d.keys {
			name, ok := k.(string)
			if !ok {
				continue
			}
			switch v := d.values[i].(type) {
			case bool, int64, float64, string:
				g.sd.Meta[name] = fmt.Sprint(v)
			}
		}
	}
	if err := g.flatten("", state, 0); err != nil {
		return nil, err
	}
	if g.sd.Len() == 0 {
		return nil, fmt.Errorf("%w: the checkpoint holds no tensors", ErrFormat)
	}
	return g.sd, nil
}

func (d *pyDict) get(key string) any {
	for i := len(d.keys) - 1; i >= 0; i-- {
		if s, ok := d.keys[i].(string); ok && s == key {
			return d.values[i]
		}
	}
	return nil
}

func hasTensor(d *pyDict) bool {
	for _, v := range d.values {
		if _, ok := v.(*pyTensor); ok {
			return true
		}
	}
	return false
}

func (g *gatherer) flatten(prefix string, d *pyDict, depth int) error {
	if depth > 32 {
		return fmt.Errorf("%w: dicts nested more than 32 deep at %.100q", ErrCorrupt, prefix)
	}
	for i, k := range d.keys {
		if g.nodes--; g.nodes < 0 {
			return fmt.Errorf("%w: more than 2^20 entries", ErrCorrupt)
		}
		name, ok := k.(string)
		if n, isInt := k.(int64); isInt {
			name, ok = fmt.Sprint(n), true
		}
		if !ok {
			continue
		}
		switch v := d.values[i].(type) {
		case *pyTensor:
			t, err := g.tensor(v)
			if err != nil {
				return fmt.Errorf("tensor %q: %w", prefix+name, err)
			}
			g.sd.Set(prefix+name, t)
		case *pyDict:
			if len(prefix)+len(name) > 1<<12 {
				return fmt.Errorf("%w: a name of more than 4096 bytes", ErrCorrupt)
			}
			if err := g.flatten(prefix+name+".", v, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// tensor copies a view out of its storage, in row-major order.
func (g *gatherer) tensor(v *pyTensor) (*Tensor, error) {
	raw, err := g.storage(v.storage)
	if err != nil {
		return nil, err
	}
	esize := v.dtype.size()
	wide := esize
	if v.dtype == F16 || v.dtype == BF16 {
		wide = 4
	}
	n, ok := elements(v.size, g.budget/wide)
	if !ok {
		return nil, fmt.Errorf("%w: shape %v is too large for a storage of %d bytes", ErrCorrupt, v.size, len(raw))
	}
	g.budget -= n * wide
	have := len(raw) / esize
	t := &Tensor{Shape: append([]int(nil), v.size...)}
	if n == 0 {
		t.Data, err = decode(v.dtype, nil, false)
		return t, err
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
		t.Data, err = decode(v.dtype, raw[first*esize:(first+n)*esize], g.big)
		return t, err
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
	t.Data, err = decode(v.dtype, packed, g.big)
	return t, err
}

func (g *gatherer) storage(s *pyStorage) ([]byte, error) {
	if b, ok := g.cache[s.key]; ok {
		return b, nil
	}
	b, err := g.from.load(s)
	if err != nil {
		return nil, fmt.Errorf("storage %q: %w", s.key, err)
	}
	g.cache[s.key] = b
	// Views may overlap and half precision widens: some slack, but no bombs.
	g.budget += 8 * len(b)
	return b, nil
}

// zipStorages are the entries of an archive.
type zipStorages struct {
	files  map[string]*zip.File
	folder string
	size   int64 // of the archive
	budget int64 // bytes that entries may yet inflate to
}

func readTorchZip(r io.ReaderAt, size int64) (*StateDict, error) {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, fmt.Errorf("%w: zip archive: %w", ErrCorrupt, err)
	}
	zs := &zipStorages{files: map[string]*zip.File{}, size: size, budget: inflateBudget(size)}
	for _, f := range z.File {
		if _, twice := zs.files[f.Name]; twice {
			return nil, fmt.Errorf("%w: zip archive has two entries called %q", ErrCorrupt, f.Name)
		}
		zs.files[f.Name] = f
		if path.Base(f.Name) == "data.pkl" && strings.Count(f.Name, "/") <= 1 {
			zs.folder = path.Dir(f.Name)
		}
	}
	pkl, ok := zs.files[path.Join(zs.folder, "data.pkl")]
	if !ok || zs.folder == "" {
		return nil, fmt.Errorf("%w: a zip archive without data.pkl, not a PyTorch checkpoint", ErrFormat)
	}
	text, err := zs.read(pkl, int64(pkl.UncompressedSize64))
	if err != nil {
		return nil, err
	}
	bigEndian := false
	if f, ok := zs.files[path.Join(zs.folder, "byteorder")]; ok {
		order, err := zs.read(f, 16)
		if err != nil {
			return nil, err
		}
		switch strings.TrimSpace(string(order)) {
		case "little":
		case "big":
			bigEndian = true
		default:
			return nil, fmt.Errorf("%w: byteorder %.16q", ErrUnsupported, order)
		}
	}
	obj, err := (&unpickler{data: text, where: pkl.Name}).run()
	if err != nil {
		return nil, err
	}
	return gather(obj, zs, bigEndian)
}

// inflateBudget is how much a zip archive of size bytes may hold. Deflate can
// shrink zeros a thousandfold; weights shrink hardly at all.
func inflateBudget(size int64) int64 { return min(size, 1<<40)*16 + 64<<20 }

func (zs *zipStorages) load(s *pyStorage) ([]byte, error) {
	name := path.Join(zs.folder, "data", s.key)
	f, ok := zs.files[name]
	if !ok {
		return nil, fmt.Errorf("%w: the archive has no entry %q", ErrCorrupt, name)
	}
	want := int64(s.numel)
	if n := s.dtype.size(); n > 0 {
		want *= int64(n)
	}
	if int64(f.UncompressedSize64) < want {
		return nil, fmt.Errorf("%w: entry %q has %d bytes, its storage needs %d", ErrCorrupt, name, f.UncompressedSize64, want)
	}
	return zs.read(f, want)
}

// read returns the entry's content, which must have at least the bytes its
// header declares and is read no further than limit.
func (zs *zipStorages) read(f *zip.File, limit int64) ([]byte, error) {
	n := min(int64(f.UncompressedSize64), limit)
	if n < 0 || n > zs.budget {
		return nil, fmt.Errorf("%w: entry %q declares %d bytes, too many for its archive", ErrCorrupt, f.Name, f.UncompressedSize64)
	}
	zs.budget -= n
	rc, err := f.Open()
	if err != nil {
		return nil, fmt.Errorf("%w: entry %q: %w", ErrCorrupt, f.Name, err)
	}
	defer rc.Close()
	b, err := readFull(rc, n, zs.size)
	if err != nil {
		return nil, fmt.Errorf("%w: entry %q: %w", ErrCorrupt, f.Name, err)
	}
	if n == int64(f.UncompressedSize64) {
		// Read to the end, so that the checksum is looked at.
		if _, err := io.Copy(io.Discard, rc); err != nil {
			return nil, fmt.Errorf("%w: entry %q: %w", ErrCorrupt, f.Name, err)
		}
	}
	return b, nil
}

// readFull reads n bytes. What is known to be there, the size of a file, is
// allocated at once; beyond it, no more than really comes.
func readFull(r io.Reader, n, known int64) ([]byte, error) {
	buf := make([]byte, min(n, max(known, 1<<16)))
	got, err := io.ReadFull(r, buf)
	if err == nil && n > int64(len(buf)) {
		rest := bytes.NewBuffer(buf)
		var more int64
		more, err = io.Copy(rest, io.LimitReader(r, n-int64(len(buf))))
		buf = rest.Bytes()
		got += int(more)
	}
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, err
	}
	if int64(got) < n {
		return nil, fmt.Errorf("has %d bytes, want %d: %w", got, n, io.ErrUnexpectedEOF)
	}
	return buf, nil
}

// legacyMagic opens a legacy stream, as a pickled integer.
var legacyMagic, _ = new(big.Int).SetString("1950a86a20f9469cfc6c", 16)

// legacyStorages are the storages at the end of a legacy stream.
type legacyStorages map[string][]byte

func (l legacyStorages) load(s *pyStorage) ([]byte, error) {
	b, ok := l[s.key]
	if !ok {
		return nil, fmt.Errorf("%w: the file has no such storage", ErrCorrupt)
	}
	return b, nil
}

func readTorchLegacy(r io.ReaderAt, size int64) (*StateDict, error) {
	if size > 1<<34 {
		return nil, fmt.Errorf("%w: a legacy stream of %d bytes", ErrUnsupported, size)
	}
	data, err := readFull(io.NewSectionReader(r, 0, size), size, size)
	if err != nil {
		return nil, err
	}
	u := &unpickler{data: data, where: "pickle"}
	magic, err := u.run()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if m, ok := magic.(*big.Int); !ok || m.Cmp(legacyMagic) != 0 {
		return nil, fmt.Errorf("%w: not a PyTorch stream: it begins with %s", ErrFormat, describe(magic))
	}
	version, err := u.run()
	if err != nil {
		return nil, err
	}
	if v, ok := version.(int64); !ok || v != 1001 {
		return nil, fmt.Errorf("%w: PyTorch stream version %s", ErrUnsupported, describe(version))
	}
	info, err := u.run()
	if err != nil {
		return nil, err
	}
	bigEndian := false
	if d, ok := info.(*pyDict); ok {
		if little, ok := d.get("little_endian").(bool); ok && !little {
			bigEndian = true
		}
	}
	u.seen = map[string]*pyStorage{}
	obj, err := u.run()
	if err != nil {
		return nil, err
	}
	seen := u.seen
	u.seen = nil
	keys, err := u.run()
	if err != nil {
		return nil, err
	}
	list, ok := keys.(*pyList)
	if !ok {
		return nil, fmt.Errorf("%w: the list of storages is %s", ErrCorrupt, describe(keys))
	}
	ls := legacyStorages{}
	pos := u.pos
	for _, k := range list.items {
		key, ok := k.(string)
		if !ok {
			return nil, fmt.Errorf("%w: a storage is called %s", ErrCorrupt, describe(k))
		}
		s, ok := seen[key]
		if !ok {
			return nil, fmt.Errorf("%w: storage %q belongs to no tensor", ErrCorrupt, key)
		}
		esize := max(s.dtype.size(), 1)
		if len(data)-pos < 8 {
			return nil, fmt.Errorf("%w: storage %q is cut off at byte %d", ErrCorrupt, key, len(data))
		}
		n := binary.LittleEndian.Uint64(data[pos:])
		if bigEndian {
			n = binary.BigEndian.Uint64(data[pos:])
		}
		pos += 8
		if n > uint64(len(data)-pos)/uint64(esize) {
			return nil, fmt.Errorf("%w: storage %q of %d elements is cut off: %d bytes are left at byte %d", ErrCorrupt, key, n, len(data)-pos, pos)
		}
		ls[key] = data[pos : pos+int(n)*esize]
		pos += int(n) * esize
	}
	return gather(obj, ls, bigEndian)
}
