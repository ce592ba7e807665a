// Command bench times lowrank's kernels beside other libraries', on the same
// machine, in the same run, by turns: a round of the peer, a round of ours, and
// so on, so that a machine that slows down slows both. It prints the medians
// over the rounds, their ratio (above 1: lowrank is faster), and the fraction of
// the processor's measured multiply-add peak.
//
//	gcc -O2 -o /tmp/openblas bench/peers/openblas.c -ldl
//	go run ./bench gemm   -peer /tmp/openblas
//	go run ./bench lapack -peer /tmp/openblas
//	go run ./bench conv   -peer 'python3 bench/peers/pytorch.py'
//	go run ./bench step   -peer 'python3 bench/peers/pytorch.py'
//	go run ./bench train  -peer 'python3 bench/peers/pytorch.py'
//	go run ./bench cp
//	go run ./bench tucker
//	go run ./bench scaling -plots bench
//	go run ./bench curves -plots bench/plots
//
// The peers are OpenBLAS (Debian's libopenblas0) and PyTorch (Debian's
// python3-torch). Nothing else in this repository needs them.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("usage: bench gemm|lapack|conv|step|train|curves|cp|tucker|scaling [flags]"))
	}
	f := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	command := f.String("peer", "", "command that runs the peer; empty: only lowrank is timed")
	o := options{}
	f.IntVar(&o.rounds, "rounds", 5, "rounds of each side")
	f.DurationVar(&o.round, "round", 100*time.Millisecond, "length of a round")
	f.StringVar(&o.only, "only", "", "run the cases whose name contains this")
	f.IntVar(&o.threads, "threads", 1, "threads of both sides")
	f.StringVar(&o.plots, "plots", "", "folder for the plots of scaling")
	f.Parse(os.Args[2:])
	if *command != "" {
		p, err := start(*command)
		if err != nil {
			fail(err)
		}
		defer p.stop()
		o.peer = p
	}
	var err error
	switch os.Args[1] {
	case "gemm":
		err = gemms(o)
	case "lapack":
		err = lapacks(o)
	case "conv":
		err = convs(o)
	case "step":
		err = steps(o)
	case "train":
		err = trains(o)
	case "curves":
		err = curves(o)
	case "scaling":
		err = scaling(o)
	case "tucker":
		err = tuckers(o)
	case "cp":
		err = cps(o)
	default:
		err = fmt.Errorf("unknown benchmark %q", os.Args[1])
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

type options struct {
	peer    *peer
	rounds  int
	round   time.Duration
	only    string
	threads int
	plots   string
}

// peer is another library behind a pipe: a line asks, a line answers.
type peer struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func start(command string) (*peer, error) {
	words := strings.Fields(command)
	p := &peer{cmd: exec.Command(words[0], words[1:]...)}
	p.cmd.Stderr = os.Stderr
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	return p, p.cmd.Start()
}

func (p *peer) ask(format string, args ...any) (string, error) {
	fmt.Fprintf(p.in, format+"\n", args...)
	line, err := p.out.ReadString('\n')
	return strings.TrimSpace(line), err
}

func (p *peer) stop() {
	p.in.Close()
	p.cmd.Wait()
}

// pair times a case on both sides by turns, or ours alone where the question begins
// with a space. The results are nanoseconds.
func (o options) pair(ours func(), question string) (mine, theirs float64, err error) {
	ours()
	var a, b []float64
	for range o.rounds {
		if o.peer != nil && question[0] != ' ' {
			answer, err := o.peer.ask("%s %g", question, float64(o.round)/1e6)
			if err != nil {
				return 0, 0, fmt.Errorf("%s: %w", question, err)
			}
			v, err := strconv.ParseFloat(answer, 64)
			if err != nil {
				return 0, 0, fmt.Errorf("%s: the peer says %q", question, answer)
			}
			b = append(b, v)
			if o.threads > 1 {
				// A peer's threads spin for a while before they sleep.
				time.Sleep(150 * time.Millisecond)
			}
		}
		a = append(a, repeat(ours, o.round))
	}
	if len(b) == 0 {
		return median(a), math.NaN(), nil
	}
	return median(a), median(b), nil
}

// repeat is the best mean time of a call, over batches of a tenth of d.
func repeat(f func(), d time.Duration) float64 {
	best := math.Inf(1)
	reps := 1
	for end := time.Now().Add(d); ; {
		start := time.Now()
		for range reps {
			f()
		}
		t := time.Since(start)
		best = min(best, float64(t)/float64(reps))
		if t < d/10 {
			reps *= 2
		}
		if time.Now().After(end) {
			return best
		}
	}
}

func median(v []float64) float64 {
	slices.Sort(v)
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// mean is a geometric mean that knows its least value.
type mean struct {
	logs, least float64
	n           int
	where       string
}

func (m *mean) add(v float64, name string) {
	if m.n == 0 || v < m.least {
		m.least, m.where = v, name
	}
	m.logs += math.Log(v)
	m.n++
}

func (m *mean) String() string {
	if m.n == 0 {
		return "nothing"
	}
	return fmt.Sprintf("geometric mean %.2f, least %.2f (%s)", math.Exp(m.logs/float64(m.n)), m.least, m.where)
}
