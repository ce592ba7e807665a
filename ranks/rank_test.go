package ranks

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
)

func TestRulesAreReadAndWritten(t *testing.T) {
	for text, want := range map[string]Rank{
		"vbmf": {Rule: VBMF}, "energy=0.9": {Rule: Energy, Value: .9}, "energy=1": {Rule: Energy, Value: 1},
		"error=0.1": {Rule: Error, Value: .1}, "ratio=0.25": {Rule: Ratio, Value: .25},
		"fixed=8": {Rule: Fixed, Fixed: []int{8}}, "fixed=8,4,16": {Rule: Fixed, Fixed: []int{8, 4, 16}},
		"macs=0.33,params=100000,ms=60%": {Rule: MACs, Budgets: []Budget{{MACs, .33, true}, {Params, 1e5, false}, {MS, .6, true}}},
	} {
		got, err := Parse(text)
		if err != nil || !reflect.DeepEqual(got, want) || got.String() != text {
			t.Errorf("%q is %+v, printed %q (%v); want %+v", text, got, got, err, want)
		}
	}
	// Ranks alone are rule fixed.
	for text, want := range map[string][]int{"8": {8}, "8,4": {8, 4}, "8, 8,3,3": {8, 8, 3, 3}} {
		if got, err := Parse(text); err != nil || got.Rule != Fixed || !reflect.DeepEqual(got.Fixed, want) {
			t.Errorf("%q is %+v (%v)", text, got, err)
		}
	}
}

func TestRulesThatMakeNoSenseAreRefused(t *testing.T) {
	for _, text := range []string{"", "foo", "vbmf=2", "energy", "energy=0", "energy=1.1", "energy=NaN", "ratio=-1", "ratio=x", "error=1", "error=0",
		"fixed", "fixed=0", "fixed=1,,2", "fixed=1.5", "0", "-1", "1.5", "1,", ",", "params", "params=0", "ms=120%", "macs=1,macs=2", "macs=0.5,", "macs=0.5,vbmf"} {
		if got, err := Parse(text); !errors.Is(err, ErrRule) {
			t.Errorf("%q is %+v (%v)", text, got, err)
		}
	}
}

// Who cannot serve a rule says which there are, those within a list of budgets too.
func TestUnsupportedRulesAreErrorsThatListTheSupported(t *testing.T) {
	for _, text := range []string{"ratio=0.5", "macs=5", "params=0.5,macs=0.5"} {
		_, err := Parse(text, Fixed, VBMF, Energy, Params)
		if !errors.Is(err, ErrRule) || !strings.Contains(err.Error(), "want R[,S[,T]], vbmf, energy=E or params=V") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if got := Forms(Energy); got != "energy=E" {
		t.Errorf("one form is %q", got)
	}
}

func TestErrorsAreEnergies(t *testing.T) {
	for text, want := range map[string]float64{"energy=0.9": .9, "error=0.5": .75, "ratio=0.3": 0, "vbmf": 0} {
		if r, err := Parse(text); err != nil || math.Abs(r.Keeps()-want) > 1e-15 {
			t.Errorf("%s keeps %g (%v), want %g", text, r.Keeps(), err, want)
		}
	}
}

func TestBudgetsAreReadAndNonsenseIsRefused(t *testing.T) {
	got, err := ParseBudgets("macs=0.33,params=100000,ms=60%")
	if want := []Budget{{MACs, .33, true}, {Params, 1e5, false}, {MS, .6, true}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if a, b := got[0].Of(200), got[1].Of(200); math.Abs(a-66) > 1e-12 || b != 1e5 {
		t.Errorf("a share of 200 is %g, a number %g", a, b)
	}
	for _, s := range []string{"", "macs", "macs=", "macs=0", "macs=-1", "macs=NaN", "macs=inf", "flops=1", "macs=1,macs=2", "ms=120%", "macs=0.5,"} {
		if got, err := ParseBudgets(s); !errors.Is(err, ErrRule) {
			t.Errorf("%q gives %v, %v", s, got, err)
		}
	}
}

// The least rank leaves out at most the share, and one less would leave out more.
func TestKeepingIsTheLeastRank(t *testing.T) {
	values := []float64{4, 3, 1, .5, 0, 0}
	var total float64
	for _, v := range values {
		total += v * v
	}
	for _, out := range []float64{0, .001, .01, .04, .1, .3, .9, 1} {
		n := Keeping(values, out)
		left := func(n int) (tail float64) {
			for _, v := range values[n:] {
				tail += v * v
			}
			return tail / total
		}
		if left(n) > out+1e-15 || n > 0 && left(n-1) <= out {
			t.Errorf("%d values leave out %g, of which at most %g; one less %g", n, left(n), out, left(max(n-1, 0)))
		}
	}
	// Exact shares are kept whatever their rounding: 9 of 10.
	if n := Keeping([]float64{3, 1}, 1-.9); n != 1 {
		t.Errorf("9 of 10 need %d values", n)
	}
	if n := (Spectra{Rows: 2, Cols: 2, Values: [][]float64{{3, 1}, {1, 1}, {0, 0}}}).Keeping(.1); n != 2 {
		t.Errorf("rank %d for all groups", n)
	}
}

func TestProductsOfARatio(t *testing.T) {
	for _, c := range []struct{ rows, cols int }{{8, 72}, {1, 5}, {64, 64}} {
		for _, q := range []float64{.1, .25, .5, 1} {
			r := OfProduct(c.rows, c.cols, q)
			if most := q * float64(c.rows*c.cols); float64(r*(c.rows+c.cols)) > most || float64((r+1)*(c.rows+c.cols)) <= most {
				t.Errorf("rank %d of %v at %g", r, c, q)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"vbmf", "8,4", "energy=0.5", "macs=0.3,params=2", "ms=60%", "error=1e-3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Parse(text)
		if err != nil {
			return
		}
		if again, err := Parse(r.String()); err != nil || len(r.Budgets) != len(again.Budgets) || len(r.Budgets) == 0 && !reflect.DeepEqual(again, r) {
			t.Errorf("%q is %+v, which prints as %q: %+v, %v", text, r, r, again, err)
		}
	})
}
