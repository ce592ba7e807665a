package bisect

import (
	"errors"
	"testing"
)

func TestLeastIsFoundFromAnyFirst(t *testing.T) {
	for most := 1; most <= 20; most++ {
		for first := 1; first <= most; first++ {
			for least := 1; least <= most+1; least++ {
				calls := 0
				got, err := Least(first, most, func(n int) (bool, error) { calls++; return n >= least, nil })
				want := least
				if least > most {
					want = 0
				}
				if err != nil || got != want || calls > 12 {
					t.Fatalf("from %d to %d: %d after %d calls, %v; want %d", first, most, got, calls, err, want)
				}
			}
		}
	}
}

func TestErrorsEndTheSearch(t *testing.T) {
	bad := errors.New("bad")
	for _, at := range []int{1, 4, 3} {
		if _, err := Least(1, 8, func(n int) (bool, error) {
			if n == at {
				return false, bad
			}
			return n > 3, nil
		}); !errors.Is(err, bad) {
			t.Errorf("at %d: %v", at, err)
		}
	}
}
