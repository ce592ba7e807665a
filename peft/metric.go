package peft

import (
	"strings"
	"unicode"
)

// gram is a form that is at least semidefinite, Σ x[d,p]·G[d,p,P]·x[d,P]: a matrix over
// the labels paired for each value of the labels diagonal. The array has the diagonal
// labels, the paired ones, and those once more in capitals.
type gram[T Float] struct {
	array[T]
	diagonal, paired string
}

// array is what a contraction reads; the values are there when it runs.
type array[T Float] struct {
	labels string
	value  func() []T
}

// metric is the Kronecker product of forms, and of identities over labels that none of
// them pairs. It measures a step of a node by how far it moves ΔW, the Jacobian J of ΔW
// in the node giving JᵀJ. Forms stay apart where they can: the core of a Tucker
// decomposition has one of r₁² and one of r₂² values rather than one of (r₁·r₂)².
type metric[T Float] []gram[T]

// measure follows the metrics from the root, whose own is given, to the factors.
type measure[T Float] struct {
	sizes map[byte]int // with those of the capitals
	steps []func()     // that compute all forms
}

func newMeasure[T Float](sizes map[byte]int) *measure[T] {
	m := &measure[T]{sizes: map[byte]int{}}
	for l, n := range sizes {
		m.sizes[l], m.sizes[capitals(string(l))[0]] = n, n
	}
	return m
}

func capitals(labels string) string { return strings.ToUpper(labels) }

// down calls visit with every factor below v and its metric.
func (m *measure[T]) down(v *node[T], of metric[T], visit func(*node[T], metric[T])) {
	switch {
	case !v.learned:
	case v.factor != nil:
		visit(v, of)
	case v.sum:
		m.down(v.x, of, visit)
		m.down(v.y, of, visit)
	default:
		m.down(v.x, m.through(v, v.x, v.y, of), visit)
		m.down(v.y, m.through(v, v.y, v.x, of), visit)
	}
}

// through is the metric of x, of v = x·y. The forms of v that y has nothing to do with
// are x's too; one more has y with itself. Of the labels of y, those that v alone has are
// summed over; those that x alone has are paired by it; and one that all three have
// stays paired where it was, as in the Gram matrices of a CP, and is diagonal otherwise.
func (m *measure[T]) through(v, x, y *node[T], of metric[T]) metric[T] {
	mine := x.axes()
	var out, before, after metric[T]
	paired := filter(mine, func(l rune) bool { return !strings.ContainsRune(v.axes(), l) })
	for _, g := range of {
		paired += g.paired
		switch {
		case filter(g.diagonal+g.paired, func(l rune) bool { return !strings.ContainsRune(mine, l) }) != "":
			before = append(before, g) // something of it is summed over
		case strings.ContainsAny(y.axes(), g.paired):
			after = append(after, g)
		default:
			out = append(out, g)
		}
	}
	t := array[T]{y.axes(), func() []T { return y.value }}
	mirror := array[T]{prime(t.labels, paired), t.value}
	for _, g := range before {
		done := filter(g.paired, func(l rune) bool { return !strings.ContainsRune(mine, l) })
		t = m.contract(t, g.array, filter(union(t.labels, g.labels), func(l rune) bool { return !strings.ContainsRune(done, l) }))
	}
	form := m.form(t, mirror, mine)
	for _, g := range after {
		form = m.form(form.array, g.array, mine)
	}
	return append(out, form)
}

// form is the product of two arrays as a form over the labels.
func (m *measure[T]) form(a, b array[T], labels string) gram[T] {
	both := union(a.labels, b.labels)
	var g gram[T]
	for _, l := range labels {
		switch s := string(l); {
		case !strings.Contains(both, s):
		case strings.Contains(both, capitals(s)):
			g.paired += s
		default:
			g.diagonal += s
		}
	}
	g.array = m.contract(a, b, g.diagonal+g.paired+capitals(g.paired))
	return g
}

// contract computes an array in every run of the steps.
func (m *measure[T]) contract(a, b array[T], labels string) array[T] {
	c, out := newContraction[T](a.labels, b.labels, labels, m.sizes), make([]T, size(labels, m.sizes))
	m.steps = append(m.steps, func() { c.run(out, a.value(), b.value()) })
	return array[T]{labels, func() []T { return out }}
}

// prime makes capitals of those of the labels that are paired.
func prime(labels, paired string) string {
	return strings.Map(func(l rune) rune {
		if strings.ContainsRune(paired, l) {
			return unicode.ToUpper(l)
		}
		return l
	}, labels)
}

func filter(labels string, keep func(rune) bool) string {
	return strings.Map(func(l rune) rune {
		if keep(l) {
			return l
		}
		return -1
	}, labels)
}

// union is the labels of a and those of b that a lacks.
func union(a, b string) string {
	return a + filter(b, func(l rune) bool { return !strings.ContainsRune(a, l) })
}
