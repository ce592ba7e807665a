package zoo

import (
	"math"
	"path/filepath"
	"slices"
	"testing"

	"github.com/lowrank-go/lowrank/model"
)

func TestExportedNetworksRunLikeTheirCheckpoints(t *testing.T) {
	for file, name := range map[string]string{"cifar_pad": "cifar_pad", "cifar_pad_folded": "cifar_pad", "bottleneck_folded": "bottleneck"} {
		sd, err := model.ReadFile(filepath.Join("testdata", file+".onnx"))
		if err != nil {
			t.Fatal(err)
		}
		net, err := Load(sd, Options{})
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		x, want := reference(t, name)
		got := logits(t, net, x, 2)
		for i, v := range want {
			if math.Abs(float64(got[i]-v)) > 1e-4*(1+math.Abs(float64(v))) {
				t.Errorf("%s: logit %d is %g, PyTorch has %g", file, i, got[i], v)
			}
		}
		// Its own file has norms, of whatever the convolutions had in them.
		written, err := net.StateDict()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Load(written, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(logits(t, again, x, 1), got) {
			t.Errorf("%s: other logits after a round trip", file)
		}
		for _, s := range again.Sites() {
			if (s.Norm == nil) != s.Linear || (s.Chain.Last().Bias != nil) != s.Linear {
				t.Errorf("%s: %s: norm %v", file, s.Name, s.Norm)
			}
		}
	}
}
