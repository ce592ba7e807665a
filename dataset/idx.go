package dataset

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/lowrank-go/lowrank/internal/infile"
)

// An IDX file (LeCun, Cortes and Burges, the MNIST database) is a big-endian
// header, two zero bytes, the type of the elements (8 for unsigned bytes), the
// number of dimensions and each dimension in 32 bits, and then the elements in
// row-major order.
const idxUint8 = 0x08

// idxArray is the content of an IDX file of unsigned bytes.
type idxArray struct {
	dims []int
	data []byte
}

// parseIDX reads an IDX file of unsigned bytes with rank dimensions, all at
// least 1. A header that declares more than its file can have costs
// nothing. It reads no more than the elements that the header declares and one
// byte that must not be there.
//
// size is that of the file; what is compressed may be larger, but not out of proportion.
func parseIDX(r io.Reader, rank int, size int64, compressed bool) (idxArray, error) {
	header := make([]byte, 4+4*rank)
	if n, err := io.ReadFull(r, header); err != nil {
		return idxArray{}, fmt.Errorf("%w: the header ends after %d of %d bytes: %w", ErrFormat, n, len(header), err)
	}
	if header[0] != 0 || header[1] != 0 {
		return idxArray{}, fmt.Errorf("%w: it begins with % x, not the two zero bytes of an IDX file", ErrFormat, header[:4])
	}
	if header[2] != idxUint8 || int(header[3]) != rank {
		return idxArray{}, fmt.Errorf("%w: the header declares elements of type %#02x in %d dimensions; want unsigned bytes (%#02x) in %d",
			ErrFormat, header[2], header[3], idxUint8, rank)
	}
	a := idxArray{dims: make([]int, rank)}
	total := int64(1)
	for i := range a.dims {
		d := int64(binary.BigEndian.Uint32(header[4+4*i:]))
		if d == 0 {
			return idxArray{}, fmt.Errorf("%w: dimension %d of the header is 0", ErrEmpty, i)
		}
		// Both are below 2³², so the product doesn't overflow.
		if total *= d; total > maxArray {
			return idxArray{}, fmt.Errorf("%w: the header declares more than %d bytes", ErrLimit, maxArray)
		}
		a.dims[i] = int(d)
	}
	switch most := size; {
	case compressed:
		// Deflate shrinks drawings tenfold, and zeros a thousandfold.
		if most = 64*size + 64<<20; total > most {
			return idxArray{}, fmt.Errorf("%w: the header declares %d elements, too many for a file of %d bytes", ErrLimit, total, size)
		}
	case total > most-int64(len(header)):
		return idxArray{}, fmt.Errorf("%w: it ends after %d elements; the header declares %v = %d", ErrFormat, max(most-int64(len(header)), 0), a.dims, total)
	}
	a.data = make([]byte, total)
	if n, err := io.ReadFull(r, a.data); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return idxArray{}, fmt.Errorf("%w: it ends after %d elements; the header declares %v = %d", ErrFormat, n, a.dims, total)
		}
		return idxArray{}, fmt.Errorf("%w: after %d of %d elements: %w", ErrFormat, n, total, err)
	}
	switch n, err := io.ReadFull(r, make([]byte, 1)); {
	case n > 0:
		return idxArray{}, fmt.Errorf("%w: there are bytes after %d elements; the header declares %v = %d", ErrFormat, total, a.dims, total)
	case !errors.Is(err, io.EOF): // a checksum that does not fit
		return idxArray{}, fmt.Errorf("%w: after %d of %d elements: %w", ErrFormat, total, total, err)
	}
	return a, nil
}

// readIDX reads a file, through gzip if it begins like a gzip file.
func readIDX(path string, rank int) (idxArray, error) {
	f, size, err := infile.OpenFile(path)
	if err != nil {
		return idxArray{}, fmt.Errorf("dataset: %w", err)
	}
	defer f.Close()
	a, err := decodeIDX(f, size, rank)
	if err != nil {
		return idxArray{}, fmt.Errorf("%w (in %s)", err, path)
	}
	return a, nil
}

func decodeIDX(f io.Reader, size int64, rank int) (idxArray, error) {
	var magic [2]byte
	n, err := io.ReadFull(f, magic[:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return idxArray{}, err
	}
	r := io.MultiReader(bytes.NewReader(magic[:n]), f)
	if magic != [2]byte{0x1f, 0x8b} {
		return parseIDX(r, rank, size, false)
	}
	z, err := gzip.NewReader(r)
	if err != nil {
		return idxArray{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return parseIDX(z, rank, size, true)
}

// openIDX opens the images of a split and the labels beside them.
func openIDX(dir string, split Split) (Set, error) {
	all, err := list(dir, "*images*idx3*")
	if err != nil {
		return nil, err
	}
	var files []string
	for _, name := range all {
		if idxSplit(name) == split && !slices.Contains(files, strings.TrimSuffix(name, ".gz")) {
			files = append(files, name)
		}
	}
	switch {
	case len(files) == 0:
		return nil, fmt.Errorf("%w: %s holds no images of the %s split (%s): %w", ErrEmpty, dir, split,
			map[Split]string{Train: "train-images-idx3-ubyte or .gz", Test: "t10k-images-idx3-ubyte or .gz"}[split], fs.ErrNotExist)
	case len(files) > 1:
		return nil, fmt.Errorf("%w: %s holds several files of images of the %s split: %s; keep one set to a directory", ErrSpec, dir, split, strings.Join(files, ", "))
	}
	path := filepath.Join(dir, files[0])
	images, err := readIDX(path, 3)
	if err != nil {
		return nil, err
	}
	if h, w := images.dims[1], images.dims[2]; w > maxPixels/h {
		return nil, fmt.Errorf("%w: %s: images of %d×%d pixels; at most %d pixels are accepted", ErrLimit, path, w, h, maxPixels)
	}
	labelPath, err := idxLabels(dir, files[0])
	if err != nil {
		return nil, err
	}
	labels, err := readIDX(labelPath, 1)
	if err != nil {
		return nil, err
	}
	if images.dims[0] != labels.dims[0] {
		return nil, fmt.Errorf("%w: %s has %d images, but %s has %d labels", ErrFormat, path, images.dims[0], labelPath, labels.dims[0])
	}
	return &idxSet{
		name:   fmt.Sprintf("idx:%s (%s)", dir, split),
		h:      images.dims[1],
		w:      images.dims[2],
		pix:    images.data,
		labels: labels.data,
	}, nil
}

// idxSplit is the split that a file name speaks of, or "".
func idxSplit(name string) Split {
	switch {
	case strings.Contains(name, "train"):
		return Train
	case strings.Contains(name, "t10k"), strings.Contains(name, "test"):
		return Test
	}
	return ""
}

// idxLabels is the path of the labels that belong to a file of images: the same
// name with other words, compressed or not.
func idxLabels(dir, images string) (string, error) {
	name := strings.NewReplacer("images", "labels", "idx3", "idx1").Replace(strings.TrimSuffix(images, ".gz"))
	for _, n := range []string{name, name + ".gz"} {
		path := filepath.Join(dir, n)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("dataset: %s has no labels: neither %s nor %s.gz lies beside it: %w", filepath.Join(dir, images), name, name, fs.ErrNotExist)
}

type idxSet struct {
	name        string
	h, w        int
	pix, labels []byte
}

func (s *idxSet) Len() int               { return len(s.labels) }
func (s *idxSet) Classes() int           { return int(slices.Max(s.labels)) + 1 }
func (s *idxSet) ClassName(i int) string { return strconv.Itoa(i) }
func (s *idxSet) Name() string           { return s.name }

func (s *idxSet) label(i int) (int, error) {
	if err := checkIndex(s, i); err != nil {
		return 0, err
	}
	return int(s.labels[i]), nil
}

func (s *idxSet) At(i int) (Image, int, error) {
	if err := checkIndex(s, i); err != nil {
		return Image{}, 0, err
	}
	n := s.h * s.w
	return Image{W: s.w, H: s.h, C: 1, Pix: bytes.Clone(s.pix[i*n:][:n])}, int(s.labels[i]), nil
}
