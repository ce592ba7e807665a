package main

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/model"
)

// expectFlags are what eval compares where there are no classes to be right about.
type expectFlags struct {
	input, expect string
	tolerance     float64
}

func (f *expectFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.input, "input", "", "in place of --data: run the network on this array, N×C×H×W (.npy, or another file of one tensor)")
	fl.StringVar(&f.expect, "expect", "", "with --input: compare the first output with this array")
	fl.Float64Var(&f.tolerance, "tolerance", 1e-4, "with --expect: the largest difference that is right, as a share of the largest value")
}

// expectReport is what eval --input prints with --json.
type expectReport struct {
	Arch    string  `json:"arch"`
	Outputs [][]int `json:"outputs"` // shapes
	// Largest is that of the first output's magnitudes, Difference the largest from what
	// is expected; null where nothing is.
	Largest    float64  `json:"largest"`
	Difference *float64 `json:"difference"`
	Seconds    float64  `json:"seconds"`
}

// array reads a file of one tensor.
func (f *modelFlags) array(path string) (*model.Tensor, []float32, error) {
	sd, err := model.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	if sd.Len() != 1 {
		return nil, nil, fmt.Errorf("%s holds %d tensors; want one", path, sd.Len())
	}
	t, _ := sd.Get(sd.Names()[0])
	v, err := t.Float32s()
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, v, nil
}

// compare runs the network on an array and compares what comes out.
func (f *expectFlags) compare(cmd *cobra.Command, mf *modelFlags, net *graph.Graph) error {
	if !(f.tolerance >= 0) {
		return usagef("--tolerance %g; want a number from 0", f.tolerance)
	}
	in, values, err := mf.array(f.input)
	if err != nil {
		return err
	}
	shape := in.Shape
	if len(shape) == 3 {
		shape = append([]int{1}, shape...)
	}
	if len(shape) != 4 || slices.Min(shape) < 1 {
		return fmt.Errorf("%s has shape %v; want N×C×H×W", f.input, in.Shape)
	}
	n, c, h, w := shape[0], shape[1], shape[2], shape[3]
	x := conv.NewMap(n, h, w, c)
	for i, v := range values {
		p := i % (h * w)
		x.Data[(i/(h*w)/c*h*w+p)*c+i/(h*w)%c] = v
	}
	p, err := net.Compile()
	if err != nil {
		return err
	}
	start := time.Now()
	out, err := p.Run(cmd.Context(), x, mf.threads)
	if err != nil {
		return fmt.Errorf("%s: %w", f.input, err)
	}
	r := expectReport{Arch: net.Arch, Seconds: time.Since(start).Seconds()}
	for _, o := range out {
		r.Outputs = append(r.Outputs, o.Shape)
	}
	for _, v := range out[0].Data {
		r.Largest = math.Max(r.Largest, math.Abs(float64(v)))
	}
	if f.expect != "" {
		want, expected, err := mf.array(f.expect)
		if err != nil {
			return err
		}
		if len(expected) != len(out[0].Data) {
			return fmt.Errorf("%s has shape %v, the network's output %v", f.expect, want.Shape, out[0].Shape)
		}
		d, top := 0., 0.
		for i, v := range expected {
			d = math.Max(d, math.Abs(float64(v)-float64(out[0].Data[i])))
			top = math.Max(top, math.Abs(float64(v)))
		}
		r.Difference = &d
		if !(d <= f.tolerance*top) {
			return fmt.Errorf("%s: the network's output differs by %.3g, of a largest value of %.3g; --tolerance %g allows %.3g", f.expect, d, top, f.tolerance, f.tolerance*top)
		}
	}
	if mf.json {
		return printJSON(cmd.OutOrStdout(), r)
	}
	rows := [][]string{{"network", r.Arch}, {"outputs", fmt.Sprint(r.Outputs)}, {"largest", fmt.Sprintf("%.6g", r.Largest)}}
	if r.Difference != nil {
		rows = append(rows, []string{"difference", fmt.Sprintf("%.3g", *r.Difference)})
	}
	table(cmd.OutOrStdout(), rows)
	return nil
}
