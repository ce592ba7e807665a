package adapt

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/mat"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/nn"
)

// GradientImages is how many images Gradients looks at where it is not told.
const GradientImages = 512

// Gradients are the mean gradients of the loss in the kernels that New would change with
// the same options, by the convolution's name and in the order of conv.Kernel.Weight: for
// Options.Gradients. They are taken at the frozen network, with its batch norms as the
// policy has them in training, over images of the set (0 means GradientImages) drawn by
// the seed, in batches of Options.Batch.
//
// A head of random weights would say little of what the task asks of the layers below it,
// so the network has that of linear discriminant analysis on the same images: the softmax
// regression of classes that are Gaussian with one covariance, in closed form.
//
// The result does not depend on workers, 0 for all. Errors wrap ErrOption for options and
// for segmentation networks, or are the set's.
func Gradients(ctx context.Context, base *graph.Graph, set dataset.Set, opt Options, images, workers int) (map[string][]float32, error) {
	m, err := opt.complete()
	if err != nil {
		return nil, err
	}
	switch {
	case m.kind == "":
		return nil, fmt.Errorf("%w: method %s changes no kernels", ErrOption, opt.Method)
	case base.Segments() || opt.Segment:
		return nil, fmt.Errorf("%w: gradients of a segmentation network", ErrOption)
	case images < 0:
		return nil, fmt.Errorf("%w: gradients of %d images", ErrOption, images)
	case set.Len() == 0:
		return nil, fmt.Errorf("%w: %s", dataset.ErrEmpty, set.Name())
	}
	sites, err := chosen(base, opt.Layers, func(unit string) bool { return unit == base.Head.Name })
	if err != nil {
		return nil, err
	}
	if images == 0 {
		images = GradientImages
	}
	images = min(images, set.Len())
	if images > opt.Batch {
		images -= images % opt.Batch // norms of a small rest would say little
	}
	s := &sample{set: set, opt: opt, workers: workers, pre: base.Preprocess,
		order: rand.New(rand.NewPCG(opt.Seed, 0x6772616400)).Perm(set.Len())[:images]}
	n, err := s.discriminant(ctx, base)
	if err != nil {
		return nil, err
	}
	return s.gradients(ctx, n, sites)
}

// sample are the images that gradients are taken of.
type sample struct {
	set     dataset.Set
	pre     dataset.Preprocess
	order   []int
	opt     Options
	workers int
}

// run gives f what the learner makes of each batch. Its norms work as in training.
func (s *sample) run(ctx context.Context, n *graph.Graph, learn func(*graph.Param) bool, f func(l *graph.Learner, labels []int, logits []float32) error) error {
	l, err := n.NewLearner(graph.LearnerOptions{FixedNorms: s.opt.fixedNorms(), Learn: learn})
	if err != nil {
		return err
	}
	for b, err := range dataset.TrainBatches(ctx, s.set, s.pre, dataset.Epoch{Order: s.order, Batch: s.opt.Batch, Workers: s.workers}) {
		if err != nil {
			return err
		}
		for _, label := range b.Labels {
			if label < 0 || label >= s.set.Classes() {
				return fmt.Errorf("%w: label %d in %s of %d classes", dataset.ErrFormat, label, s.set.Name(), s.set.Classes())
			}
		}
		logits, err := l.Forward(ctx, &conv.Map{N: len(b.Labels), H: b.H, W: b.W, C: 3, Data: b.X}, s.workers)
		if err != nil {
			return err
		}
		if err := f(l, b.Labels, logits); err != nil {
			return err
		}
	}
	return nil
}

// discriminant is base with the head of linear discriminant analysis.
func (s *sample) discriminant(ctx context.Context, base *graph.Graph) (*graph.Graph, error) {
	n := base.Clone()
	if n.Head == nil || !n.Head.Conv().Linear {
		return nil, fmt.Errorf("%w: %s does not end in a linear layer, for which there is a closed form", ErrOption, n.Arch)
	}
	width := n.Head.Conv().Chain.In()
	// A head that hands on what it reads makes logits of the features.
	if err := n.SetHead(width, 0); err != nil {
		return nil, err
	}
	head := n.Head.Conv().Chain.Stages[0]
	clear(head.Weight)
	clear(head.Bias)
	for i := range width {
		head.Weight[i*width+i] = 1
	}
	var features []float64
	var labels []int
	err := s.run(ctx, n, func(*graph.Param) bool { return false }, func(_ *graph.Learner, l []int, x []float32) error {
		for _, v := range x {
			if v-v != 0 {
				return fmt.Errorf("%w: the network gives %g for images of %s", ErrOption, v, s.set.Name())
			}
			features = append(features, float64(v))
		}
		labels = append(labels, l...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	classes := s.set.Classes()
	if err := n.SetHead(classes, 0); err != nil {
		return nil, err
	}
	head = n.Head.Conv().Chain.Stages[0]
	return n, discriminate(head.Weight, head.Bias, mat.NewDense(len(labels), width, features), labels, classes)
}

// discriminate writes the weights, classes × features, and biases of a linear discriminant
// analysis of the rows of x, which it overwrites. Means are drawn to that of all images as
// if each class had one there, and the covariance to a multiple of the identity by a share
// that grows with the number of features for each image: there are few images.
func discriminate(weight, bias []float32, x *mat.Dense, labels []int, classes int) error {
	images, width := x.Dims()
	mean := make([]float64, width)
	for i := range images {
		for j, v := range x.RawRowView(i) {
			mean[j] += v / float64(images)
		}
	}
	count := make([]float64, classes)
	centres := mat.NewDense(classes, width, nil) // relative to the mean
	for i, c := range labels {
		count[c]++
		to, row := centres.RawRowView(c), x.RawRowView(i)
		for j := range row {
			row[j] -= mean[j]
			to[j] += row[j]
		}
	}
	for c, n := range count {
		row := centres.RawRowView(c)
		for j := range row {
			row[j] /= n + 1
		}
	}
	for i, c := range labels {
		row := x.RawRowView(i)
		for j, v := range centres.RawRowView(c) {
			row[j] -= v
		}
	}
	var within mat.SymDense
	within.SymOuterK(1/float64(images), x.T())
	share := float64(width) / float64(width+images)
	ridge := math.SmallestNonzeroFloat32 // of features that are all alike
	for j := range width {
		ridge += share * within.At(j, j) / float64(width)
	}
	within.ScaleSym(1-share, &within)
	for j := range width {
		within.SetSym(j, j, within.At(j, j)+ridge)
	}
	var chol mat.Cholesky
	if !chol.Factorize(&within) {
		return errors.New("adapt: the covariance of the features is not positive definite")
	}
	var w mat.Dense // features × classes
	if err := chol.SolveTo(&w, centres.T()); err != nil {
		var ill mat.Condition // which the ridge keeps harmless
		if !errors.As(err, &ill) {
			return err
		}
	}
	for c, n := range count {
		b := math.Log((n + 1) / float64(images+classes))
		for j, v := range centres.RawRowView(c) {
			weight[c*width+j] = float32(w.At(j, c))
			b -= w.At(j, c) * (mean[j] + v/2)
		}
		bias[c] = float32(b)
	}
	return nil
}

// gradients are those of the network in the kernels of sites.
func (s *sample) gradients(ctx context.Context, n *graph.Graph, sites []graph.Site) (map[string][]float32, error) {
	learns := func(p *graph.Param) bool {
		return p.Kind == graph.Weight && !p.Module && slices.ContainsFunc(sites, func(s graph.Site) bool { return s.Name == p.Unit })
	}
	sums := map[string][]float64{}
	err := s.run(ctx, n, learns, func(l *graph.Learner, labels []int, logits []float32) error {
		g := make([]float32, len(logits))
		nn.CrossEntropy(g, logits, labels, s.set.Classes(), 0, s.workers)
		if err := l.Backward(ctx, g, s.workers); err != nil {
			return err
		}
		for _, p := range l.Params() {
			grad, err := p.Export(p.Grad)
			if err != nil {
				return err
			}
			if sums[p.Unit] == nil {
				sums[p.Unit] = make([]float64, len(grad))
			}
			for i, v := range grad {
				sums[p.Unit][i] += float64(v) * float64(len(labels)) / float64(len(s.order))
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := map[string][]float32{}
	for name, sum := range sums {
		for i, v := range sum {
			if v-v != 0 {
				return nil, fmt.Errorf("%w: the gradient of %s has %g for weight %d", ErrOption, name, v, i)
			}
			out[name] = append(out[name], float32(v))
		}
	}
	return out, nil
}

// checkGradient reports a gradient that is looked at and missing or not finite.
func (o *Options) checkGradient(s *site) error {
	if !o.ByGradient() {
		return nil
	}
	g := o.Gradients[s.Name]
	if len(g) != len(s.base) {
		return fmt.Errorf("%w: a gradient of %d values for the %d weights of %s; see Gradients", ErrOption, len(g), len(s.base), s.Name)
	}
	if i := slices.IndexFunc(g, func(v float32) bool { return v-v != 0 }); i >= 0 {
		return fmt.Errorf("%w: the gradient of %s has %g for weight %d", ErrOption, s.Name, g[i], i)
	}
	return nil
}
