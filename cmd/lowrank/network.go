package main

import (
	"fmt"
	"os"

	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/onnx/onnxgraph"
	"github.com/lowrank-go/lowrank/torchmodule"
	"github.com/lowrank-go/lowrank/zoo"
)

// parseSize reads rows and columns: 320, or 240x320; zeros for "".
func parseSize(s string) (size [2]int, err error) {
	if s == "" {
		return size, nil
	}
	n, _ := fmt.Sscanf(s, "%dx%d", &size[0], &size[1])
	if n == 1 {
		size[1] = size[0]
	}
	if n < 1 || size[0] < 1 || size[1] < 1 || size[0] > 1<<14 || size[1] > 1<<14 || s != fmt.Sprint(size[0]) && s != fmt.Sprintf("%dx%d", size[0], size[1]) {
		return size, usagef("--image %q; want a size such as 320 or 240x320 (rows by columns)", s)
	}
	return size, nil
}

// net is the network in a file, whatever its format, or the embedded one.
func (f *modelFlags) net(path string) (*graph.Graph, error) {
	if isONNXName(path) {
		return f.onnxNet(path)
	}
	opt, err := f.options()
	if err != nil {
		return nil, err
	}
	sd, err := f.readNetwork(path)
	if err != nil {
		return nil, err
	}
	net, err := zoo.Load(sd, opt)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, sd.Source.Explain(err))
	}
	return net, f.norm.apply(&net.Preprocess)
}

// onnxNet is the network of an ONNX model: what its nodes say, not its names.
func (f *modelFlags) onnxNet(path string) (*graph.Graph, error) {
	size, err := parseSize(f.image)
	if err != nil {
		return nil, err
	}
	net, err := onnxgraph.Load(path, onnxgraph.Options{Input: size})
	if err != nil {
		return nil, err
	}
	sd, err := net.StateDict()
	if err != nil {
		return nil, err
	}
	if err := sd.CheckFinite(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return net, f.norm.apply(&net.Preprocess)
}

// writeONNX writes the network in a state dict as an ONNX model.
func writeONNX(path string, sd *model.StateDict, half bool) error {
	net, err := graph.Load(sd)
	if err != nil {
		return err
	}
	return onnxgraph.WriteFile(path, net, onnxgraph.ExportOptions{Half: half})
}

// writeTorch writes a network as a PyTorch program in a folder.
func writeTorch(dir string, net *graph.Graph, force bool) error {
	if force {
		// Only a folder that holds nothing else is replaced.
		entries, err := os.ReadDir(dir)
		if err == nil {
			known := map[string]bool{}
			for _, name := range torchmodule.Files {
				known[name] = true
			}
			for _, e := range entries {
				if !known[e.Name()] {
					return fmt.Errorf("%s holds %q too, which is none of what is written there; want another folder", dir, e.Name())
				}
			}
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	return torchmodule.Write(dir, net)
}
