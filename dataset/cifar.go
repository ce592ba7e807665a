package dataset

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/lowrank-go/lowrank/internal/infile"
)

// The binary version of CIFAR (Krizhevsky 2009) is a file of records of one size
// without a header: the label (for CIFAR-100 the coarse and then the fine label),
// then the red, the green and the blue plane of 32×32 samples, row by row.
const (
	cifarSide  = 32
	cifarPlane = cifarSide * cifarSide
)

// cifarFormat is what tells CIFAR-10 and CIFAR-100 apart.
type cifarFormat struct {
	name string
	// bounds has, for each label byte of a record, the number of classes. The
	// last label is the one that counts.
	bounds []int
	// names is the file of class names, one a line.
	names       string
	train, test string
}

var (
	cifar10  = cifarFormat{"cifar10", []int{10}, "batches.meta.txt", "data_batch_*.bin", "test_batch.bin"}
	cifar100 = cifarFormat{"cifar100", []int{20, 100}, "fine_label_names.txt", "train.bin", "test.bin"}
)

func (f *cifarFormat) record() int { return len(f.bounds) + 3*cifarPlane }

func (f *cifarFormat) classes() int { return f.bounds[len(f.bounds)-1] }

// check reports what is wrong with the bytes of the file called path.
func (f *cifarFormat) check(path string, data []byte) error {
	record := f.record()
	if len(data) == 0 {
		return fmt.Errorf("%w: %s is empty", ErrEmpty, path)
	}
	if n := len(data) % record; n != 0 {
		return fmt.Errorf("%w: %s: %d bytes are %d records of %s (%d bytes each) and %d bytes more; the file is truncated or of another kind",
			ErrFormat, path, len(data), len(data)/record, f.name, record, n)
	}
	for i := range len(data) / record {
		for j, bound := range f.bounds {
			if label := int(data[i*record+j]); label >= bound {
				return fmt.Errorf("%w: %s: record %d of %d has label %d; %s has classes 0 to %d",
					ErrFormat, path, i, len(data)/record, label, f.name, bound-1)
			}
		}
	}
	return nil
}

func openCIFAR10(dir string, split Split) (Set, error)  { return cifar10.open(dir, split) }
func openCIFAR100(dir string, split Split) (Set, error) { return cifar100.open(dir, split) }

func (f *cifarFormat) open(dir string, split Split) (Set, error) {
	pattern := f.test
	if split == Train {
		pattern = f.train
	}
	files, err := list(dir, pattern)
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%w: %s holds no %s (the %s split of %s): %w", ErrEmpty, dir, pattern, split, f.name, fs.ErrNotExist)
	}
	// Batch 10 comes after batch 9.
	slices.SortFunc(files, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	})
	s := &cifarSet{format: f, name: fmt.Sprintf("%s:%s (%s)", f.name, dir, split)}
	for _, file := range files {
		path := filepath.Join(dir, file)
		data, err := readArray(path)
		if err != nil {
			return nil, err
		}
		if err := f.check(path, data); err != nil {
			return nil, err
		}
		s.starts = append(s.starts, s.count)
		s.files = append(s.files, data)
		s.count += len(data) / f.record()
	}
	s.names, err = f.readNames(filepath.Join(dir, f.names))
	return s, err
}

// readNames reads class names; none, without an error, where there is no file.
func (f *cifarFormat) readNames(path string) ([]string, error) {
	data, err := infile.Read(context.Background(), path, 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("dataset: %w", err)
	}
	var names []string
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" {
			names = append(names, line)
		}
	}
	if len(names) != f.classes() {
		return nil, fmt.Errorf("%w: %s lists %d classes; %s has %d", ErrFormat, path, len(names), f.name, f.classes())
	}
	return names, nil
}

type cifarSet struct {
	format *cifarFormat
	name   string
	names  []string
	// files holds the files as they are; file i begins with image starts[i].
	files  [][]byte
	starts []int
	count  int
}

func (s *cifarSet) Len() int     { return s.count }
func (s *cifarSet) Classes() int { return s.format.classes() }
func (s *cifarSet) Name() string { return s.name }

func (s *cifarSet) ClassName(i int) string {
	if i >= 0 && i < len(s.names) {
		return s.names[i]
	}
	return strconv.Itoa(i)
}

func (s *cifarSet) label(i int) (int, error) {
	if err := checkIndex(s, i); err != nil {
		return 0, err
	}
	return int(s.recordAt(i)[len(s.format.bounds)-1]), nil
}

func (s *cifarSet) At(i int) (Image, int, error) {
	if err := checkIndex(s, i); err != nil {
		return Image{}, 0, err
	}
	record := s.recordAt(i)
	labels := len(s.format.bounds)
	m := Image{W: cifarSide, H: cifarSide, C: 3, Pix: make([]uint8, 3*cifarPlane)}
	r, g, b := record[labels:][:cifarPlane], record[labels+cifarPlane:][:cifarPlane], record[labels+2*cifarPlane:][:cifarPlane]
	for j := range cifarPlane {
		p := m.Pix[3*j:][:3]
		p[0], p[1], p[2] = r[j], g[j], b[j]
	}
	return m, int(record[labels-1]), nil
}

func (s *cifarSet) recordAt(i int) []byte {
	k, found := slices.BinarySearch(s.starts, i)
	if !found {
		k--
	}
	n := s.format.record()
	return s.files[k][(i-s.starts[k])*n:][:n]
}
