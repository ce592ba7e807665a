package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lowrank-go/lowrank/adapt"
	"github.com/lowrank-go/lowrank/peft"
)

// adapterRow is what inspect and stack print with --json of an adapter.
type adapterRow struct {
	Name  string `json:"name"`
	Norms string `json:"norms"`
	// Kinds are those of its changes, with their numbers.
	Kinds   map[string]int `json:"kinds"`
	Params  int            `json:"params"`
	Extra   []string       `json:"extra"`
	Values  int            `json:"extra_values"`
	Modules []moduleRow    `json:"modules"`
	// Beside are the convolutions that have layers of the adapter's beside them.
	Beside []string `json:"beside"`
	// Segment is set where the adapter makes a segmentation network of a classifier.
	Segment bool `json:"segment"`
}

type moduleRow struct {
	Module string  `json:"module"`
	Kind   string  `json:"kind"`
	Rank   []int   `json:"rank"`
	Shape  []int   `json:"shape"`
	Params int     `json:"params"`
	Scale  float64 `json:"scale"`
	// Wrappers are dora, anchored and learned.
	Wrappers []string `json:"wrappers"`
}

// adaptersReport is an adapter file.
type adaptersReport struct {
	Format   string       `json:"format"`
	Base     string       `json:"base_sha256"`
	Frozen   int          `json:"frozen"`
	Adapters []adapterRow `json:"adapters"`
}

func describeAdapters(f *peft.File) (adaptersReport, error) {
	r := adaptersReport{Format: formatNative, Base: f.Base, Frozen: len(f.Frozen), Adapters: []adapterRow{}}
	for _, a := range f.Adapters {
		row := adapterRow{Name: a.Name, Norms: string(a.Norm), Kinds: map[string]int{}, Params: a.Params(), Extra: []string{}, Modules: []moduleRow{}, Beside: []string{}}
		for _, m := range a.Modules {
			row.Kinds[string(m.Spec().Kind)]++
			row.Modules = append(row.Modules, rowOf(m.Name, m.Delta))
		}
		if a.Extra != nil {
			row.Extra, row.Values = append(row.Extra, a.Extra.Names()...), a.Extra.Elements()
		}
		e, err := adapt.Extension(a)
		if err != nil {
			return r, err
		}
		row.Segment = e.Dilate != nil
		row.Beside = slices.AppendSeq(row.Beside, maps.Keys(e.Modules))
		slices.Sort(row.Beside)
		r.Adapters = append(r.Adapters, row)
	}
	return r, nil
}

// rowOf is the row of a change.
func rowOf(name string, d *peft.Delta) moduleRow {
	s := d.Spec()
	w := []string{}
	for _, wrapper := range []struct {
		name string
		is   bool
	}{{"dora", s.DoRA}, {"anchored", s.Anchored}, {"learned", s.Learned}} {
		if wrapper.is {
			w = append(w, wrapper.name)
		}
	}
	return moduleRow{name, string(s.Kind), list(s.Rank), s.Shape[:], d.Params(), d.Lambda(), w}
}

// printAdapters prints what an adapter file holds.
func printAdapters(cmd *cobra.Command, f *peft.File, asJSON bool) error {
	r, err := describeAdapters(f)
	if err != nil {
		return err
	}
	w := cmd.OutOrStdout()
	if asJSON {
		return printJSON(w, r)
	}
	fmt.Fprintf(w, "%d adapters of a network whose %d frozen tensors have SHA-256 %s\n", len(r.Adapters), r.Frozen, r.Base)
	for _, a := range r.Adapters {
		norms := a.Norms
		if norms == "" {
			norms = "not told"
		}
		fmt.Fprintf(w, "\n%q: %s parameters in %d changes; batch norms %s; %d other tensors, %s values\n",
			a.Name, count(a.Params), len(a.Modules), norms, len(a.Extra), count(a.Values))
		if a.Segment {
			fmt.Fprintln(w, "makes a segmentation network of a classifier")
		}
		if len(a.Beside) > 0 {
			fmt.Fprintf(w, "layers beside %d convolutions: %s\n", len(a.Beside), strings.Join(a.Beside, ", "))
		}
		rows := [][]string{{"module", "kind", "rank", "kernel", "params", "scale", ""}}
		for _, m := range a.Modules {
			rows = append(rows, []string{m.Module, m.Kind, rankText(m.Rank), fmt.Sprintf("%dx%dx%dx%d", m.Shape[0], m.Shape[1], m.Shape[2], m.Shape[3]),
				count(m.Params), fmt.Sprintf("%.4g", m.Scale), strings.Join(m.Wrappers, " ")})
		}
		if len(a.Modules) > 0 {
			table(w, rows)
		}
	}
	return nil
}

// list is ranks as JSON wants them, empty and not null where there are none.
func list(ranks []int) []int { return append([]int{}, ranks...) }

// changeRow is what the reports of commands around adapters say of a change of a kernel.
type changeRow struct {
	Module  string  `json:"module"`
	Adapter string  `json:"adapter,omitempty"`
	Kind    string  `json:"kind"`
	Rank    []int   `json:"rank"`
	Params  int     `json:"params"`
	Change  float64 `json:"relative_change"`
	Error   float64 `json:"rel_error"`
}

func changeRows(changes []adapt.Change) []changeRow {
	rows := []changeRow{}
	for _, c := range changes {
		rows = append(rows, changeRow{c.Module, c.Adapter, string(c.Kind), list(c.Rank), c.Params, c.Relative, c.RelError})
	}
	return rows
}

// cells are rows for table, headings first.
func cells(rows []changeRow) [][]string {
	out := [][]string{{"module", "adapter", "kind", "rank", "params", "change", "error"}}
	for _, r := range rows {
		out = append(out, []string{r.Module, r.Adapter, r.Kind, rankText(r.Rank), count(r.Params), fmt.Sprintf("%.4f", r.Change), fmt.Sprintf("%.2g", r.Error)})
	}
	return out
}
