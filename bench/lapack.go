package main

import (
	"fmt"
	"strings"

	"github.com/lowrank-go/lowrank/internal/linalg"
)

// lapacks times the factorisations on one symmetric, one positive definite and
// one long matrix of each size.
func lapacks(o options) error {
	fmt.Printf("%d threads\n\n%-22s %12s %12s %6s\n", o.threads, "", "µs", "OpenBLAS", "ratio")
	type job struct {
		name, question string
		call           func() func()
	}
	var jobs []job
	check := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	for _, n := range []int{128, 256, 512, 1024} {
		jobs = append(jobs,
			job{fmt.Sprintf("eigenvectors %d", n), fmt.Sprintf("syevd %d %d", n, n), func() func() {
				a, w, z := random[float64](n*n), make([]float64, n), make([]float64, n*n)
				return func() { check(linalg.EigenSym(o.threads, n, a, n, w, z, n)) }
			}},
			job{fmt.Sprintf("Cholesky %d", n), fmt.Sprintf("potrf %d %d", n, n), func() func() {
				a, u := random[float64](n*n), make([]float64, n*n)
				for i := range n {
					a[i*n+i] += float64(n)
				}
				return func() {
					copy(u, a)
					check(linalg.Cholesky(o.threads, n, u, n))
				}
			}})
	}
	for _, s := range [][2]int{{512, 512}, {512, 4608}} {
		jobs = append(jobs, job{fmt.Sprintf("singular values %dx%d", s[0], s[1]), fmt.Sprintf("gesdd %d %d", s[0], s[1]), func() func() {
			a, v := random[float64](s[0]*s[1]), make([]float64, s[0])
			return func() { check(linalg.SingularValues(o.threads, s[0], s[1], a, s[1], v)) }
		}})
	}
	for _, j := range jobs {
		if !strings.Contains(j.name, o.only) {
			continue
		}
		mine, theirs, err := o.pair(j.call(), fmt.Sprintf("%s %d", j.question, o.threads))
		if err != nil {
			return err
		}
		fmt.Printf("%-22s %12.1f %12.1f %6.2f\n", j.name, mine/1e3, theirs/1e3, theirs/mine)
	}
	return nil
}
