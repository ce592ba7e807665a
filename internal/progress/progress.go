// Package progress shows how far a long job is, on one line that is rewritten
// where the output is a terminal and on a line every few seconds where it is
// not.
package progress

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/term"
)

// Line is the progress of one job. A nil Line shows nothing. It is safe for
// concurrent use.
type Line struct {
	mu       sync.Mutex
	w        io.Writer
	terminal bool
	what     string
	start    time.Time // of the first update
	base     int       // what was done by then: a job that goes on did not do it now
	begun    bool
	last     time.Time
	now      func() time.Time
}

// New starts a line for the job called what on f.
func New(f *os.File, what string) *Line {
	return newLine(f, term.IsTerminal(int(f.Fd())), what, time.Now)
}

func newLine(w io.Writer, terminal bool, what string, now func() time.Time) *Line {
	t := now()
	return &Line{w: w, terminal: terminal, what: what, last: t, now: now}
}

// Update says that done of total units are done; detail is what is being done
// now and may be empty. A terminal is rewritten at most ten times a second,
// other outputs get a line at most every five seconds.
func (l *Line) Update(done, total int, detail string) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.show(done, total, fmt.Sprintf("%s %d/%d", l.what, done, total), detail)
}

// show writes how far a job is, in text and detail, and the time that is left.
func (l *Line) show(done, total int, text, detail string) {
	t := l.now()
	if !l.begun {
		l.begun, l.start, l.base = true, t, done
	}
	every := 5 * time.Second
	if l.terminal {
		every = 100 * time.Millisecond
	}
	if t.Sub(l.last) < every {
		return
	}
	l.last = t
	if detail != "" {
		text += " " + strings.Map(printable, detail)
	}
	if spent := t.Sub(l.start); done > l.base && total > done && spent > time.Second {
		left := time.Duration(float64(spent) / float64(done-l.base) * float64(total-done))
		text += fmt.Sprintf(", about %v left", left.Round(time.Second))
	}
	if l.terminal {
		fmt.Fprintf(l.w, "\r\x1b[K%s", text)
	} else {
		fmt.Fprintln(l.w, text)
	}
}

// printable leaves out of names, which come from files, what would act on a terminal.
func printable(r rune) rune {
	if unicode.IsControl(r) {
		return '?'
	}
	return r
}

// Part says that a share of the work is done, from 0 to 1, in the time that it takes; detail
// is what is being done now and may be empty. It is shown as Update shows.
func (l *Line) Part(share float64, detail string) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	const whole = 1 << 20
	l.show(int(share*whole), whole, fmt.Sprintf("%s %.0f %%", l.what, 100*share), detail)
}

// Done clears a terminal's line.
func (l *Line) Done() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.terminal {
		fmt.Fprint(l.w, "\r\x1b[K")
	}
}
