package main

import (
	"fmt"
	"math"
	"strings"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/internal/nn"
)

// steps times what a training step computes besides convolutions. Bytes are those
// that must move at the least.
func steps(o options) error {
	type job struct {
		name, question string
		bytes          float64
		run            func()
	}
	var jobs []job
	for _, s := range [][4]int{{128, 32, 32, 16}, {128, 8, 8, 64}, {8, 56, 56, 64}, {8, 7, 7, 512}} {
		n, h, w, c := s[0], s[1], s[2], s[3]
		m := func() *conv.Map {
			m := conv.NewMap(n, h, w, c)
			copy(m.Data, random[float32](len(m.Data)))
			return m
		}
		x, dy, y, dx := m(), m(), m(), m()
		ones := func() []float32 {
			v := make([]float32, c)
			for i := range v {
				v[i] = 1
			}
			return v
		}
		b := &nn.BatchNorm{Weight: ones(), Bias: make([]float32, c), Mean: make([]float32, c), Var: ones(), Momentum: .1, Eps: 1e-5}
		dw, db := make([]float32, c), make([]float32, c)
		b.Forward(y, x, nil, false, o.threads)
		bytes := 4 * float64(len(x.Data))
		shape := fmt.Sprintf("%d %d %d %d", n, h, w, c)
		// PyTorch's ReLU and addition are passes of their own; here they are part
		// of the normalisation, so the fair sum is over the rows.
		jobs = append(jobs,
			job{"norm " + shape, "norm " + shape, 3 * bytes, func() { b.Forward(y, x, nil, false, o.threads) }},
			job{"norm+add+relu " + shape, "norm-add-relu " + shape, 4 * bytes, func() { b.Forward(y, x, dy, true, o.threads) }},
			job{"norm backward " + shape, "norm-backward " + shape, 5 * bytes, func() { b.Backward(dx, dy, x, nil, dw, db, o.threads) }},
			job{"norm+relu backward " + shape, "norm-relu-backward " + shape, 7 * bytes, func() { b.Backward(dx, dy, x, y, dw, db, o.threads) }},
		)
	}
	x := conv.NewMap(8, 112, 112, 64)
	copy(x.Data, random[float32](len(x.Data)))
	var p nn.MaxPool
	y := p.Forward(nil, x, o.threads)
	dx := conv.NewMap(8, 112, 112, 64)
	bytes := 4 * float64(len(x.Data))
	jobs = append(jobs,
		job{"maxpool 8 112 112 64", "maxpool 8 112 112 64", 1.25 * bytes, func() { p.Forward(y, x, o.threads) }},
		job{"maxpool backward", "maxpool-backward 8 112 112 64", 1.25 * bytes, func() { p.Backward(dx, y, 112, 112, false, o.threads) }},
	)
	for _, s := range [][2]int{{128, 10}, {8, 1000}} {
		logits, g := random[float32](s[0]*s[1]), make([]float32, s[0]*s[1])
		name := fmt.Sprintf("loss %d %d", s[0], s[1])
		jobs = append(jobs, job{name, name, 0, func() { nn.CrossEntropy(g, logits, make([]int, s[0]), s[1], 0, o.threads) }})
	}
	for _, n := range []int{270_000, 11_700_000} {
		w, v, s, g := random[float32](n), make([]float32, n), make([]float32, n), random[float32](n)
		sgd := nn.SGD{Rate: 1e-6, Momentum: .9, Decay: 1e-4}
		adam := nn.Adam{Rate: 1e-6, Beta1: .9, Beta2: .999, Eps: 1e-8}
		jobs = append(jobs,
			job{fmt.Sprintf("sgd %d", n), fmt.Sprintf("sgd %d", n), 20 * float64(n), func() { sgd.Step(w, v, g, o.threads) }},
			job{fmt.Sprintf("adam %d", n), fmt.Sprintf("adam %d", n), 28 * float64(n), func() { adam.Step(1, w, v, s, g, o.threads) }},
		)
	}
	fmt.Printf("%d threads\n%-34s %9s %9s %6s %7s\n", o.threads, "", "µs", "PyTorch", "ratio", "GB/s")
	var ratios mean
	for _, j := range jobs {
		if !strings.Contains(j.name, o.only) {
			continue
		}
		mine, theirs, err := o.pair(j.run, fmt.Sprintf("%s %d", j.question, o.threads))
		if err != nil {
			return err
		}
		fmt.Printf("%-34s %9.1f %9.1f %6.2f %7.1f\n", j.name, mine/1e3, theirs/1e3, theirs/mine, j.bytes/mine)
		if !math.IsNaN(theirs) {
			ratios.add(theirs/mine, j.name)
		}
	}
	fmt.Println(&ratios)
	return nil
}
