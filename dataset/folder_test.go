package dataset

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/png"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// dot is a PNG of one grey pixel.
func dot(v uint8) []byte {
	m := image.NewGray(image.Rect(0, 0, 1, 1))
	m.SetGray(0, 0, color.Gray{Y: v})
	var buf bytes.Buffer
	if err := png.Encode(&buf, m); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

// writeZip makes an archive of files in the order of their names.
func writeZip(t testing.TB, files map[string][]byte) string {
	t.Helper()
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		w, err := z.Create(name)
		if err == nil {
			_, err = w.Write(files[name])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(writeFiles(t, map[string][]byte{"images.zip": buf.Bytes()}), "images.zip")
}

func TestFoldersAndArchivesGiveTheSameClasses(t *testing.T) {
	for name, c := range map[string]struct {
		split Split
		// files lists paths; image i is a dot of level i.
		files   []string
		classes int
		// want lists the images with label and class name.
		want string
	}{
		"sorted":        {"", []string{"dog/1.png", "cat/2.png", "Zebra/3.PNG", "cat/0.png"}, 3, "2:0:Zebra 3:1:cat 1:1:cat 0:2:dog"},
		"numbers":       {"", []string{"0010/a.png", "0002/b.png"}, 11, "1:2:0002 0:10:0010"},
		"not numbers":   {"", []string{"10/a.png", "2/b.png", "x/c.png"}, 3, "0:0:10 1:1:2 2:2:x"},
		"top folder":    {"", []string{"set/cat/1.png", "set/dog/2.png"}, 2, "0:0:cat 1:1:dog"},
		"two tops":      {"", []string{"a/b/cat/1.png", "a/b/dog/2.png"}, 2, "0:0:cat 1:1:dog"},
		"one class":     {"", []string{"set/cat/1.png"}, 1, "0:0:cat"},
		"nested":        {"", []string{"Greek/c1/1.png", "Greek/c2/1.png", "Latin/c1/1.png"}, 3, "0:0:Greek/c1 1:1:Greek/c2 2:2:Latin/c1"},
		"uneven":        {"", []string{"a/1.png", "a/b/1.png", "c/d/1.png"}, 2, "0:0:a 1:0:a 2:1:c"},
		"mac":           {"", []string{"s/cat/1.png", "__MACOSX/s/cat/._1.png", "s/cat/._1.png", "s/.git/x/1.png", "s/readme.txt"}, 1, "0:0:cat"},
		"train split":   {Train, []string{"train/a/1.png", "train/b/1.png", "val/a/1.png", "test/a/1.png"}, 2, "0:0:a 1:1:b"},
		"test split":    {Test, []string{"s/train/a/1.png", "s/val/a/1.png", "s/test/7/1.png", "s/test/9/1.png"}, 10, "2:7:7 3:9:9"},
		"val for test":  {Test, []string{"train/a/1.png", "val/a/2.png"}, 1, "1:0:a"},
		"no real split": {Test, []string{"train/a/1.png", "other/a/2.png"}, 2, "1:0:other/a 0:1:train/a"},
	} {
		files := make(map[string][]byte)
		for i, f := range c.files {
			files[f] = dot(uint8(i))
		}
		for _, path := range []string{writeFiles(t, files), writeZip(t, files)} {
			s, err := Open("folder:"+path, Options{Split: c.split})
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			var got []string
			for i := range s.Len() {
				m, label, err := s.At(i)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				got = append(got, fmt.Sprintf("%d:%d:%s", m.Pix[0], label, s.ClassName(label)))
			}
			if strings.Join(got, " ") != c.want || s.Classes() != c.classes {
				t.Errorf("%s, %s: %d classes, %q, want %d, %q", name, path, s.Classes(), got, c.classes, c.want)
			}
			if err := Close(s); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestFoldersThatMakeNoClassesAreErrors(t *testing.T) {
	d := dot(1)
	for name, c := range map[string]struct {
		split Split
		files map[string][]byte
		want  error
		says  string
	}{
		"nothing":       {"", nil, ErrEmpty, ""},
		"no images":     {"", map[string][]byte{"a/readme.txt": nil}, ErrEmpty, "folder a"},
		"empty class":   {"", map[string][]byte{"cat/1.png": d, "dog/readme.txt": nil}, ErrEmpty, "folder dog"},
		"no folder":     {"", map[string][]byte{"cat/1.png": d, "2.png": d}, ErrFormat, "2.png"},
		"same number":   {"", map[string][]byte{"01/1.png": d, "1/1.png": d}, ErrFormat, "label 1"},
		"large number":  {"", map[string][]byte{"1/1.png": d, "99999999999999999999999/1.png": d}, ErrLimit, "9999"},
		"missing split": {Test, map[string][]byte{"train/a/1.png": d, "training/b/1.png": d}, ErrEmpty, "no test split"},
		"only train":    {Test, map[string][]byte{"train/a/1.png": d}, ErrEmpty, "no test split"},
	} {
		dir := writeFiles(t, c.files)
		if _, err := Open("folder:"+dir, Options{Split: c.split}); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDamagedImagesNameTheEntry(t *testing.T) {
	good := dot(1)
	path := writeZip(t, map[string][]byte{"c/1.png": good, "c/2.png": good[:40], "c/3.png": nil, "c/4.jpg": []byte("text")})
	for _, spec := range []string{path, filepath.Dir(path)} {
		if spec != path {
			spec = writeFiles(t, map[string][]byte{"c/1.png": good, "c/2.png": good[:40], "c/3.png": nil, "c/4.jpg": []byte("text")})
		}
		s, err := Open(spec, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer Close(s)
		if _, _, err := s.At(0); err != nil {
			t.Error(err)
		}
		for i, entry := range []string{"c/2.png", "c/3.png", "c/4.jpg"} {
			if _, _, err := s.At(i + 1); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), entry+" of "+spec) {
				t.Errorf("%s: %v", entry, err)
			}
		}
	}
}

func TestDamagedArchivesAreErrors(t *testing.T) {
	// Random content is stored rather than compressed, so that a byte in the
	// middle of the file is the entry's.
	m := image.NewGray(image.Rect(0, 0, 64, 64))
	for i := range m.Pix {
		m.Pix[i] = uint8(i * i >> 3)
	}
	var buf bytes.Buffer
	if err := png.Encode(&buf, m); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(writeZip(t, map[string][]byte{"a/1.png": buf.Bytes()}))
	if err != nil {
		t.Fatal(err)
	}
	central := bytes.Index(data, []byte("PK\x01\x02"))
	change := func(f func(d []byte)) string {
		d := bytes.Clone(data)
		f(d)
		return filepath.Join(writeFiles(t, map[string][]byte{"x.zip": d}), "x.zip")
	}
	for name, c := range map[string]struct {
		path string
		want error
	}{
		"content":         {change(func(d []byte) { d[central/2] ^= 0xff }), ErrFormat},
		"checksum":        {change(func(d []byte) { d[central+16] ^= 0xff }), ErrFormat},
		"declared size":   {change(func(d []byte) { binary.LittleEndian.PutUint32(d[central+24:], maxImageFile+1) }), ErrLimit},
		"smaller size":    {change(func(d []byte) { binary.LittleEndian.PutUint32(d[central+24:], 100) }), ErrFormat},
		"encrypted":       {change(func(d []byte) { d[central+8] |= 1 }), ErrFormat},
		"unknown method":  {change(func(d []byte) { d[central+10] = 99 }), ErrFormat},
		"truncated":       {filepath.Join(writeFiles(t, map[string][]byte{"x.zip": data[:len(data)/2]}), "x.zip"), ErrFormat},
		"no archive":      {filepath.Join(writeFiles(t, map[string][]byte{"x.zip": []byte("text")}), "x.zip"), ErrFormat},
		"empty archive":   {writeZip(t, nil), ErrEmpty},
		"missing archive": {filepath.Join(t.TempDir(), "x.zip"), fs.ErrNotExist},
	} {
		s, err := Open(c.path, Options{})
		if err == nil {
			_, _, err = s.At(0)
			Close(s)
		}
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), "x.zip") && !strings.Contains(err.Error(), "images.zip") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A small entry that unpacks to more than it declares must stop at the limit.
func TestAnEntryThatUnpacksEndlesslyIsRefused(t *testing.T) {
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	w, err := z.Create("a/1.png")
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 1<<20)
	crc := crc32.NewIEEE()
	for range maxImageFile>>20 + 1 {
		crc.Write(block)
		if _, err := w.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	d := buf.Bytes()
	central := bytes.Index(d, []byte("PK\x01\x02"))
	binary.LittleEndian.PutUint32(d[central+24:], 1000)
	path := filepath.Join(writeFiles(t, map[string][]byte{"x.zip": d}), "x.zip")
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer Close(s)
	if _, _, err := s.At(0); !errors.Is(err, ErrLimit) && !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
}

func TestAClosedArchiveGivesErrorsAndClosesTwice(t *testing.T) {
	s, err := Open(writeZip(t, map[string][]byte{"a/1.png": dot(1), "a/2.png": dot(2)}), Options{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Close(s); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := s.At(0); !errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
}

func TestArchivesAreReadConcurrently(t *testing.T) {
	files := make(map[string][]byte)
	for i := range 64 {
		files[fmt.Sprintf("c/%02d.png", i)] = dot(uint8(i))
	}
	s, err := Open(writeZip(t, files), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer Close(s)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range s.Len() {
				if m, _, err := s.At(i); err != nil || m.Pix[0] != uint8(i) {
					t.Errorf("image %d: %v, %v", i, m, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestLinksToFilesAreFollowedAndPipesAreNotOpened(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links need rights on Windows")
	}
	dir := writeFiles(t, map[string][]byte{"a/1.png": dot(9), "other.txt": nil})
	if err := os.Symlink("1.png", filepath.Join(dir, "a", "2.png")); err != nil {
		t.Skip("no links here:", err)
	}
	s, err := Open(dir, Options{})
	if err != nil || s.Len() != 2 {
		t.Fatal(err)
	}
	if m, _, err := s.At(1); err != nil || m.Pix[0] != 9 {
		t.Error(m, err)
	}
	if err := os.Symlink(os.DevNull, filepath.Join(dir, "a", "3.png")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "a/3.png") {
		t.Error(err)
	}
}

func TestSpecificationsThatNameNothingAreErrors(t *testing.T) {
	file := filepath.Join(writeFiles(t, map[string][]byte{"x.txt": nil}), "x.txt")
	for spec, want := range map[string]error{
		"":                    ErrSpec,
		"cifar10:":            ErrSpec,
		"tiny:/no/such/place": ErrSpec,
		"/no/such/place":      fs.ErrNotExist,
		"folder:/no/such":     fs.ErrNotExist,
		"idx:/no/such":        fs.ErrNotExist,
		"cifar100:/no/such":   fs.ErrNotExist,
		file:                  ErrSpec,
		"folder:" + file:      ErrFormat,
	} {
		if _, err := Open(spec, Options{}); !errors.Is(err, want) {
			t.Errorf("%q: %v", spec, err)
		}
	}
	dir := writeFiles(t, map[string][]byte{"a/1.png": dot(1)})
	for _, o := range []Options{{Split: "dev"}, {Limit: -1}} {
		if _, err := Open(dir, o); !errors.Is(err, ErrSpec) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
