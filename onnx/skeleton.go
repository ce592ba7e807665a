package onnx

import (
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/lowrank-go/lowrank/internal/onnxpb"
)

const (
	// spill is the most bytes of values that stay in the skeleton.
	spill = 1024
	// placeField stands in a TensorProto of the skeleton for values left in the file.
	// No version of ONNX will come to this number.
	placeField protowire.Number = 1<<29 - 17
	// mostDepth is how many messages may lie in each other, as in the C++ runtime: 33
	// graphs in the bodies of others.
	mostDepth = 100
	// mostCost bounds the memory that a skeleton's messages may take, in bytes. Each
	// message costs an allocation, however few bytes of a file say so.
	mostCost    = 256 << 20
	messageCost = 192
	elementCost = 32
)

// span is where the values of a field lie: in the model's file, or in another one.
type span struct {
	field  protowire.Number
	off, n int64
	from   *external
}

// rawData is the number of TensorProto's raw_data.
const rawData protowire.Number = 9

var tensorDescriptor = (&onnxpb.TensorProto{}).ProtoReflect().Descriptor()

// spilled tells whether a field of length n stays in the file: raw_data and the packed
// lists of numbers.
func spilled(md protoreflect.MessageDescriptor, fd protoreflect.FieldDescriptor, n int64) bool {
	return n > spill && md == tensorDescriptor && (fd.IsPacked() || fd.Kind() == protoreflect.BytesKind && !fd.IsList())
}

// skeleton reads a model's messages without large values.
type skeleton struct {
	r      io.ReaderAt
	size   int64
	window []byte
	at     int64 // of the window in the file
	cost   int64
	spans  []span
	// odd is set where the file does not have what marshalling writes: fields of a
	// tensor in another order than their numbers', lengths in more bytes than needed.
	odd bool
}

// peek returns the n bytes at off, which lie in the file and are valid until the next
// call.
func (s *skeleton) peek(off, n int64) ([]byte, error) {
	if off < s.at || off+n > s.at+int64(len(s.window)) {
		if s.window == nil {
			s.window = make([]byte, min(s.size, 1<<16))
		}
		s.at = max(0, min(off, s.size-int64(len(s.window))))
		if _, err := io.ReadFull(io.NewSectionReader(s.r, s.at, int64(len(s.window))), s.window); err != nil {
			s.window = nil
			return nil, err
		}
	}
	return s.window[off-s.at : off-s.at+n], nil
}

// pay counts what a piece of the skeleton takes.
func (s *skeleton) pay(cost int64) error {
	if s.cost += cost; s.cost > mostCost {
		return fmt.Errorf("%w: messages beside the tensors' values that need more than %d MB", ErrUnsupported, mostCost>>20)
	}
	return nil
}

// message is the skeleton of the message at [from, to).
func (s *skeleton) message(md protoreflect.MessageDescriptor, from, to int64, depth int) ([]byte, error) {
	if depth > mostDepth {
		return nil, fmt.Errorf("%w: more than %d messages in each other", ErrUnsupported, mostDepth)
	}
	if err := s.pay(messageCost); err != nil {
		return nil, err
	}
	fail := func(at int64, err error) error {
		return fmt.Errorf("%w: byte %d of %s, at %d of the file: %w", ErrCorrupt, at-from, called(md), at, err)
	}
	var out, places []byte
	var placed [32]bool // the fields left in the file
	last := protowire.Number(0)
	for at := from; at < to; {
		head, err := s.peek(at, min(to-at, 20))
		if err != nil {
			return nil, err
		}
		num, typ, n := protowire.ConsumeTag(head)
		if n < 0 {
			return nil, fail(at, protowire.ParseError(n))
		}
		if num == placeField {
			return nil, fmt.Errorf("%w: field %d", ErrUnsupported, num)
		}
		if num < protowire.Number(len(placed)) && placed[num] {
			return nil, fmt.Errorf("%w: a tensor whose values are in several parts", ErrUnsupported)
		}
		fd := md.Fields().ByNumber(num)
		if md == tensorDescriptor {
			s.odd = s.odd || num < last
			last = num
		}
		switch typ {
		case protowire.VarintType, protowire.Fixed32Type, protowire.Fixed64Type:
			m := protowire.ConsumeFieldValue(num, typ, head[n:])
			if m < 0 {
				return nil, fail(at, protowire.ParseError(m))
			}
			if err := s.pay(8); err != nil {
				return nil, err
			}
			out = append(out, head[:n+m]...)
			at += int64(n + m)
			continue
		case protowire.BytesType:
		default:
			return nil, fail(at, fmt.Errorf("a field of wire type %d", typ))
		}
		length, m := protowire.ConsumeVarint(head[n:])
		if m < 0 {
			return nil, fail(at, protowire.ParseError(m))
		}
		s.odd = s.odd || n+m != protowire.SizeTag(num)+protowire.SizeVarint(length)
		body := at + int64(n+m)
		if length > uint64(to-body) {
			return nil, fail(at, fmt.Errorf("a field of %d bytes where %d are left", length, to-body))
		}
		at = body + int64(length)
		switch {
		case fd == nil:
			err = s.pay(int64(length))
		case fd.Message() != nil:
			inner, err := s.message(fd.Message(), body, at, depth+1)
			if err != nil {
				return nil, err
			}
			out = protowire.AppendBytes(protowire.AppendTag(out, num, typ), inner)
			continue
		case spilled(md, fd, int64(length)):
			placed[num] = true
			place := protowire.AppendVarint(nil, uint64(len(s.spans)))
			places = protowire.AppendBytes(protowire.AppendTag(places, placeField, typ), place)
			s.spans = append(s.spans, span{field: num, off: body, n: int64(length)})
			if err := s.pay(elementCost + 64); err != nil {
				return nil, err
			}
			continue
		case fd.IsList() && fd.Kind() != protoreflect.BytesKind && fd.Kind() != protoreflect.StringKind:
			err = s.pay(8 * int64(length))
		default:
			err = s.pay(elementCost + int64(length))
		}
		if err != nil {
			return nil, err
		}
		out = protowire.AppendVarint(protowire.AppendTag(out, num, typ), length)
		for body < at {
			piece, err := s.peek(body, min(at-body, 1<<15))
			if err != nil {
				return nil, err
			}
			out = append(out, piece...)
			body += int64(len(piece))
		}
	}
	return append(out, places...), nil
}

// called is what a kind of message is called in errors.
func called(md protoreflect.MessageDescriptor) string {
	switch md.Name() {
	case "ModelProto":
		return "the model"
	case "GraphProto":
		return "a graph"
	case "NodeProto":
		return "a node"
	case "TensorProto":
		return "a tensor"
	}
	return "a " + string(md.Name())
}
