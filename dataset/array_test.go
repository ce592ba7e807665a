package dataset

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
)

// cifarFile is n records of CIFAR with random planes; label j of record i is
// i mod bounds[j].
func cifarFile(n int, seed uint64, bounds ...int) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	var out []byte
	for i := range n {
		for _, b := range bounds {
			out = append(out, byte(i%b))
		}
		for range 3 * cifarPlane {
			out = append(out, byte(r.Uint32()))
		}
	}
	return out
}

func TestCIFARRecordsComeInOrderWithInterleavedPlanes(t *testing.T) {
	one, two, ten := cifarFile(3, 1, 10), cifarFile(4, 2, 10), cifarFile(2, 3, 10)
	test := cifarFile(5, 4, 10)
	dir := writeFiles(t, map[string][]byte{
		"data_batch_10.bin": ten, "data_batch_2.bin": two, "data_batch_1.bin": one, "test_batch.bin": test,
		"batches.meta.txt": []byte("a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n"),
	})
	for _, c := range []struct {
		split Split
		want  []byte
	}{{Train, bytes.Join([][]byte{one, two, ten}, nil)}, {Test, test}, {"", test}} {
		s, err := Open(dir, Options{Split: c.split})
		if err != nil {
			t.Fatal(err)
		}
		const record = 1 + 3*cifarPlane
		if s.Len() != len(c.want)/record || s.Classes() != 10 || s.ClassName(9) != "j" || s.ClassName(10) != "10" {
			t.Fatalf("%s: %d images, %d classes, last %q", s.Name(), s.Len(), s.Classes(), s.ClassName(9))
		}
		for i := range s.Len() {
			m, label, err := s.At(i)
			if err != nil {
				t.Fatal(err)
			}
			rec := c.want[i*record:][:record]
			if label != int(rec[0]) || m.W != 32 || m.H != 32 || m.C != 3 {
				t.Fatalf("image %d: label %d, %d×%d×%d", i, label, m.W, m.H, m.C)
			}
			for p := range m.Pix {
				if m.Pix[p] != rec[1+p%3*cifarPlane+p/3] {
					t.Fatalf("image %d, sample %d", i, p)
				}
			}
		}
		for _, i := range []int{-1, s.Len()} {
			if _, _, err := s.At(i); !errors.Is(err, ErrIndex) {
				t.Errorf("image %d: %v", i, err)
			}
		}
	}
}

func TestCIFAR100GivesTheFineLabels(t *testing.T) {
	dir := writeFiles(t, map[string][]byte{"test.bin": cifarFile(30, 1, 20, 100)})
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	labels, err := Labels(s)
	if err != nil || s.Classes() != 100 || s.Len() != 30 || labels[25] != 25 || s.ClassName(25) != "25" {
		t.Errorf("%d images, %d classes, labels %v, %v", s.Len(), s.Classes(), labels, err)
	}
}

func TestDamagedCIFARNamesFileAndRecord(t *testing.T) {
	good := cifarFile(3, 1, 10)
	bad := bytes.Clone(good)
	bad[3073] = 10
	coarse := cifarFile(2, 1, 20, 100)
	coarse[0] = 20
	for name, c := range map[string]struct {
		spec  string
		files map[string][]byte
		want  error
		says  string
	}{
		"truncated":    {"cifar10:", map[string][]byte{"test_batch.bin": good[:5000]}, ErrFormat, "test_batch.bin: 5000 bytes"},
		"label":        {"cifar10:", map[string][]byte{"test_batch.bin": bad}, ErrFormat, "record 1 of 3 has label 10"},
		"coarse label": {"cifar100:", map[string][]byte{"test.bin": coarse}, ErrFormat, "record 0 of 2 has label 20"},
		"other kind":   {"cifar100:", map[string][]byte{"test.bin": good}, ErrFormat, "cifar100"},
		"empty file":   {"cifar10:", map[string][]byte{"test_batch.bin": nil}, ErrEmpty, "test_batch.bin"},
		"no split":     {"cifar10:", map[string][]byte{"data_batch_1.bin": good}, ErrEmpty, "test split"},
		"names":        {"cifar10:", map[string][]byte{"test_batch.bin": good, "batches.meta.txt": []byte("cat\n")}, ErrFormat, "1 classes"},
		"nothing":      {"cifar10:", nil, fs.ErrNotExist, "test_batch.bin"},
	} {
		_, err := Open(c.spec+writeFiles(t, c.files), Options{})
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzCIFAR(f *testing.F) {
	good := cifarFile(2, 1, 10)
	f.Add(good, false)
	f.Add(good[:3072], false)
	f.Add(cifarFile(2, 1, 20, 100), true)
	f.Add([]byte{}, true)
	f.Fuzz(func(t *testing.T, data []byte, fine bool) {
		format := &cifar10
		if fine {
			format = &cifar100
		}
		if err := format.check("file", data); err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrEmpty) {
				t.Fatalf("error of no kind: %v", err)
			}
			return
		}
		s := &cifarSet{format: format, files: [][]byte{data}, starts: []int{0}, count: len(data) / format.record()}
		for i := range s.Len() {
			m, label, err := s.At(i)
			if err != nil || label < 0 || label >= s.Classes() || m.validate() != nil {
				t.Fatal(label, err, m.validate())
			}
		}
	})
}

// idxFile is an IDX file of unsigned bytes.
func idxFile(data []byte, dims ...uint32) []byte {
	out := []byte{0, 0, 8, byte(len(dims))}
	for _, d := range dims {
		out = binary.BigEndian.AppendUint32(out, d)
	}
	return append(out, data...)
}

func zipped(data []byte) []byte {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	z.Write(data)
	z.Close()
	return buf.Bytes()
}

func TestIDXGivesGreyImagesCompressedOrNot(t *testing.T) {
	pix := make([]byte, 4*3*5)
	for i := range pix {
		pix[i] = byte(i * 7)
	}
	images, labels := idxFile(pix, 4, 3, 5), idxFile([]byte{1, 0, 6, 2}, 4)
	for name, files := range map[string]map[string][]byte{
		"plain":      {"t10k-images-idx3-ubyte": images, "t10k-labels-idx1-ubyte": labels},
		"compressed": {"t10k-images-idx3-ubyte.gz": zipped(images), "t10k-labels-idx1-ubyte.gz": zipped(labels)},
		"mixed":      {"letters-test-images-idx3-ubyte.gz": zipped(images), "letters-test-labels-idx1-ubyte": labels},
		"both":       {"t10k-images-idx3-ubyte": images, "t10k-images-idx3-ubyte.gz": nil, "t10k-labels-idx1-ubyte": labels, "t10k-labels-idx1-ubyte.gz": nil},
		"dots":       {"t10k-images.idx3-ubyte": images, "t10k-labels.idx1-ubyte": labels},
	} {
		s, err := Open(writeFiles(t, files), Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		m, label, err := s.At(2)
		if err != nil || s.Len() != 4 || s.Classes() != 7 || label != 6 || m.W != 5 || m.H != 3 || m.C != 1 || !bytes.Equal(m.Pix, pix[30:45]) {
			t.Errorf("%s: %d images of %d classes; image 2 is %+v of %d; %v", name, s.Len(), s.Classes(), m, label, err)
		}
		// What At gives belongs to the caller.
		m.Pix[0]++
		if again, _, _ := s.At(2); again.Pix[0] == m.Pix[0] {
			t.Errorf("%s: writing to an image changes the set", name)
		}
	}
}

func TestDamagedIDXNamesTheFile(t *testing.T) {
	const im, lb = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
	good, labels := idxFile(make([]byte, 12), 2, 2, 3), idxFile([]byte{0, 1}, 2)
	float := bytes.Clone(good)
	float[2] = 0x0d
	corrupt := zipped(good)
	corrupt[len(corrupt)-5]++
	for name, c := range map[string]struct {
		images, labels []byte
		want           error
		says           string
	}{
		"empty":             {nil, labels, ErrFormat, im},
		"short header":      {good[:9], labels, ErrFormat, "9 of 16"},
		"no IDX":            {[]byte("PK\x03\x04 and so on, and on"), labels, ErrFormat, "two zero bytes"},
		"floats":            {float, labels, ErrFormat, "0x0d"},
		"labels as images":  {append(bytes.Clone(labels), make([]byte, 20)...), labels, ErrFormat, "1 dimensions"},
		"truncated":         {good[:20], labels, ErrFormat, "ends after 4"},
		"trailing":          {append(bytes.Clone(good), 0), labels, ErrFormat, "bytes after 12"},
		"zero":              {idxFile(nil, 2, 0, 3), labels, ErrEmpty, "dimension 1"},
		"overflow":          {idxFile(nil, 1<<31, 1<<31, 1<<31), labels, ErrLimit, "declares"},
		"large declaration": {idxFile(nil, 1<<10, 1<<10, 1<<10), labels, ErrFormat, "ends after 0"},
		"huge images":       {idxFile(nil, 1, 1<<14, 1<<14), labels, ErrFormat, "ends after 0"},
		"count":             {good, idxFile([]byte{0, 1, 2}, 3), ErrFormat, "3 labels"},
		"gzip header":       {[]byte{0x1f, 0x8b, 0}, labels, ErrFormat, im},
		"gzip checksum":     {corrupt, labels, ErrFormat, "checksum"},
		"gzip bomb":         {zipped(append(bytes.Clone(good), make([]byte, 1<<20)...)), labels, ErrFormat, "bytes after 12"},
	} {
		dir := writeFiles(t, map[string][]byte{im: c.images, lb: c.labels})
		_, err := Open(dir, Options{})
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), filepath.Base(dir)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		files map[string][]byte
		want  error
	}{
		"no labels": {map[string][]byte{im: good}, fs.ErrNotExist},
		"no test":   {map[string][]byte{"train-images-idx3-ubyte": good}, ErrEmpty},
		"two sets":  {map[string][]byte{im: good, "test-images-idx3-ubyte": good}, ErrSpec},
	} {
		if _, err := Open(writeFiles(t, c.files), Options{}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzIDX(f *testing.F) {
	good := idxFile(make([]byte, 12), 2, 2, 3)
	f.Add(good, 3)
	f.Add(good[:10], 3)
	f.Add(zipped(good), 3)
	f.Add(idxFile([]byte{0, 1}, 2), 1)
	f.Add(idxFile(nil, 1<<31, 1<<31, 1<<31), 3)
	f.Fuzz(func(t *testing.T, data []byte, rank int) {
		a, err := decodeIDX(bytes.NewReader(data), int64(len(data)), 1+int(uint(rank)%4))
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrEmpty) && !errors.Is(err, ErrLimit) {
				t.Fatalf("error of no kind: %v", err)
			}
			return
		}
		n := 1
		for _, d := range a.dims {
			n *= d
		}
		if n != len(a.data) {
			t.Fatalf("%d elements for %v", len(a.data), a.dims)
		}
	})
}
