package compress

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/figures"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/ranks"
)

// PlanOptions are the knobs of Plan; zeros are the defaults.
type PlanOptions struct {
	// Methods are tried in each layer; none means SVD, SVDIn, Spatial, Tucker and, of kernels
	// of up to 65,536 weights, CP.
	Methods []Method
	// Step is what ranks are multiples of; 0 means 8, of small modes 4.
	Step int
	// Layers are as in Options.
	Layers []string
	// Statistics make decompositions that keep the outputs, not the weights.
	Statistics *Statistics
	// Images, where not nil, measure what the layers' errors do to the network: each layer
	// is replaced alone, three times, and the Kullback-Leibler divergence of the classes'
	// probabilities from the network's own is measured. Labels are not looked at.
	Images dataset.Set
	// Batch is the number of images at a time; 0 means 32.
	Batch int
	// Seed is where random starts come from.
	Seed uint64
	// Workers bounds the goroutines; 0 means GOMAXPROCS. It does not change the plan, but
	// for times.
	Workers int
	// Progress, where not nil, is called with the layers done.
	Progress func(done, total int, name string)
}

// Probe is a measurement of one layer's damage.
type Probe struct {
	Error      float64 `json:"error"`
	Divergence float64 `json:"divergence"`
}

// PlannedSite is a layer in a plan.
type PlannedSite struct {
	Name string `json:"name"`
	// Params, MACs and MS are what it costs as it is.
	Params int     `json:"params"`
	MACs   int64   `json:"macs"`
	MS     float64 `json:"ms,omitempty"`
	// An error e does damage A·e^B.
	A float64 `json:"a"`
	B float64 `json:"b"`
	// Probes are what A and B were fitted to.
	Probes     []Probe     `json:"probes,omitempty"`
	Candidates []Candidate `json:"candidates,omitempty"`
	// Reason says why there are no candidates.
	Reason string `json:"reason,omitempty"`
}

// Planned is what each layer of a network could become, at what cost and damage: all that
// is needed to choose for any budget.
type Planned struct {
	Arch string `json:"arch"`
	// Params and MACs are the whole network's, MS its time for one image where measured.
	Params int     `json:"params"`
	MACs   int64   `json:"macs"`
	MS     float64 `json:"ms,omitempty"`
	// Images is how many images measured the damage; 0 where it is e², in all layers alike.
	Images int `json:"images"`
	// Aware is set where errors are of the outputs, by statistics.
	Aware bool          `json:"aware"`
	Seed  uint64        `json:"seed"`
	Sites []PlannedSite `json:"sites"`
}

// Plan tries the methods at a grid of ranks in each layer of g and finds out what they do
// to the network. [Planned.Choose] then chooses for a budget.
func Plan(ctx context.Context, g *graph.Graph, opt PlanOptions) (*Planned, error) {
	if len(opt.Methods) == 0 {
		opt.Methods = []Method{SVD, SVDIn, Spatial, Tucker, CP}
	}
	opt.Step = cmp.Or(opt.Step, 8)
	if opt.Step < 1 {
		return nil, fmt.Errorf("%w: ranks in steps of %d", ErrOption, opt.Step)
	}
	for _, m := range opt.Methods {
		if m != SVD && m != SVDIn && m != Spatial && m != Tucker && m != CP {
			return nil, fmt.Errorf("%w: method %q has no place in a plan; want svd, svd-in, spatial, tucker or cp", ErrOption, m)
		}
	}
	targets := Sites(g)
	chosen, err := choose(targets, opt.Layers)
	if err != nil {
		return nil, err
	}
	p := &Planned{Arch: g.Arch, Params: g.Params(), MACs: g.MACs(), Aware: opt.Statistics != nil, Seed: opt.Seed}
	var ask *questioner
	if opt.Images != nil {
		if ask, err = newQuestioner(ctx, g, opt); err != nil {
			return nil, err
		}
		p.Images = opt.Images.Len()
	}
	for i := range targets {
		t := &targets[i]
		if opt.Progress != nil {
			opt.Progress(i, len(targets), t.Name)
		}
		s, err := site(ctx, t, chosen[i], ask, opt)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.Name, err)
		}
		p.Sites = append(p.Sites, *s)
	}
	p.damages()
	if opt.Progress != nil {
		opt.Progress(len(targets), len(targets), "")
	}
	return p, nil
}

// site plans one layer.
func site(ctx context.Context, t *Target, chosen bool, ask *questioner, opt PlanOptions) (*PlannedSite, error) {
	s := &PlannedSite{Name: t.Name, Params: t.Chain.Params(), MACs: t.Chain.MACs(max(t.H, 1), max(t.W, 1)), B: 2}
	a, reason, err := planned(ctx, t, chosen, opt.Statistics, opt.Workers)
	if err != nil || reason != "" {
		s.Reason = reason
		return s, err
	}
	methods := opt.Methods
	if a.k.Pointwise() {
		methods = []Method{SVD}
	}
	o := Options{Seed: opt.Seed, Workers: opt.Workers}
	for _, m := range methods {
		got, err := a.candidates(ctx, t, m, opt.Step, o)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m, err)
		}
		s.Candidates = append(s.Candidates, got...)
	}
	if len(s.Candidates) == 0 {
		s.Reason = "no chain on the grid of ranks costs less"
		return s, nil
	}
	s.A = 1
	if ask != nil {
		for _, c := range probes(s.Candidates) {
			chain, err := a.build(ctx, c.Method, c.Rank, o)
			if err != nil {
				return nil, err
			}
			if chain, err = a.biased(chain); err != nil {
				return nil, err
			}
			d, err := ask.divergence(ctx, t.Name, chain)
			if err != nil {
				return nil, err
			}
			s.Probes = append(s.Probes, Probe{c.Error, d})
		}
		s.A, s.B = power(s.Probes)
	}
	return s, nil
}

// damages gives all candidates their damages. Measured layers are pooled first: what an
// error of a fifth does is drawn halfway, in logarithms, to the layers' mean. A layer that
// hardly matters alone matters more behind others that err too: with the measurements as
// they are ResNet-20 lost 2 points more at a third of its operations and 9 at a quarter.
func (p *Planned) damages() {
	const at = .2
	var mean, n float64
	for _, s := range p.Sites {
		if len(s.Probes) > 0 {
			mean, n = mean+math.Log(s.A)+s.B*math.Log(at), n+1
		}
	}
	for i := range p.Sites {
		s := &p.Sites[i]
		if len(s.Probes) > 0 {
			s.A *= math.Exp((mean/n - math.Log(s.A) - s.B*math.Log(at)) / 2)
		}
		for j := range s.Candidates {
			s.Candidates[j].Damage = s.A * math.Pow(s.Candidates[j].Error, s.B)
		}
	}
}

// planned is a target's kernel with its moments, or the reason why it must stay.
func planned(ctx context.Context, t *Target, chosen bool, s *Statistics, workers int) (*aware, string, error) {
	if !chosen {
		if t.Linear {
			return nil, "linear: compressed only where --layers names it", nil
		}
		return nil, "not chosen", nil
	}
	k, err := t.Chain.Kernel()
	if err != nil {
		return nil, "", err
	}
	if ok, why := Compressible(k); !ok || t.Reason != "" {
		return nil, cmp.Or(t.Reason, why), nil
	}
	m, err := s.of(t.Name, k)
	if err != nil {
		return nil, "", err
	}
	a, err := newAware(ctx, k, m, workers)
	if err != nil {
		return nil, err.Error(), context.Cause(ctx)
	}
	return a, "", nil
}

// probes are up to three candidates whose errors are far apart, about .05, .15 and .4, of
// methods that are quick to build where there is a choice.
func probes(all []Candidate) []Candidate {
	var out []Candidate
	for _, want := range []float64{.05, .15, .4} {
		distance := func(c Candidate) float64 {
			d := math.Abs(math.Log(max(c.Error, 1e-6) / want))
			if c.Method == CP {
				d += .3
			}
			return d
		}
		best := slices.MinFunc(all, func(a, b Candidate) int { return cmp.Compare(distance(a), distance(b)) })
		if !slices.ContainsFunc(out, func(c Candidate) bool { return c.Error == best.Error }) {
			out = append(out, best)
		}
	}
	return out
}

// power fits d = a·e^b to probes by least squares in logarithms, b drawn to 2,
// what a divergence of small changes has, and kept between 1 and 3.
func power(probes []Probe) (a, b float64) {
	const weight, prior = 2, 2
	var n, x, y, xx, xy float64
	for _, p := range probes {
		u, v := math.Log(max(p.Error, 1e-9)), math.Log(max(p.Divergence, 1e-9))
		n, x, y, xx, xy = n+1, x+u, y+v, xx+u*u, xy+u*v
	}
	b = (xy - x*y/n + weight*prior) / (xx - x*x/n + weight)
	b = min(max(b, 1), 3)
	return math.Exp((y - b*x) / n), b
}

// questioner measures what a replaced layer does to the network's answers.
type questioner struct {
	g       *graph.Graph
	workers int
	batches []*conv.Map
	logs    [][]float32 // the network's log-probabilities
}

func newQuestioner(ctx context.Context, g *graph.Graph, opt PlanOptions) (*questioner, error) {
	q := &questioner{g: g, workers: opt.Workers}
	p, err := g.Compile()
	if err != nil {
		return nil, err
	}
	for b, err := range dataset.Batches(ctx, opt.Images, g.Preprocess, cmp.Or(opt.Batch, 32), opt.Workers) {
		if err != nil {
			return nil, err
		}
		x := &conv.Map{N: len(b.Labels), H: b.H, W: b.W, C: 3, Data: b.X}
		y, err := p.Forward(ctx, x, opt.Workers)
		if err != nil {
			return nil, err
		}
		q.batches = append(q.batches, x)
		q.logs = append(q.logs, logarithms(slices.Clone(y), g.Classes()))
	}
	if len(q.batches) == 0 {
		return nil, fmt.Errorf("%w: %s", dataset.ErrEmpty, opt.Images.Name())
	}
	return q, nil
}

// logarithms makes log-probabilities of logits, in place.
func logarithms(y []float32, classes int) []float32 {
	for row := range slices.Chunk(y, max(classes, 1)) {
		top := float64(slices.Max(row))
		sum := 0.0
		for _, v := range row {
			sum += math.Exp(float64(v) - top)
		}
		for i, v := range row {
			row[i] = float32(float64(v) - top - math.Log(sum))
		}
	}
	return y
}

// divergence is the mean KL(network ‖ changed network) of the images.
func (q *questioner) divergence(ctx context.Context, name string, c *conv.Chain) (float64, error) {
	changed := q.g.Clone()
	if err := changed.Replace(name, c); err != nil {
		return 0, err
	}
	return q.of(ctx, changed)
}

func (q *questioner) of(ctx context.Context, changed *graph.Graph) (float64, error) {
	p, err := changed.Compile()
	if err != nil {
		return 0, err
	}
	classes := max(q.g.Classes(), 1)
	var sum float64
	rows := 0
	for i, x := range q.batches {
		y, err := p.Forward(ctx, x, q.workers)
		if err != nil {
			return 0, err
		}
		got, want := logarithms(slices.Clone(y), classes), q.logs[i]
		for j, w := range want {
			sum += math.Exp(float64(w)) * (float64(w) - float64(got[j]))
		}
		rows += len(want) / classes
	}
	return max(sum, 0) / float64(rows), nil
}

// Divergence is the mean Kullback-Leibler divergence of what b makes of the images from
// what a makes of them, in nats: how far b's answers are from a's, without labels.
func Divergence(ctx context.Context, a, b *graph.Graph, images dataset.Set, workers int) (float64, error) {
	q, err := newQuestioner(ctx, a, PlanOptions{Images: images, Workers: workers})
	if err != nil {
		return 0, err
	}
	return q.of(ctx, b)
}

// Choice is what a plan chooses for a budget.
type Choice struct {
	// Picks has the place of the candidate of each site, -1 where the layer stays.
	Picks []int
	// Params, MACs and MS are what the network then costs; MS is 0 where times were not
	// measured.
	Params int
	MACs   int64
	MS     float64
	// Damage is the sum of what the candidates are expected to do.
	Damage float64
}

// ErrBudget is wrapped by errors about budgets that no choice keeps.
var ErrBudget = ranks.ErrBudget

// Choose picks a candidate for each layer, or leaves it, so that all budgets are kept and
// the expected damage is least. The error wraps ErrBudget, and names what can be reached,
// where no choice keeps them.
func (p *Planned) Choose(budgets []Budget) (*Choice, error) {
	limits := make([]float64, len(budgets))
	least := make([]float64, len(budgets))
	layers := make([][]option, len(p.Sites))
	places := make([][]int, len(p.Sites))
	for j, b := range budgets {
		if b.Metric == MS && p.MS == 0 {
			return nil, fmt.Errorf("%w: %v of a plan without times", ErrOption, b)
		}
		total := p.total(b.Metric)
		limits[j] = b.Of(total)
		least[j] = total
		for i := range p.Sites {
			least[j] -= p.Sites[i].cost(b.Metric)
		}
		limits[j] -= least[j] // what the layers may cost, without the rest
	}
	for i := range p.Sites {
		s := &p.Sites[i]
		own := option{costs: make([]float64, len(budgets))}
		for j, b := range budgets {
			own.costs[j] = s.cost(b.Metric)
		}
		layers[i], places[i] = []option{own}, []int{-1}
		for c := range s.Candidates {
			o := option{costs: make([]float64, len(budgets)), damage: s.Candidates[c].Damage}
			grows := false
			for j, b := range budgets {
				o.costs[j] = s.Candidates[c].cost(b.Metric)
				grows = grows || o.costs[j] > own.costs[j]
			}
			if !grows {
				layers[i], places[i] = append(layers[i], o), append(places[i], c)
			}
		}
		for j := range budgets {
			low := math.Inf(1)
			for _, o := range layers[i] {
				low = min(low, o.costs[j])
			}
			least[j] += low
		}
	}
	for j, b := range budgets {
		if total := p.total(b.Metric); least[j] > b.Of(total) {
			return nil, fmt.Errorf("%w: %v is %.6g of %.6g; the nearest that this plan can reach is %.6g, %s=%.3f of it", ErrBudget, b, b.Of(total), total, least[j], b.Metric, least[j]/total)
		}
	}
	picks := knapsack(layers, limits)
	if picks == nil {
		return nil, fmt.Errorf("%w: each of %v can be, together they cannot", ErrBudget, budgets)
	}
	c := &Choice{Params: p.Params, MACs: p.MACs, MS: p.MS}
	for i, pick := range picks {
		at := places[i][pick]
		c.Picks = append(c.Picks, at)
		if at >= 0 {
			s, to := &p.Sites[i], &p.Sites[i].Candidates[at]
			c.Params += to.Params - s.Params
			c.MACs += to.MACs - s.MACs
			c.MS += to.MS - s.MS
			c.Damage += to.Damage
		}
	}
	return c, nil
}

func (p *Planned) total(m ranks.Rule) float64 {
	return costIn(m, p.Params, p.MACs, p.MS)
}

func (s *PlannedSite) cost(m ranks.Rule) float64 { return costIn(m, s.Params, s.MACs, s.MS) }
func (c *Candidate) cost(m ranks.Rule) float64   { return costIn(m, c.Params, c.MACs, c.MS) }

func costIn(m ranks.Rule, params int, macs int64, ms float64) float64 {
	switch m {
	case Params:
		return float64(params)
	case MACs:
		return float64(macs)
	}
	return ms
}

// Build makes the network of a choice: g with its layers replaced. Statistics must be those
// of the plan, nil if it had none.
func (p *Planned) Build(ctx context.Context, g *graph.Graph, c *Choice, s *Statistics, opt Options) (*graph.Graph, []Result, error) {
	targets := Sites(g)
	if err := p.check(g, targets, s); err != nil {
		return nil, nil, err
	}
	out := g.Clone()
	var results []Result
	opt.Seed = p.Seed
	for i := range targets {
		t, from := &targets[i], &p.Sites[i]
		if opt.Progress != nil {
			opt.Progress(i, len(targets), t.Name)
		}
		r := Result{Name: t.Name, Chain: t.Chain, Method: "none", Rank: []int{}, Note: t.Note,
			ParamsBefore: from.Params, ParamsAfter: from.Params, MACsBefore: from.MACs, MACsAfter: from.MACs, Reason: from.Reason}
		if at := c.Picks[i]; at < 0 {
			r.Reason = cmp.Or(r.Reason, "stays: what it would save is saved with less damage elsewhere")
		} else {
			to := &from.Candidates[at]
			a, reason, err := planned(ctx, t, true, s, opt.Workers)
			if err == nil && reason != "" {
				err = fmt.Errorf("%w: %s", ErrPlan, reason)
			}
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", t.Name, err)
			}
			if err := p.put(ctx, a, to, &r, opt); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", t.Name, err)
			}
			if err := out.Replace(t.Name, r.Chain); err != nil {
				return nil, nil, err
			}
			r.Note = strings.TrimPrefix(fmt.Sprintf("%s; expected damage %.3g = %.3g·e^%.2f, best of %d candidates", r.Note, to.Damage, from.A, from.B, len(from.Candidates)), "; ")
		}
		results = append(results, r)
	}
	if opt.Progress != nil {
		opt.Progress(len(targets), len(targets), "")
	}
	return out, results, nil
}

// put makes the chain of a candidate the result's.
func (p *Planned) put(ctx context.Context, a *aware, to *Candidate, r *Result, opt Options) error {
	chain, err := a.build(ctx, to.Method, to.Rank, opt)
	if err != nil {
		return err
	}
	if chain, err = a.biased(chain); err != nil {
		return err
	}
	k, err := chain.Kernel()
	if err != nil {
		return err
	}
	if r.RelError, err = a.k.RelError(k); err != nil {
		return err
	}
	if p.Aware {
		if r.OutputError, err = a.outputError(chain); err != nil {
			return err
		}
	}
	r.Chain, r.Method, r.Rank = chain, string(to.Method), to.Rank
	r.ParamsAfter, r.MACsAfter = to.Params, to.MACs
	return nil
}

// ErrPlan is wrapped by errors about plans that cannot be read or are of another network.
var ErrPlan = errors.New("compress: bad plan")

// check reports a plan that is not of the network or of other statistics.
func (p *Planned) check(g *graph.Graph, targets []Target, s *Statistics) error {
	if len(targets) != len(p.Sites) || g.Params() != p.Params || g.MACs() != p.MACs {
		return fmt.Errorf("%w: it is of a network of %d layers, %d parameters and %d MACs, this one has %d, %d and %d", ErrPlan,
			len(p.Sites), p.Params, p.MACs, len(targets), g.Params(), g.MACs())
	}
	for i, t := range targets {
		if p.Sites[i].Name != t.Name {
			return fmt.Errorf("%w: its layer %d is %q, the network's %q", ErrPlan, i, p.Sites[i].Name, t.Name)
		}
	}
	if p.Aware != (s != nil) {
		return fmt.Errorf("%w: it was made %s statistics and is used %s", ErrPlan, withOr(p.Aware), withOr(s != nil))
	}
	return nil
}

func withOr(b bool) string {
	if b {
		return "with"
	}
	return "without"
}

// WriteFile writes the plan as JSON.
func (p *Planned) WriteFile(path string) error {
	return model.WriteAtomic(path, func(w io.Writer) error { return figures.Encode(w, p) })
}

// ReadPlan reads a file of WriteFile. The error wraps ErrPlan where the file holds
// something else.
func ReadPlan(path string) (*Planned, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p, err := ParsePlan(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// ParsePlan reads the text of a plan.
func ParsePlan(data []byte) (*Planned, error) {
	p := &Planned{}
	if err := json.Unmarshal(data, p); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPlan, err)
	}
	if len(p.Sites) == 0 || p.Params < 1 {
		return nil, fmt.Errorf("%w: no layers", ErrPlan)
	}
	for _, s := range p.Sites {
		for _, c := range s.Candidates {
			ranks := 1
			if c.Method == Tucker {
				ranks = 2
			}
			if len(c.Rank) != ranks || slices.Min(c.Rank) < 1 || !(c.Damage >= 0) || c.Params < 1 || c.MACs < 0 || c.MS < 0 {
				return nil, fmt.Errorf("%w: %s: a candidate of method %q, rank %v, %d parameters, %d MACs and damage %g", ErrPlan, s.Name, c.Method, c.Rank, c.Params, c.MACs, c.Damage)
			}
		}
	}
	return p, nil
}
