package zoo

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/lowrank-go/lowrank/model"
)

// torchvision finds a Python that has it, and skips the test where there is none.
func torchvision(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("full-size networks of torchvision are not run in short tests")
	}
	for _, name := range []string{os.Getenv("LOWRANK_PYTHON"), "python3", "/usr/bin/python3"} {
		if name != "" && exec.Command(name, "-c", "import torch, torchvision").Run() == nil {
			return name
		}
	}
	t.Skip("NOT COMPARED with torchvision: no Python that has it (LOWRANK_PYTHON may name one)")
	return ""
}

// liveNetwork is one that torchvision runs for an image of side×side.
type liveNetwork struct {
	name string
	side int
}

// The large ones take minutes; LOWRANK_LIVE=all has them run too.
var (
	live = []liveNetwork{
		{"squeezenet1_0", 224}, {"squeezenet1_1", 200}, {"mobilenet_v2", 224}, {"densenet121", 128}, {"mobilenet_v3_large", 224},
		{"mobilenet_v3_small", 160}, {"efficientnet_b0", 128}, {"googlenet", 128}, {"shufflenet_v2_x1_0", 224}, {"shufflenet_v2_x0_5", 200},
	}
	large = []liveNetwork{
		{"vgg16", 224}, {"vgg11_bn", 224}, {"alexnet", 224}, {"densenet161", 224}, {"efficientnet_b3", 300},
		{"resnet18", 224}, {"resnext50_32x4d", 224}, {"deeplabv3_resnet50", 97},
	}
)

func TestFullSizeNetworksEqualTorchvisions(t *testing.T) {
	python := torchvision(t)
	networks := live
	if os.Getenv("LOWRANK_LIVE") == "all" {
		networks = append(slices.Clone(live), large...)
	}
	dir := t.TempDir()
	args := []string{"-B", "live.py", dir}
	for _, c := range networks {
		args = append(args, c.name, strconv.Itoa(c.side))
	}
	cmd := exec.Command(python, args...)
	cmd.Dir = "testdata"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, c := range networks {
		t.Run(c.name, func(t *testing.T) {
			sd, err := model.ReadFile(filepath.Join(dir, c.name+".pth"))
			if err != nil {
				t.Fatal(err)
			}
			result, err := model.ReadFile(filepath.Join(dir, c.name+".npz"))
			if err != nil {
				t.Fatal(err)
			}
			number := func(name string) int64 {
				v, ok := result.Get(name)
				if !ok {
					t.Fatalf("there is no %s", name)
				}
				return v.Data.([]int64)[0]
			}
			g, err := Load(sd, Options{Input: [2]int{c.side, c.side}})
			if err != nil {
				t.Fatal(err)
			}
			if g.Arch != c.name || int64(g.Params()) != number("params") || g.MACs() != number("macs") {
				t.Errorf("it is %s of %d parameters and %d MACs; want %d and %d", g.Arch, g.Params(), g.MACs(), number("params"), number("macs"))
			}
			p, err := g.Compile()
			if err != nil {
				t.Fatal(err)
			}
			out, err := p.Run(context.Background(), filled(1, 3, c.side, c.side), 0)
			if err != nil {
				t.Fatal(err)
			}
			v, _ := result.Get("y")
			want, err := v.Float32s()
			if err != nil {
				t.Fatal(err)
			}
			d := near(out[0].Data, want, largest(want))
			if !(d <= tolerance) {
				t.Errorf("the logits differ by %.2g of their largest", d)
			}
			t.Logf("%d nodes, %d parameters, logits within %.2g", len(g.Nodes), g.Params(), d)
		})
	}
}
