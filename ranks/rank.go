package ranks

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// ErrRule is wrapped by errors about texts that are no rule, or one that their reader
// cannot serve.
var ErrRule = errors.New("bad rank rule")

// Rule is a way to choose ranks.
type Rule string

// The rules; the package comment describes them.
const (
	Fixed  Rule = "fixed"
	VBMF   Rule = "vbmf"
	Energy Rule = "energy"
	Error  Rule = "error"
	Ratio  Rule = "ratio"
	Params Rule = "params"
	MACs   Rule = "macs"
	MS     Rule = "ms"
)

// forms are how rules are written, in the order in which messages list them.
var forms = []struct {
	rule Rule
	form string
}{
	{Fixed, "R[,S[,T]]"}, {VBMF, "vbmf"}, {Energy, "energy=E"}, {Error, "error=E"}, {Ratio, "ratio=Q"},
	{Params, "params=V"}, {MACs, "macs=V"}, {MS, "ms=V"},
}

// Forms lists how rules are written, for messages and help: "R[,S[,T]], vbmf or energy=E".
func Forms(rules ...Rule) string {
	var out []string
	for _, f := range forms {
		if slices.Contains(rules, f.rule) {
			out = append(out, f.form)
		}
	}
	if len(out) < 2 {
		return strings.Join(out, "")
	}
	return strings.Join(out[:len(out)-1], ", ") + " or " + out[len(out)-1]
}

// Rank says how ranks are chosen.
type Rank struct {
	Rule Rule
	// Value is the energy or the ratio, above 0 and at most 1, or the error, below 1.
	Value float64
	// Fixed are the ranks of rule Fixed. What each is for depends on the method: one rank
	// for everything, the two of Tucker-2, output mode first, or those and the CP rank of
	// TKDCPD.
	Fixed []int
	// Budgets are those of Params, MACs and MS, which is Rule where there are several.
	Budgets []Budget
}

// ruleError is an error about a rule, whose text does not say so again.
type ruleError struct{ text string }

func (e *ruleError) Error() string { return e.text }
func (e *ruleError) Unwrap() error { return ErrRule }

func bad(format string, args ...any) error { return &ruleError{fmt.Sprintf(format, args...)} }

// Parse reads one of the given rules, or of all where none is given. Errors wrap ErrRule
// and list the rules.
func Parse(text string, rules ...Rule) (Rank, error) {
	if len(rules) == 0 {
		for _, f := range forms {
			rules = append(rules, f.rule)
		}
	}
	name, arg, assigned := strings.Cut(text, "=")
	r := Rank{Rule: Rule(name)}
	if !assigned && text != "" && strings.Trim(text, "0123456789, +-.") == "" {
		r.Rule, arg = Fixed, text
	}
	if !slices.Contains(rules, r.Rule) {
		return Rank{}, bad("rank %q; want %s", text, Forms(rules...))
	}
	switch r.Rule {
	case VBMF:
		if assigned {
			return Rank{}, bad("rank %q; vbmf takes no value", text)
		}
	case Energy, Ratio, Error:
		v, err := strconv.ParseFloat(arg, 64)
		if err != nil || !(v > 0 && v <= 1) || r.Rule == Error && v == 1 {
			most := "≤"
			if r.Rule == Error {
				most = "<"
			}
			return Rank{}, bad("rank %q; want %s=V with 0 < V %s 1", text, name, most)
		}
		r.Value = v
	case Fixed:
		for part := range strings.SplitSeq(arg, ",") {
			v, err := strconv.Atoi(strings.TrimSpace(part))
			if err != nil || v < 1 {
				return Rank{}, bad("rank %q; want whole numbers from 1 on, separated by commas", text)
			}
			r.Fixed = append(r.Fixed, v)
		}
	default:
		var err error
		if r.Budgets, err = ParseBudgets(text); err != nil {
			return Rank{}, err
		}
		for _, b := range r.Budgets {
			if !slices.Contains(rules, b.Metric) {
				return Rank{}, bad("rank %q; want %s", text, Forms(rules...))
			}
		}
	}
	return r, nil
}

// Keeps is the share of the squared norm that rule Energy or Error asks for, 0 for others.
func (r Rank) Keeps() float64 {
	switch r.Rule {
	case Energy:
		return r.Value
	case Error:
		return 1 - r.Value*r.Value
	}
	return 0
}

// String is a text that Parse reads, "" for the zero value.
func (r Rank) String() string {
	switch {
	case len(r.Budgets) > 0:
		var parts []string
		for _, b := range r.Budgets {
			parts = append(parts, b.String())
		}
		return strings.Join(parts, ",")
	case r.Rule == Energy || r.Rule == Error || r.Rule == Ratio:
		return fmt.Sprintf("%s=%g", r.Rule, r.Value)
	case r.Rule == Fixed:
		parts := make([]string, len(r.Fixed))
		for i, v := range r.Fixed {
			parts[i] = strconv.Itoa(v)
		}
		return "fixed=" + strings.Join(parts, ",")
	}
	return string(r.Rule)
}

// Budget is what a whole network may cost.
type Budget struct {
	// Metric is Params, MACs or MS: milliseconds for one image on this machine.
	Metric Rule
	// Value is a share of what the network costs where Share is set, else a number.
	Value float64
	Share bool
}

// ParseBudgets reads budgets with commas between them: macs=0.33, params=0.3 and ms=60% are
// shares of what the network has, macs=2e8, params=100000 and ms=5 numbers. Of macs and
// params values up to 1 are shares. Errors wrap ErrRule.
func ParseBudgets(s string) ([]Budget, error) {
	var out []Budget
	for part := range strings.SplitSeq(s, ",") {
		name, text, _ := strings.Cut(part, "=")
		b := Budget{Metric: Rule(name)}
		number, percent := strings.CutSuffix(text, "%")
		v, err := strconv.ParseFloat(number, 64)
		if err != nil || !(v > 0) || math.IsInf(v, 1) || b.Metric != Params && b.Metric != MACs && b.Metric != MS {
			return nil, bad("budget %q; want params=V, macs=V or ms=V with V above 0, such as macs=0.33, params=100000, ms=5 or ms=60%%", part)
		}
		b.Value, b.Share = v, percent || b.Metric != MS && v <= 1
		if percent {
			b.Value /= 100
		}
		if b.Share && b.Value > 1 {
			return nil, bad("budget %q is more than the network has", part)
		}
		for _, o := range out {
			if o.Metric == b.Metric {
				return nil, bad("two budgets of %s in %q", b.Metric, s)
			}
		}
		out = append(out, b)
	}
	return out, nil
}

// String is the text that ParseBudgets reads.
func (b Budget) String() string {
	if b.Share && b.Metric == MS {
		return fmt.Sprintf("ms=%g%%", 100*b.Value)
	}
	return fmt.Sprintf("%s=%g", b.Metric, b.Value)
}

// Of is the budget as a number, total being what the network costs.
func (b Budget) Of(total float64) float64 {
	if b.Share {
		return b.Value * total
	}
	return b.Value
}
