package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"gonum.org/v1/gonum/stat"

	"github.com/lowrank-go/lowrank/adapt"
	"github.com/lowrank-go/lowrank/internal/infile"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/peft"
)

// What a run's accuracy was measured on.
const (
	testSplit       = "test"
	validationSplit = "validation" // training images that were held out
)

// outcome is a run of compare, a line of its file.
type outcome struct {
	Model    string  `json:"model"` // its file's name
	Task     string  `json:"task"`
	Method   string  `json:"method"` // with its ranks, where they are not the method's own
	Seed     uint64  `json:"seed"`
	Rate     float64 `json:"rate"`
	Split    string  `json:"split"`
	Settings string  `json:"settings"`    // equal for runs that may be compared
	Params   int     `json:"params"`      // trained, beside the head
	Base     int     `json:"base"`        // of the network, beside the head
	Accuracy float64 `json:"accuracy"`    // or mean IoU
	CPU      float64 `json:"cpu_seconds"` // an epoch; 0 where it was not measured
	Memory   float64 `json:"memory_mib"`  // the process's peak; 0 likewise
}

// same tells whether o and p are one run.
func (o *outcome) same(p *outcome) bool {
	return o.Model == p.Model && o.Task == p.Task && o.Method == p.Method && o.Seed == p.Seed && o.Rate == p.Rate && o.Split == p.Split
}

type outcomes []outcome

// readOutcomes reads a file of outcomes, which need not be there.
func readOutcomes(path string) (outcomes, error) {
	text, err := infile.Read(context.Background(), path, 64<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all outcomes
	for line := range bytes.Lines(text) {
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		var o outcome
		if err := d.Decode(&o); err != nil {
			return nil, fmt.Errorf("%s, line %d: no outcome of compare: %w", path, len(all)+1, err)
		}
		if o.Split != testSplit && o.Split != validationSplit || !(o.Accuracy >= 0 && o.Accuracy <= 1) || o.Base < 1 {
			return nil, fmt.Errorf("%s, line %d: no outcome of compare", path, len(all)+1)
		}
		all = append(all, o)
	}
	return all, nil
}

func (all outcomes) write(path string) error {
	return model.WriteAtomic(path, func(w io.Writer) error {
		for _, o := range all {
			if err := printJSON(w, o); err != nil {
				return err
			}
		}
		return nil
	})
}

// comparisonTable is what compare prints.
type comparisonTable struct {
	// Source says where in its file the network lay and what was left out.
	Source *model.Source   `json:"source,omitempty"`
	Tasks  []string        `json:"tasks"`
	Rows   []comparisonRow `json:"methods"`
}

// comparisonRow is a method. Costs are relative to full fine-tuning, geometric means
// over the tasks that both were run on, and nil where there are none.
type comparisonRow struct {
	Method   string    `json:"method"`
	Params   float64   `json:"params_share"` // of the network's beside the head
	Rates    []float64 `json:"rates"`        // one for each model
	Accuracy []*cell   `json:"accuracy"`     // nil for tasks without a run
	Mean     *float64  `json:"mean"`         // nil, as S is, where a task is missing
	S        *float64  `json:"decathlon_score"`
	CPU      *float64  `json:"cpu"`
	Memory   *float64  `json:"memory"`
}

// cell is the accuracy of a method on a task, over seeds.
type cell struct {
	Mean   float64  `json:"mean"`
	Spread *float64 `json:"deviation"` // standard deviation; nil with one seed
	Seeds  int      `json:"seeds"`
}

// tabulate puts runs together: those with the rate of their method.
func tabulate(all outcomes, tasks []task, candidates []candidate) comparisonTable {
	t := comparisonTable{Tasks: []string{}, Rows: []comparisonRow{}}
	var methods []string
	// What was asked for comes first, in that order, and then what else there is.
	for _, a := range tasks {
		t.Tasks = append(t.Tasks, a.name)
	}
	for _, c := range candidates {
		methods = append(methods, c.text)
	}
	var rest []string
	for _, o := range all {
		if o.Split == testSplit && !slices.Contains(t.Tasks, o.Task) {
			t.Tasks = append(t.Tasks, o.Task)
		}
		if !slices.Contains(methods, o.Method) && !slices.Contains(rest, o.Method) {
			rest = append(rest, o.Method)
		}
	}
	full := all.of(string(adapt.Full))
	for _, m := range append(methods, rest...) {
		runs := all.of(m)
		if len(runs) == 0 {
			continue
		}
		t.Rows = append(t.Rows, newRow(m, t.Tasks, runs, full, all))
	}
	return t
}

// of are a method's runs at its rate, by task.
func (all outcomes) of(method string) map[string]outcomes {
	runs := map[string]outcomes{}
	for _, o := range all {
		if o.Method != method || o.Split != testSplit {
			continue
		}
		if rate, _ := all.rate(o.Model, method); o.Rate == rate {
			runs[o.Task] = append(runs[o.Task], o)
		}
	}
	return runs
}

func newRow(method string, tasks []string, runs, full map[string]outcomes, all outcomes) comparisonRow {
	row := comparisonRow{Method: method}
	var means, reference, shares, cpu, memory []float64
	for _, t := range tasks {
		r := runs[t]
		if len(r) == 0 {
			row.Accuracy = append(row.Accuracy, nil)
			continue
		}
		a := r.column(func(o *outcome) float64 { return o.Accuracy })
		c := &cell{Mean: average(a), Seeds: len(a)}
		if len(a) > 1 {
			c.Spread = new(stat.StdDev(a, nil))
		}
		row.Accuracy = append(row.Accuracy, c)
		means = append(means, c.Mean)
		shares = append(shares, float64(r[0].Params)/float64(r[0].Base))
		if rate, _ := all.rate(r[0].Model, method); !slices.Contains(row.Rates, rate) {
			row.Rates = append(row.Rates, rate)
		}
		f := full[t]
		if len(f) == 0 {
			continue
		}
		reference = append(reference, average(f.column(func(o *outcome) float64 { return o.Accuracy })))
		// Beside the reference with the same seed, which ran at about the same time.
		for _, o := range r {
			i := slices.IndexFunc(f, func(p outcome) bool { return p.Seed == o.Seed })
			if i >= 0 && o.CPU > 0 && f[i].CPU > 0 {
				cpu = append(cpu, o.CPU/f[i].CPU)
			}
			if i >= 0 && o.Memory > 0 && f[i].Memory > 0 {
				memory = append(memory, o.Memory/f[i].Memory)
			}
		}
	}
	row.Params = average(shares)
	if len(means) == len(tasks) {
		row.Mean = new(average(means))
	}
	row.CPU, row.Memory = geometric(cpu), geometric(memory)
	if len(reference) == len(tasks) {
		if s, err := peft.DecathlonScore(means, reference); err == nil {
			row.S = &s
		}
	}
	return row
}

func (all outcomes) column(of func(o *outcome) float64) []float64 {
	var v []float64
	for i := range all {
		v = append(v, of(&all[i]))
	}
	return v
}

func average(v []float64) float64 { return stat.Mean(v, nil) }

// geometric is the geometric mean, nil of nothing.
func geometric(v []float64) *float64 {
	if len(v) == 0 {
		return nil
	}
	return new(stat.GeometricMean(v, nil))
}

// cells are the table's, the heading first.
func (t *comparisonTable) cells() [][]string {
	rows := [][]string{append(append([]string{"method", "parameters"}, t.Tasks...), "mean", "S", "CPU time", "memory")}
	number := func(format string, v *float64) string {
		if v == nil {
			return ""
		}
		return fmt.Sprintf(format, *v)
	}
	percent := func(v *float64) string {
		if v == nil {
			return ""
		}
		return fmt.Sprintf("%.1f", 100**v)
	}
	for _, r := range t.Rows {
		row := []string{r.Method, fmt.Sprintf("%.1f %%", 100*r.Params)}
		for _, c := range r.Accuracy {
			switch {
			case c == nil:
				row = append(row, "")
			case c.Spread == nil:
				row = append(row, fmt.Sprintf("%.1f", 100*c.Mean))
			default:
				row = append(row, fmt.Sprintf("%.1f ±%.1f", 100*c.Mean, 100**c.Spread))
			}
		}
		rows = append(rows, append(row, percent(r.Mean), number("%.0f", r.S), number("%.2f", r.CPU), number("%.2f", r.Memory)))
	}
	return rows
}

// print prints the table in Markdown, with aligned columns.
func (t *comparisonTable) print(w io.Writer) {
	rows := t.cells()
	for _, r := range rows[1:] {
		r[0] = "`" + r[0] + "`"
	}
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, c := range r {
			widths[i] = max(widths[i], len([]rune(c)), 4)
		}
	}
	line := func(cells []string) {
		for i, c := range cells {
			pad := strings.Repeat(" ", widths[i]-len([]rune(c)))
			if i == 0 {
				c, pad = c+pad, ""
			}
			fmt.Fprintf(w, "| %s%s ", pad, c)
		}
		fmt.Fprintln(w, "|")
	}
	line(rows[0])
	rule := make([]string, len(widths))
	for i, n := range widths {
		rule[i] = strings.Repeat("-", n-1) + ":"
	}
	rule[0] = strings.Repeat("-", widths[0])
	line(rule)
	for _, r := range rows[1:] {
		line(r)
	}
}
