package adapt

import (
	"fmt"
	"math/rand/v2"

	"github.com/lowrank-go/lowrank/resnet"
)

func residualSerial(u *resnet.Unit, _ []int, scale float64, _ *rand.Rand) *resnet.Module {
	return scaled(resnet.ResidualSerial(u), scale)
}

// bottleneck's rank is how many times fewer channels there are inside.
func bottleneck(u *resnet.Unit, rank []int, scale float64, rng *rand.Rand) *resnet.Module {
	return scaled(resnet.Bottleneck(u, rank[0], rng), scale)
}

// chapter's scale is 1 by default: with the published 0.01 it does nothing in as short a
// training as adapters usually get.
func chapter(u *resnet.Unit, _ []int, scale float64, rng *rand.Rand) *resnet.Module {
	return scaled(resnet.Chapter(u, 1, 1, rng), scale)
}

func scaled(m *resnet.Module, scale float64) *resnet.Module {
	if scale != 0 {
		m.Scale = scale
	}
	return m
}

// addModules puts the method's modules beside chosen units of Base.
func (n *Network) addModules(m method, chosen []resnet.Site, rng *rand.Rand) error {
	o := n.Options
	switch {
	case o.DoRA || o.Learned:
		return fmt.Errorf("%w: learned norms or a learned λ; method %s changes no kernel", ErrOption, o.Method)
	case n.Base.ModuleSpecs() != nil:
		return fmt.Errorf("%w: the network has modules of an adapter already; method %s adds some to networks without", ErrOption, o.Method)
	}
	for _, s := range chosen {
		if err := n.Base.AddModule(s.Name, m.module(s.Unit, o.Rank, o.Alpha, rng)); err != nil {
			return err
		}
	}
	return nil
}
