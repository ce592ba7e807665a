package dataset

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

// options is what may follow a specification, KEY=VALUE,…, by key: what to do
// with the value. An error says only what is wanted.
type options map[string]func(value string) error

// cut takes the options off the end of a path. A path that exists as it stands
// has none, whatever it looks like.
func (o options) cut(spec string) (path, rest string, any bool) {
	if _, err := os.Stat(spec); err == nil {
		return spec, "", false
	}
	for i, c := range spec {
		if c != ',' {
			continue
		}
		key, _, ok := strings.Cut(spec[i+1:], "=")
		if ok && o[key] != nil {
			return spec[:i], spec[i+1:], true
		}
	}
	return spec, "", false
}

// parse reads KEY=VALUE,….
func (o options) parse(text string) error {
	seen := make(map[string]bool)
	for option := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(option, "=")
		set := o[key]
		switch {
		case !ok || set == nil:
			return fmt.Errorf("%w: option %q; want %s=…", ErrSpec, option, strings.Join(slices.Sorted(maps.Keys(o)), "=…, "))
		case seen[key]:
			return fmt.Errorf("%w: option %s is given twice", ErrSpec, key)
		}
		seen[key] = true
		if err := set(value); err != nil {
			return fmt.Errorf("%w: option %q: %w", ErrSpec, option, err)
		}
	}
	return nil
}

// number is an option that is a whole number within [lo, hi].
func number[T int | uint64](to *T, lo, hi T) func(string) error {
	return func(s string) error {
		v, err := strconv.ParseUint(s, 10, 64)
		if err != nil || v < uint64(lo) || v > uint64(hi) {
			return fmt.Errorf("want a whole number from %d to %d", lo, hi)
		}
		*to = T(v)
		return nil
	}
}

// seed is an option that is any number of 64 bits.
func seed(to *uint64) func(string) error { return number(to, 0, 1<<64-1) }

// division is how a set without parts is divided into a training and a test
// split; a fraction of 0 leaves it whole.
type division struct {
	fraction float64
	seed     uint64
}

// openDivided opens the tree of a specification PATH[,KEY=VALUE,…], whose
// options are those of a division and others.
func openDivided(spec string, others options, open func(t tree, d division) (Set, error)) (Set, error) {
	var d division
	name, err := d.parse(spec, others)
	if err != nil {
		return nil, err
	}
	t, err := openTree(name)
	if err != nil {
		return nil, err
	}
	s, err := open(t, d)
	if err != nil {
		t.Close()
		return nil, err
	}
	return s, nil
}

// options adds those of d to others.
func (d *division) options(others options) options {
	o := options{
		"holdout": func(s string) error {
			v, err := strconv.ParseFloat(s, 64)
			if err != nil || !(v > 0 && v < 1) {
				return fmt.Errorf("want a share for testing between 0 and 1")
			}
			d.fraction = v
			return nil
		},
		"seed": seed(&d.seed),
	}
	maps.Copy(o, others)
	return o
}

// parse takes the options off a specification.
func (d *division) parse(spec string, others options) (path string, err error) {
	o := d.options(others)
	path, rest, any := o.cut(spec)
	if !any {
		return path, nil
	}
	if err := o.parse(rest); err != nil {
		return "", fmt.Errorf("%w (in %s)", err, spec)
	}
	if d.seed != 0 && d.fraction == 0 {
		return "", fmt.Errorf("%w: a seed chooses what is held out; without holdout=… there is nothing to choose (in %s)", ErrSpec, spec)
	}
	return path, nil
}

// name describes the split of a set, whose folders may be divided already.
func (d *division) name(kind, root string, divided bool, split Split) (string, error) {
	switch {
	case divided && d.fraction > 0:
		return "", fmt.Errorf("%w: %s has folders for training and testing; holdout is for sets that have none", ErrSpec, root)
	case divided:
		return fmt.Sprintf("%s:%s (%s)", kind, root, split), nil
	case d.fraction > 0:
		return fmt.Sprintf("%s:%s (%s, %v of each class held out, seed %d)", kind, root, split, d.fraction, d.seed), nil
	}
	return kind + ":" + root, nil
}

// apply gives the split of s, which is s itself if there is nothing to divide.
func (d *division) apply(s Set, split Split) (Set, error) {
	if d.fraction == 0 {
		return s, nil
	}
	part, held, err := HoldOut(s, d.fraction, d.seed)
	if err != nil {
		return nil, err
	}
	if split == Test {
		part = held
	}
	if part.Len() == 0 {
		return nil, fmt.Errorf("%w: of %d images of %d classes, holding out %v leaves none for %s", ErrEmpty, s.Len(), s.Classes(), d.fraction, split)
	}
	return part, nil
}
