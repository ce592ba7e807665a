package zoo

import (
	"errors"
	"testing"

	"github.com/lowrank-go/lowrank/graph"
)

// sizes are the parameters and multiply-accumulates that are published, by torchvision:
// numbers of parameters exactly, MACs of convolutions and linear layers, in millions, for
// an image of the network's size.
var sizes = []struct {
	arch   string
	params int
	macs   int64
	sites  int
}{
	{"alexnet", 61100840, 714, 8},
	{"vgg11", 132863336, 7609, 11},
	{"vgg13", 133047848, 11308, 13},
	{"vgg16", 138357544, 15470, 16},
	{"vgg19", 143667240, 19632, 19},
	{"vgg11_bn", 132868840, 7609, 11},
	{"vgg13_bn", 133053736, 11308, 13},
	{"vgg16_bn", 138365992, 15470, 16},
	{"vgg19_bn", 143678248, 19632, 19},
	{"squeezenet1_0", 1248424, 818, 26},
	{"squeezenet1_1", 1235496, 349, 26},
	{"mobilenet_v2", 3504872, 300, 53},
	{"densenet121", 7978856, 2834, 121},
	{"densenet161", 28681000, 7727, 161},
	{"densenet169", 14149480, 3359, 169},
	{"densenet201", 20013928, 4291, 201},
	{"mobilenet_v3_large", 5483032, 216, 64},
	{"mobilenet_v3_small", 2542856, 56, 54},
	{"efficientnet_b0", 5288548, 385, 82},
	{"efficientnet_b1", 7794184, 686, 116},
	{"efficientnet_b2", 9109994, 1087, 116},
	{"efficientnet_b3", 12233232, 1827, 131},
	{"googlenet", 6624904, 1498, 58},
	{"shufflenet_v2_x0_5", 1366792, 40, 57},
	{"shufflenet_v2_x1_0", 2278604, 144, 57},
	{"shufflenet_v2_x1_5", 3503624, 295, 57},
	{"shufflenet_v2_x2_0", 7393996, 583, 57},
	{"resnet18", 11689512, 1814, 21},
	{"resnet50", 25557032, 4089, 54},
}

func TestNetworksHaveTheirPublishedSizes(t *testing.T) {
	for _, c := range sizes {
		g, err := create(c.arch, 1000, NewOptions{}, nil)
		if err != nil {
			t.Errorf("%s: %v", c.arch, err)
			continue
		}
		if g.Params() != c.params || g.MACs()/1e6 != c.macs || len(g.Sites()) != c.sites {
			t.Errorf("%s has %d parameters, %d MACs and %d layers; want %d, %d million and %d", c.arch, g.Params(), g.MACs(), len(g.Sites()), c.params, c.macs, c.sites)
		}
	}
}

// Every network that can be built is one that its own state dict is loaded as, under the
// same name, without the description that StateDict puts beside.
func TestEveryArchitectureIsRecognisedByItsTensors(t *testing.T) {
	for _, arch := range Architectures() {
		g, err := create(arch, 5, NewOptions{}, nil)
		if err != nil {
			t.Errorf("%s: %v", arch, err)
			continue
		}
		sd, err := g.StateDict()
		if err != nil {
			t.Fatal(err)
		}
		clear(sd.Meta)
		back, err := Load(sd, Options{})
		if err != nil {
			t.Errorf("%s: %v", arch, err)
			continue
		}
		if back.Arch != arch || back.Params() != g.Params() || back.MACs() != g.MACs() || len(back.Nodes) != len(g.Nodes) || !back.Input.Equal(g.Input) {
			t.Errorf("%s is loaded as %s of %d parameters and %d MACs for %v; want %d and %d for %v", arch, back.Arch, back.Params(), back.MACs(), back.Input, g.Params(), g.MACs(), g.Input)
		}
		for i, n := range g.Nodes {
			if m := back.Nodes[i]; m.Name != n.Name || m.Op.Kind() != n.Op.Kind() {
				t.Errorf("%s: node %d is %s %q, and %s %q when loaded", arch, i, n.Op.Kind(), n.Name, m.Op.Kind(), m.Name)
				break
			}
		}
		if g.Head == nil {
			t.Errorf("%s has no head", arch)
			continue
		}
		if err := back.SetHead(3, 1); err != nil || back.Classes() != 3 {
			t.Errorf("%s: a head for 3 classes gives %d, %v", arch, back.Classes(), err)
		}
		if err := back.Validate(); err != nil {
			t.Errorf("%s with another head: %v", arch, err)
		}
	}
}

func TestChoicesOfResidualNetworksAreRefusedForOthers(t *testing.T) {
	for _, o := range []NewOptions{{StrideFirst: true}, {Projection: true}, {SmallStem: true}, {Segment: true}, {ZeroGain: true}, {Dilate: new(int)}} {
		if _, err := New("mobilenet_v2", 10, o); !errors.Is(err, ErrUnknown) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// The first linear layer of VGG and AlexNet is a convolution, so that it can be decomposed
// as one.
func TestLinearLayersOnMapsAreConvolutions(t *testing.T) {
	for arch, want := range map[string][4]int{"vgg16": {4096, 512, 7, 7}, "alexnet": {4096, 256, 6, 6}} {
		g, err := create(arch, 10, NewOptions{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		name := map[string]string{"vgg16": "classifier.0", "alexnet": "classifier.1"}[arch]
		found := graph.Site{}
		for _, s := range g.Sites() {
			if s.Name == name {
				found = s
			}
		}
		if found.Node == nil || found.Linear || found.H != want[2] || found.W != want[3] {
			t.Fatalf("%s: %+v", arch, found)
		}
		if shape, _ := found.Chain.Shape(); shape != want {
			t.Errorf("%s: %s has shape %v, want %v", arch, name, shape, want)
		}
	}
}
