package compress

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/gemm"
	"github.com/lowrank-go/lowrank/internal/parallel"
	"github.com/lowrank-go/lowrank/model"
)

// ErrStatistics is wrapped by errors about statistics that cannot be read or belong to
// another network.
var ErrStatistics = errors.New("compress: bad statistics")

// Moments are what the inputs of one convolution of S input channels, T outputs and P taps
// look like at its output positions: patches x of D = S·P values in the order of a kernel's
// row, S×kh×kw, with the zeros of the padding, and outputs y = W·x without the bias. All
// are means over Count sampled positions.
type Moments struct {
	Count int64
	// Norm is that of the kernel that Output belongs to.
	Norm float64
	// Mean is E x, of D values.
	Mean []float64
	// Channel is E x_p·x_pᵀ averaged over the taps p, S×S.
	Channel []float64
	// Output is E y·yᵀ, T×T.
	Output []float64
	// Full is E x·xᵀ, D×D; nil where D was above CollectOptions.Full.
	Full []float64
}

// Statistics are the moments of a network's convolutions on some images. Nothing of the
// images' labels is in them.
type Statistics struct {
	// Images is the number of images.
	Images int
	Sites  map[string]*Moments
}

// CollectOptions are the knobs of Collect; zeros are the defaults.
type CollectOptions struct {
	// Batch is the number of images at a time; 0 means 16.
	Batch int
	// Positions bounds the output positions that are sampled of each image and
	// convolution; 0 means 64.
	Positions int
	// Full is the largest D = S·kh·kw of which the whole D×D moment is collected, 8·D²
	// bytes a convolution; 0 means 1200, below 0 none is.
	Full int
	// Seed is where the positions come from.
	Seed uint64
	// Workers bounds the goroutines; 0 means GOMAXPROCS. It does not change the result.
	Workers int
	// Progress, where not nil, is called after every batch.
	Progress func(done, total int)
}

// Collect runs g over the images of set and collects the moments of every convolution and
// linear layer in one group that can be compressed. The labels of set are not looked at.
// Memory is that of the moments and of some hundreds of patches. The error wraps
// dataset.ErrEmpty where there are no images.
func Collect(ctx context.Context, g *graph.Graph, set dataset.Set, opt CollectOptions) (*Statistics, error) {
	if set.Len() == 0 {
		return nil, fmt.Errorf("%w: %s", dataset.ErrEmpty, set.Name())
	}
	for _, d := range []struct {
		v  *int
		to int
	}{{&opt.Batch, 16}, {&opt.Positions, 64}, {&opt.Full, 1200}} {
		if *d.v == 0 {
			*d.v = d.to
		}
	}
	p, err := g.Compile()
	if err != nil {
		return nil, err
	}
	c := &collector{opt: opt, sites: map[string]*collected{}}
	var names []string
	for _, s := range g.Sites() {
		k, err := s.Chain.Kernel()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
		if ok, _ := Compressible(k); !ok || max(k.Groups, 1) > 1 {
			continue
		}
		d, t := k.Shape[1]*k.Taps(), k.Out()
		m := &Moments{Norm: k.Norm(), Mean: make([]float64, d), Channel: make([]float64, k.Shape[1]*k.Shape[1]), Output: make([]float64, t*t)}
		if d <= opt.Full {
			m.Full = make([]float64, d*d)
		}
		c.sites[s.Name] = &collected{Moments: m, kernel: k, weight: doubles(k.Weight)}
		names = append(names, s.Name)
	}
	if err := p.Tap(names, c.tap); err != nil {
		return nil, err
	}
	for b, err := range dataset.Batches(ctx, set, g.Preprocess, opt.Batch, opt.Workers) {
		if err != nil {
			return nil, err
		}
		if _, err := p.Forward(ctx, &conv.Map{N: len(b.Labels), H: b.H, W: b.W, C: 3, Data: b.X}, opt.Workers); err != nil {
			return nil, err
		}
		c.images += len(b.Labels)
		if opt.Progress != nil {
			opt.Progress(c.images, set.Len())
		}
	}
	out := &Statistics{Images: c.images, Sites: map[string]*Moments{}}
	for name, s := range c.sites {
		s.mean(s.kernel.Taps())
		out.Sites[name] = s.Moments
	}
	return out, nil
}

// collected is a convolution whose moments are being summed up.
type collected struct {
	*Moments
	kernel *conv.Kernel
	weight []float64
}

// mean makes means of the sums.
func (s *collected) mean(taps int) {
	n := float64(max(s.Count, 1))
	for _, v := range [][]float64{s.Mean, s.Output, s.Full} {
		for i := range v {
			v[i] /= n
		}
	}
	for i := range s.Channel {
		s.Channel[i] /= n * float64(taps)
	}
}

// collector gathers patches at taps.
type collector struct {
	opt    CollectOptions
	sites  map[string]*collected
	images int
	// x are patches, a row each; byTap their pixels, a row of S values each; y outputs.
	x, byTap, y []float64
}

// patchRows is the number of patches that are multiplied at a time.
const patchRows = 256

// place is an output position of an image of the batch.
type place struct{ image, y, x int }

func (c *collector) tap(name string, in *conv.Map) error {
	s := c.sites[name]
	oh, ow := s.kernel.OutputSize(in.H, in.W)
	total := oh * ow
	each := min(c.opt.Positions, total)
	var places []place
	for i := range in.N {
		rng := rand.New(rand.NewPCG(c.opt.Seed, uint64(c.images+i)))
		for j := range each {
			at := j
			if each < total { // one of each stratum
				at = min(int((float64(j)+rng.Float64())*float64(total)/float64(each)), total-1)
			}
			places = append(places, place{i, at / ow, at % ow})
		}
	}
	for chunk := range slices.Chunk(places, patchRows) {
		c.add(s, in, chunk)
	}
	return nil
}

// add adds the patches at places to the sums.
func (c *collector) add(s *collected, in *conv.Map, places []place) {
	k := s.kernel
	g := k.Normal()
	n, t, ins, taps := len(places), k.Out(), k.Shape[1], k.Taps()
	d := ins * taps
	c.x, c.byTap, c.y = sized(c.x, n*d), sized(c.byTap, n*d), sized(c.y, n*t)
	workers := c.opt.Workers
	parallel.For(workers, n, func(i int) {
		at := places[i]
		row, pixels := c.x[i*d:(i+1)*d], c.byTap[i*d:(i+1)*d]
		for p := range taps {
			y := at.y*g.Stride[0] - g.Padding[0] + p/k.Shape[3]*g.Dilation[0]
			x := at.x*g.Stride[1] - g.Padding[1] + p%k.Shape[3]*g.Dilation[1]
			to := pixels[p*ins : (p+1)*ins]
			if y < 0 || y >= in.H || x < 0 || x >= in.W {
				clear(to)
			} else {
				for j, v := range in.Data[((at.image*in.H+y)*in.W+x)*in.C:][:ins] {
					to[j] = float64(v)
				}
			}
			for j, v := range to {
				row[j*taps+p] = v
			}
		}
	})
	for i := range n {
		for j, v := range c.x[i*d : (i+1)*d] {
			s.Mean[j] += v
		}
	}
	gemm.Float64(workers, false, true, n, t, d, 1, c.x, d, s.weight, d, 0, c.y, t)
	gemm.Gram64(workers, true, t, n, 1, c.y, t, 1, s.Output, t)
	gemm.Gram64(workers, true, ins, n*taps, 1, c.byTap, ins, 1, s.Channel, ins)
	if s.Full != nil {
		gemm.Gram64(workers, true, d, n, 1, c.x, d, 1, s.Full, d)
	}
	s.Count += int64(n)
}

func sized(v []float64, n int) []float64 {
	if cap(v) < n {
		return make([]float64, n)
	}
	return v[:n]
}

func doubles(v []float32) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = float64(x)
	}
	return out
}

// statisticsKey is the metadata entry of a file of statistics: the number of images.
const statisticsKey = "lowrank.statistics"

// StateDict is the statistics as named tensors of float64: of a convolution NAME
// NAME.mean, NAME.channel, NAME.output and NAME.full, and NAME.of, the number of positions
// and the norm of the kernel.
func (s *Statistics) StateDict() *model.StateDict {
	sd := model.NewStateDict()
	sd.Meta[statisticsKey] = strconv.Itoa(s.Images)
	for _, name := range slices.Sorted(maps.Keys(s.Sites)) {
		m := s.Sites[name]
		set := func(what string, v []float64, shape ...int) {
			sd.Set(name+"."+what, &model.Tensor{Shape: shape, Data: v})
		}
		ins, outs := root(len(m.Channel)), root(len(m.Output))
		set("of", []float64{float64(m.Count), m.Norm}, 2)
		set("mean", m.Mean, len(m.Mean))
		set("channel", m.Channel, ins, ins)
		set("output", m.Output, outs, outs)
		if m.Full != nil {
			set("full", m.Full, len(m.Mean), len(m.Mean))
		}
	}
	return sd
}

// root is the whole square root of a square.
func root(n int) int {
	r := 0
	for r*r < n {
		r++
	}
	return r
}

// ParseStatistics reads what StateDict gives. The error wraps ErrStatistics.
func ParseStatistics(sd *model.StateDict) (*Statistics, error) {
	images, err := strconv.Atoi(sd.Meta[statisticsKey])
	if err != nil || images < 1 {
		return nil, fmt.Errorf("%w: the file holds none: its metadata has no number of images under %q", ErrStatistics, statisticsKey)
	}
	s := &Statistics{Images: images, Sites: map[string]*Moments{}}
	for _, name := range sd.Names() {
		base, ok := strings.CutSuffix(name, ".of")
		if !ok {
			continue
		}
		m := &Moments{}
		var of []float64
		for what, dst := range map[string]*[]float64{"of": &of, "mean": &m.Mean, "channel": &m.Channel, "output": &m.Output, "full": &m.Full} {
			t, ok := sd.Get(base + "." + what)
			if !ok && what == "full" {
				continue
			}
			if !ok {
				return nil, fmt.Errorf("%w: %s.%s is missing", ErrStatistics, base, what)
			}
			if *dst, err = t.Float64s(); err != nil {
				return nil, fmt.Errorf("%w: %s.%s: %w", ErrStatistics, base, what, err)
			}
		}
		if len(of) != 2 || !(of[0] >= 1) || of[0] > 1<<53 {
			return nil, fmt.Errorf("%w: %s.of holds %v; want a number of positions and a norm", ErrStatistics, base, of)
		}
		m.Count, m.Norm = int64(of[0]), of[1]
		s.Sites[base] = m
	}
	return s, sd.CheckFinite()
}

// WriteFile writes the statistics as a safetensors file.
func (s *Statistics) WriteFile(path string) error {
	return model.WriteSafetensors(path, s.StateDict())
}

// ReadStatistics reads a file of WriteFile. The error wraps ErrStatistics where the file
// holds something else.
func ReadStatistics(path string) (*Statistics, error) {
	sd, err := model.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s, err := ParseStatistics(sd)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// of are the moments of a kernel called name, nil where there are none. They are of this
// kernel and no other.
func (s *Statistics) of(name string, k *conv.Kernel) (*Moments, error) {
	if s == nil || max(k.Groups, 1) > 1 {
		return nil, nil
	}
	m := s.Sites[name]
	if m == nil {
		return nil, nil
	}
	t, ins, d := k.Out(), k.Shape[1], k.Shape[1]*k.Taps()
	if len(m.Mean) != d || len(m.Channel) != ins*ins || len(m.Output) != t*t || m.Full != nil && len(m.Full) != d*d {
		return nil, fmt.Errorf("%w: %s has a kernel of %v, the statistics are of another of %d outputs and %d values a patch", ErrStatistics, name, k.Shape, root(len(m.Output)), len(m.Mean))
	}
	if norm := k.Norm(); norm != m.Norm {
		return nil, fmt.Errorf("%w: %s has a kernel of norm %g, the statistics are of one of norm %g; collect them anew", ErrStatistics, name, norm, m.Norm)
	}
	return m, nil
}
