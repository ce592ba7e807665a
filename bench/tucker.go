package main

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/internal/linalg"
	"github.com/lowrank-go/lowrank/internal/synthetic"
	"github.com/lowrank-go/lowrank/tucker"
	"github.com/lowrank-go/lowrank/vbmf"
)

// tuckers times Tucker decompositions on tensors that TensorLy 0.9.0 was timed on,
// CPU seconds on one thread in float64, best of three, measured once on an AMD EPYC;
// see cps. The rank by VBMF is held against the singular values alone.
func tuckers(o options) error {
	fmt.Printf("%d threads\n\n%-44s %10s %10s %6s %10s %10s\n", o.threads, "", "ms", "TensorLy", "ratio", "error", "TensorLy")
	type call func(context.Context, *tensor.Dense, *tucker.Settings) (*tucker.Result, error)
	kernel := func(shape ...int) *tensor.Dense {
		return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(synthetic.Tensor([3]int{512, 512, 9}, 128, .5, 1000)))
	}
	cube := func(n int) *tensor.Dense {
		return tensor.New(tensor.WithShape(n, n, n), tensor.WithBacking(synthetic.Tensor([3]int{n, n, n}, 20, .1, 2000)))
	}
	four, three, hundred := kernel(512, 512, 3, 3), kernel(512, 512, 9), cube(100)
	var large *tensor.Dense
	var ratios mean
	for _, c := range []struct {
		name         string
		x            *tensor.Dense
		f            call
		set          tucker.Settings
		seconds, err float64
	}{
		{"HOSVD 512×512×3×3, modes 0 and 1, ranks 128", four, tucker.HOSVD, tucker.Settings{Modes: []int{0, 1}, Ranks: []int{128}}, 1.70, .423758},
		{"ST-HOSVD of it", four, tucker.STHOSVD, tucker.Settings{Modes: []int{0, 1}, Ranks: []int{128}}, 1.70, .423758},
		{"and a sweep of HOOI", four, tucker.HOOI, tucker.Settings{Modes: []int{0, 1}, Ranks: []int{128}, MaxSweeps: 1, Tol: 1e-300}, 2.07, .423048},
		{"and 10 sweeps of HOOI", four, tucker.HOOI, tucker.Settings{Modes: []int{0, 1}, Ranks: []int{128}, MaxSweeps: 10, Tol: 1e-300}, 7.27, .423045},
		{"HOSVD 512×512×9, ranks 128, 128, 9", three, tucker.HOSVD, tucker.Settings{Ranks: []int{128, 128, 9}}, 1.92, .423758},
		{"HOSVD 100×100×100, ranks 20", hundred, tucker.HOSVD, tucker.Settings{Ranks: []int{20}}, .405, .098850},
		{"and 2 sweeps of HOOI", hundred, tucker.HOOI, tucker.Settings{Ranks: []int{20}, MaxSweeps: 2, Tol: 1e-300}, .451, .098850},
		{"HOSVD 300×300×300, ranks 20", nil, tucker.HOSVD, tucker.Settings{Ranks: []int{20}}, 43.5, .099457},
		{"ST-HOSVD of 300×300×300", nil, tucker.STHOSVD, tucker.Settings{Ranks: []int{20}}, 43.5, .099457},
		{"HOSVD and 2 sweeps of HOOI, 300×300×300", nil, tucker.HOOI, tucker.Settings{Ranks: []int{20}, MaxSweeps: 2, Tol: 1e-300}, 49.0, .099457},
	} {
		if !strings.Contains(c.name, o.only) {
			continue
		}
		if c.x == nil {
			if large == nil {
				large = cube(300)
			}
			c.x = large
		}
		c.set.Workers = o.threads
		best, e := math.Inf(1), 0.
		for range o.rounds {
			begin := time.Now()
			r, err := c.f(context.Background(), c.x, &c.set)
			if err != nil {
				return err
			}
			best, e = min(best, time.Since(begin).Seconds()), r.RelError
		}
		fmt.Printf("%-44s %10.1f %10.1f %6.1f %10.6f %10.6f\n", c.name, best*1e3, c.seconds*1e3, c.seconds/best, e, c.err)
		ratios.add(c.seconds/best, c.name)
	}
	fmt.Println(&ratios)
	if !strings.Contains("VBMF", o.only) {
		return nil
	}
	x := three.Data().([]float64)
	s := make([]float64, 512)
	singular := repeat(func() {
		if err := linalg.SingularValues(o.threads, 512, 4608, x, 4608, s); err != nil {
			panic(err)
		}
	}, 5*o.round)
	rank := 0
	ranks := repeat(func() {
		r, err := vbmf.Unfolding(three, 0, &vbmf.Settings{Workers: o.threads})
		if err != nil {
			panic(err)
		}
		rank = r.Rank
	}, 5*o.round)
	fmt.Printf("\nVBMF of 512×4608: rank %d in %.1f ms, singular values alone %.1f ms: %.2f times as long\n", rank, ranks/1e6, singular/1e6, ranks/singular)
	return nil
}
