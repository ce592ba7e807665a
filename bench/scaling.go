package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/cpd"
	"github.com/lowrank-go/lowrank/internal/chart"
	"github.com/lowrank-go/lowrank/internal/synthetic"
)

// scaling times a sweep of CP-ALS against size, rank and order, in float64 and
// float32, on one thread and on two, and draws each in the folder o.plots.
func scaling(o options) error {
	type point struct {
		x     float64
		shape []int
		rank  int
	}
	cube := func(order, n int) []int {
		s := make([]int, order)
		for i := range s {
			s[i] = n
		}
		return s
	}
	for _, c := range []struct {
		name, label string
		points      []point
	}{
		{"size", "n of an n×n×n tensor, rank 16", func() (p []point) {
			for _, n := range []int{16, 32, 64, 128, 256} {
				p = append(p, point{float64(n), cube(3, n), 16})
			}
			return p
		}()},
		{"rank", "rank of a 256×256×9 tensor", func() (p []point) {
			for r := 4; r <= 512; r *= 2 {
				p = append(p, point{float64(r), []int{256, 256, 9}, r})
			}
			return p
		}()},
		{"order", "order of a tensor of about a million entries, rank 16", []point{
			{2, cube(2, 1000), 16}, {3, cube(3, 100), 16}, {4, cube(4, 32), 16}, {5, cube(5, 16), 16}, {6, cube(6, 10), 16},
		}},
	} {
		fmt.Printf("%-28s %8s %12s %12s %12s %12s\n", "", c.name, "f64, 1 ms", "f64, 2 ms", "f32, 1 ms", "f32, 2 ms")
		lines := []chart.Line{{Name: "float64, 1 thread"}, {Name: "float64, 2 threads"}, {Name: "float32, 1 thread"}, {Name: "float32, 2 threads"}}
		for _, p := range c.points {
			var ms [4]float64
			for i := range ms {
				t, err := sweepTime(p.shape, p.rank, 1+i%2, i >= 2)
				if err != nil {
					return err
				}
				ms[i] = t * 1e3
				lines[i].X, lines[i].Y, lines[i].Points = append(lines[i].X, p.x), append(lines[i].Y, ms[i]), true
			}
			fmt.Printf("%-28s %8g %12.3f %12.3f %12.3f %12.3f\n", fmt.Sprint(p.shape), p.x, ms[0], ms[1], ms[2], ms[3])
		}
		if o.plots == "" {
			continue
		}
		path := filepath.Join(o.plots, "cp-"+c.name+".svg")
		b, err := (&chart.Chart{Title: "A sweep of CP-ALS", XLabel: c.label, YLabel: "milliseconds", LogX: c.name != "order", LogY: true, Lines: lines}).Draw(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// sweepTime is the time of the fastest of some sweeps, in seconds.
func sweepTime(shape []int, rank, threads int, single bool) (float64, error) {
	size := 1
	start := &cpd.Kruskal{}
	for n, d := range shape {
		size *= d
		start.Factors = append(start.Factors, mat.NewDense(d, rank, synthetic.Start(n, d, rank, 1)))
	}
	x := tensor.New(tensor.WithShape(shape...), tensor.WithBacking(synthetic.Normal(1, size)))
	best, last, begin := math.Inf(1), time.Now(), time.Now()
	// The first sweeps of a fit that is not plain are in float32 and without
	// extrapolation; noise leaves an error at which they stay so for a while.
	sweeps := 50
	if single {
		sweeps = 2
	}
	for time.Since(begin) < 300*time.Millisecond {
		_, err := cpd.ALS(context.Background(), x, rank, &cpd.Settings{Start: start, Plain: !single, MaxSweeps: sweeps, Tol: 1e-300, Workers: threads, Progress: func(_, sweep int, _ float64) {
			if sweep > 1 {
				best = min(best, time.Since(last).Seconds())
			}
			last = time.Now()
		}})
		if err != nil {
			return 0, err
		}
	}
	return best, nil
}
