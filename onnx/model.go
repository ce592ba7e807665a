package onnx

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	"github.com/lowrank-go/lowrank/internal/infile"
	"github.com/lowrank-go/lowrank/internal/onnxpb"
)

// Errors that others wrap.
var (
	// ErrFormat: the content is no ONNX model.
	ErrFormat = errors.New("not an ONNX model")
	// ErrCorrupt: the content contradicts its own format.
	ErrCorrupt = errors.New("corrupt ONNX model")
	// ErrUnsupported: legal content that this package cannot represent.
	ErrUnsupported = errors.New("unsupported in ONNX models")
)

// mostBytes is the largest protocol buffer.
const mostBytes = 1<<31 - 1

// Model is a model whose large values lie in its file. Its methods that read may be
// called from several goroutines, while none changes the messages.
type Model struct {
	proto *onnxpb.ModelProto
	src   io.ReaderAt
	size  int64
	spans []span
	dir   string // of files with external values, "" for none
	file  *os.File
	// read is the skeleton as marshalled, kept only where that is not what the file has:
	// while nothing changes, the file is what is written.
	read []byte
}

// Open reads the skeleton of a model's file, which stays open until Close. Values in
// other files are found in the same folder and those below it.
//
// Errors wrap ErrFormat, ErrCorrupt or ErrUnsupported.
func Open(path string) (*Model, error) {
	f, size, err := infile.OpenFile(path)
	if err != nil {
		return nil, err
	}
	m, err := Read(f, size)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	m.file, m.dir = f, filepath.Dir(path)
	return m, nil
}

// Read reads the skeleton of a model of size bytes, which must stay readable while the
// Model is used. Values in other files are not found.
func Read(r io.ReaderAt, size int64) (*Model, error) {
	if size > mostBytes {
		return nil, fmt.Errorf("%w: a file of %d bytes; a protocol buffer has at most %d", ErrFormat, size, mostBytes)
	}
	m := &Model{src: r, size: size, proto: &onnxpb.ModelProto{}}
	s := skeleton{r: r, size: size}
	content, err := s.message(m.proto.ProtoReflect().Descriptor(), 0, size, 0)
	if err != nil {
		return nil, err
	}
	m.spans = s.spans
	if err := proto.Unmarshal(content, m.proto); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if m.proto.Graph == nil {
		return nil, fmt.Errorf("%w: no graph", ErrFormat)
	}
	again, err := marshal(m.proto)
	if err != nil {
		return nil, err
	}
	if s.odd || !bytes.Equal(again, content) {
		m.read = again
	}
	return m, nil
}

// New is a model with all values in its messages.
func New(p *onnxpb.ModelProto) *Model { return &Model{proto: p} }

func marshal(m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// Close closes the file. Values can no longer be read after it.
func (m *Model) Close() error {
	if m.file == nil {
		return nil
	}
	return m.file.Close()
}

// Proto is the model's message. A TensorProto whose values were left in the file has
// none of its value fields; it may be moved, cloned and renamed within the model, but
// not changed in its values or taken to another model.
func (m *Model) Proto() *onnxpb.ModelProto { return m.proto }

// Graph is the main graph.
func (m *Model) Graph() *onnxpb.GraphProto { return m.proto.GetGraph() }

// Opset is the version of a domain's operators, 0 where the model does not import it.
// The standard domain is "".
func (m *Model) Opset(domain string) int64 {
	for _, o := range m.proto.OpsetImport {
		if o.GetDomain() == domain || standard(o.GetDomain()) && standard(domain) {
			return o.GetVersion()
		}
	}
	return 0
}

// standard tells whether a domain is ONNX's own.
func standard(domain string) bool { return domain == "" || domain == "ai.onnx" }

// Attribute is a node's attribute of a name, nil where it has none. The getters of nil
// return zero values.
func Attribute(n *onnxpb.NodeProto, name string) *onnxpb.AttributeProto {
	for _, a := range n.GetAttribute() {
		if a.GetName() == name {
			return a
		}
	}
	return nil
}
