package graph

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/lowrank-go/lowrank/conv"
)

// String is the network in words that read like code: a line for each node, with the shape
// of its output for an image of Input.
//
//	input = input()                     # 3×32×32
//	conv1 = conv(input, 3×3 3→16 pad 1) # 16×32×32
func (g *Graph) String() string {
	shapes, err := g.Shapes(g.Input)
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	for i, n := range g.Nodes {
		var args []string
		for _, in := range n.In {
			args = append(args, in.Name)
		}
		if s := settings(n.Op); s != "" {
			args = append(args, s)
		}
		shape := "?"
		if err == nil {
			shape = shapes[i].String()
		}
		mark := ""
		if slices.Contains(g.Outputs, n) {
			mark = ", output"
		}
		if n == g.Head {
			mark += ", head"
		}
		fmt.Fprintf(w, "%s\t= %s(%s)\t# %s%s\n", n.Name, opName(n.Op), strings.Join(args, ", "), shape, mark)
	}
	w.Flush()
	return b.String()
}

// opName is what an operation is called in a printed network.
func opName(op Op) string {
	switch op := op.(type) {
	case *Activation:
		return op.Name
	case *Binary:
		return string(op.Op)
	case *Pool:
		if op.Average {
			return "average"
		}
		return "max"
	}
	return op.Kind()
}

// settings are an operation's, in words.
func settings(op Op) string {
	switch op := op.(type) {
	case *Conv:
		return chainSettings(op.Chain, op.Linear)
	case *Input:
		return ""
	case *BatchNorm:
		return ""
	}
	text, err := json.Marshal(op)
	if err != nil {
		return ""
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(text, &fields) != nil {
		return ""
	}
	switch op.(type) {
	case *Activation:
		delete(fields, "name")
	case *Binary:
		delete(fields, "op")
	case *Pool:
		delete(fields, "average")
	}
	var parts []string
	for k, v := range fields {
		// Pairs and numbers that are zero say nothing.
		if s := string(v); s != "[0,0]" && s != "0" && s != "false" && s != "null" {
			parts = append(parts, k+" "+strings.ReplaceAll(s, `"`, ""))
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// chainSettings is a convolution in words: 3×3 64→128 stride 2 pad 1; of a chain its kind
// and ranks stand before it.
func chainSettings(c *conv.Chain, linear bool) string {
	shape, g := c.Shape()
	var parts []string
	if c.Kind != conv.Dense {
		parts = append(parts, fmt.Sprintf("%s %v", c.Kind, c.Rank))
	}
	if !linear {
		parts = append(parts, pair([2]int(shape[2:])))
	}
	parts = append(parts, fmt.Sprintf("%d→%d", c.In(), c.Out()))
	if g.Stride != [2]int{1, 1} {
		parts = append(parts, "stride "+one2(g.Stride))
	}
	if g.Padding != [2]int{} || g.Extra != [2]int{} {
		parts = append(parts, "pad "+one2(g.Padding))
	}
	if g.Extra != [2]int{} {
		parts = append(parts, "and "+one2(g.Extra)+" more at the end")
	}
	if g.Dilation != [2]int{1, 1} {
		parts = append(parts, "dilation "+one2(g.Dilation))
	}
	if g.Groups > 1 {
		parts = append(parts, fmt.Sprintf("groups %d", g.Groups))
	}
	return strings.Join(parts, " ")
}

func pair(p [2]int) string { return fmt.Sprintf("%d×%d", p[0], p[1]) }

// one2 is a pair, or the number where both are the same.
func one2(p [2]int) string {
	if p[0] == p[1] {
		return fmt.Sprint(p[0])
	}
	return pair(p)
}
