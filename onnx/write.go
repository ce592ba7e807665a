package onnx

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/lowrank-go/lowrank/internal/atomicfile"
	"github.com/lowrank-go/lowrank/internal/onnxpb"
)

// WriteFile writes the model to a file, which is there completely or not at all and may
// be the one that the model was read from. Values in other files stay there where path
// is in the model's own folder, and come into the file where it is not.
func (m *Model) WriteFile(path string) error {
	write := m
	if m.dir != "" && !sameDir(m.dir, filepath.Dir(path)) {
		var err error
		if write, err = m.embedded(); err != nil {
			return err
		}
	}
	return atomicfile.Write(path, func(w io.Writer) error {
		_, err := write.WriteTo(w)
		return err
	})
}

func sameDir(a, b string) bool {
	i, err := os.Stat(a)
	if err != nil {
		return false
	}
	j, err := os.Stat(b)
	return err == nil && os.SameFile(i, j)
}

// WriteTo writes the model: every message as it is now, values that were left in the
// file copied from there.
func (m *Model) WriteTo(w io.Writer) (int64, error) {
	b, err := marshal(m.proto)
	if err != nil {
		return 0, err
	}
	if m.read != nil && bytes.Equal(b, m.read) {
		return io.Copy(w, io.NewSectionReader(m.src, 0, m.size))
	}
	out, err := m.expand(b, m.proto.ProtoReflect().Descriptor())
	if err != nil {
		return 0, err
	}
	if out.size > mostBytes {
		return 0, fmt.Errorf("%w: a model of %d bytes; a protocol buffer has at most %d", ErrUnsupported, out.size, mostBytes)
	}
	var n int64
	for _, p := range out.pieces {
		k, err := m.copy(w, p)
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// copy writes a piece.
func (m *Model) copy(w io.Writer, p piece) (int64, error) {
	if p.span == nil {
		n, err := w.Write(p.bytes)
		return int64(n), err
	}
	r, err := m.openSpan(*p.span)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	n, err := io.CopyN(w, r, p.span.n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// piece is bytes in memory, or a span.
type piece struct {
	bytes []byte
	span  *span
}

type pieces struct {
	pieces []piece
	size   int64
}

// add appends bytes, to the last piece where that is in memory too.
func (p *pieces) add(b []byte) {
	p.size += int64(len(b))
	if last := len(p.pieces) - 1; last >= 0 && p.pieces[last].span == nil {
		p.pieces[last].bytes = append(p.pieces[last].bytes, b...)
		return
	}
	p.pieces = append(p.pieces, piece{bytes: bytes.Clone(b)})
}

func (p *pieces) addAll(q pieces) {
	for _, x := range q.pieces {
		if x.span == nil {
			p.add(x.bytes)
			continue
		}
		p.pieces = append(p.pieces, x)
		p.size += x.span.n
	}
}

// expand puts the values that were left in the file into a marshalled message.
func (m *Model) expand(b []byte, md protoreflect.MessageDescriptor) (pieces, error) {
	if md == tensorDescriptor {
		return m.expandTensor(b)
	}
	var out pieces
	same := 0 // where what is copied as it is begins
	for at := 0; at < len(b); {
		num, typ, n := protowire.ConsumeTag(b[at:])
		k := protowire.ConsumeFieldValue(num, typ, b[at+n:])
		if n < 0 || k < 0 {
			return out, protowire.ParseError(min(n, k))
		}
		end := at + n + k
		if fd := md.Fields().ByNumber(num); typ == protowire.BytesType && fd != nil && fd.Message() != nil && holdsTensors(fd.Message()) {
			v, _ := protowire.ConsumeBytes(b[at+n : end])
			inner, err := m.expand(v, fd.Message())
			if err != nil {
				return out, err
			}
			if inner.size != int64(len(v)) {
				out.add(b[same:at])
				out.add(protowire.AppendVarint(protowire.AppendTag(nil, num, typ), uint64(inner.size)))
				out.addAll(inner)
				same = end
			}
		}
		at = end
	}
	out.add(b[same:])
	return out, nil
}

// holdsTensors tells which messages may have tensors in them.
func holdsTensors(md protoreflect.MessageDescriptor) bool {
	switch md.Name() {
	case "GraphProto", "NodeProto", "AttributeProto", "TensorProto", "SparseTensorProto", "FunctionProto", "TrainingInfoProto":
		return true
	}
	return false
}

// expandTensor puts a tensor's values where the order of the fields' numbers has them.
func (m *Model) expandTensor(b []byte) (pieces, error) {
	type field struct {
		num   protowire.Number
		bytes []byte
		value *span
	}
	var fields []field
	for at := 0; at < len(b); {
		num, typ, n := protowire.ConsumeTag(b[at:])
		k := protowire.ConsumeFieldValue(num, typ, b[at+n:])
		if n < 0 || k < 0 {
			return pieces{}, protowire.ParseError(min(n, k))
		}
		whole := b[at : at+n+k]
		at += n + k
		if num != placeField {
			fields = append(fields, field{num: num, bytes: whole})
			continue
		}
		s, err := m.place(whole[n:])
		if err != nil {
			return pieces{}, err
		}
		i := 0
		for i < len(fields) && fields[i].num <= s.field {
			i++
		}
		fields = append(fields[:i], append([]field{{num: s.field, value: &s}}, fields[i:]...)...)
	}
	var out pieces
	for _, f := range fields {
		if f.value == nil {
			out.add(f.bytes)
			continue
		}
		out.add(protowire.AppendVarint(protowire.AppendTag(nil, f.num, protowire.BytesType), uint64(f.value.n)))
		out.pieces = append(out.pieces, piece{span: f.value})
		out.size += f.value.n
	}
	return out, nil
}

// embedded is the model with the values of other files as if they were left in its own.
func (m *Model) embedded() (*Model, error) {
	out := *m
	out.spans = slices.Clip(m.spans)
	out.proto = proto.CloneOf(m.proto)
	var total int64
	var failed error
	eachTensor(out.proto.ProtoReflect(), func(t *onnxpb.TensorProto) {
		if failed != nil || t.GetDataLocation() != onnxpb.TensorProto_EXTERNAL {
			return
		}
		e, err := m.external(t)
		if err != nil {
			failed = fmt.Errorf("tensor %q: %w", t.GetName(), err)
			return
		}
		if total += e.n; total > mostBytes {
			failed = fmt.Errorf("%w: external values of more than %d bytes, which one file cannot hold; write into the model's own folder", ErrUnsupported, mostBytes)
			return
		}
		t.ExternalData, t.DataLocation = nil, nil
		place := protowire.AppendVarint(nil, uint64(len(out.spans)))
		unknown := t.ProtoReflect().GetUnknown()
		t.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(slices.Clip(unknown), placeField, protowire.BytesType), place))
		out.spans = append(out.spans, span{field: rawData, n: e.n, from: e})
	})
	return &out, failed
}

// eachTensor calls f with all tensors in a message.
func eachTensor(m protoreflect.Message, f func(*onnxpb.TensorProto)) {
	if t, ok := m.Interface().(*onnxpb.TensorProto); ok {
		f(t)
		return
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Message() == nil || !holdsTensors(fd.Message()):
		case fd.IsList():
			for i := range v.List().Len() {
				eachTensor(v.List().Get(i).Message(), f)
			}
		default:
			eachTensor(v.Message(), f)
		}
		return true
	})
}
