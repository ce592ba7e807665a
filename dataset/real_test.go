package dataset

import (
	"slices"
	"strconv"
	"testing"
)

// countByClass counts the images of every class.
func countByClass(t *testing.T, s Set) []int {
	t.Helper()
	labels, err := Labels(s)
	if err != nil {
		t.Fatal(err)
	}
	n := make([]int, s.Classes())
	for _, l := range labels {
		n[l]++
	}
	return n
}

func openReal(t testing.TB, name string, opt Options) Set {
	t.Helper()
	s, err := Open(realData(t, name), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Close(s) })
	return s
}

func TestRealCIFAR10(t *testing.T) {
	for split, n := range map[Split]int{Test: 1000, Train: 4000} {
		s := openReal(t, "cifar10", Options{Split: split})
		if s.Len() != n || s.Classes() != 10 || s.ClassName(0) != "airplane" || s.ClassName(9) != "truck" {
			t.Errorf("%s: %d images, %d classes", s.Name(), s.Len(), s.Classes())
		}
	}
	// The first test image of CIFAR-10 is a cat, the second a ship.
	s := openReal(t, "cifar10", Options{})
	for i, want := range []string{"cat", "ship", "ship", "airplane", "frog"} {
		if _, label, err := s.At(i); err != nil || s.ClassName(label) != want {
			t.Errorf("image %d: %s, want %s; %v", i, s.ClassName(label), want, err)
		}
	}
}

func TestRealMNISTAndKMNIST(t *testing.T) {
	for _, c := range []struct {
		name  string
		split Split
		n     int
	}{{"mnist", Train, 20000}, {"mnist", Test, 10000}, {"kmnist", Train, 6000}, {"kmnist", Test, 4000}} {
		s := openReal(t, c.name, Options{Split: c.split})
		m, _, err := s.At(s.Len() - 1)
		if err != nil || s.Len() != c.n || s.Classes() != 10 || m.W != 28 || m.H != 28 || m.C != 1 {
			t.Errorf("%s: %d images of %d classes, %d×%d; %v", s.Name(), s.Len(), s.Classes(), m.W, m.H, err)
		}
	}
	// A network of 32×32 takes them, resized.
	s := openReal(t, "mnist", Options{Limit: 10})
	for b, err := range Batches(t.Context(), s, CIFAR, 10, 0) {
		if err != nil || b.H != 32 || b.W != 32 || len(b.X) != 10*32*32*3 {
			t.Error(b.H, b.W, err)
		}
	}
}

func TestRealImageNetSampleKeepsImageNetsLabels(t *testing.T) {
	s := openReal(t, "imagenet_sample_500.zip", Options{})
	if s.Len() != 500 || s.Classes() != 999 {
		t.Fatalf("%d images, %d classes", s.Len(), s.Classes())
	}
	next := 0
	for b, err := range Batches(t.Context(), s, ImageNet, 64, 0) {
		if err != nil || b.H != 224 || b.W != 224 {
			t.Fatal(b.H, b.W, err)
		}
		for _, label := range b.Labels {
			if label != 2*next {
				t.Fatalf("image %d has label %d", next, label)
			}
			next++
		}
	}
	if next != 500 {
		t.Errorf("%d images", next)
	}
}

func TestRealCIFAR10AsJPEG(t *testing.T) {
	s := openReal(t, "cifar10_jpg_train.zip", Options{})
	if got := countByClass(t, s); s.Len() != 50000 || !slices.Equal(got, slices.Repeat([]int{5000}, 10)) || s.ClassName(3) != "cat" {
		t.Errorf("%d images: %v", s.Len(), got)
	}
	sample := openReal(t, "cifar10_jpg_train.zip", Options{Limit: 200})
	if got := countByClass(t, sample); !slices.Equal(got, slices.Repeat([]int{20}, 10)) {
		t.Errorf("sample of 200: %v", got)
	}
	for b, err := range Batches(t.Context(), sample, CIFAR, 64, 0) {
		if err != nil || b.H != 32 || b.W != 32 {
			t.Fatal(b.H, b.W, err)
		}
	}
}

func TestRealOmniglotHasAClassACharacter(t *testing.T) {
	for i, classes := range []int{136, 156} {
		s := openReal(t, "omniglot/images_background_small"+strconv.Itoa(i+1)+".zip", Options{})
		if got := countByClass(t, s); s.Classes() != classes || !slices.Equal(got, slices.Repeat([]int{20}, classes)) {
			t.Errorf("%s: %d classes: %v", s.Name(), s.Classes(), got)
		}
		m, _, err := s.At(0)
		if err != nil || m.W != 105 || m.H != 105 || m.C != 1 {
			t.Errorf("%d×%d×%d, %v", m.W, m.H, m.C, err)
		}
		if i == 0 && s.ClassName(0) != "Balinese/character01" {
			t.Errorf("class 0 is %q", s.ClassName(0))
		}
	}
}

func BenchmarkImageNet500(b *testing.B) {
	s, err := Open(realData(b, "imagenet_sample_500.zip"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer Close(s)
	for b.Loop() {
		for _, err := range Batches(b.Context(), s, ImageNet, 64, 0) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkCIFAR1000(b *testing.B) {
	s, err := Open(realData(b, "cifar10"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		for _, err := range Batches(b.Context(), s, CIFAR, 64, 0) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkOpenArchiveOf50000(b *testing.B) {
	path := realData(b, "cifar10_jpg_train.zip")
	for b.Loop() {
		s, err := Open(path, Options{})
		if err != nil {
			b.Fatal(err)
		}
		Close(s)
	}
}
