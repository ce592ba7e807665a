package model

import (
	"bytes"
	"errors"
	"io"
)

// tape reads a stream of a known size from the left, through a small window, so that no
// more of a file is in memory than what has been asked for.
type tape struct {
	r    io.ReaderAt
	size int64
	pos  int64
	// window holds the bytes from first on.
	window []byte
	first  int64
}

// windowSize is how much a tape reads at once.
const windowSize = 64 << 10

// left is the number of bytes to the end.
func (t *tape) left() int64 { return t.size - t.pos }

// peek returns the next n bytes, or all that are left where those are fewer. They are
// valid until the next call.
func (t *tape) peek(n int64) ([]byte, error) {
	n = min(n, t.left())
	if at := t.pos - t.first; at >= 0 && at+n <= int64(len(t.window)) {
		return t.window[at : at+n], nil
	}
	want := min(max(n, windowSize), t.left())
	if int64(cap(t.window)) < want {
		t.window = make([]byte, want)
	}
	t.window, t.first = t.window[:want], t.pos
	if _, err := t.r.ReadAt(t.window, t.pos); err != nil && !errors.Is(err, io.EOF) {
		t.window = t.window[:0]
		return nil, err
	}
	return t.window[:n], nil
}

// next takes n bytes, of which there must be as many; they are valid until the next call.
// Many of them get memory of their own.
func (t *tape) next(n int64) ([]byte, error) {
	if n > windowSize {
		b, err := readFull(io.NewSectionReader(t.r, t.pos, n), n, n)
		if err == nil {
			t.pos += n
		}
		return b, err
	}
	b, err := t.peek(n)
	if err == nil {
		t.pos += n
	}
	return b[:n:n], err
}

// line takes the text up to the next newline and the newline, and returns it without;
// ok is false where there is none within most bytes.
func (t *tape) line(most int64) (text string, ok bool, err error) {
	for n := int64(1 << 10); ; n *= 4 {
		b, err := t.peek(min(n, most))
		if err != nil {
			return "", false, err
		}
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			t.pos += int64(i) + 1
			return string(b[:i]), true, nil
		}
		if int64(len(b)) < n {
			return "", false, nil
		}
	}
}
