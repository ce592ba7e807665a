package adapt

import (
	"fmt"
	"slices"

	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/peft"
)

// Stack puts the adapters of several files, of one base, into one. Files are bound to
// what their adapters do not replace; where that is not the same in all of them, base
// must be given, against which each is checked. The result is bound to all that any of
// them is. The error wraps peft.ErrBase where bases differ, and ErrOption where that
// cannot be told.
func Stack(base *model.StateDict, files ...*peft.File) (*peft.File, error) {
	out := &peft.File{Base: files[0].Base, Frozen: files[0].Frozen}
	var all []string
	for i, f := range files {
		out.Adapters = append(out.Adapters, f.Adapters...)
		all = append(all, f.Frozen...)
		switch {
		case base != nil:
			if err := f.Check(base, false); err != nil {
				return nil, fmt.Errorf("%s: %w", quoted(names(f)), err)
			}
		case !sameNames(f.Frozen, out.Frozen) || f.Base == "":
			return nil, fmt.Errorf("%w: %s and %s replace other tensors of their base: whether that is the same cannot be told without it", ErrOption, quoted(names(files[0])), quoted(names(f)))
		case f.Base != out.Base:
			return nil, fmt.Errorf("%w: %s was made for %s, %s for %s", peft.ErrBase, quoted(names(files[0])), out.Base, quoted(names(files[i])), f.Base)
		}
	}
	if base == nil {
		return out, checked(out)
	}
	slices.Sort(all)
	bound, err := peft.NewFile(base, slices.Compact(all), out.Adapters...)
	if err != nil {
		return nil, err
	}
	return bound, checked(bound)
}

// checked reports adapters that cannot share a file.
func checked(f *peft.File) error {
	_, err := f.StateDict()
	return err
}

func sameNames(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}
