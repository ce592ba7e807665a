package main

import (
	"math"
	"strings"
	"testing"
)

func TestATableHasTheRunsAtTheRateThatDidBestOnWhatWasHeldOut(t *testing.T) {
	run := func(model, task, method, split string, seed uint64, rate, accuracy, cpu float64) outcome {
		return outcome{Model: model, Task: task, Method: method, Seed: seed, Rate: rate, Split: split, Params: 5, Base: 50, Accuracy: accuracy, CPU: cpu, Memory: 10 * cpu}
	}
	all := outcomes{
		run("m", "a", "cp", validationSplit, 1, .01, .5, 1),
		run("m", "a", "cp", validationSplit, 1, .03, .7, 1),
		run("m", "b", "cp", validationSplit, 1, .01, .8, 1),
		run("m", "b", "cp", validationSplit, 1, .03, .7, 1), // 0.7 in mean, against 0.65
		run("m", "a", "cp", testSplit, 1, .01, .1, 9),       // another rate's
		run("m", "a", "cp", testSplit, 1, .03, .6, 3),
		run("m", "a", "cp", testSplit, 2, .03, .8, 1),
		run("m", "b", "cp", testSplit, 1, .03, .9, 2),
		run("other", "c", "cp", testSplit, 1, .01, .4, 2), // its own model's rate
		run("m", "a", "full", testSplit, 1, .01, .8, 4),
		run("m", "b", "full", testSplit, 1, .01, .8, 4),
		run("other", "c", "full", testSplit, 1, .01, .8, 4),
	}
	table := tabulate(all, []task{{name: "b"}}, []candidate{{text: "full"}})
	if got := strings.Join(table.Tasks, " "); got != "b a c" {
		t.Errorf("tasks %s, want b first, as asked for", got)
	}
	if len(table.Rows) != 2 || table.Rows[0].Method != "full" {
		t.Fatalf("rows %+v", table.Rows)
	}
	r := table.Rows[1]
	near := func(what string, got *float64, want float64) {
		t.Helper()
		if got == nil || math.Abs(*got-want) > 1e-12 {
			t.Errorf("%s is %v, want %g", what, got, want)
		}
	}
	near("b", &r.Accuracy[0].Mean, .9)
	near("a", &r.Accuracy[1].Mean, .7)
	near("a's deviation", r.Accuracy[1].Spread, math.Sqrt(.02))
	near("c", &r.Accuracy[2].Mean, .4)
	if r.Accuracy[0].Spread != nil {
		t.Error("one seed has a deviation")
	}
	near("mean", r.Mean, 2./3)
	near("share", &r.Params, .1)
	near("time", r.CPU, math.Cbrt(.75*.5*.5)) // the run with seed 2 has no reference
	near("memory", r.Memory, math.Cbrt(.75*.5*.5))
	// Errors allowed are 0.4 each: Σ 1000/0.16·(0.4−e)².
	near("S", r.S, 1000/.16*(.3*.3+.1*.1))
	near("the reference's S", table.Rows[0].S, 3*250)
	if len(r.Rates) != 2 {
		t.Errorf("rates %v", r.Rates)
	}
}
