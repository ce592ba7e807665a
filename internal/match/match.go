// Package match chooses layers by patterns of their names.
package match

import (
	"fmt"
	"path"
	"strings"
)

// Names tells which of the names some pattern of path.Match matches, of which '*' matches
// dots and slashes too. A pattern that is malformed or matches none is
// an error, which calls a name's owner what.
func Names(patterns, names []string, what string) ([]bool, error) {
	chosen := make([]bool, len(names))
	for _, p := range patterns {
		matched := false
		for i, name := range names {
			ok, err := path.Match(plain(p), plain(name))
			if err != nil {
				return nil, fmt.Errorf("layer pattern %q: %w", p, err)
			}
			chosen[i] = chosen[i] || ok
			matched = matched || ok
		}
		if !matched {
			return nil, fmt.Errorf("no %s is called %q; inspect lists the names", what, p)
		}
	}
	return chosen, nil
}

// plain is a name or a pattern in which slashes are characters like any other.
func plain(s string) string { return strings.ReplaceAll(s, "/", "\x00") }
