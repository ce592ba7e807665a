package model

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// ReadNPZ reads a zip archive of .npy arrays, named by their entries without
// ".npy". Arrays of strings, objects and other things that are no numbers are left out
// and named in the Source. A matrix that scipy.sparse saved is read as the dense one,
// "matrix", if that is not out of proportion to the file.
func ReadNPZ(r io.ReaderAt, size int64) (*StateDict, error) {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, fmt.Errorf("%w: zip archive: %w", ErrCorrupt, err)
	}
	a := &npzArchive{size: size, sd: NewStateDict(), text: map[string]string{}}
	for _, f := range z.File {
		name, ok := strings.CutSuffix(f.Name, ".npy")
		if !ok {
			return nil, fmt.Errorf("%w: archive entry %s is no .npy array", ErrFormat, quoted(f.Name))
		}
		if _, twice := a.sd.Get(name); twice {
			return nil, fmt.Errorf("%w: two archive entries called %s", ErrCorrupt, quoted(f.Name))
		}
		if err := a.read(f, name); err != nil {
			return nil, fmt.Errorf("archive entry %s: %w", quoted(f.Name), err)
		}
	}
	if format, ok := a.text["format"]; ok {
		if m, err := a.sparse(format); m != nil || err != nil {
			return m, err
		}
	}
	if n := a.sd.Source.LeftOut; a.sd.Len() == 0 && len(n) > 0 {
		return nil, fmt.Errorf("%w: the archive has no arrays of numbers: %s is left out: %s", ErrUnsupported, quoted(n[0].Name), n[0].Reason)
	}
	return a.sd, nil
}

// npzArchive is an archive on its way.
type npzArchive struct {
	sd   *StateDict
	size int64 // of the archive
	used int64 // bytes that its arrays take
	// slack is how much of them is beyond what weights compress to, as float64.
	slack int64
	// text holds short strings.
	text map[string]string
}

// charge takes n bytes of elements of a type. Numbers compress little; what compresses
// much, as zeros do, may be so much as is not worth a bomb, counted as the float64 that
// it may become.
func (a *npzArchive) charge(n int64, kind DType) error {
	a.used += n
	if over := min(n, a.used-16*min(a.size, 1<<40)); over > 0 {
		a.slack += over * int64(8/kind.size())
	}
	if a.slack > 64<<20 || a.used < 0 {
		return fmt.Errorf("%w: declares %d bytes, too many for its archive", ErrCorrupt, n)
	}
	return nil
}

func (a *npzArchive) read(f *zip.File, name string) error {
	rc, err := f.Open()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	defer rc.Close()
	size := int64(f.UncompressedSize64)
	if size < 0 {
		return fmt.Errorf("%w: declares %d bytes", ErrCorrupt, f.UncompressedSize64)
	}
	h, err := readNPYHeader(rc, size)
	if errors.Is(err, ErrUnsupported) {
		a.sd.LeaveOut(name, err.Error())
		if strings.HasPrefix(h.code, "|S") && len(h.shape) == 0 && h.left < 1<<10 {
			b, err := io.ReadAll(io.LimitReader(rc, h.left))
			a.text[name] = strings.TrimRight(string(b), "\x00")
			return err
		}
		return nil
	}
	if err != nil {
		return err
	}
	if err := a.charge(int64(h.count*h.kind.size()), h.kind); err != nil {
		return err
	}
	h.left = min(h.left, a.size) // what is known to be there, before it is inflated
	t, err := h.body(rc)
	if err != nil {
		return err
	}
	// Read to the end, so that the checksum is looked at.
	if _, err := io.Copy(io.Discard, rc); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	a.sd.Set(name, t)
	return nil
}

// sparse is the dense matrix of an archive of scipy.sparse's; nil where it is none.
func (a *npzArchive) sparse(format string) (*StateDict, error) {
	get := func(name string) ([]float64, bool) {
		t, ok := a.sd.Get(name)
		if !ok || len(t.Shape) != 1 {
			return nil, false
		}
		v, err := t.Float64s()
		return v, err == nil
	}
	shape, ok := get("shape")
	values, ok2 := get("data")
	if !ok || !ok2 || len(shape) != 2 {
		return nil, nil
	}
	rows, cols := int64(shape[0]), int64(shape[1])
	bad := fmt.Errorf("%w: a scipy.sparse matrix (%s) whose indices do not fit its shape %v", ErrCorrupt, quoted(format), shape)
	if rows < 0 || cols < 0 || float64(rows) != shape[0] || float64(cols) != shape[1] {
		return nil, bad
	}
	if most := 4<<20 + 2*a.size; rows > 0 && cols > most/rows {
		return nil, fmt.Errorf("%w: a scipy.sparse matrix of %d×%d, which is too large as a dense one", ErrUnsupported, rows, cols)
	}
	var at [2][]float64 // rows and columns of the values
	switch format {
	case "coo":
		at[0], ok = get("row")
		at[1], ok2 = get("col")
	case "csr", "csc":
		indices, okI := get("indices")
		ends, okE := get("indptr")
		major := rows
		if format == "csc" {
			major = cols
		}
		if !okI || !okE || int64(len(ends)) != major+1 || !slices.IsSorted(ends) || ends[0] != 0 || ends[major] != float64(len(values)) {
			return nil, bad
		}
		lines := make([]float64, 0, len(values))
		for i := range major {
			for range int(ends[i+1]) - int(ends[i]) {
				lines = append(lines, float64(i))
			}
		}
		at = [2][]float64{lines, indices}
		if format == "csc" {
			at = [2][]float64{indices, lines}
		}
	default:
		return nil, fmt.Errorf("%w: a scipy.sparse matrix in the format %s; tocoo() makes one that is read", ErrUnsupported, quoted(format))
	}
	if !ok || !ok2 || len(at[0]) != len(values) || len(at[1]) != len(values) {
		return nil, bad
	}
	dense := make([]float64, rows*cols)
	for i, v := range values {
		r, c := at[0][i], at[1][i]
		if !(r >= 0 && r < shape[0] && c >= 0 && c < shape[1]) {
			return nil, bad
		}
		dense[int64(r)*cols+int64(c)] += v // entries that repeat add up
	}
	sd := NewStateDict()
	sd.Set("matrix", &Tensor{Shape: []int{int(rows), int(cols)}, Data: dense})
	return sd, nil
}

// WriteNPZ writes the tensors of sd atomically as an uncompressed archive of
// .npy arrays. Meta is not written: the format has no place for it.
func WriteNPZ(path string, sd *StateDict) error {
	return WriteAtomic(path, func(w io.Writer) error {
		z := zip.NewWriter(w)
		for _, name := range sd.Names() {
			e, err := z.CreateHeader(&zip.FileHeader{Name: name + ".npy", Method: zip.Store})
			if err != nil {
				return err
			}
			if err := encodeNPY(e, sd.tensors[name]); err != nil {
				return fmt.Errorf("tensor %q: %w", name, err)
			}
		}
		return z.Close()
	})
}
