package progress

import (
	"strings"
	"testing"
	"time"
)

type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func TestPlainOutputGetsALineAtMostEveryFiveSeconds(t *testing.T) {
	var out strings.Builder
	c := &clock{t: time.Unix(0, 0)}
	l := newLine(&out, false, "layers", c.now)
	for i := range 21 {
		l.Update(i, 20, "conv1")
		c.t = c.t.Add(time.Second)
	}
	l.Done()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 4 {
		t.Fatalf("20 seconds gave %d lines, want 4:\n%s", len(lines), out.String())
	}
	if want := "layers 5/20 conv1, about 15s left"; lines[0] != want {
		t.Errorf("first line %q, want %q", lines[0], want)
	}
}

func TestTerminalLineIsRewrittenAndCleared(t *testing.T) {
	var out strings.Builder
	c := &clock{t: time.Unix(0, 0)}
	l := newLine(&out, true, "images", c.now)
	c.t = c.t.Add(200 * time.Millisecond)
	l.Update(1, 10, "")
	l.Update(2, 10, "") // too soon
	l.Done()
	if want := "\r\x1b[Kimages 1/10\r\x1b[K"; out.String() != want {
		t.Errorf("wrote %q, want %q", out.String(), want)
	}
}

func TestNilLineShowsNothing(t *testing.T) {
	var l *Line
	l.Update(1, 2, "x")
	l.Done()
}

// What was done before the line began says nothing of the speed.
func TestAJobThatGoesOnIsTimedFromWhereItIs(t *testing.T) {
	var out strings.Builder
	c := &clock{t: time.Unix(0, 0)}
	l := newLine(&out, false, "train", c.now)
	l.Update(90, 100, "")
	c.t = c.t.Add(10 * time.Second)
	l.Update(95, 100, "")
	if want := "train 95/100, about 10s left\n"; out.String() != want {
		t.Errorf("wrote %q, want %q", out.String(), want)
	}
}
