package adapt

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/peft"
)

// ErrOption is wrapped by errors about options that make no sense.
var ErrOption = errors.New("adapt: bad option")

// Method is a way to adapt a network. Its text is what commands and files call it.
type Method string

// The methods that change neither kernels nor what stands beside them; the others are
// peft's kinds, under their own names but for three, and modules beside the units, see
// methods.
const (
	Head    Method = "head"    // the new head alone
	Bias    Method = "bias"    // the norms' shifts too (BitFit, Ben Zaken et al. 2022, where convolutions have no bias)
	BN      Method = "bn"      // the norms' scales and shifts too
	Full    Method = "full"    // everything
	Scratch Method = "scratch" // everything, from random weights
	// LwF is learning without forgetting (Li & Hoiem 2017): everything, where the base is
	// the teacher of the outputs that it had. It needs train.Recipe.Kept, see Network.Kept.
	LwF Method = "lwf"
)

// method is what a Method means: it has a kind, a module or neither.
type method struct {
	kind  peft.Kind // "" for no change
	match peft.Match
	axes  string
	norms peft.NormPolicy // by default
	rank  []int           // by default; its length is how many there are
	// module makes what stands beside a convolution, of a rank of one number or none; nil
	// for none.
	module func(c *conv.Chain, rank []int, rng *rand.Rand) *graph.Module
}

var methods = map[Method]method{
	Head:                {norms: peft.NormFrozen},
	Bias:                {norms: peft.NormFrozen},
	BN:                  {norms: peft.NormAffineStats},
	Full:                {norms: peft.NormAffineStats},
	Scratch:             {norms: peft.NormAffineStats},
	LwF:                 {norms: peft.NormAffineStats},
	"lora":              {kind: peft.LoRA, norms: peft.NormAffineStats, rank: []int{4}},
	"lora-view":         {kind: peft.LoRAView, norms: peft.NormAffineStats, rank: []int{1}},
	"spatial":           {kind: peft.Spatial, norms: peft.NormAffineStats, rank: []int{4}},
	"cp":                {kind: peft.CP, norms: peft.NormAffineStats, rank: []int{16}},
	"cp4":               {kind: peft.CP4, norms: peft.NormAffineStats, rank: []int{16}},
	"tucker":            {kind: peft.Tucker2, norms: peft.NormAffineStats, rank: []int{8, 8}},
	"tucker4":           {kind: peft.Tucker4, norms: peft.NormAffineStats, rank: []int{8, 8, 3, 3}},
	"tkdcpd":            {kind: peft.TKDCPD, norms: peft.NormAffineStats, rank: []int{8, 8, 16}},
	"loha":              {kind: peft.LoHa, norms: peft.NormAffineStats, rank: []int{2}},
	"lokr":              {kind: peft.LoKr, norms: peft.NormAffineStats, rank: []int{4}},
	"residual-parallel": {kind: peft.Parallel, norms: peft.NormAffineStats},
	"residual-serial":   {kind: peft.Series, norms: peft.NormAffineStats},
	"conv1d":            {kind: peft.Axial, match: peft.Groups, axes: "h", norms: peft.NormAffineStats},
	"conv1d-copy":       {kind: peft.Axial, match: peft.Copy, axes: "h", norms: peft.NormAffineStats},
	"conv1d-dense":      {kind: peft.Axial, axes: "h", norms: peft.NormAffineStats},
	"full-change":       {kind: peft.Full, norms: peft.NormAffineStats},

	"residual-serial-bn": {module: residualSerial, norms: peft.NormAffineStats},
	"bottleneck":         {module: bottleneck, norms: peft.NormAffineStats, rank: []int{4}},
	"chapter":            {module: chapter, norms: peft.NormAffineStats},
}

// Methods lists the methods, sorted.
func Methods() []string {
	var names []string
	for m := range methods {
		names = append(names, string(m))
	}
	slices.Sort(names)
	return names
}

// ParseMethod reads a method's name.
func ParseMethod(s string) (Method, error) {
	if _, ok := methods[Method(s)]; !ok {
		return "", fmt.Errorf("%w: method %q; want one of %s", ErrOption, s, strings.Join(Methods(), ", "))
	}
	return Method(s), nil
}
