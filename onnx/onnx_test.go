package onnx

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/lowrank-go/lowrank/internal/onnxpb"
	"github.com/lowrank-go/lowrank/internal/realdata"
)

// Models that a machine may have: the real ones, and those of Debian's libonnx-testdata.
const (
	realModels  = "real"
	conformance = "/usr/share/libonnx-testdata/data"
)

func modelFiles(t testing.TB, dir string) []string {
	t.Helper()
	var files []string
	if dir == realModels {
		dir = realdata.Path(t, "onnx")
	}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".onnx") {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Skipf("%s is not here (%v); Debian's libonnx-testdata or the project's shared data have the models", dir, err)
	}
	return files
}

func TestFilesPassThroughByteForByte(t *testing.T) {
	for _, dir := range []string{realModels, filepath.Join(conformance, "node"), filepath.Join(conformance, "pytorch-converted"), filepath.Join(conformance, "pytorch-operator"), filepath.Join(conformance, "simple")} {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			for _, path := range modelFiles(t, dir) {
				want, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				m, err := Read(bytes.NewReader(want), int64(len(want)))
				if err != nil {
					t.Errorf("%s: %v", path, err)
					continue
				}
				if m.read != nil {
					t.Errorf("%s: marshalling changes it", path)
				}
				var got bytes.Buffer
				if n, err := m.WriteTo(&got); err != nil || n != int64(len(want)) || !bytes.Equal(got.Bytes(), want) {
					t.Errorf("%s: %d bytes became %d: %v", path, len(want), n, err)
				}
			}
		})
	}
}

// One name more in the model's own fields, and all else stays where it was.
func TestAChangeChangesNothingElse(t *testing.T) {
	for _, path := range modelFiles(t, realModels) {
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		m, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		m.Proto().Domain = proto.String("org.example")
		var after bytes.Buffer
		if _, err := m.WriteTo(&after); err != nil {
			t.Fatal(err)
		}
		want := &onnxpb.ModelProto{}
		if err := proto.Unmarshal(before, want); err != nil {
			t.Fatal(err)
		}
		want.Domain = proto.String("org.example")
		if b, err := marshal(want); err != nil || !bytes.Equal(b, after.Bytes()) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func tensor(name string, kind Type, dims ...int64) *onnxpb.TensorProto {
	return &onnxpb.TensorProto{Name: &name, DataType: proto.Int32(int32(kind)), Dims: dims}
}

func file(t testing.TB, g *onnxpb.GraphProto) []byte {
	t.Helper()
	b, err := marshal(&onnxpb.ModelProto{IrVersion: proto.Int64(8), Graph: g, OpsetImport: []*onnxpb.OperatorSetIdProto{{Version: proto.Int64(13)}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func read(t testing.TB, b []byte) *Model {
	t.Helper()
	m, err := Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// large is more values than stay in a skeleton.
const large = 3000

func TestLargeValuesStayInTheFileWhateverTheirField(t *testing.T) {
	floats, ints, unsigned := tensor("floats", Float, large), tensor("ints", Int64, large), tensor("unsigned", Uint64, large)
	halves, doubles, bytesOf := tensor("halves", Float16, large), tensor("doubles", Double, large), tensor("bytes", Int8, large)
	raw := tensor("raw", Float, large)
	for i := range large {
		v := int64(i) - 1500
		floats.FloatData = append(floats.FloatData, float32(v)/7)
		raw.RawData = binary.LittleEndian.AppendUint32(raw.RawData, math.Float32bits(float32(v)/7))
		ints.Int64Data = append(ints.Int64Data, v<<33)
		unsigned.Uint64Data = append(unsigned.Uint64Data, uint64(v))
		halves.Int32Data = append(halves.Int32Data, int32(toHalf(float32(v))))
		doubles.DoubleData = append(doubles.DoubleData, float64(v)*3)
		bytesOf.Int32Data = append(bytesOf.Int32Data, int32(int8(v)))
	}
	floats.DocString = proto.String("after the values")
	all := []*onnxpb.TensorProto{floats, ints, unsigned, halves, doubles, bytesOf, raw}
	b := file(t, &onnxpb.GraphProto{Initializer: all})
	m := read(t, b)
	if len(m.spans) != len(all) {
		t.Fatalf("%d of %d tensors are left in the file", len(m.spans), len(all))
	}
	if n := proto.Size(m.Proto()); n > 400 {
		t.Errorf("the skeleton has %d bytes", n)
	}
	var again bytes.Buffer
	if _, err := m.WriteTo(&again); err != nil || !bytes.Equal(again.Bytes(), b) {
		t.Errorf("written otherwise: %v", err)
	}
	s := m.Scope()
	float := func(name string) []float32 {
		c, err := s.Constant(name)
		if err != nil {
			t.Fatal(err)
		}
		v, err := c.Float32s()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	integer := func(name string) []int64 {
		c, err := s.Constant(name)
		if err != nil {
			t.Fatal(err)
		}
		v, err := c.Int64s()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	f, r, h, d := float("floats"), float("raw"), float("halves"), float("doubles")
	i, u, i8 := integer("ints"), integer("unsigned"), integer("bytes")
	for k := range large {
		v := int64(k) - 1500
		if f[k] != float32(v)/7 || r[k] != f[k] || h[k] != float32(v) || d[k] != float32(v*3) || i[k] != v<<33 || u[k] != v || i8[k] != int64(int8(v)) {
			t.Fatalf("value %d: %v %v %v %v %v %v %v", k, f[k], r[k], h[k], d[k], i[k], u[k], i8[k])
		}
	}
}

func TestMarshallingNeedNotKeepTheOrderForAFileToPassThrough(t *testing.T) {
	graph := file(t, &onnxpb.GraphProto{Name: proto.String("g")})
	raw := tensor("w", Float, large)
	raw.RawData = make([]byte, 4*large)
	tb, err := marshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	// The name after the values; the IR version last.
	head := protowire.AppendBytes(protowire.AppendTag(nil, rawData, protowire.BytesType), raw.RawData)
	tb = append(head, bytes.Replace(tb, head, nil, 1)...)
	g := protowire.AppendBytes(protowire.AppendTag(nil, 5, protowire.BytesType), tb)
	b := protowire.AppendBytes(protowire.AppendTag(nil, 7, protowire.BytesType), g)
	b = append(b, graph[:2]...)
	m := read(t, b)
	var got bytes.Buffer
	if _, err := m.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), b) {
		t.Errorf("changed: %v", err)
	}
	// With a change all is there too, in the order of the numbers.
	m.Graph().Name = proto.String("other")
	got.Reset()
	if _, err := m.WriteTo(&got); err != nil {
		t.Fatal(err)
	}
	back := &onnxpb.ModelProto{}
	if err := proto.Unmarshal(got.Bytes(), back); err != nil || !proto.Equal(back.Graph.Initializer[0], raw) || back.GetIrVersion() != 8 {
		t.Errorf("%v: %v", err, back)
	}
}

func node(op, out string, attributes []*onnxpb.AttributeProto, in ...string) *onnxpb.NodeProto {
	return &onnxpb.NodeProto{OpType: &op, Output: []string{out}, Input: in, Attribute: attributes}
}

func attribute(name string, set func(*onnxpb.AttributeProto)) []*onnxpb.AttributeProto {
	a := &onnxpb.AttributeProto{Name: &name}
	set(a)
	return []*onnxpb.AttributeProto{a}
}

func TestConstantsAreFoundWhereverTheyAre(t *testing.T) {
	w := tensor("w", Float, 2)
	w.FloatData = []float32{1.5, -2}
	shape := tensor("shape", Int64, 2)
	shape.Int64Data = []int64{2, 3}
	body := &onnxpb.GraphProto{Node: []*onnxpb.NodeProto{node("Identity", "inner", nil, "id")}, Input: []*onnxpb.ValueInfoProto{{Name: proto.String("shape")}}}
	g := &onnxpb.GraphProto{
		Initializer: []*onnxpb.TensorProto{w, shape},
		Input:       []*onnxpb.ValueInfoProto{{Name: proto.String("w")}, {Name: proto.String("x")}},
		Node: []*onnxpb.NodeProto{
			node("Identity", "id", nil, "w"),
			node("Cast", "half", attribute("to", func(a *onnxpb.AttributeProto) { a.I = proto.Int64(int64(Float16)) }), "id"),
			node("Cast", "float", attribute("to", func(a *onnxpb.AttributeProto) { a.I = proto.Int64(int64(Float)) }), "half"),
			node("Cast", "int", attribute("to", func(a *onnxpb.AttributeProto) { a.I = proto.Int64(int64(Int8)) }), "w"),
			node("Constant", "c", attribute("value", func(a *onnxpb.AttributeProto) { a.T = tensor("", Int32, 1); a.T.Int32Data = []int32{-7} })),
			node("Constant", "cf", attribute("value_floats", func(a *onnxpb.AttributeProto) { a.Floats = []float32{.5} })),
			node("Constant", "ci", attribute("value_int", func(a *onnxpb.AttributeProto) { a.I = proto.Int64(9) })),
			node("ConstantOfShape", "zeros", nil, "shape"),
			node("ConstantOfShape", "ones", attribute("value", func(a *onnxpb.AttributeProto) { a.T = tensor("", Int64, 1); a.T.Int64Data = []int64{1} }), "shape"),
			node("Relu", "relu", nil, "w"),
			node("Identity", "ring", nil, "ring2"), node("Identity", "ring2", nil, "ring"),
			node("If", "y", attribute("then_branch", func(a *onnxpb.AttributeProto) { a.G = body }), "x"),
		},
	}
	m := read(t, file(t, g))
	s := m.Scope()
	for name, want := range map[string]any{
		"w": []float32{1.5, -2}, "id": []float32{1.5, -2}, "half": []float32{1.5, -2}, "float": []float32{1.5, -2}, "int": []int64{1, -2},
		"c": []int64{-7}, "cf": []float32{.5}, "ci": []int64{9}, "zeros": make([]float32, 6), "ones": []int64{1, 1, 1, 1, 1, 1},
		"relu": nil, "x": nil, "ring": nil, "nowhere": nil,
	} {
		c, err := s.Constant(name)
		if err != nil || (c == nil) != (want == nil) {
			t.Errorf("%s: %v, %v", name, c, err)
		}
		if c == nil {
			continue
		}
		var got any
		if c.Type.IsFloat() {
			got, err = c.Float32s()
		} else {
			got, err = c.Int64s()
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %v, want %v; %v", name, got, want, err)
		}
	}
	sub := s.Sub(m.Graph().Node[len(m.Graph().Node)-1].Attribute[0].G)
	if c, err := sub.Constant("inner"); err != nil || c == nil {
		t.Errorf("a name of the outer graph: %v, %v", c, err)
	}
	if c, err := sub.Constant("shape"); err != nil || c != nil {
		t.Errorf("an input of the inner graph hides the outer initializer: %v, %v", c, err)
	}
	if !sub.Defined("x") || sub.Defined("nowhere") {
		t.Error("what is defined")
	}
}

func TestValuesInOtherFiles(t *testing.T) {
	dir := t.TempDir()
	inside := filepath.Join(dir, "models")
	if err := os.Mkdir(inside, 0o755); err != nil {
		t.Fatal(err)
	}
	values := make([]byte, 8+4*large)
	for i := range large {
		binary.LittleEndian.PutUint32(values[8+4*i:], math.Float32bits(float32(i)))
	}
	for _, path := range []string{filepath.Join(inside, "w.bin"), filepath.Join(dir, "outside.bin")} {
		if err := os.WriteFile(path, values, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	_ = os.Symlink("../outside.bin", filepath.Join(inside, "link.bin"))
	path := filepath.Join(inside, "m.onnx")
	open := func(keys ...string) (*Model, error) {
		w := tensor("w", Float, large)
		w.DataLocation = onnxpb.TensorProto_EXTERNAL.Enum()
		for i := 0; i < len(keys); i += 2 {
			w.ExternalData = append(w.ExternalData, &onnxpb.StringStringEntryProto{Key: &keys[i], Value: &keys[i+1]})
		}
		if err := os.WriteFile(path, file(t, &onnxpb.GraphProto{Initializer: []*onnxpb.TensorProto{w}}), 0o644); err != nil {
			t.Fatal(err)
		}
		return Open(path)
	}
	for what, c := range map[string]struct {
		keys []string
		says string
	}{
		"whole":      {[]string{"location", "w.bin", "offset", "8", "length", fmt.Sprint(4 * large)}, ""},
		"to the end": {[]string{"location", "w.bin", "offset", "8"}, ""},
		"above":      {[]string{"location", "../outside.bin", "offset", "8"}, "outside"},
		"absolute":   {[]string{"location", filepath.Join(dir, "outside.bin"), "offset", "8"}, "outside"},
		"link":       {[]string{"location", "link.bin", "offset", "8"}, "link.bin"},
		"none":       {[]string{"location", "none.bin"}, "none.bin"},
		"a folder":   {[]string{"location", "."}, "not a regular file"},
		"too short":  {[]string{"location", "w.bin"}, "does not have"},
		"too long":   {[]string{"location", "w.bin", "offset", "16", "length", fmt.Sprint(4 * large)}, "which has"},
		"negative":   {[]string{"location", "w.bin", "offset", "-8"}, "offset"},
		"overflow":   {[]string{"location", "w.bin", "offset", "9223372036854775807", "length", "9223372036854775807"}, "which has"},
		"no number":  {[]string{"location", "w.bin", "length", "x"}, "length"},
	} {
		m, err := open(c.keys...)
		if err != nil {
			t.Fatal(err)
		}
		w, err := m.Tensor(m.Graph().Initializer[0])
		if c.says != "" {
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v; want %q", what, err, c.says)
			}
			if err := m.WriteFile(filepath.Join(t.TempDir(), "out.onnx")); err == nil && what != "too short" {
				t.Errorf("%s: written into another folder", what)
			}
			_ = m.Close()
			continue
		}
		v, err := w.Float32s()
		if err != nil || v[large-1] != large-1 {
			t.Errorf("%s: %v", what, err)
		}
		// In the same folder it stays a reference, elsewhere the values come along.
		same, other := filepath.Join(inside, "again.onnx"), filepath.Join(t.TempDir(), "alone.onnx")
		for _, to := range []string{same, other} {
			if err := m.WriteFile(to); err != nil {
				t.Fatal(err)
			}
			back, err := Open(to)
			if err != nil {
				t.Fatal(err)
			}
			if e := back.Graph().Initializer[0].GetDataLocation() == onnxpb.TensorProto_EXTERNAL; e != (to == same) {
				t.Errorf("%s: %s is external: %v", what, to, e)
			}
			w, err := back.Tensor(back.Graph().Initializer[0])
			if err != nil {
				t.Fatal(err)
			}
			if got, err := w.Float32s(); err != nil || !slices.Equal(got, v) {
				t.Errorf("%s: %s has other values: %v", what, to, err)
			}
			_ = back.Close()
		}
		_ = m.Close()
	}
}

func TestHalfPrecisionRoundsAsIEEE754Says(t *testing.T) {
	for h := range 1 << 16 {
		f := fromHalf(uint16(h))
		if f != f {
			if g := fromHalf(toHalf(f)); g == g {
				t.Fatalf("%#x: NaN became %g", h, g)
			}
			continue
		}
		if got := toHalf(f); got != uint16(h) {
			t.Fatalf("%#x is %g and goes back to %#x", h, f, got)
		}
		// Halfway to the next one goes to the even one, a bit more goes up.
		if h&0x7fff >= 0x7bff {
			continue
		}
		next := fromHalf(uint16(h + 1))
		mid := (f + next) / 2
		want := uint16(h + h&1)
		if got := toHalf(mid); got != want {
			t.Fatalf("%g between %#x and %#x goes to %#x", mid, h, h+1, got)
		}
		if got := toHalf(math.Nextafter32(mid, next)); got != uint16(h+1) {
			t.Fatalf("just past %g goes to %#x, want %#x", mid, got, h+1)
		}
	}
	if toHalf(65520) != 0x7c00 || toHalf(65519) != 0x7bff || toHalf(1e-9) != 0 || toHalf(-1e30) != 0xfc00 {
		t.Error("at the ends")
	}
	for f, want := range map[float32]uint16{1: 0x3f80, 1.00390625: 0x3f80, 1.01171875: 0x3f82, -3.0e38: 0xff62} {
		if b, err := Encode([]float32{f}, BFloat16); err != nil || binary.LittleEndian.Uint16(b) != want {
			t.Errorf("%g as bfloat16 is %x, want %x", f, b, want)
		}
	}
}

// allocated is the heap that f takes in all, garbage included.
func allocated(f func()) uint64 {
	var a, b runtime.MemStats
	runtime.ReadMemStats(&a)
	f()
	runtime.ReadMemStats(&b)
	return b.TotalAlloc - a.TotalAlloc
}

// sparse is a file of zeros but for its head.
type sparse struct {
	head []byte
	size int64
}

func (s sparse) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	n := int(min(int64(len(p)), max(s.size-off, 0)))
	if off < int64(len(s.head)) {
		copy(p[:n], s.head[off:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func TestAGigabyteOfValuesCostsNoMemory(t *testing.T) {
	const size = 1 << 30
	var head []byte
	inner := slices.Concat(protowire.AppendTag(nil, 1, protowire.VarintType), protowire.AppendVarint(nil, size/4),
		protowire.AppendTag(nil, 2, protowire.VarintType), []byte{1}, protowire.AppendTag(nil, rawData, protowire.BytesType), protowire.AppendVarint(nil, size))
	total := int64(len(inner)) + size
	for _, num := range []protowire.Number{5, 7} {
		h := protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.BytesType), uint64(total))
		head = append(h, head...)
		total += int64(len(h))
	}
	file := sparse{append(head, inner...), total}
	n := allocated(func() {
		m, err := Read(file, total)
		if err != nil {
			t.Fatal(err)
		}
		if w, err := m.Tensor(m.Graph().Initializer[0]); err != nil || w.Len() != size/4 {
			t.Fatal(err)
		}
		if k, err := m.WriteTo(io.Discard); err != nil || k != total {
			t.Fatal(k, err)
		}
	})
	if n > 4<<20 {
		t.Errorf("%d KB were allocated", n>>10)
	}
}

func TestBadModelsAreRefusedInBoundedMemory(t *testing.T) {
	field := func(num protowire.Number, b ...byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), b)
	}
	nested := func(n int) []byte {
		g := field(2, 'g')
		for range n {
			g = field(1, field(5, field(6, g...)...)...) // node, attribute, graph
		}
		return field(7, g...)
	}
	if _, err := Read(bytes.NewReader(nested(20)), int64(len(nested(20)))); err != nil {
		t.Errorf("20 graphs in each other: %v", err)
	}
	w := tensor("w", Float, large)
	w.RawData = make([]byte, 4*large)
	good := file(t, &onnxpb.GraphProto{Initializer: []*onnxpb.TensorProto{w}, Name: proto.String("g")})
	for what, c := range map[string]struct {
		file []byte
		want error
	}{
		"empty":             {nil, ErrFormat},
		"no graph":          {[]byte{8, 8}, ErrFormat},
		"a text":            {[]byte("not a model at all, but a text of some length"), ErrCorrupt},
		"graphs in graphs":  {nested(100), ErrUnsupported},
		"and deeper":        {nested(5000), ErrUnsupported},
		"empty nodes":       {field(7, bytes.Repeat([]byte{10, 0}, 4<<20)...), ErrUnsupported},
		"our own mark":      {field(7, field(5, field(placeField, 0)...)...), ErrUnsupported},
		"longer than there": {[]byte{0x3a, 0xff, 0xff, 0xff, 0xff, 0x07}, ErrCorrupt},
		"endless length":    {append([]byte{0x3a}, bytes.Repeat([]byte{0xff}, 12)...), ErrCorrupt},
		"values in parts":   {field(7, field(5, slices.Concat(field(9, w.RawData...), field(9, 1, 2, 3, 4))...)...), ErrUnsupported},
	} {
		n := allocated(func() {
			if _, err := Read(bytes.NewReader(c.file), int64(len(c.file))); !errors.Is(err, c.want) {
				t.Errorf("%s: %v; want %v", what, err, c.want)
			}
		})
		if n > 300<<20 {
			t.Errorf("%s: %d MB were allocated", what, n>>20)
		}
	}
	// Cut anywhere in the graph, which four bytes follow, the file is not read.
	for i := range len(good) - 4 {
		if _, err := Read(bytes.NewReader(good[:i]), int64(i)); err == nil {
			t.Fatalf("cut after %d of %d bytes it is read", i, len(good))
		}
	}
	if _, err := Read(sparse{nil, 1 << 40}, 1<<40); !errors.Is(err, ErrFormat) {
		t.Errorf("a terabyte: %v", err)
	}
}

func FuzzModel(f *testing.F) {
	w := tensor("w", Float, 2, 2)
	w.FloatData = []float32{1, 2, 3, 4}
	f.Add(file(f, &onnxpb.GraphProto{Initializer: []*onnxpb.TensorProto{w}, Node: []*onnxpb.NodeProto{node("Identity", "y", nil, "w")}}))
	shape := tensor("s", Int64, 1)
	shape.RawData = []byte{255, 255, 255, 0, 0, 0, 0, 0}
	f.Add(file(f, &onnxpb.GraphProto{Initializer: []*onnxpb.TensorProto{shape}, Node: []*onnxpb.NodeProto{node("ConstantOfShape", "z", nil, "s")}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Read(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		s := m.Scope()
		for _, n := range m.Graph().Node {
			for _, out := range n.Output {
				if c, err := s.Constant(out); err == nil && c != nil && c.Len() < 1<<20 {
					if v, err := c.Bytes(); err == nil && len(v) != c.Len()*c.Type.Size() {
						t.Errorf("%d bytes for shape %v of %v", len(v), c.Dims, c.Type)
					}
				}
			}
		}
		// What is written is read again as what it was.
		var out bytes.Buffer
		if _, err := m.WriteTo(&out); err != nil {
			t.Fatal(err)
		}
		if m.read != nil && !bytes.Equal(out.Bytes(), b) {
			t.Error("an unchanged model was written otherwise")
		}
		again, err := Read(bytes.NewReader(out.Bytes()), int64(out.Len()))
		if err != nil {
			t.Fatal(err)
		}
		if x, y := len(m.spans), len(again.spans); x != y {
			t.Errorf("%d values in the file became %d", x, y)
		}
	})
}

func TestModelsThatNothingCouldRunAreRefused(t *testing.T) {
	w := func(name string) *onnxpb.TensorProto {
		w := tensor(name, Float, 1)
		w.FloatData = []float32{1}
		return w
	}
	x := []*onnxpb.ValueInfoProto{{Name: proto.String("x")}}
	body := func(in string) *onnxpb.NodeProto {
		return node("If", "y", attribute("then_branch", func(a *onnxpb.AttributeProto) {
			a.G = &onnxpb.GraphProto{Name: proto.String("body"), Node: []*onnxpb.NodeProto{node("Relu", "z", nil, in)}, Output: []*onnxpb.ValueInfoProto{{Name: proto.String("z")}}}
		}), "x")
	}
	for what, c := range map[string]struct {
		g    *onnxpb.GraphProto
		says string
	}{
		"two initializers": {&onnxpb.GraphProto{Initializer: []*onnxpb.TensorProto{w("w"), w("w")}}, `two initializers are called "w"`},
		"two nodes":        {&onnxpb.GraphProto{Input: x, Node: []*onnxpb.NodeProto{node("Relu", "y", nil, "x"), node("Abs", "y", nil, "x")}}, `give "y"`},
		"node and tensor":  {&onnxpb.GraphProto{Initializer: []*onnxpb.TensorProto{w("w")}, Input: x, Node: []*onnxpb.NodeProto{node("Relu", "w", nil, "x")}}, `give "w"`},
		"missing":          {&onnxpb.GraphProto{Input: x, Node: []*onnxpb.NodeProto{node("Conv", "y", nil, "x", "w")}}, `takes "w", which nothing gives`},
		"missing output":   {&onnxpb.GraphProto{Input: x, Output: []*onnxpb.ValueInfoProto{{Name: proto.String("y")}}}, `takes "y"`},
		"ring":             {&onnxpb.GraphProto{Node: []*onnxpb.NodeProto{node("Relu", "a", nil, "b"), node("Relu", "b", nil, "a")}}, "waits for its own output"},
		"ring by a body":   {&onnxpb.GraphProto{Input: x, Node: []*onnxpb.NodeProto{body("y")}}, "waits for its own output"},
		"missing in body":  {&onnxpb.GraphProto{Input: x, Node: []*onnxpb.NodeProto{body("w")}}, `takes "w"`},
	} {
		if err := read(t, file(t, c.g)).Check(); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want %q", what, err, c.says)
		}
	}
	good := &onnxpb.GraphProto{Input: append(x, &onnxpb.ValueInfoProto{Name: proto.String("w")}), Initializer: []*onnxpb.TensorProto{w("w")},
		Node: []*onnxpb.NodeProto{node("Relu", "b", nil, "a"), node("Add", "a", nil, "x", "w", ""), body("b")}, Output: []*onnxpb.ValueInfoProto{{Name: proto.String("y")}}}
	if err := read(t, file(t, good)).Check(); err != nil {
		t.Error(err)
	}
}

func TestRealModelsPassTheCheck(t *testing.T) {
	for _, dir := range []string{realModels, conformance} {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			for _, path := range modelFiles(t, dir) {
				m, err := Open(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := m.Check(); err != nil {
					t.Errorf("%s: %v", path, err)
				}
				_ = m.Close()
			}
		})
	}
}
