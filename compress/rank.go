package compress

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// ErrOption is wrapped by errors about a method, a rank rule or a layer pattern
// that makes no sense.
var ErrOption = errors.New("compress: bad option")

// Method is a kind of factorisation.
type Method string

// The methods; the package comment describes them.
const (
	Tucker Method = "tucker"
	CP     Method = "cp"
	TKDCPD Method = "tkdcpd"
	SVD    Method = "svd"
	// SVDIn, Spatial and Separable are the other chains of conv.
	SVDIn     Method = "svd-in"
	Spatial   Method = "spatial"
	Separable Method = "cp-separable"
	// Auto is TKDCPD, which tries CP of the whole too, corrected (DefaultStability).
	Auto Method = "auto"
)

// ParseMethod reads a method's name.
func ParseMethod(s string) (Method, error) {
	switch m := Method(s); m {
	case Auto, Tucker, CP, TKDCPD, SVD, SVDIn, Spatial, Separable:
		return m, nil
	}
	return "", fmt.Errorf("%w: method %q; want auto, tucker, cp, tkdcpd, svd, svd-in, spatial or cp-separable", ErrOption, s)
}

// Rule is a way to choose ranks.
type Rule string

// The rules; ParseRank describes them.
const (
	VBMF   Rule = "vbmf"
	Energy Rule = "energy"
	Ratio  Rule = "ratio"
	Fixed  Rule = "fixed"
)

// DefaultRank is what the zero value of Rank means. Of rules that leave a network about as
// large, ratio keeps the most accuracy without training: ResNet-20 of 171,096 parameters
// has 91.1 % (91.5 % before), and by energy=0.95, of 170,489, 90.3 %; ResNet-18 (76.0 %)
// 1.92 times smaller 59 %, and by energy=0.95, 1.97 times smaller, 43 %.
var DefaultRank = Rank{Rule: Ratio, Value: .5}

// Rank says how the rank of every layer is chosen. The zero value is DefaultRank.
type Rank struct {
	Rule Rule
	// Value is the energy or the ratio, above 0 and at most 1.
	Value float64
	// Fixed is one rank for everything, or the two of Tucker-2, output mode first,
	// or those and the CP rank of TKDCPD.
	Fixed []int
}

// ParseRank reads a rank rule:
//
//	vbmf         the global solution of empirical variational Bayes matrix
//	             factorisation on the unfoldings (Nakajima et al. 2013): R_out
//	             from T×(S·P), R_in from S×(T·P). SVD, SVDIn and Spatial take
//	             that of their own matrix, CP and Separable the larger
//	             of the two, a lower bound of the rank that holds the signal.
//	             TKDCPD takes both, and the larger as CP rank of the core.
//	energy=E     the fewest parameters that keep a share E of ‖W‖², so that the
//	             relative error is at most √(1−E).
//	ratio=Q      the best approximation with at most a share Q of the layer's
//	             weights. For TKDCPD this and energy=E try Tucker parts that spend
//	             none, 1/16, 1/8, 1/4 and 1/2 of the squared error; see
//	             tkdcpd.Settings.
//	fixed=R      rank R in every layer, or fixed=R_out,R_in for Tucker-2, or
//	             fixed=R_out,R_in,R for TKDCPD; cut to what a layer's shape allows.
func ParseRank(s string) (Rank, error) {
	name, arg, has := strings.Cut(s, "=")
	r := Rank{Rule: Rule(name)}
	switch r.Rule {
	case VBMF:
		if has {
			return r, fmt.Errorf("%w: rank %q; vbmf takes no value", ErrOption, s)
		}
		return r, nil
	case Energy, Ratio:
		v, err := strconv.ParseFloat(arg, 64)
		if err != nil || math.IsNaN(v) || v <= 0 || v > 1 {
			return r, fmt.Errorf("%w: rank %q; want %s=V with 0 < V ≤ 1", ErrOption, s, name)
		}
		r.Value = v
		return r, nil
	case Fixed:
		for part := range strings.SplitSeq(arg, ",") {
			v, err := strconv.Atoi(part)
			if err != nil || v < 1 {
				return r, fmt.Errorf("%w: rank %q; want fixed=R, fixed=R_out,R_in or fixed=R_out,R_in,R with whole numbers from 1", ErrOption, s)
			}
			r.Fixed = append(r.Fixed, v)
		}
		if len(r.Fixed) > 3 {
			return r, fmt.Errorf("%w: rank %q; at most three ranks, R_out,R_in,R", ErrOption, s)
		}
		return r, nil
	}
	return r, fmt.Errorf("%w: rank %q; want vbmf, energy=E, ratio=Q or fixed=R[,R_in[,R]]", ErrOption, s)
}

// String is the text that ParseRank reads.
func (r Rank) String() string {
	switch r.Rule {
	case Energy, Ratio:
		return fmt.Sprintf("%s=%g", r.Rule, r.Value)
	case Fixed:
		parts := make([]string, len(r.Fixed))
		for i, v := range r.Fixed {
			parts[i] = strconv.Itoa(v)
		}
		return "fixed=" + strings.Join(parts, ",")
	}
	if r.Rule == "" {
		return DefaultRank.String()
	}
	return string(r.Rule)
}
