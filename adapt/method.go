package adapt

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lowrank-go/lowrank/peft"
)

// ErrOption is wrapped by errors about options that make no sense.
var ErrOption = errors.New("adapt: bad option")

// Norms says what becomes of the batch norms.
type Norms string

// The policies. Statistics are means and variances; affine is scales and shifts.
const (
	Fixed  Norms = "fixed"  // as they were, in statistics and affine
	Affine Norms = "affine" // affine learns, the statistics are as they were
	Stats  Norms = "stats"  // the statistics are the new task's, affine is as it was
	Both   Norms = "both"   // both are the new task's
)

// Method is a way to adapt a network. Its text is what commands and files call it.
type Method string

// The methods that are no change of the kernels; the others are peft's kinds, under
// their own names but for three, see methods.
const (
	Head    Method = "head"    // the new head alone
	Bias    Method = "bias"    // the norms' shifts too (BitFit, Ben Zaken et al. 2022, where convolutions have no bias)
	BN      Method = "bn"      // the norms' scales and shifts too
	Full    Method = "full"    // everything
	Scratch Method = "scratch" // everything, from random weights
)

// method is what a Method means.
type method struct {
	kind  peft.Kind // "" for no change
	match peft.Match
	axes  string
	norms Norms // by default
	rank  []int // by default; its length is how many there are
}

var methods = map[Method]method{
	Head:                {norms: Fixed},
	Bias:                {norms: Fixed},
	BN:                  {norms: Both},
	Full:                {norms: Both},
	Scratch:             {norms: Both},
	"lora":              {kind: peft.LoRA, norms: Both, rank: []int{4}},
	"lora-view":         {kind: peft.LoRAView, norms: Both, rank: []int{1}},
	"spatial":           {kind: peft.Spatial, norms: Both, rank: []int{4}},
	"cp":                {kind: peft.CP, norms: Both, rank: []int{16}},
	"cp4":               {kind: peft.CP4, norms: Both, rank: []int{16}},
	"tucker":            {kind: peft.Tucker2, norms: Both, rank: []int{8, 8}},
	"tucker4":           {kind: peft.Tucker4, norms: Both, rank: []int{8, 8, 3, 3}},
	"tkdcpd":            {kind: peft.TKDCPD, norms: Both, rank: []int{8, 8, 16}},
	"loha":              {kind: peft.LoHa, norms: Both, rank: []int{2}},
	"lokr":              {kind: peft.LoKr, norms: Both, rank: []int{4}},
	"residual-parallel": {kind: peft.Parallel, norms: Both},
	"residual-serial":   {kind: peft.Series, norms: Both},
	"conv1d":            {kind: peft.Axial, match: peft.Groups, axes: "h", norms: Both},
	"conv1d-copy":       {kind: peft.Axial, match: peft.Copy, axes: "h", norms: Both},
	"conv1d-dense":      {kind: peft.Axial, axes: "h", norms: Both},
	"full-change":       {kind: peft.Full, norms: Both},
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
