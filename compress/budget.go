package compress

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Metric is what a budget counts.
type Metric string

// The metrics.
const (
	Params Metric = "params"
	MACs   Metric = "macs"
	// MS is milliseconds for one image on this machine.
	MS Metric = "ms"
)

// Budget is what a whole network may cost.
type Budget struct {
	Metric Metric
	// Value is a share of what the network costs where Share is set, else a number.
	Value float64
	Share bool
}

// ParseBudgets reads budgets with commas between them: macs=0.33, params=0.3 and ms=60% are
// shares of what the network has, macs=2e8, params=100000 and ms=5 numbers. Of macs and
// params values up to 1 are shares.
func ParseBudgets(s string) ([]Budget, error) {
	var out []Budget
	for part := range strings.SplitSeq(s, ",") {
		name, text, _ := strings.Cut(part, "=")
		b := Budget{Metric: Metric(name)}
		number, percent := strings.CutSuffix(text, "%")
		v, err := strconv.ParseFloat(number, 64)
		if err != nil || !(v > 0) || math.IsInf(v, 1) || b.Metric != Params && b.Metric != MACs && b.Metric != MS {
			return nil, fmt.Errorf("%w: budget %q; want params=V, macs=V or ms=V with V above 0, such as macs=0.33, params=100000, ms=5 or ms=60%%", ErrOption, part)
		}
		b.Value, b.Share = v, percent || b.Metric != MS && v <= 1
		if percent {
			b.Value /= 100
		}
		if b.Share && b.Value > 1 {
			return nil, fmt.Errorf("%w: budget %q is more than the network has", ErrOption, part)
		}
		for _, o := range out {
			if o.Metric == b.Metric {
				return nil, fmt.Errorf("%w: two budgets of %s in %q", ErrOption, b.Metric, s)
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

// of is the budget as a number, total being what the network costs.
func (b Budget) of(total float64) float64 {
	if b.Share {
		return b.Value * total
	}
	return b.Value
}
