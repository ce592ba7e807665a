package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/lowrank-go/lowrank/internal/gemm"
)

// Shapes m, k, n of products: squares, and those that convolutions and
// decompositions have.
var shapes = [][3]int{
	{32, 32, 32}, {128, 128, 128}, {256, 256, 256}, {512, 512, 512}, {1024, 1024, 1024}, {2048, 2048, 2048},
	{64, 576, 1024}, {16, 144, 65536}, {64, 576, 4096}, {512, 4608, 49}, {512, 4608, 392}, {4608, 512, 128},
	{512, 4608, 64}, {512, 4608, 512}, {9, 262144, 64}, {512, 9, 512}, {4608, 64, 9},
}

func random[T float32 | float64](n int) []T {
	rng := rand.New(rand.NewPCG(uint64(n), 1))
	v := make([]T, n)
	for i := range v {
		v[i] = T(rng.Float64() - 0.5)
	}
	return v
}

func gemms(o options) error {
	peak32, peak64 := gemm.Peak32(o.threads, time.Second), gemm.Peak64(o.threads, time.Second)
	fmt.Printf("kernels %s, %d threads, multiply-add peak %.1f GFLOP/s float32, %.1f float64\n", gemm.Kernel(), o.threads, peak32, peak64)
	if o.peer != nil {
		if core, err := o.peer.ask("core"); err == nil {
			fmt.Println("OpenBLAS kernels", core)
		}
	}
	for _, t := range []struct {
		letter string
		peak   float64
		call   func(m, n, k int) func()
	}{
		{"s", peak32, func(m, n, k int) func() {
			a, b, c := random[float32](m*k), random[float32](k*n), make([]float32, m*n)
			return func() { gemm.Float32(o.threads, false, false, m, n, k, 1, a, k, b, n, 0, c, n) }
		}},
		{"d", peak64, func(m, n, k int) func() {
			a, b, c := random[float64](m*k), random[float64](k*n), make([]float64, m*n)
			return func() { gemm.Float64(o.threads, false, false, m, n, k, 1, a, k, b, n, 0, c, n) }
		}},
	} {
		fmt.Printf("\n%sgemm %12s %10s %10s %6s %6s\n", t.letter, "m×k×n", "GFLOP/s", "OpenBLAS", "ratio", "peak")
		var ratios mean
		for _, s := range shapes {
			name := fmt.Sprintf("%dx%dx%d", s[0], s[1], s[2])
			if !strings.Contains(t.letter+name, o.only) {
				continue
			}
			m, k, n := s[0], s[1], s[2]
			mine, theirs, err := o.pair(t.call(m, n, k), fmt.Sprintf("gemm %s 0 0 %d %d %d %d", t.letter, m, n, k, o.threads))
			if err != nil {
				return err
			}
			flops := 2 * float64(m) * float64(k) * float64(n)
			fmt.Printf("%17s %10.1f %10.1f %6.2f %6.2f\n", name, flops/mine, flops/theirs, theirs/mine, flops/mine/t.peak)
			if theirs > 0 {
				ratios.add(theirs/mine, name)
			}
		}
		fmt.Println(&ratios)
	}
	return nil
}
