package compress

import "github.com/lowrank-go/lowrank/ranks"

// Budget is what a whole network may cost; ranks.ParseBudgets reads it.
type Budget = ranks.Budget

// The metrics of budgets.
const (
	Params = ranks.Params
	MACs   = ranks.MACs
	MS     = ranks.MS
)
