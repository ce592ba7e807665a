package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// full is a disk without room.
type full struct{}

var errFull = errors.New("no space left")

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestAFullStandardOutputIsAFailure(t *testing.T) {
	for _, args := range [][]string{{"inspect", "--no-vbmf"}, {"inspect", "--no-vbmf", "--json"}, {"--help"}} {
		var stderr bytes.Buffer
		if rc := run(args, full{}, &stderr); rc != 1 || !strings.Contains(stderr.String(), errFull.Error()) {
			t.Errorf("%v: exit status %d, %q", args, rc, stderr.String())
		}
	}
}

func TestControlCharactersAreShown(t *testing.T) {
	var b bytes.Buffer
	table(&output{w: &b}, [][]string{{"a\x1b[31m\nb", "c"}})
	if got, want := b.String(), `a\x1b[31m\nb  c`+"\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := message(errors.New("x\x07\n" + strings.Repeat("y", 1<<20))); len(got) > 700 || strings.ContainsAny(got, "\x07\n") {
		t.Errorf("a message of %d bytes: %.100q", len(got), got)
	}
}
