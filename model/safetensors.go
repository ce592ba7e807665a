package model

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sort"
)

// maxHeader is the largest safetensors header, the format's own limit.
const maxHeader = 100_000_000

// orderKey is the metadata key under which WriteSafetensors keeps the order of
// the tensors, which the format itself does not.
const orderKey = "lowrank.order"

type safetensorsEntry struct {
	DType   DType    `json:"dtype"`
	Shape   []int    `json:"shape"`
	Offsets []uint64 `json:"data_offsets"`
}

// ReadSafetensors reads a safetensors file of size bytes: its tensors, in the
// order of their data unless WriteSafetensors kept another, and its
// __metadata__ as Meta. Offsets must cover the file exactly, without overlap.
func ReadSafetensors(r io.ReaderAt, size int64) (*StateDict, error) {
	var head [8]byte
	if _, err := r.ReadAt(head[:], 0); err != nil {
		return nil, fmt.Errorf("%w: no room for a safetensors header: %w", ErrFormat, err)
	}
	n := binary.LittleEndian.Uint64(head[:])
	if n > maxHeader || n > uint64(size-8) {
		return nil, fmt.Errorf("%w: a safetensors header of %d bytes in a file of %d (at most %d)", ErrCorrupt, n, size, maxHeader)
	}
	header, err := readFull(io.NewSectionReader(r, 8, int64(n)), int64(n), size)
	if err != nil {
		return nil, fmt.Errorf("%w: safetensors header: %w", ErrCorrupt, err)
	}
	sd := NewStateDict()
	entries, names, err := parseSafetensorsHeader(header, sd.Meta)
	if err != nil {
		return nil, err
	}
	// In the order of the data, every tensor must begin where the one before
	// ended: no holes, no overlap.
	sort.SliceStable(names, func(i, j int) bool {
		a, b := entries[names[i]].Offsets, entries[names[j]].Offsets
		return a[0] < b[0] || a[0] == b[0] && a[1] < b[1]
	})
	data := uint64(size) - 8 - n
	var at uint64
	for _, name := range names {
		e := entries[name]
		if e.Offsets[0] != at || e.Offsets[1] < at || e.Offsets[1] > data {
			return nil, fmt.Errorf("%w: tensor %q has data_offsets %v; want them to begin at %d and end by %d", ErrCorrupt, name, e.Offsets, at, data)
		}
		at = e.Offsets[1]
	}
	if at != data {
		return nil, fmt.Errorf("%w: tensors end at %d of %d bytes of data", ErrCorrupt, at, data)
	}
	for _, name := range names {
		e := entries[name]
		length := int64(e.Offsets[1] - e.Offsets[0])
		raw, err := readFull(io.NewSectionReader(r, int64(8+n+e.Offsets[0]), length), length, size)
		if err != nil {
			return nil, fmt.Errorf("%w: tensor %q: %w", ErrCorrupt, name, err)
		}
		t, err := newTensor(e.DType, e.Shape, raw, false)
		if err != nil {
			return nil, fmt.Errorf("tensor %q: %w", name, err)
		}
		sd.Set(name, t)
	}
	sd.reorder(sd.Meta[orderKey])
	delete(sd.Meta, orderKey)
	return sd, nil
}

// parseSafetensorsHeader reads the JSON object token by token, since a repeated
// key, which a map would hide, is an error.
func parseSafetensorsHeader(header []byte, meta map[string]string) (map[string]safetensorsEntry, []string, error) {
	fail := func(err error) (map[string]safetensorsEntry, []string, error) {
		return nil, nil, fmt.Errorf("%w: safetensors header: %w", ErrCorrupt, err)
	}
	dec := json.NewDecoder(bytes.NewReader(header))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, nil, fmt.Errorf("%w: a safetensors header begins with '{'", ErrFormat)
	}
	entries := map[string]safetensorsEntry{}
	var names []string
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return fail(err)
		}
		name, ok := t.(string)
		if !ok {
			return fail(fmt.Errorf("key %v", t))
		}
		if name == "__metadata__" {
			var m map[string]string
			if err := dec.Decode(&m); err != nil {
				return fail(fmt.Errorf("__metadata__: %w", err))
			}
			for k, v := range m {
				meta[k] = v
			}
			continue
		}
		var e safetensorsEntry
		if err := dec.Decode(&e); err != nil {
			return fail(fmt.Errorf("tensor %q: %w", name, err))
		}
		if _, twice := entries[name]; twice {
			return fail(fmt.Errorf("tensor %q appears twice", name))
		}
		esize := e.DType.size()
		if esize == 0 {
			return nil, nil, fmt.Errorf("%w: tensor %q has element type %q", ErrUnsupported, name, e.DType)
		}
		n, ok := elements(e.Shape, int(^uint(0)>>1)/esize)
		if !ok || len(e.Offsets) != 2 || e.Offsets[1] < e.Offsets[0] || e.Offsets[1]-e.Offsets[0] != uint64(n*esize) {
			return fail(fmt.Errorf("tensor %q of %s and shape %v has data_offsets %v", name, e.DType, e.Shape, e.Offsets))
		}
		entries[name] = e
		names = append(names, name)
	}
	if _, err := dec.Token(); err != nil {
		return fail(err)
	}
	if rest := bytes.Trim(header[dec.InputOffset():], " "); len(rest) > 0 {
		return fail(fmt.Errorf("%d bytes after the JSON object", len(rest)))
	}
	return entries, names, nil
}

// reorder puts the tensors into the order of a JSON list of all their names,
// and leaves them as they are where text is anything else.
func (sd *StateDict) reorder(text string) {
	var order []string
	if text == "" || json.Unmarshal([]byte(text), &order) != nil || len(order) != sd.Len() {
		return
	}
	seen := map[string]bool{}
	for _, name := range order {
		if _, ok := sd.tensors[name]; !ok || seen[name] {
			return
		}
		seen[name] = true
	}
	sd.names = order
}

// WriteSafetensors writes sd atomically. As the format's own writer does, it
// orders the data by falling element size and then by name, so that every
// tensor is aligned; the order of sd is kept in the metadata.
func WriteSafetensors(path string, sd *StateDict) error {
	return WriteAtomic(path, func(w io.Writer) error { return encodeSafetensors(w, sd) })
}

func encodeSafetensors(w io.Writer, sd *StateDict) error {
	names := append([]string(nil), sd.names...)
	for _, name := range names {
		if err := sd.tensors[name].check(); err != nil {
			return fmt.Errorf("tensor %q: %w", name, err)
		}
		if name == "__metadata__" {
			return fmt.Errorf("%w: a tensor cannot be called %q", ErrUnsupported, name)
		}
	}
	sort.Slice(names, func(i, j int) bool {
		a, b := sd.tensors[names[i]].FileType().size(), sd.tensors[names[j]].FileType().size()
		return a > b || a == b && names[i] < names[j]
	})
	order, err := json.Marshal(sd.names)
	if err != nil {
		return err
	}
	meta := map[string]string{"format": "pt"} // row-major tensors, as PyTorch's reader wants to be told
	for k, v := range sd.Meta {
		meta[k] = v
	}
	meta[orderKey] = string(order)
	header := map[string]any{"__metadata__": meta}
	var at uint64
	for _, name := range names {
		t := sd.tensors[name]
		n := uint64(t.Len() * t.FileType().size())
		shape := t.Shape
		if shape == nil {
			shape = []int{}
		}
		header[name] = safetensorsEntry{t.FileType(), shape, []uint64{at, at + n}}
		at += n
	}
	text, err := json.Marshal(header)
	if err != nil {
		return err
	}
	for len(text)%8 != 0 {
		text = append(text, ' ')
	}
	if len(text) > maxHeader {
		return fmt.Errorf("%w: a header of %d bytes; safetensors allows %d", ErrUnsupported, len(text), maxHeader)
	}
	var head [8]byte
	binary.LittleEndian.PutUint64(head[:], uint64(len(text)))
	if _, err := w.Write(append(head[:], text...)); err != nil {
		return err
	}
	for _, name := range names {
		t := sd.tensors[name]
		if err := t.writeAs(w, t.FileType()); err != nil {
			return fmt.Errorf("tensor %q: %w", name, err)
		}
	}
	return nil
}
