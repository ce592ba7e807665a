package stability

import (
	"context"
	"fmt"
	"math"

	"gorgonia.org/tensor"

	"github.com/lowrank-go/lowrank/cpd"
)

// Penalised is alternating least squares with a penalty, for comparison with EPC: from
// the start it minimises
//
//	‖Y − Ŷ‖² + weight·f(Ŷ), Y = X/‖X‖,
//
// f being the objective, mode by mode, each exactly: U = M·(Γ + weight·W)⁻¹, the update
// of EPC with a multiplier that is given. At the same multiplier both have the same
// stationary points; but here the error is what it comes to, and a weight that serves
// one tensor does not serve another. The penalised error never rises; Objectives holds
// it after each sweep. A Bound, Factor, Target or Steps wraps ErrSettings; the context
// ends it as it does EPC.
func Penalised(ctx context.Context, x *tensor.Dense, start *cpd.Kruskal, weight float64, set *Settings) (*Result, error) {
	if !(weight > 0) || math.IsInf(weight, 1) {
		return nil, fmt.Errorf("%w: a penalty of weight %g; want one above 0", ErrSettings, weight)
	}
	if set != nil && (set.Bound != 0 || set.Factor != 0 || set.Target != 0 || set.Steps != 0) {
		return nil, fmt.Errorf("%w: a bound, factor, target or steps beside a penalty", ErrSettings)
	}
	e, res, err := begin(x, start, set)
	if err != nil || e.norm == 0 {
		return res, err
	}
	e.penalty = weight
	e.error2 = res.Before.RelError * res.Before.RelError
	err = e.iterate(ctx, res)
	e.finish(res)
	res.Bound = res.After.RelError
	return res, err
}
