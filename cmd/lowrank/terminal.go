package main

import (
	"fmt"
	"io"
	"strings"
	"unicode"
)

// output is standard output: it remembers that something could not be written, which most
// of what prints does not look at, and shows control characters that names in files bring
// along in place of sending them to the terminal.
type output struct {
	w   io.Writer
	err error
}

func (o *output) Write(b []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	if _, err := io.WriteString(o.w, visible(string(b), "\n\t")); err != nil {
		o.err = err
		return 0, err
	}
	return len(b), nil
}

// visible is s with control characters, but for those in keep, as escapes of Go's.
func visible(s, keep string) string {
	control := func(r rune) bool { return unicode.IsControl(r) && !strings.ContainsRune(keep, r) }
	if !strings.ContainsFunc(s, control) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if control(r) {
			q := fmt.Sprintf("%q", r)
			b.WriteString(q[1 : len(q)-1])
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// message is an error for people: one line, and not a long one, whatever is in it.
func message(err error) string {
	const most = 600
	s := visible(err.Error(), "")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most*3/4], "") + " … " + strings.ToValidUTF8(s[len(s)-most/4:], "")
	}
	return s
}
