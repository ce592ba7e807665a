package model

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func everyKind() *StateDict {
	sd := NewStateDict()
	sd.Set("f32", &Tensor{Shape: []int{2, 3}, Data: []float32{1, 2, 3, 4, 5, 6}})
	sd.Set("f64.deep.name", &Tensor{Shape: []int{2}, Data: []float64{.5, -1}})
	sd.Set("half", &Tensor{Shape: []int{2}, Data: []float32{1.5, -2}, Stored: F16})
	sd.Set("i64", &Tensor{Data: []int64{1 << 40}})
	sd.Set("empty", &Tensor{Shape: []int{0, 4}, Data: []float32{}})
	sd.Set("四", &Tensor{Shape: []int{1, 1, 1, 2}, Data: []float32{-0.25, 7}})
	return sd
}

func TestWhatIsWrittenForPyTorchIsReadBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.pt")
	want := everyKind()
	if err := WriteTorch(path, want); err != nil {
		t.Fatal(err)
	}
	got, err := ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Names(), want.Names()) {
		t.Fatalf("names %v, want %v", got.Names(), want.Names())
	}
	for _, n := range want.Names() {
		a, _ := got.Get(n)
		b, _ := want.Get(n)
		if len(a.Shape) != len(b.Shape) || a.Len() != b.Len() || a.Len() > 0 && !reflect.DeepEqual(a.Data, b.Data) {
			t.Errorf("%s: %v, want %v", n, a, b)
		}
	}
}

func TestPyTorchLoadsWhatIsWrittenForIt(t *testing.T) {
	const python = "/usr/bin/python3"
	if exec.Command(python, "-c", "import torch").Run() != nil {
		t.Skip("PyTorch is not installed for " + python)
	}
	path := filepath.Join(t.TempDir(), "x.pt")
	if err := WriteTorch(path, everyKind()); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "-c", `
import sys, torch
t = torch.load(sys.argv[1], weights_only=True)
print([(k, str(v.dtype), list(v.shape), v.flatten().tolist()) for k, v in t.items()])`, path)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	want := "[('f32', 'torch.float32', [2, 3], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), ('f64.deep.name', 'torch.float64', [2], [0.5, -1.0]), " +
		"('half', 'torch.float16', [2], [1.5, -2.0]), ('i64', 'torch.int64', [], [1099511627776]), ('empty', 'torch.float32', [0, 4], []), ('四', 'torch.float32', [1, 1, 1, 2], [-0.25, 7.0])]"
	if got := strings.TrimSpace(string(out)); got != want {
		t.Errorf("PyTorch has %s, want %s", got, want)
	}
}
