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

// ReadTorch reads a PyTorch checkpoint of size bytes: a zip archive (torch 1.6
// and later), a legacy stream, or a pickle that torch.save did not write.
//
// The state dict is found by what it holds; see [ReadOptions.Key] and [Source].
// Numbers, strings and booleans beside it become Meta. Names are kept as they
// are; [Strip] takes wrappers off. What a pickle asks to be called is never
// called: objects that are not tensors or plain containers are read over.
//
// Tensors may be views: strides, offsets and shared storages are honoured.
// Arrays of NumPy's are tensors too. Sparse, complex and quantised tensors are
// named in the state dict's Source and are not in it.
func ReadTorch(r io.ReaderAt, size int64) (*StateDict, error) {
	return ReadOptions{}.readTorch(r, size)
}

func (o ReadOptions) readTorch(r io.ReaderAt, size int64) (*StateDict, error) {
	head := make([]byte, 4)
	if _, err := r.ReadAt(head, 0); err != nil && err != io.EOF {
		return nil, err
	}
	if bytes.Equal(head, []byte("PK\x03\x04")) {
		return o.readTorchZip(r, size)
	}
	return o.readTorchLegacy(r, size)
}

// storages gives the bytes of a storage by key.
type storages interface {
	load(s *pyStorage) ([]byte, error)
}

// zipStorages are the entries of an archive.
type zipStorages struct {
	files  map[string]*zip.File
	folder string
	size   int64 // of the archive
	budget int64 // bytes that entries may yet inflate to
}

func (o ReadOptions) readTorchZip(r io.ReaderAt, size int64) (*StateDict, error) {
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
	if _, ok := zs.files[path.Join(zs.folder, "constants.pkl")]; ok {
		return nil, fmt.Errorf("%w: a TorchScript archive, a program that is not run here; save its weights alone, with %s", ErrRefused, saveStateDict)
	}
	// One byte of a pickle becomes a hundred in memory: a deflated one must not grow
	// as the weights may.
	if n := int64(pkl.UncompressedSize64); n > 16*size+8<<20 {
		return nil, fmt.Errorf("%w: entry %q declares %d bytes, too many for its archive", ErrCorrupt, pkl.Name, n)
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
	obj, err := newUnpickler(bytes.NewReader(text), int64(len(text)), pkl.Name).run()
	if err != nil {
		return nil, err
	}
	text = nil
	return o.gather(obj, zs, size, bigEndian)
}

// inflateBudget is how much a zip archive of size bytes may hold. Deflate can
// shrink zeros a thousandfold; weights shrink hardly at all.
func inflateBudget(size int64) int64 { return min(size, 1<<40)*16 + 32<<20 }

func (zs *zipStorages) load(s *pyStorage) ([]byte, error) {
	name := path.Join(zs.folder, "data", s.key)
	f, ok := zs.files[name]
	if !ok {
		return nil, fmt.Errorf("%w: the archive has no entry %q", ErrCorrupt, name)
	}
	want := int64(s.numel) * int64(s.elementSize())
	if int64(f.UncompressedSize64) < want {
		return nil, fmt.Errorf("%w: entry %q has %d bytes, its storage needs %d", ErrCorrupt, name, f.UncompressedSize64, want)
	}
	return zs.read(f, want)
}

// read returns the entry's content, which must have at least the bytes its
// header declares and is read no further than limit.
func (zs *zipStorages) read(f *zip.File, limit int64) ([]byte, error) {
	all := int64(f.UncompressedSize64)
	n := min(all, limit)
	if n < 0 || all > zs.budget {
		return nil, fmt.Errorf("%w: entry %q declares %d bytes, too many for its archive", ErrCorrupt, f.Name, f.UncompressedSize64)
	}
	zs.budget -= all
	rc, err := f.Open()
	if err != nil {
		return nil, fmt.Errorf("%w: entry %q: %w", ErrCorrupt, f.Name, err)
	}
	defer rc.Close()
	b, err := readFull(rc, n, zs.size)
	if err == nil {
		// To the end, so that the checksum and the size are looked at.
		_, err = io.Copy(io.Discard, rc)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: entry %q: %w", ErrCorrupt, f.Name, err)
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

// legacyStorages are the storages at the end of a legacy stream, by key: where their
// bytes begin and how many they are.
type legacyStorages struct {
	r     io.ReaderAt
	spans map[string][2]int64
}

func (l *legacyStorages) load(s *pyStorage) ([]byte, error) {
	span, ok := l.spans[s.key]
	if !ok {
		return nil, fmt.Errorf("%w: the file has no such storage", ErrCorrupt)
	}
	return readFull(io.NewSectionReader(l.r, span[0], span[1]), span[1], span[1])
}

func (o ReadOptions) readTorchLegacy(r io.ReaderAt, size int64) (*StateDict, error) {
	obj, ls, bigEndian, err := legacyStream(r, size, 0)
	if err != nil {
		return nil, err
	}
	return o.gather(obj, ls, size, bigEndian)
}

// legacyStream reads a legacy stream up to its storages, which it finds, or a plain
// pickle.
func legacyStream(r io.ReaderAt, size int64, depth int) (obj any, ls *legacyStorages, bigEndian bool, err error) {
	u := newUnpickler(r, size, "pickle")
	ls = &legacyStorages{r: r, spans: map[string][2]int64{}}
	if u.depth = depth; depth > 0 {
		u.inner = ls
	}
	fail := func(err error) (any, *legacyStorages, bool, error) { return nil, nil, false, err }
	magic, err := u.run()
	if err != nil {
		return fail(fmt.Errorf("%w: %w", ErrFormat, err))
	}
	if m, ok := magic.(*big.Int); !ok || m.Cmp(legacyMagic) != 0 {
		if _, object := magic.(*pyObject); object && u.left() > 0 {
			return fail(fmt.Errorf("%w: %s, which is not built here", ErrRefused, describe(magic)))
		}
		if u.left() > 0 {
			return fail(fmt.Errorf("%w: not a PyTorch stream: it begins with %s", ErrFormat, describe(magic)))
		}
		return magic, ls, false, nil // a pickle that torch.save did not write
	}
	version, err := u.run()
	if err != nil {
		return fail(err)
	}
	if v, ok := version.(int64); !ok || v != 1001 {
		return fail(fmt.Errorf("%w: PyTorch stream version %s", ErrUnsupported, describe(version)))
	}
	info, err := u.run()
	if err != nil {
		return fail(err)
	}
	if d, ok := info.(*pyDict); ok {
		if little, ok := d.get("little_endian").(bool); ok && !little {
			bigEndian = true
		}
	}
	u.seen = map[string]*pyStorage{}
	if obj, err = u.run(); err != nil {
		return fail(err)
	}
	seen := u.seen
	u.seen = nil
	keys, err := u.run()
	if err != nil {
		return fail(err)
	}
	list, ok := keys.(*pyList)
	if !ok {
		return fail(fmt.Errorf("%w: the list of storages is %s", ErrCorrupt, describe(keys)))
	}
	for _, k := range list.items {
		key, ok := k.(string)
		if !ok {
			return fail(fmt.Errorf("%w: a storage is called %s", ErrCorrupt, describe(k)))
		}
		s, ok := seen[key]
		if !ok {
			return fail(fmt.Errorf("%w: storage %q belongs to no tensor", ErrCorrupt, key))
		}
		if u.left() < 8 {
			return fail(fmt.Errorf("%w: storage %q is cut off at byte %d", ErrCorrupt, key, size))
		}
		b, err := u.next(8)
		if err != nil {
			return fail(err)
		}
		n := binary.LittleEndian.Uint64(b)
		if bigEndian {
			n = binary.BigEndian.Uint64(b)
		}
		esize := uint64(s.elementSize())
		if n > uint64(u.left())/esize {
			return fail(fmt.Errorf("%w: storage %q of %d elements is cut off: %d bytes are left at byte %d", ErrCorrupt, key, n, u.left(), u.pos))
		}
		ls.spans[key] = [2]int64{u.pos, int64(n * esize)}
		u.pos += int64(n * esize)
	}
	return obj, ls, bigEndian, nil
}
