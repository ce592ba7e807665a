package model

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/lowrank-go/lowrank/internal/realdata"
)

// fixture reads a file that testdata/make.py made.
func fixture(t testing.TB, name string) *StateDict {
	t.Helper()
	sd, err := ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return sd
}

func wantTensor(t *testing.T, sd *StateDict, name string, shape []int, data any) {
	t.Helper()
	x, ok := sd.Get(name)
	if !ok {
		t.Errorf("no tensor %q among %v", name, sd.Names())
		return
	}
	if fmt.Sprint(x.Shape) != fmt.Sprint(shape) || !reflect.DeepEqual(x.Data, data) {
		t.Errorf("%s is %v %T%v, want %v %T%v", name, x.Shape, x.Data, x.Data, shape, data, data)
	}
}

// ramp is first, first+1, … of any element type.
func ramp[T number](n int, first int) []T {
	v := make([]T, n)
	for i := range v {
		v[i] = T(first + i)
	}
	return v
}

func TestTorchStateDictsReadAsTheyWereSaved(t *testing.T) {
	for _, file := range []string{"state_zip.pth", "state_legacy.pth"} {
		t.Run(file, func(t *testing.T) {
			sd := fixture(t, file)
			if got, want := strings.Join(sd.Names(), " "), "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool base transposed strided expanded scalar empty parameter"; got != want {
				t.Errorf("names %s, want %s", got, want)
			}
			s := []int{2, 3}
			wantTensor(t, sd, "float64", s, ramp[float64](6, -2))
			wantTensor(t, sd, "float32", s, ramp[float32](6, -2))
			wantTensor(t, sd, "float16", s, ramp[float32](6, -2))
			wantTensor(t, sd, "bfloat16", s, ramp[float32](6, -2))
			wantTensor(t, sd, "int64", s, ramp[int64](6, -2))
			wantTensor(t, sd, "int32", s, ramp[int32](6, -2))
			wantTensor(t, sd, "int16", s, ramp[int16](6, -2))
			wantTensor(t, sd, "int8", s, ramp[int8](6, -2))
			wantTensor(t, sd, "uint8", s, ramp[uint8](6, 0))
			wantTensor(t, sd, "bool", s, []bool{true, false, true, false, false, true})
			base := ramp[float32](24, 0)
			wantTensor(t, sd, "base", []int{2, 3, 4}, base)
			var transposed, strided, expanded []float32
			for k := range 4 {
				for i := range 2 {
					for j := range 3 {
						transposed = append(transposed, base[i*12+j*4+k])
					}
				}
			}
			for i := range 2 {
				for j := 0; j < 3; j += 2 {
					strided = append(strided, base[i*12+j*4+1:i*12+j*4+4]...)
				}
			}
			for i := range 3 {
				for range 4 {
					expanded = append(expanded, float32(i))
				}
			}
			wantTensor(t, sd, "transposed", []int{4, 2, 3}, transposed)
			wantTensor(t, sd, "strided", []int{2, 2, 3}, strided)
			wantTensor(t, sd, "expanded", []int{3, 4}, expanded)
			wantTensor(t, sd, "scalar", nil, []float32{7.5})
			wantTensor(t, sd, "empty", []int{0, 3}, []float32{})
			wantTensor(t, sd, "parameter", []int{4}, ramp[float32](4, 0))
		})
	}
}

func TestTheStateDictIsFoundInsideACheckpoint(t *testing.T) {
	for _, file := range []string{"nested_zip.pth", "nested_legacy.pth"} {
		sd := fixture(t, file)
		if got := strings.Join(sd.Names(), " "); got != "module.fc.weight module.steps" {
			t.Errorf("%s: names %s", file, got)
		}
		wantTensor(t, sd, "module.fc.weight", []int{2, 3}, ramp[float32](6, -2))
		wantTensor(t, sd, "module.steps", nil, []int64{9})
		want := map[string]string{"epoch": "3", "arch": "tiny", "best_prec1": "91.5", "numpy_scalar": "0.25"}
		for k, v := range want {
			if sd.Meta[k] != v {
				t.Errorf("%s: Meta[%q] is %q, want %q", file, k, sd.Meta[k], v)
			}
		}
	}
}

func TestNumPyArraysReadAsTheyWereSaved(t *testing.T) {
	s := []int{2, 3}
	for name, data := range map[string]any{
		"float64": ramp[float64](6, 0), "float32": ramp[float32](6, 0), "float16": ramp[float32](6, 0),
		"int64": ramp[int64](6, 0), "int32": ramp[int32](6, 0), "int16": ramp[int16](6, 0), "int8": ramp[int8](6, 0),
		"uint64": ramp[uint64](6, 0), "uint32": ramp[uint32](6, 0), "uint16": ramp[uint16](6, 0), "uint8": ramp[uint8](6, 0),
		"bool":       []bool{false, true, true, true, true, true},
		"big_endian": ramp[float64](6, 0), "version2": ramp[float32](6, 0),
	} {
		wantTensor(t, fixture(t, name+".npy"), name, s, data)
	}
	wantTensor(t, fixture(t, "fortran.npy"), "fortran", []int{2, 3, 4}, ramp[float32](24, 0))
	wantTensor(t, fixture(t, "scalar.npy"), "scalar", []int{}, []float32{7.5})
	wantTensor(t, fixture(t, "empty.npy"), "empty", []int{0, 3}, []float32{})
	for _, name := range []string{"stored.npz", "deflated.npz"} {
		sd := fixture(t, name)
		wantTensor(t, sd, "a", s, ramp[float32](6, 0))
		wantTensor(t, sd, "b", []int{}, []int64{4})
	}
	for _, name := range []string{"structured.npy", "object.npy", "complex.npy"} {
		if _, err := ReadFile(filepath.Join("testdata", name)); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v, want ErrUnsupported", name, err)
		}
	}
}

func TestHalfPrecisionWidensExactly(t *testing.T) {
	for h := range 1 << 16 {
		sign, exp, frac := 1.0, h>>10&31, float64(h&1023)
		if h>>15 == 1 {
			sign = -1
		}
		var want float64
		switch {
		case exp == 31 && frac != 0:
			want = math.NaN()
		case exp == 31:
			want = sign * math.Inf(1)
		case exp == 0:
			want = sign * math.Ldexp(frac, -24)
		default:
			want = sign * math.Ldexp(1+frac/1024, exp-15)
		}
		got := float64(halfToFloat32(uint16(h)))
		if got != want && !(math.IsNaN(got) && math.IsNaN(want)) || math.Signbit(got) != math.Signbit(want) && !math.IsNaN(want) {
			t.Fatalf("%#04x is %g, want %g", h, got, want)
		}
	}
}

func TestNarrowingRoundsToNearestEven(t *testing.T) {
	x := &Tensor{Shape: []int{4}, Data: []float64{1 + 0x1p-24, 1 + 3*0x1p-24, 0.1, 1e300}}
	v, err := x.Float32s()
	want := []float32{1, 1 + 0x1p-22, 0.1, float32(math.Inf(1))}
	if err != nil || !reflect.DeepEqual(v, want) {
		t.Errorf("%v, %v, want %v", v, err, want)
	}
	if _, err := (&Tensor{Shape: []int{1}, Data: []int64{1}}).Float32s(); !errors.Is(err, ErrUnsupported) {
		t.Errorf("integers as float32: %v", err)
	}
}

// drawTensor is a tensor of any type and small shape, scalars and empty ones
// included.
func drawTensor(t *rapid.T, label string) *Tensor {
	shape := rapid.SliceOfN(rapid.IntRange(0, 4), 0, 4).Draw(t, label+" shape")
	n := 1
	for _, d := range shape {
		n *= d
	}
	first := rapid.IntRange(-100, 100).Draw(t, label+" first")
	kinds := []func() any{
		func() any { return ramp[float64](n, first) }, func() any { return ramp[float32](n, first) },
		func() any { return ramp[int64](n, first) }, func() any { return ramp[int32](n, first) },
		func() any { return ramp[int16](n, first) }, func() any { return ramp[int8](n, first) },
		func() any { return ramp[uint64](n, first) }, func() any { return ramp[uint32](n, first) },
		func() any { return ramp[uint16](n, first) }, func() any { return ramp[uint8](n, first) },
		func() any {
			v := make([]bool, n)
			for i := range v {
				v[i] = (i+first)%3 == 0
			}
			return v
		},
	}
	return &Tensor{Shape: shape, Data: kinds[rapid.IntRange(0, len(kinds)-1).Draw(t, label+" kind")]()}
}

func sameTensors(t *rapid.T, got, want *StateDict) {
	if !reflect.DeepEqual(got.Names(), want.Names()) {
		t.Fatalf("names %q, want %q", got.Names(), want.Names())
	}
	for _, name := range want.Names() {
		a, _ := got.Get(name)
		b, _ := want.Get(name)
		if fmt.Sprint(a.Shape) != fmt.Sprint(b.Shape) || !reflect.DeepEqual(a.Data, b.Data) {
			t.Fatalf("%q came back as %v %T%v, want %v %T%v", name, a.Shape, a.Data, a.Data, b.Shape, b.Data, b.Data)
		}
	}
}

func TestWrittenFilesReadBackUnchanged(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		sd := NewStateDict()
		for i := range rapid.IntRange(1, 5).Draw(t, "tensors") {
			sd.Set(fmt.Sprintf("%c.weight%d", 'z'-i, i), drawTensor(t, fmt.Sprint(i)))
		}
		path := filepath.Join(dir, "x.npz")
		if err := WriteNPZ(path, sd); err != nil {
			t.Fatal(err)
		}
		back, err := ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		sameTensors(t, back, sd)

		name := sd.Names()[0]
		one, _ := sd.Get(name)
		path = filepath.Join(dir, name+".npy")
		if err := WriteNPY(path, one); err != nil {
			t.Fatal(err)
		}
		if back, err = ReadFile(path); err != nil {
			t.Fatal(err)
		}
		single := NewStateDict()
		single.Set(name, one)
		sameTensors(t, back, single)

		sd.Meta["key"] = rapid.String().Filter(func(s string) bool { return strings.ToValidUTF8(s, "") == s }).Draw(t, "meta")
		path = filepath.Join(dir, "x.safetensors")
		if err := WriteSafetensors(path, sd); err != nil {
			t.Fatal(err)
		}
		if back, err = ReadFile(path); err != nil {
			t.Fatal(err)
		}
		sameTensors(t, back, sd)
		if back.Meta["key"] != sd.Meta["key"] {
			t.Fatalf("metadata %q came back as %q", sd.Meta["key"], back.Meta["key"])
		}
	})
}

// TestNumPyReadsWhatIsWritten needs Python with NumPy; the comparison is
// NumPy's.
func TestNumPyReadsWhatIsWritten(t *testing.T) {
	python, err := exec.LookPath("/usr/bin/python3")
	if err != nil || exec.Command(python, "-c", "import numpy").Run() != nil {
		t.Skip("python3 with NumPy is not installed")
	}
	dir := t.TempDir()
	sd := NewStateDict()
	sd.Set("f", &Tensor{Shape: []int{2, 3}, Data: ramp[float32](6, 0)})
	sd.Set("i", &Tensor{Shape: []int{4}, Data: ramp[int64](4, -1)})
	sd.Set("s", &Tensor{Data: []float64{2.5}})
	if err := WriteNPZ(filepath.Join(dir, "x.npz"), sd); err != nil {
		t.Fatal(err)
	}
	script := `
import sys, numpy as np
z = np.load(sys.argv[1])
assert z["f"].dtype == np.float32 and (z["f"] == np.arange(6).reshape(2, 3)).all()
assert z["i"].dtype == np.int64 and (z["i"] == np.arange(4) - 1).all()
assert z["s"].shape == () and z["s"] == 2.5
`
	if out, err := exec.Command(python, "-c", script, filepath.Join(dir, "x.npz")).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestRealFilesRead(t *testing.T) {
	sd, err := ReadFile(realdata.Path(t, "checkpoints", "resnet20-12fca82f.th"))
	if err != nil {
		t.Fatal(err)
	}
	// 19 convolutions, 19 batch norms of four tensors, weight and bias of the
	// linear layer; the file has no step counters.
	if sd.Len() != 97 || !strings.HasPrefix(sd.Names()[0], "module.") || sd.Meta["best_prec1"] == "" {
		t.Errorf("ResNet-20: %d tensors, the first %s, Meta %v", sd.Len(), sd.Names()[0], sd.Meta)
	}
	if sd, err = ReadFile(realdata.Path(t, "checkpoints", "resnet18_imagenet_hybrid.pth")); err != nil {
		t.Fatal(err)
	}
	if sd.Len() != 122 {
		t.Errorf("ResNet-18: %d tensors", sd.Len())
	}
	if err := sd.CheckFinite(); err != nil {
		t.Error(err)
	}
	if sd, err = ReadFile(realdata.Path(t, "squeezenet1.1", "weights")); err != nil {
		t.Fatal(err)
	}
	if sd.Len() != 52 {
		t.Errorf("SqueezeNet: %d tensors", sd.Len())
	}
	if sd, err = ReadFile(realdata.Path(t, "tensors", "aminoacids.npy")); err != nil {
		t.Fatal(err)
	}
	x, _ := sd.Get("aminoacids")
	v, err := x.Float64s()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, e := range v {
		sum += e * e
	}
	if norm := math.Sqrt(sum); math.Abs(norm-47991.950132) > 1e-5 {
		t.Errorf("amino acids: norm %.6f, want 47991.950132", norm)
	}
}

func TestCheckFiniteNamesTheElement(t *testing.T) {
	sd := NewStateDict()
	sd.Set("good", &Tensor{Shape: []int{1}, Data: []float32{1}})
	if err := sd.CheckFinite(); err != nil {
		t.Error(err)
	}
	for _, data := range []any{[]float32{0, 0, float32(math.Inf(-1))}, []float64{0, 0, math.NaN()}} {
		sd.Set("bad.weight", &Tensor{Shape: []int{3}, Data: data})
		if err := sd.CheckFinite(); !errors.Is(err, ErrNotFinite) || !strings.Contains(err.Error(), "bad.weight") || !strings.Contains(err.Error(), "element 2") {
			t.Errorf("%v", err)
		}
	}
}

func TestAFailedWriteLeavesNothingAndKeepsTheOldFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out")
	if err := WriteAtomic(path, func(w io.Writer) error { _, err := w.Write([]byte("old")); return err }); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	err := WriteAtomic(path, func(w io.Writer) error {
		if _, err := w.Write(make([]byte, 1<<21)); err != nil {
			return err
		}
		return broken
	})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
	text, err := os.ReadFile(path)
	if err != nil || string(text) != "old" {
		t.Errorf("the old file is %q, %v", text, err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("files left behind: %v", entries)
	}
	if err := WriteAtomic(filepath.Join(dir, "no", "where"), func(io.Writer) error { return nil }); err == nil {
		t.Error("writing into a missing directory worked")
	}
	bad := NewStateDict()
	bad.Set("x", &Tensor{Shape: []int{3}, Data: []float32{1}})
	for _, write := range []func(string, *StateDict) error{WriteSafetensors, WriteNPZ} {
		if err := write(path, bad); !errors.Is(err, ErrUnsupported) {
			t.Errorf("a tensor with too few elements: %v", err)
		}
	}
}

func TestStateDictsKeepOrder(t *testing.T) {
	sd := NewStateDict()
	x := &Tensor{Shape: []int{2}, Data: []float32{1, 2}}
	for _, n := range []string{"b", "a", "c", "a"} {
		sd.Set(n, x)
	}
	sd.Delete("b")
	sd.Delete("missing")
	if got := strings.Join(sd.Names(), " "); got != "a c" || sd.Len() != 2 || sd.Elements() != 4 {
		t.Errorf("names %q, %d tensors, %d elements", got, sd.Len(), sd.Elements())
	}
}

func BenchmarkReadResNet18(b *testing.B) {
	path := realdata.Path(b, "checkpoints", "resnet18_imagenet_hybrid.pth")
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(info.Size())
	for b.Loop() {
		if _, err := ReadFile(path); err != nil {
			b.Fatal(err)
		}
	}
}

func ExampleReadFile() {
	sd, err := ReadFile("testdata/nested_legacy.pth")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, name := range sd.Names() {
		x, _ := sd.Get(name)
		fmt.Println(name, x.DType(), x.Shape)
	}
	fmt.Println("epoch", sd.Meta["epoch"])
	// Output:
	// module.fc.weight F32 [2 3]
	// module.steps I64 []
	// epoch 3
}

func readAll(raw []byte) (*StateDict, error) {
	return Read(bytes.NewReader(raw), int64(len(raw)), "x")
}

// Every number of a half-precision type survives, and what lies between two rounds to the
// nearer, of equally near ones to the even.
func TestNarrowingToHalfPrecisionIsTheNearest(t *testing.T) {
	for _, c := range []struct {
		name   string
		narrow func(float32) (uint16, bool)
		widen  func(uint16) float32
		inf    uint16
	}{
		{"F16", float32ToHalf, halfToFloat32, 0x7c00},
		{"BF16", float32ToBFloat16, func(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }, 0x7f80},
	} {
		for i := range 1 << 16 {
			h := uint16(i)
			f := c.widen(h)
			got, fits := c.narrow(f)
			if f != f { // a NaN stays one
				if w := c.widen(got); !fits || w == w {
					t.Fatalf("%s: NaN %#x became %#x", c.name, h, got)
				}
				continue
			}
			if got != h || !fits {
				t.Fatalf("%s: %#x (%g) became %#x, %v", c.name, h, f, got, fits)
			}
			if h&0x7fff >= c.inf-1 { // no finite number follows
				continue
			}
			next := c.widen(h + 1)
			middle := float32((float64(f) + float64(next)) / 2)
			even := h
			if h&1 == 1 {
				even = h + 1
			}
			for _, w := range []struct {
				x    float32
				want uint16
			}{{middle, even}, {math.Nextafter32(middle, f), h}, {math.Nextafter32(middle, next), h + 1}} {
				if got, fits := c.narrow(w.x); got != w.want || !fits {
					t.Fatalf("%s: %g between %#x and %#x became %#x, %v", c.name, w.x, h, h+1, got, fits)
				}
			}
		}
		largest := c.widen(c.inf - 1)
		for _, x := range []float32{math.MaxFloat32, -math.MaxFloat32, largest * 1.1} {
			if _, fits := c.narrow(x); fits && !math.IsInf(float64(x), 0) {
				t.Errorf("%s: %g fits", c.name, x)
			}
		}
	}
}

func TestHalfPrecisionSurvivesFiles(t *testing.T) {
	sd := NewStateDict()
	sd.Set("h", &Tensor{Shape: []int{3}, Data: []float32{1, -2.5, 6e-8}, Stored: F16})
	sd.Set("b", &Tensor{Shape: []int{2}, Data: []float32{1, 3e38}, Stored: BF16})
	sd.Set("f", &Tensor{Shape: []int{1}, Data: []float32{0.1}})
	through := func() *StateDict {
		path := filepath.Join(t.TempDir(), "x.safetensors")
		if err := WriteSafetensors(path, sd); err != nil {
			t.Fatal(err)
		}
		back, err := ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return back
	}
	back := through()
	for _, name := range sd.Names() {
		want, _ := sd.Get(name)
		got, _ := back.Get(name)
		if got.FileType() != want.FileType() {
			t.Errorf("%s came back as %s", name, got.FileType())
		}
	}
	if h, _ := back.Get("h"); h.Data.([]float32)[1] != -2.5 {
		t.Errorf("%v", h)
	}
	if err := sd.SetFloatType(F16); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), `"b"`) {
		t.Errorf("3e38 as float16: %v", err)
	}
	if got := sd.FloatType(); got != F16 {
		t.Errorf("type %s", got)
	}
	if err := sd.SetFloatType(BF16); err != nil {
		t.Fatal(err)
	}
	f, _ := through().Get("f")
	if f.FileType() != BF16 || f.Data.([]float32)[0] != 0.10009765625 {
		t.Errorf("0.1 as bfloat16: %v", f)
	}
}

// A tensor of any kind of number becomes one of float64.
func TestDenseWidens(t *testing.T) {
	x, err := (&Tensor{Shape: []int{2, 2}, Data: []int8{1, -2, 3, 4}}).Dense()
	if err != nil || !slices.Equal(x.Data().([]float64), []float64{1, -2, 3, 4}) {
		t.Errorf("%v, %v", x, err)
	}
	if x, err = (&Tensor{Shape: []int{2}, Data: []bool{true, false}}).Dense(); err != nil || !slices.Equal(x.Data().([]float64), []float64{1, 0}) {
		t.Errorf("a mask: %v, %v", x, err)
	}
	for _, bad := range []*Tensor{{Data: []float64{1}}, {Shape: []int{0}, Data: []float64{}}} {
		if _, err := bad.Dense(); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%v: error %v", bad, err)
		}
	}
}
