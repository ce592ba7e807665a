package zoo

import (
	"math"
	"testing"

	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/internal/realdata"
	"github.com/lowrank-go/lowrank/model"
)

// A trained network has the statistics of its training images already.
func TestCalibrationRestoresStatisticsThatWereLost(t *testing.T) {
	if testing.Short() {
		t.Skip("4000 images: not in short mode")
	}
	sd, err := model.ReadFile(realdata.Path(t, "checkpoints", "resnet20-12fca82f.th"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := Load(sd, Options{})
	if err != nil {
		t.Fatal(err)
	}
	right := n.Clone()
	for _, s := range n.Sites() {
		if s.Norm != nil {
			m := s.Norm.BatchNorm().Clone()
			for i := range m.Var {
				m.Mean[i], m.Var[i] = 0, 1
			}
			s.Norm.Op = m
		}
	}
	set, err := dataset.Open("cifar10:"+realdata.Path(t, "cifar10"), dataset.Options{Split: dataset.Train, Limit: 2000})
	if err != nil {
		t.Fatal(err)
	}
	if err := graph.Calibrate(t.Context(), n, set, 250, 0, nil); err != nil {
		t.Fatal(err)
	}
	for i, s := range n.Sites() {
		if s.Norm == nil {
			continue
		}
		want := right.Sites()[i].Norm.BatchNorm()
		for c, v := range s.Norm.BatchNorm().Mean {
			// Training images were shifted and mirrored, with padding; these are not.
			deviation := math.Sqrt(float64(want.Var[c]))
			if d := math.Abs(float64(v-want.Mean[c])) / (deviation + 1e-3); d > .35 {
				t.Errorf("%s: mean %d is %g, in the checkpoint %g ± %g", s.Norm.Name, c, v, want.Mean[c], deviation)
			}
		}
	}
}
