package train

import (
	"context"

	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/eval"
	"github.com/lowrank-go/lowrank/graph"
)

// Validation is a Job's Validate that scores on set what a learner has learnt, which net
// gives: graph.Learner.Net, or that of what the learner is part of. told, where not nil, is
// called with each score.
func Validation(net func() (*graph.Graph, error), set dataset.Set, opt eval.Options, told func(eval.Score)) func(context.Context) (eval.Score, error) {
	return func(ctx context.Context) (eval.Score, error) {
		g, err := net()
		if err != nil {
			return eval.Score{}, err
		}
		p, err := g.Compile()
		if err != nil {
			return eval.Score{}, err
		}
		s, err := eval.Evaluate(ctx, p, set, opt)
		if err == nil && told != nil {
			told(s)
		}
		return s, err
	}
}
