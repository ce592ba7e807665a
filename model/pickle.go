package model

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxSteps bounds the instructions of a pickle. A checkpoint of a thousand
// tensors has about fifty thousand.
const maxSteps = 8 << 20

// unpickler runs one pickle. It makes plain values, containers, tensors and arrays, and
// for anything else an object that stands for it; it calls nothing. What it makes is
// charged, about as it takes memory, to a budget that the length of the pickle gives:
// a pickle of one byte a value cannot make a hundred bytes of each without end.
type unpickler struct {
	tape
	where  string // for errors: "data.pkl"
	stack  []any
	memo   []any
	start  int64 // of the instruction at work
	steps  int
	budget int64
	// seen, where not nil, collects the storages by key.
	seen map[string]*pyStorage
	// depth counts the pickles that this one lies in.
	depth int
	// inner, where not nil, is what the storages of this pickle lie in.
	inner *legacyStorages
}

func newUnpickler(r io.ReaderAt, size int64, where string) *unpickler {
	return &unpickler{tape: tape{r: r, size: size}, where: where}
}

// What values are charged: the place on the stack and in a container, and that of a
// container itself.
const (
	valueCost     = 48
	containerCost = 64
)

// spend charges n bytes.
func (u *unpickler) spend(n int) error {
	if u.budget -= int64(n); u.budget < 0 {
		return u.errorf(ErrCorrupt, "the pickle makes more than its %d bytes can mean", u.size)
	}
	return nil
}

func (u *unpickler) errorf(kind error, format string, args ...any) error {
	return fmt.Errorf("%s: %w: %s at byte %d", u.where, kind, fmt.Sprintf(format, args...), u.start)
}

// take returns the next n bytes, which are valid until the next call.
func (u *unpickler) take(n int) ([]byte, error) {
	if n < 0 || int64(n) > u.left() {
		return nil, u.errorf(ErrCorrupt, "pickle needs %d more bytes, has %d,", n, u.left())
	}
	return u.next(int64(n))
}

// line is the text up to the next newline, as protocol 0 writes arguments.
func (u *unpickler) line() (string, error) {
	text, ok, err := u.tape.line(64 << 20)
	if err != nil {
		return "", err
	}
	if !ok {
		return "", u.errorf(ErrCorrupt, "unterminated line")
	}
	if err := u.spend(len(text) / 2); err != nil { // of what is not the file's own length
		return "", err
	}
	return strings.TrimSuffix(text, "\r"), nil
}

func (u *unpickler) push(v any) { u.stack = append(u.stack, v) }

func (u *unpickler) pop() (any, error) {
	if len(u.stack) == 0 {
		return nil, u.errorf(ErrCorrupt, "empty stack")
	}
	v := u.stack[len(u.stack)-1]
	if _, mark := v.(pyMark); mark {
		return nil, u.errorf(ErrCorrupt, "unexpected mark")
	}
	u.stack = u.stack[:len(u.stack)-1]
	return v, nil
}

func (u *unpickler) top() (any, error) {
	v, err := u.pop()
	if err == nil {
		u.push(v)
	}
	return v, err
}

// popMark takes everything above the last mark, and the mark.
func (u *unpickler) popMark() ([]any, error) {
	for i := len(u.stack) - 1; i >= 0; i-- {
		if _, mark := u.stack[i].(pyMark); mark {
			items := append([]any(nil), u.stack[i+1:]...)
			u.stack = u.stack[:i]
			return items, nil
		}
	}
	return nil, u.errorf(ErrCorrupt, "no mark on the stack")
}

// sized reads a length of n bytes and then that many bytes.
func (u *unpickler) sized(n int) ([]byte, error) {
	b, err := u.take(n)
	if err != nil {
		return nil, err
	}
	var size uint64
	for i := n - 1; i >= 0; i-- {
		size = size<<8 | uint64(b[i])
	}
	if size > uint64(u.left()) {
		return nil, u.errorf(ErrCorrupt, "a length of %d with %d bytes left,", size, u.left())
	}
	return u.take(int(size))
}

// run executes the pickle up to its STOP and returns the object. Pickles that follow each
// other in a stream share one budget.
func (u *unpickler) run() (any, error) {
	u.memo = u.memo[:0]
	if u.steps == 0 {
		u.budget = 48<<20 + 4*min(u.size, 1<<40)
	}
	for ; ; u.steps++ {
		u.start = u.pos
		if u.steps == maxSteps {
			return nil, u.errorf(ErrUnsupported, "a pickle of more than %d instructions", maxSteps)
		}
		if err := u.spend(valueCost); err != nil {
			return nil, err
		}
		op, err := u.take(1)
		if err != nil {
			return nil, err
		}
		if op[0] == '.' {
			u.steps++
			v, err := u.pop()
			if err == nil && len(u.stack) > 0 {
				return nil, u.errorf(ErrCorrupt, "%d values left on the stack", len(u.stack))
			}
			return v, err
		}
		if err := u.step(op[0]); err != nil {
			return nil, err
		}
	}
}

func (u *unpickler) step(op byte) error {
	switch op {
	case 0x80: // PROTO
		b, err := u.take(1)
		if err == nil && b[0] > 5 {
			err = u.errorf(ErrUnsupported, "pickle protocol %d", b[0])
		}
		return err
	case 0x95: // FRAME
		_, err := u.take(8)
		return err
	case '(': // MARK
		u.push(pyMark{})
	case '0': // POP
		if n := len(u.stack); n > 0 {
			u.stack = u.stack[:n-1]
			return nil
		}
		return u.errorf(ErrCorrupt, "empty stack")
	case '1': // POP_MARK
		_, err := u.popMark()
		return err
	case '2': // DUP
		v, err := u.top()
		if err != nil {
			return err
		}
		u.push(v)
	case 'N':
		u.push(nil)
	case 0x88:
		u.push(true)
	case 0x89:
		u.push(false)
	case 'I', 'L', 'F', 'J', 'K', 'M', 0x8a, 0x8b, 'G':
		return u.number(op)
	case 'S', 'V', 'T', 'U', 'X', 0x8c, 0x8d, 'B', 'C', 0x8e, 0x96:
		return u.text(op)
	case ']', '}', ')', 0x8f:
		if err := u.spend(containerCost); err != nil {
			return err
		}
		switch op {
		case ']':
			u.push(&pyList{})
		case '}':
			u.push(&pyDict{})
		case ')':
			u.push(pyTuple{})
		case 0x8f:
			u.push(&pySet{})
		}
	case 'l', 't', 0x91, 'd':
		items, err := u.popMark()
		if err == nil {
			err = u.spend(containerCost)
		}
		if err != nil {
			return err
		}
		switch op {
		case 'l':
			u.push(&pyList{items})
		case 't':
			u.push(pyTuple(items))
		case 0x91:
			u.push(&pySet{items})
		case 'd':
			d := &pyDict{}
			if err := u.fill(d, items); err != nil {
				return err
			}
			u.push(d)
		}
	case 0x85, 0x86, 0x87: // TUPLE1..3
		n := int(op - 0x84)
		if err := u.spend(containerCost); err != nil {
			return err
		}
		t := make(pyTuple, n)
		for i := n - 1; i >= 0; i-- {
			var err error
			if t[i], err = u.pop(); err != nil {
				return err
			}
		}
		u.push(t)
	case 'a', 'e', 0x90, 's', 'u':
		return u.extend(op)
	case 'p', 'q', 'r', 0x94, 'g', 'h', 'j':
		return u.memory(op)
	case 'c', 0x93:
		return u.global(op)
	case 'R', 0x81: // REDUCE, NEWOBJ
		args, err := u.pop()
		if err != nil {
			return err
		}
		f, err := u.pop()
		if err != nil {
			return err
		}
		return u.instance(f, args)
	case 'b': // BUILD
		state, err := u.pop()
		if err != nil {
			return err
		}
		obj, err := u.top()
		if err != nil {
			return err
		}
		return u.build(obj, state)
	case 'P': // PERSID
		id, err := u.line()
		if err != nil {
			return err
		}
		return u.errorf(ErrUnsupported, "persistent id %q", id)
	case 'Q': // BINPERSID
		id, err := u.pop()
		if err != nil {
			return err
		}
		s, err := u.storage(id)
		if err != nil {
			return err
		}
		u.push(s)
	case 'i': // INST
		module, err := u.line()
		if err != nil {
			return err
		}
		name, err := u.line()
		if err != nil {
			return err
		}
		args, err := u.popMark()
		if err != nil {
			return err
		}
		return u.instance(pyGlobal{module, name}, pyTuple(args))
	case 'o': // OBJ
		args, err := u.popMark()
		if err != nil {
			return err
		}
		if len(args) == 0 {
			return u.errorf(ErrCorrupt, "an object without a class")
		}
		return u.instance(args[0], pyTuple(args[1:]))
	case 0x92: // NEWOBJ_EX
		if _, err := u.pop(); err != nil { // arguments by name
			return err
		}
		args, err := u.pop()
		if err != nil {
			return err
		}
		class, err := u.pop()
		if err != nil {
			return err
		}
		return u.instance(class, args)
	case 0x82, 0x83, 0x84: // EXT1, EXT2, EXT4: a global by a number
		b, err := u.take(1 << (op - 0x82))
		if err != nil {
			return err
		}
		u.push(pyGlobal{"extension registry", fmt.Sprint(b)})
	default:
		return u.errorf(ErrCorrupt, "unknown pickle instruction %#x", op)
	}
	return nil
}

func (u *unpickler) number(op byte) error {
	fixed := map[byte]int{'J': 4, 'K': 1, 'M': 2, 'G': 8}
	if n, ok := fixed[op]; ok {
		b, err := u.take(n)
		if err != nil {
			return err
		}
		switch op {
		case 'J':
			u.push(int64(int32(binary.LittleEndian.Uint32(b))))
		case 'K':
			u.push(int64(b[0]))
		case 'M':
			u.push(int64(binary.LittleEndian.Uint16(b)))
		case 'G':
			u.push(math.Float64frombits(binary.BigEndian.Uint64(b)))
		}
		return nil
	}
	if op == 0x8a || op == 0x8b { // LONG1, LONG4: two's complement, little-endian
		n := 1
		if op == 0x8b {
			n = 4
		}
		b, err := u.sized(n)
		if err != nil {
			return err
		}
		if len(b) > 1<<10 {
			return u.errorf(ErrUnsupported, "an integer of %d bytes", len(b))
		}
		u.push(long(b))
		return nil
	}
	s, err := u.line()
	if err != nil {
		return err
	}
	switch op {
	case 'I':
		switch s {
		case "00":
			u.push(false)
			return nil
		case "01":
			u.push(true)
			return nil
		}
	case 'L':
		s = strings.TrimSuffix(s, "L")
	case 'F':
		v, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return u.errorf(ErrCorrupt, "number %.40q", s)
		}
		u.push(v)
		return nil
	}
	v, ok := new(big.Int).SetString(s, 10)
	if !ok || len(s) > 1<<10 {
		return u.errorf(ErrCorrupt, "number %.40q", s)
	}
	u.push(small(v))
	return nil
}

func long(b []byte) any {
	rev := make([]byte, len(b))
	for i, c := range b {
		rev[len(b)-1-i] = c
	}
	v := new(big.Int).SetBytes(rev)
	if len(b) > 0 && b[len(b)-1]&0x80 != 0 {
		v.Sub(v, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	return small(v)
}

func small(v *big.Int) any {
	if v.IsInt64() {
		return v.Int64()
	}
	return v
}

func (u *unpickler) text(op byte) error {
	switch op {
	case 'S', 'V':
		s, err := u.line()
		if err != nil {
			return err
		}
		if op == 'S' {
			if len(s) < 2 || s[0] != s[len(s)-1] || s[0] != '\'' && s[0] != '"' {
				return u.errorf(ErrCorrupt, "string %.40q", s)
			}
			s = s[1 : len(s)-1]
		}
		if s, err = unescape(s, op == 'V'); err != nil {
			return u.errorf(ErrCorrupt, "string %s: %v", quoted(s), err)
		}
		u.push(s)
		return nil
	}
	width := map[byte]int{'T': 4, 'U': 1, 'X': 4, 0x8c: 1, 0x8d: 8, 'B': 4, 'C': 1, 0x8e: 8, 0x96: 8}[op]
	b, err := u.sized(width)
	if err != nil {
		return err
	}
	switch op {
	case 'B', 'C', 0x8e, 0x96:
		if len(b) <= windowSize { // larger ones have memory of their own
			b = append([]byte{}, b...)
		}
		u.push(b)
	case 'T', 'U':
		// Python 2's str: text here, by whatever bytes it has.
		u.push(string(b))
	default:
		if !utf8.Valid(b) {
			return u.errorf(ErrCorrupt, "text that is not UTF-8")
		}
		u.push(string(b))
	}
	return nil
}

// unescape reads what a string of protocol 0 says by escapes: those of Python's repr, or,
// in unicode text, only the code points.
func unescape(s string, unicode bool) (string, error) {
	if !strings.Contains(s, `\`) && utf8.ValidString(s) {
		return s, nil
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if unicode && c >= 0x80 { // raw text is Latin-1
			out = utf8.AppendRune(out, rune(c))
			continue
		}
		if c != '\\' || i+1 == len(s) {
			out = append(out, c)
			continue
		}
		i++
		digits := map[byte]int{'u': 4, 'U': 8}[s[i]]
		if !unicode && s[i] == 'x' {
			digits = 2
		}
		switch {
		case digits > 0 && (unicode || s[i] == 'x'):
			if len(s)-i-1 < digits {
				return s, io.ErrUnexpectedEOF
			}
			v, err := strconv.ParseUint(s[i+1:i+1+digits], 16, 32)
			if err != nil {
				return s, err
			}
			if unicode {
				out = utf8.AppendRune(out, rune(v))
			} else {
				out = append(out, byte(v))
			}
			i += digits
		case unicode:
			out = append(out, '\\', s[i])
		default:
			if c, ok := map[byte]byte{'n': '\n', 'r': '\r', 't': '\t', '\\': '\\', '\'': '\'', '"': '"'}[s[i]]; ok {
				out = append(out, c)
			} else {
				out = append(out, '\\', s[i])
			}
		}
	}
	return string(out), nil
}

func (u *unpickler) fill(d *pyDict, items []any) error {
	if len(items)%2 != 0 {
		return u.errorf(ErrCorrupt, "a key without a value")
	}
	for i := 0; i < len(items); i += 2 {
		d.keys = append(d.keys, items[i])
		d.values = append(d.values, items[i+1])
	}
	return nil
}

// extend adds values to the container below them.
func (u *unpickler) extend(op byte) error {
	var items []any
	var err error
	switch op {
	case 'a', 's':
		n := 1
		if op == 's' {
			n = 2
		}
		items = make([]any, n)
		for i := n - 1; i >= 0; i-- {
			if items[i], err = u.pop(); err != nil {
				return err
			}
		}
	default:
		if items, err = u.popMark(); err != nil {
			return err
		}
	}
	obj, err := u.top()
	if err != nil {
		return err
	}
	switch c := obj.(type) {
	case *pyList:
		if op == 'a' || op == 'e' {
			if len(c.items) == 0 {
				c.items = items
			} else {
				c.items = append(c.items, items...)
			}
			return nil
		}
	case *pySet:
		if op == 0x90 {
			c.items = append(c.items, items...)
			return nil
		}
	case *pyDict:
		if op == 's' || op == 'u' {
			return u.fill(c, items)
		}
	case *pyObject:
		if op == 's' || op == 'u' {
			if c.items == nil {
				c.items = &pyDict{}
			}
			return u.fill(c.items, items)
		}
		return nil // what a list or a set of another class holds is not needed
	}
	return u.errorf(ErrCorrupt, "adding to %s", describe(obj))
}

// memory stores the top of the stack in the memo or fetches from it.
func (u *unpickler) memory(op byte) error {
	var key int
	switch op {
	case 0x94: // MEMOIZE
		key = len(u.memo)
	case 'p', 'g':
		s, err := u.line()
		if err != nil {
			return err
		}
		if key, err = strconv.Atoi(s); err != nil {
			return u.errorf(ErrCorrupt, "memo key %.40q", s)
		}
	case 'q', 'h':
		b, err := u.take(1)
		if err != nil {
			return err
		}
		key = int(b[0])
	case 'r', 'j':
		b, err := u.take(4)
		if err != nil {
			return err
		}
		key = int(binary.LittleEndian.Uint32(b))
	}
	switch op {
	case 'g', 'h', 'j':
		if key < 0 || key >= len(u.memo) || u.memo[key] == (pyGap{}) {
			return u.errorf(ErrCorrupt, "memo has no entry %d", key)
		}
		u.push(u.memo[key])
		return nil
	}
	v, err := u.top()
	if err != nil {
		return err
	}
	// Picklers number what they keep from 0 or 1 on.
	if key < 0 || key > u.steps+1 {
		return u.errorf(ErrCorrupt, "memo entry %d after %d instructions", key, u.steps)
	}
	for key >= len(u.memo) {
		u.memo = append(u.memo, pyGap{})
	}
	u.memo[key] = v
	return nil
}

// global pushes a global, which is no more than its name.
func (u *unpickler) global(op byte) error {
	var module, name string
	if op == 'c' {
		var err error
		if module, err = u.line(); err != nil {
			return err
		}
		if name, err = u.line(); err != nil {
			return err
		}
	} else {
		n, err := u.pop()
		if err != nil {
			return err
		}
		m, err := u.pop()
		if err != nil {
			return err
		}
		var ok, ok2 bool
		name, ok = n.(string)
		module, ok2 = m.(string)
		if !ok || !ok2 {
			return u.errorf(ErrCorrupt, "a global named by %s and %s", describe(m), describe(n))
		}
	}
	u.push(pyGlobal{module, name})
	return nil
}
