package model

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

// WriteTorch writes sd atomically as torch.save would a dict of tensors: a zip archive with
// the pickle of the dict and a file for each tensor. torch.load reads it, also with
// weights_only=True. The metadata are not in it.
func WriteTorch(path string, sd *StateDict) error {
	return WriteAtomic(path, func(w io.Writer) error { return encodeTorch(w, sd) })
}

// torchStorages are PyTorch's names of storages of an element type.
var torchStorages = map[DType]string{
	"F64": "DoubleStorage", "F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage",
	"I64": "LongStorage", "I32": "IntStorage", "I16": "ShortStorage", "I8": "CharStorage", "U8": "ByteStorage", "BOOL": "BoolStorage",
}

func encodeTorch(w io.Writer, sd *StateDict) error {
	var p pickler
	p.raw("\x80\x02}(") // protocol 2, an empty dict, a mark
	for i, name := range sd.names {
		t := sd.tensors[name]
		if err := t.check(); err != nil {
			return fmt.Errorf("tensor %q: %w", name, err)
		}
		storage, ok := torchStorages[t.FileType()]
		if !ok {
			return fmt.Errorf("tensor %q: %w: PyTorch has no storage of %s", name, ErrUnsupported, t.FileType())
		}
		p.text(name)
		p.global("torch._utils", "_rebuild_tensor_v2")
		// Its arguments: the storage, an offset, sizes, strides, whether gradients are
		// wanted, hooks.
		p.raw("((")
		p.text("storage")
		p.global("torch", storage)
		p.text(fmt.Sprint(i))
		p.text("cpu")
		p.integer(t.Len())
		p.raw("tQ") // the tuple is a persistent id
		p.integer(0)
		p.tuple(t.Shape)
		p.tuple(strides(t.Shape))
		p.raw("\x89") // False
		p.global("collections", "OrderedDict")
		p.raw(")RtR")
	}
	p.raw("u.") // all of it into the dict; the end
	z := zip.NewWriter(w)
	put := func(name string, data []byte) error {
		f, err := z.CreateHeader(&zip.FileHeader{Name: "archive/" + name, Method: zip.Store})
		if err != nil {
			return err
		}
		_, err = f.Write(data)
		return err
	}
	if err := put("data.pkl", p.Bytes()); err != nil {
		return err
	}
	if err := put("byteorder", []byte("little")); err != nil {
		return err
	}
	var buf []byte
	for i, name := range sd.names {
		var err error
		if buf, err = sd.tensors[name].appendAs(buf[:0], sd.tensors[name].FileType()); err != nil {
			return fmt.Errorf("tensor %q: %w", name, err)
		}
		if err := put(fmt.Sprintf("data/%d", i), buf); err != nil {
			return err
		}
	}
	if err := put("version", []byte("3\n")); err != nil {
		return err
	}
	return z.Close()
}

// strides are those of a row-major tensor.
func strides(shape []int) []int {
	s := make([]int, len(shape))
	n := 1
	for i := len(shape) - 1; i >= 0; i-- {
		s[i] = n
		n *= shape[i]
	}
	return s
}

// pickler writes the few opcodes of Python's pickles that tensors need.
type pickler struct{ bytes.Buffer }

func (p *pickler) raw(s string) { p.WriteString(s) }

func (p *pickler) text(s string) {
	p.WriteByte('X')
	p.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(s))))
	p.WriteString(s)
}

func (p *pickler) global(module, name string) { fmt.Fprintf(p, "c%s\n%s\n", module, name) }

// integer writes an int of 32 bits, or a longer one.
func (p *pickler) integer(v int) {
	if v <= math.MaxInt32 {
		p.WriteByte('J')
		p.Write(binary.LittleEndian.AppendUint32(nil, uint32(v)))
		return
	}
	p.raw("\x8a\x08") // 8 bytes
	p.Write(binary.LittleEndian.AppendUint64(nil, uint64(v)))
}

func (p *pickler) tuple(v []int) {
	p.WriteByte('(')
	for _, d := range v {
		p.integer(d)
	}
	p.WriteByte('t')
}
