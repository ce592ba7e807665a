// Package bisect searches a whole number, such as a rank.
package bisect

// Least is the least n from 1 to most for which fits holds, supposing that it holds
// for all above: by doubling from first on, then by bisection. It is 0 where fits does
// not hold for most either. With first = most that is asked before anything else.
// Errors of fits end it.
func Least(first, most int, fits func(n int) (bool, error)) (int, error) {
	lo, hi := 0, min(first, most)
	for {
		ok, err := fits(hi)
		if err != nil {
			return 0, err
		}
		if ok {
			break
		}
		if hi >= most {
			return 0, nil
		}
		lo, hi = hi, min(2*hi, most)
	}
	for hi-lo > 1 {
		mid := lo + (hi-lo)/2
		ok, err := fits(mid)
		if err != nil {
			return 0, err
		}
		if ok {
			hi = mid
		} else {
			lo = mid
		}
	}
	return hi, nil
}
