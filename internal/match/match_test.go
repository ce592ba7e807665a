package match

import (
	"errors"
	"path"
	"slices"
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	names := []string{"conv1", "layer1.0.conv1", "layer2.0.conv1"}
	got, err := Names([]string{"layer1*", "*2.0.conv1"}, names, "layer")
	if err != nil || !slices.Equal(got, []bool{false, true, true}) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := Names(nil, names, "layer"); err != nil || slices.Contains(got, true) {
		t.Errorf("without patterns %v, %v", got, err)
	}
	if _, err := Names([]string{"conv1", "["}, names, "layer"); !errors.Is(err, path.ErrBadPattern) {
		t.Errorf("a malformed pattern gave %v", err)
	}
	if _, err := Names([]string{"conv1", "conv"}, names, "layer"); err == nil || !strings.Contains(err.Error(), `no layer is called "conv"`) {
		t.Errorf("a pattern that matches none gave %v", err)
	}
}

func TestStarsMatchSlashesAndDots(t *testing.T) {
	got, err := Names([]string{"*/expand3x3/Conv/*", "layer1*"}, []string{"/features/features.3/expand3x3/Conv/0", "/features/features.3/expand1x1/Conv/0", "layer1.0.conv1", "layer2/0"}, "layer")
	if err != nil || !slices.Equal(got, []bool{true, false, true, false}) {
		t.Errorf("matched %v (%v)", got, err)
	}
}
