package main

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/gemm"
)

// layer is a convolution of a network, and how often the network has it.
type layer struct {
	name      string
	times     int
	h, w, c   int
	out, k, s int
	groups    int
}

func (l layer) pad() int { return l.k / 2 }

// kernel has random weights.
func (l layer) kernel() *conv.Kernel {
	g := max(l.groups, 1)
	return &conv.Kernel{
		Shape: [4]int{l.out, l.c / g, l.k, l.k}, Weight: random[float32](l.out * l.c / g * l.k * l.k),
		Geometry: conv.Geometry{Stride: [2]int{l.s, l.s}, Padding: [2]int{l.pad(), l.pad()}, Groups: g},
	}
}

var resnet20 = []layer{
	{"stem", 1, 32, 32, 3, 16, 3, 1, 1},
	{"16→16", 6, 32, 32, 16, 16, 3, 1, 1},
	{"16→32/2", 1, 32, 32, 16, 32, 3, 2, 1},
	{"32→32", 5, 16, 16, 32, 32, 3, 1, 1},
	{"32→64/2", 1, 16, 16, 32, 64, 3, 2, 1},
	{"64→64", 5, 8, 8, 64, 64, 3, 1, 1},
}

var resnet18 = []layer{
	{"stem", 1, 224, 224, 3, 64, 7, 2, 1},
	{"64→64", 4, 56, 56, 64, 64, 3, 1, 1},
	{"64→128/2", 1, 56, 56, 64, 128, 3, 2, 1},
	{"64→128/2 1×1", 1, 56, 56, 64, 128, 1, 2, 1},
	{"128→128", 3, 28, 28, 128, 128, 3, 1, 1},
	{"128→256/2", 1, 28, 28, 128, 256, 3, 2, 1},
	{"128→256/2 1×1", 1, 28, 28, 128, 256, 1, 2, 1},
	{"256→256", 3, 14, 14, 256, 256, 3, 1, 1},
	{"256→512/2", 1, 14, 14, 256, 512, 3, 2, 1},
	{"256→512/2 1×1", 1, 14, 14, 256, 512, 1, 2, 1},
	{"512→512", 3, 7, 7, 512, 512, 3, 1, 1},
}

// convs times the layers of the networks, forwards and backwards, and the chains
// that CP and Tucker layers become.
func convs(o options) error {
	peak := gemm.Peak32(o.threads, time.Second)
	fmt.Printf("%d threads, multiply-add peak %.1f GFLOP/s float32\n", o.threads, peak)
	if o.peer != nil {
		if core, err := o.peer.ask("core"); err == nil {
			fmt.Println("peer", core)
		}
	}
	for _, n := range []struct {
		name     string
		batch    int
		layers   []layer
		backward bool
	}{
		{"ResNet-20", 128, resnet20, true},
		{"ResNet-18", 8, resnet18, true},
		{"ResNet-18", 1, resnet18, false},
	} {
		name := fmt.Sprintf("%s batch %d", n.name, n.batch)
		if !strings.Contains(name, o.only) {
			continue
		}
		if err := network(o, name, n.batch, n.layers, n.backward, peak); err != nil {
			return err
		}
	}
	return chains(o, peak)
}

func network(o options, name string, batch int, layers []layer, backward bool, peak float64) error {
	fmt.Printf("\n%s: milliseconds ours / PyTorch's, ratio; GFLOP/s of the definition's multiplications\n", name)
	passes := []string{"forward"}
	if backward {
		passes = append(passes, "input", "weight")
	}
	var mine, theirs float64
	var ratios mean
	for _, l := range layers {
		fmt.Printf("%-14s", l.name)
		var a, b float64
		runs, flops := l.runs(batch, o.threads)
		for _, pass := range passes {
			if l.name == "stem" && pass == "input" {
				fmt.Printf(" | %-8s %32s", pass, "")
				continue // nobody needs it
			}
			question := fmt.Sprintf("%s %d %d %d %d %d %d %d %d %d %d 1 %d %d", pass, batch, l.h, l.w, l.c, l.out, l.k, l.k, l.s, l.pad(), l.pad(), l.groups, o.threads)
			x, y, err := o.pair(runs[pass], question)
			if err != nil {
				return err
			}
			fmt.Printf(" | %-7s %7.2f /%7.2f %5.2f %6.1f", pass, x/1e6, y/1e6, y/x, flops/x)
			a, b = a+x, b+y
		}
		fmt.Printf(" | layer %.2f\n", b/a)
		mine, theirs = mine+a*float64(l.times), theirs+b*float64(l.times)
		if b > 0 {
			ratios.add(b/a, l.name)
		}
	}
	fmt.Printf("%s in total: %.1f ms, PyTorch %.1f ms, ratio %.2f; layers: %v\n", name, mine/1e6, theirs/1e6, theirs/mine, &ratios)
	return nil
}

// runs are the passes of a layer, and the operations of one. The weights change
// between training steps, so a forward pass of more than one image prepares them
// anew, and so does the backward one.
func (l layer) runs(batch, threads int) (map[string]func(), float64) {
	k, err := conv.NewLayer(l.kernel())
	must(err)
	x := conv.NewMap(batch, l.h, l.w, l.c)
	copy(x.Data, random[float32](len(x.Data)))
	y, err := k.Forward(nil, x, conv.Epilogue{}, threads)
	must(err)
	dy := conv.NewMap(y.N, y.H, y.W, y.C)
	copy(dy.Data, random[float32](len(dy.Data)))
	dx := conv.NewMap(x.N, x.H, x.W, x.C)
	dw := make([]float32, len(k.Weights()))
	train := batch > 1
	return map[string]func(){
		"forward": func() {
			if train {
				k.Update()
			}
			_, err := k.Forward(y, x, conv.Epilogue{}, threads)
			must(err)
		},
		"input": func() {
			k.Update()
			_, err := k.InputGradient(dx, dy, x.H, x.W, conv.Epilogue{}, threads)
			must(err)
		},
		"weight": func() { must(k.Gradient(dw, nil, x, dy, threads)) },
	}, 2 * float64(l.kernel().MACs(l.h, l.w)) * float64(batch)
}

func must(err error) {
	if err != nil {
		fail(err)
	}
}

// chains times what CP and Tucker layers run, and their stages alone.
func chains(o options, peak float64) error {
	if !strings.Contains("chains", o.only) && o.only != "" {
		return nil
	}
	type chain struct {
		name   string
		batch  int
		h, w   int
		stages []layer
	}
	point := func(in, out int) layer { return layer{c: in, out: out, k: 1, s: 1, groups: 1} }
	depth := func(c, s int) layer { return layer{c: c, out: c, k: 3, s: s, groups: c} }
	full := func(in, out int) layer { return layer{c: in, out: out, k: 3, s: 1, groups: 1} }
	list := []chain{}
	for _, batch := range []int{1, 8} {
		list = append(list,
			chain{"depthwise 64, 56×56", batch, 56, 56, []layer{depth(64, 1)}},
			chain{"depthwise 128/2, 56×56", batch, 56, 56, []layer{depth(128, 2)}},
			chain{"depthwise 256, 14×14", batch, 14, 14, []layer{depth(256, 1)}},
			chain{"1×1 64→64, 56×56", batch, 56, 56, []layer{point(64, 64)}},
			chain{"1×1 256→64, 14×14", batch, 14, 14, []layer{point(256, 64)}},
			chain{"1×1 512→512, 7×7", batch, 7, 7, []layer{point(512, 512)}},
			chain{"CP 64→40→64, 56×56", batch, 56, 56, []layer{point(64, 40), depth(40, 1), point(40, 64)}},
			chain{"CP 256→200→256, 14×14", batch, 14, 14, []layer{point(256, 200), depth(200, 1), point(200, 256)}},
			chain{"Tucker 128→40→45→128, 28×28", batch, 28, 28, []layer{point(128, 40), full(40, 45), point(45, 128)}},
			chain{"Tucker 512→150→140→512, 7×7", batch, 7, 7, []layer{point(512, 150), full(150, 140), point(140, 512)}},
		)
	}
	fmt.Printf("\nforward chains: milliseconds ours / PyTorch's, ratio, GFLOP/s\n")
	var ratios mean
	for _, c := range list {
		stages := &conv.Chain{}
		question, flops := "chain", 0.
		h, w := c.h, c.w
		for _, l := range c.stages {
			k := l.kernel()
			stages.Stages = append(stages.Stages, k)
			question += fmt.Sprintf(" %d %d %d %d %d %d 1 %d", l.out, l.k, l.k, l.s, l.pad(), l.pad(), l.groups)
			flops += 2 * float64(k.MACs(h, w)) * float64(c.batch)
			h, w = k.OutputSize(h, w)
		}
		question += fmt.Sprintf(" %d %d %d %d %d", c.batch, c.h, c.w, c.stages[0].c, o.threads)
		switch s := c.stages; {
		case len(s) == 1:
			stages.Kind = conv.Dense
		case s[1].groups > 1:
			stages.Kind, stages.Rank = conv.CP, []int{s[1].c}
		default:
			stages.Kind, stages.Rank = conv.Tucker2, []int{s[1].out, s[1].c}
		}
		stages.Groups = max(stages.Stages[len(stages.Stages)-1].Groups, 1)
		run, err := conv.NewRunner(stages)
		must(err)
		x := conv.NewMap(c.batch, c.h, c.w, c.stages[0].c)
		copy(x.Data, random[float32](len(x.Data)))
		var y *conv.Map
		mine, theirs, err := o.pair(func() {
			var err error
			y, err = run.Forward(y, x, conv.Epilogue{}, o.threads)
			must(err)
		}, question)
		if err != nil {
			return err
		}
		fmt.Printf("%-30s batch %d %8.3f /%8.3f %6.2f %7.1f\n", c.name, c.batch, mine/1e6, theirs/1e6, theirs/mine, flops/mine)
		if !math.IsNaN(theirs) {
			ratios.add(theirs/mine, c.name)
		}
	}
	fmt.Println(&ratios)
	return nil
}
