package train

import "fmt"

// What a run does where the learner's first outputs are what it could do before: see
// Recipe.Kept.

// checkClasses reports data with more classes than there are outputs for.
func (j *Job) checkClasses() error {
	all, kept := j.Learner.Classes(), j.Recipe.Kept
	if kept > 0 && kept >= all {
		return fmt.Errorf("%w: %d outputs are kept of a network with %d; want fewer", ErrRecipe, kept, all)
	}
	if c := j.Data.Classes(); c > all-kept {
		return fmt.Errorf("%w: %s has %d classes, the network tells %d apart", ErrRecipe, j.Data.Name(), c, all-kept)
	}
	return nil
}

// classes is how many labels there are outputs for.
func (r *run) classes() int { return r.Learner.Classes() - r.recipe.Kept }

// columns are those from first to last, exclusive, of a matrix with a row of outputs for
// each image or pixel: x itself where they are all, else a copy, until the next call.
func (r *run) columns(x []float32, first, last int) []float32 {
	all := r.Learner.Classes()
	if last-first == all {
		return x
	}
	r.part = r.part[:0]
	for ; len(x) > 0; x = x[all:] {
		r.part = append(r.part, x[first:last]...)
	}
	return r.part
}

// among computes a loss of the columns from first to last of the logits, and its gradient
// g in all of them, which in the others is 0.
func (r *run) among(g, logits []float32, first, last int, loss func(g, logits []float32, classes int)) {
	all, width := r.Learner.Classes(), last-first
	if width == all {
		loss(g, logits, all)
		return
	}
	part := r.columns(logits, first, last)
	if cap(r.partGradient) < len(part) {
		r.partGradient = make([]float32, len(part))
	}
	inner := r.partGradient[:len(part)]
	loss(inner, part, width)
	clear(g)
	for ; len(g) > 0; g, inner = g[all:], inner[width:] {
		copy(g[first:last], inner[:width])
	}
}
