package torchmodule

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lowrank-go/lowrank/compress"
	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/zoo"
)

// python runs a program in a folder, where PyTorch is installed.
func python(t *testing.T, dir string, env []string, args ...string) string {
	t.Helper()
	const bin = "/usr/bin/python3"
	if exec.Command(bin, "-c", "import torch").Run() != nil {
		t.Skip("PyTorch is not installed for " + bin)
	}
	cmd := exec.Command(bin, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), append(env, "OMP_NUM_THREADS=1")...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

const compare = `
import sys, struct, torch
from module import load
torch.manual_seed(0)
shape = [int(v) for v in sys.argv[1].split(",")]
x = torch.frombuffer(bytearray(open("input", "rb").read()), dtype=torch.float32).reshape(shape)
a, b = load("model.safetensors"), load("model.pt")
with torch.no_grad():
    y = a(x)
    assert torch.equal(y, b(x))
open("output", "wb").write(y.contiguous().numpy().tobytes())
`

// sameInPyTorch compares a network with the module that is written for it.
func sameInPyTorch(t *testing.T, g *graph.Graph, n, h, w int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "net")
	if err := Write(dir, g); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	c := g.Input[0]
	x := conv.NewMap(n, h, w, c)
	for i := range x.Data {
		x.Data[i] = float32(rng.NormFloat64())
	}
	var data []byte
	for b := range n {
		for ch := range c {
			for p := range h * w {
				data = binary.LittleEndian.AppendUint32(data, math.Float32bits(x.Data[(b*h*w+p)*c+ch]))
			}
		}
	}
	for name, text := range map[string][]byte{"input": data, "compare.py": []byte(compare)} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	python(t, dir, nil, "compare.py", fmt.Sprintf("%d,%d,%d,%d", n, c, h, w))
	got, err := os.ReadFile(filepath.Join(dir, "output"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := g.Compile()
	if err != nil {
		t.Fatal(err)
	}
	want, err := p.Run(t.Context(), x, 0)
	if err != nil {
		t.Fatal(err)
	}
	var worst, top float64
	for i, v := range want[0].Data {
		worst = math.Max(worst, math.Abs(float64(v-math.Float32frombits(binary.LittleEndian.Uint32(got[4*i:])))))
		top = math.Max(top, math.Abs(float64(v)))
	}
	if len(got) != 4*len(want[0].Data) || !(worst <= 1e-4*top) {
		t.Errorf("%s: %d values differ by %.3g of the largest, %g; want %d", g.Arch, len(got)/4, worst/top, top, len(want[0].Data))
	}
	return dir
}

func TestModulesGiveWhatNetworksGive(t *testing.T) {
	for _, arch := range []string{"resnet20", "resnet18"} {
		g, err := zoo.New(arch, 10, zoo.NewOptions{Seed: 1, Input: [2]int{64, 64}})
		if err != nil {
			t.Fatal(err)
		}
		sameInPyTorch(t, g, 2, 64, 64)
	}
	g, err := zoo.New("resnet18", 4, zoo.NewOptions{Seed: 1, Segment: true, Input: [2]int{64, 64}})
	if err != nil {
		t.Fatal(err)
	}
	sameInPyTorch(t, g, 1, 72, 96)
}

func TestModulesOfCompressedNetworksTrainOnOneAndOnTwoProcesses(t *testing.T) {
	g, err := zoo.New("resnet20", 10, zoo.NewOptions{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	small, _, err := compress.Network(t.Context(), g, compress.Options{Method: compress.Tucker, Rank: compress.Rank{Rule: compress.Ratio, Value: .5}})
	if err != nil {
		t.Fatal(err)
	}
	dir := sameInPyTorch(t, small, 1, 32, 32)
	out := python(t, dir, nil, "train.py", "--epochs", "1", "--steps", "2", "--batch", "8")
	if !strings.Contains(out, "epoch 1 of 1") {
		t.Errorf("one process said %q", out)
	}
	if testing.Short() {
		return
	}
	type result struct {
		out []byte
		err error
	}
	done := make(chan result)
	for rank := range 2 {
		cmd := exec.Command("/usr/bin/python3", "train.py", "--epochs", "1", "--steps", "2", "--batch", "8", "--output", "two.pt")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "OMP_NUM_THREADS=1", "WORLD_SIZE=2", fmt.Sprintf("RANK=%d", rank), fmt.Sprintf("LOCAL_RANK=%d", rank), "MASTER_ADDR=127.0.0.1", "MASTER_PORT=29517")
		go func() {
			out, err := cmd.CombinedOutput()
			done <- result{out, err}
		}()
	}
	both := ""
	for range 2 {
		r := <-done
		if r.err != nil {
			t.Errorf("%v\n%s", r.err, r.out)
		}
		both += string(r.out)
	}
	if !strings.Contains(both, "epoch 1 of 1") {
		t.Errorf("two processes said %q", both)
	}
	if _, err := os.Stat(filepath.Join(dir, "two.pt")); err != nil {
		t.Error(err)
	}
}
