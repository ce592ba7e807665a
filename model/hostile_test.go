package model

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Pieces of pickles.
func pickleText(s string) string { return "X" + le32(len(s)) + s }
func le32(n int) string {
	return string(binary.LittleEndian.AppendUint32(nil, uint32(n)))
}

// tensorPickle is a dict {"w": tensor} whose tensor has the given numbers.
func tensorPickle(numel, offset, size, stride int64) string {
	number := func(v int64) string {
		return "\x8a\x08" + string(binary.LittleEndian.AppendUint64(nil, uint64(v)))
	}
	return "\x80\x02}" + pickleText("w") + "ctorch._utils\n_rebuild_tensor_v2\n(" +
		"(" + pickleText("storage") + "ctorch\nFloatStorage\n" + pickleText("0") + pickleText("cpu") + number(numel) + "tQ" +
		number(offset) + number(size) + "\x85" + number(stride) + "\x85\x89}tRs."
}

// archive is a zip archive of entries name, content.
func archive(t testing.TB, method uint16, entries ...string) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := 0; i < len(entries); i += 2 {
		w, err := z.CreateHeader(&zip.FileHeader{Name: entries[i], Method: method})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, entries[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func torchArchive(t testing.TB, pickle string, data string) []byte {
	return archive(t, zip.Store, "archive/data.pkl", pickle, "archive/data/0", data)
}

func safetensors(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, data)...)
}

func npy(dict string, data int) []byte {
	b := []byte(npyMagic + "\x01\x00")
	b = binary.LittleEndian.AppendUint16(b, uint16(len(dict)))
	return append(append(b, dict...), make([]byte, data)...)
}

// TestHostileFilesGiveOneClearErrorInLittleMemory: each file must be refused
// with the right kind of error, which names the place.
func TestHostileFilesGiveOneClearErrorInLittleMemory(t *testing.T) {
	valid := tensorPickle(4, 0, 4, 1)
	if sd, err := readAll(torchArchive(t, valid, strings.Repeat("\x00", 16))); err != nil || sd.Len() != 1 {
		t.Fatalf("the valid file from which others are made: %v", err)
	}
	deep := "\x80\x02" + strings.Repeat("}"+pickleText("k"), 200) + "N" + strings.Repeat("s", 200) + "."
	deepWithTensor := strings.Replace(valid, "}X", strings.Repeat("}"+pickleText("k"), 50)+"}X", 1)
	deepWithTensor = strings.TrimSuffix(deepWithTensor, ".") + strings.Repeat("s", 50) + "."
	// Every list holds the one before twice: 2^60 leaves in 300 bytes.
	bomb := "\x80\x02]q\x000" + strings.Repeat("](h\x00h\x00eq\x000", 60) + "h\x00."
	entry := func(name, dtype, shape string, from, to uint64) string {
		return fmt.Sprintf(`"%s":{"dtype":"%s","shape":%s,"data_offsets":[%d,%d]}`, name, dtype, shape, from, to)
	}
	manyCopies := "\x80\x02}(" + strings.Repeat(pickleText("w"), 1) + "Nu."
	for _, c := range []struct {
		name string
		raw  []byte
		kind error
		says string
	}{
		{"empty", nil, ErrFormat, "empty"},
		{"text", []byte("hello, this is no model at all"), ErrFormat, "begins with"},
		{"one byte", []byte{0x80}, ErrFormat, ""},

		{"posix.system", torchArchive(t, "\x80\x02cposix\nsystem\n"+pickleText("id")+"\x85R.", ""), ErrRefused, "posix.system"},
		{"eval by name on the stack", torchArchive(t, "\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.", ""), ErrRefused, "builtins.eval"},
		{"os.system in a legacy stream", []byte("\x80\x02cos\nsystem\n" + pickleText("id") + "\x85R."), ErrRefused, "os.system"},
		{"a torch function", torchArchive(t, "\x80\x02ctorch\nload\n.", ""), ErrRefused, "torch.load"},
		{"a global by instance", torchArchive(t, "\x80\x02(i__main__\nX\n.", ""), ErrRefused, "__main__.X"},
		{"calling a number", torchArchive(t, "\x80\x02K\x01)R.", ""), ErrRefused, "calling 1"},
		{"state of a global", torchArchive(t, "\x80\x02ctorch\nSize\n}b.", ""), ErrRefused, "setting the state"},
		{"an extension code", torchArchive(t, "\x80\x02\x82\x01.", ""), ErrRefused, "extension"},
		{"calling a storage class", torchArchive(t, "\x80\x02ctorch\nFloatStorage\n)R.", ""), ErrRefused, "torch.FloatStorage"},

		{"a long integer of 2 GB", torchArchive(t, "\x80\x02\x8b\xff\xff\xff\x7f.", ""), ErrCorrupt, "2147483647"},
		{"bytes of 2^62", torchArchive(t, "\x80\x04\x8e\x00\x00\x00\x00\x00\x00\x00\x40.", ""), ErrCorrupt, "4611686018427387904"},
		{"nested lists doubling", torchArchive(t, bomb, ""), ErrFormat, "a list"},
		{"dicts nested 200 deep without tensors", torchArchive(t, deep, ""), ErrFormat, "no tensors"},
		{"a tensor 50 dicts deep", torchArchive(t, deepWithTensor, strings.Repeat("\x00", 16)), ErrFormat, "no tensors"},
		{"a dict in itself", torchArchive(t, "\x80\x02}q\x00"+pickleText("a")+"h\x00s.", ""), ErrFormat, "no tensors"},
		{"a dict without tensors", torchArchive(t, manyCopies, ""), ErrFormat, "no tensors"},
		{"an empty stack", torchArchive(t, "\x80\x020.", ""), ErrCorrupt, "empty stack"},
		{"no end", torchArchive(t, "\x80\x02}", ""), ErrCorrupt, "byte 3"},
		{"protocol 9", torchArchive(t, "\x80\x09}.", ""), ErrUnsupported, "protocol 9"},
		{"an unknown instruction", torchArchive(t, "\x80\x02\xff.", ""), ErrCorrupt, "0xff"},
		{"a list of numbers", torchArchive(t, "\x80\x02]K\x01a.", ""), ErrFormat, "a list"},

		{"an offset behind the storage", torchArchive(t, tensorPickle(4, 4, 1, 1), strings.Repeat("\x00", 16)), ErrCorrupt, `tensor "w"`},
		{"an offset of 2^62", torchArchive(t, tensorPickle(4, 1<<62, 4, 1), strings.Repeat("\x00", 16)), ErrCorrupt, `tensor "w"`},
		{"a negative offset", torchArchive(t, tensorPickle(4, -1, 4, 1), strings.Repeat("\x00", 16)), ErrCorrupt, ""},
		{"a negative size", torchArchive(t, tensorPickle(4, 0, -4, 1), strings.Repeat("\x00", 16)), ErrCorrupt, ""},
		{"a negative stride", torchArchive(t, tensorPickle(4, 3, 4, -1), strings.Repeat("\x00", 16)), ErrCorrupt, ""},
		{"a stride of 2^62", torchArchive(t, tensorPickle(4, 0, 4, 1<<62), strings.Repeat("\x00", 16)), ErrCorrupt, "stride"},
		{"2^40 elements of stride 0", torchArchive(t, tensorPickle(4, 0, 1<<40, 0), strings.Repeat("\x00", 16)), ErrCorrupt, "too large"},
		{"a storage of 2^60 elements", torchArchive(t, tensorPickle(1<<60, 0, 4, 1), strings.Repeat("\x00", 16)), ErrCorrupt, ""},
		{"a storage larger than its entry", torchArchive(t, tensorPickle(5, 0, 4, 1), strings.Repeat("\x00", 16)), ErrCorrupt, "archive/data/0"},
		{"a storage that is not there", torchArchive(t, strings.Replace(valid, pickleText("0"), pickleText("7"), 1), ""), ErrCorrupt, "archive/data/7"},
		{"no data.pkl", archive(t, zip.Store, "archive/other", "x"), ErrFormat, "data.pkl"},
		{"two entries of one name", archive(t, zip.Store, "archive/data.pkl", valid, "archive/data/0", "x", "archive/data/0", "y"), ErrCorrupt, "two entries"},
		{"unknown byte order", archive(t, zip.Store, "archive/data.pkl", valid, "archive/byteorder", "middle"), ErrUnsupported, "middle"},
		{"a zip bomb", archive(t, zip.Deflate, "archive/data.pkl", tensorPickle(25<<20, 0, 25<<20, 1), "archive/data/0", strings.Repeat("\x00", 100<<20)), ErrCorrupt, "too many for its archive"},
		{"a zip bomb of arrays", archive(t, zip.Deflate, "a.npy", string(npy("{'descr': '|u1', 'fortran_order': False, 'shape': (104857600,), }", 100<<20))), ErrCorrupt, "a.npy"},

		{"a header of 2^60 bytes", append(binary.LittleEndian.AppendUint64(nil, 1<<60), "{}      "...), ErrCorrupt, "1152921504606846976"},
		{"a header longer than the file", append(binary.LittleEndian.AppendUint64(nil, 100), "{}      "...), ErrCorrupt, "header of 100 bytes"},
		{"a header that is no JSON", safetensors("{nonsense", 0), ErrCorrupt, "header"},
		{"overlap", safetensors("{"+entry("a", "F32", "[2]", 0, 8)+","+entry("b", "F32", "[2]", 4, 12)+"}", 12), ErrCorrupt, `"b"`},
		{"a hole", safetensors("{"+entry("a", "F32", "[1]", 0, 4)+","+entry("b", "F32", "[1]", 8, 12)+"}", 12), ErrCorrupt, `"b"`},
		{"offsets behind the end", safetensors("{"+entry("a", "F32", "[4]", 0, 16)+"}", 8), ErrCorrupt, `"a"`},
		{"offsets of 2^64", safetensors("{"+entry("a", "F32", "[1]", 18446744073709551612, 18446744073709551615)+"}", 8), ErrCorrupt, `"a"`},
		{"offsets in falling order", safetensors("{"+entry("a", "F32", "[1]", 4, 0)+"}", 8), ErrCorrupt, `"a"`},
		{"a size that is not the shape's", safetensors("{"+entry("a", "F32", "[3]", 0, 8)+"}", 8), ErrCorrupt, `"a"`},
		{"an overflowing shape", safetensors("{"+entry("a", "F32", "[4294967296,4294967296,4]", 0, 0)+"}", 0), ErrCorrupt, `"a"`},
		{"a negative dimension", safetensors("{"+entry("a", "F32", "[-2]", 0, 8)+"}", 8), ErrCorrupt, `"a"`},
		{"a type nobody knows", safetensors("{"+entry("a", "F4", "[2]", 0, 1)+"}", 1), ErrUnsupported, `"F4"`},
		{"a name twice", safetensors("{"+entry("a", "F32", "[1]", 0, 4)+","+entry("a", "F32", "[1]", 4, 8)+"}", 8), ErrCorrupt, "twice"},
		{"trailing bytes", safetensors("{"+entry("a", "F32", "[1]", 0, 4)+"}", 5), ErrCorrupt, "end at 4 of 5"},
		{"text after the header", safetensors("{} x", 0), ErrCorrupt, "after the JSON"},

		{"npy of 2^60 elements", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1152921504606846976,), }", 16), ErrCorrupt, "needs more than"},
		{"npy with an overflowing shape", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 4), }", 16), ErrCorrupt, "needs more than"},
		{"npy cut off", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (5,), }", 16), ErrCorrupt, "needs more than"},
		{"npy with a list", npy("[1, 2]", 0), ErrCorrupt, "header"},
		{"npy without a shape", npy("{'descr': '<f4', 'fortran_order': False, }", 16), ErrCorrupt, "want the keys"},
		{"npy with a key too many", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (), 'x': 1}", 16), ErrCorrupt, `key "x"`},
		{"npy with a negative dimension", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", 16), ErrCorrupt, "whole number"},
		{"npy of version 9", []byte(npyMagic + "\x09\x00\x00\x00\x00\x00"), ErrUnsupported, "version 9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			sd, err := readAll(c.raw)
			runtime.ReadMemStats(&after)
			if err == nil {
				t.Fatalf("read as %v", sd.Names())
			}
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v: want an error of kind %q that says %q", err, c.kind, c.says)
			}
			if len(err.Error()) > 500 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			// The archives' bombs pack 100 MiB into less than one.
			if used := after.TotalAlloc - before.TotalAlloc; used > 50<<20 {
				t.Errorf("%d bytes were allocated for a file of %d", used, len(c.raw))
			}
		})
	}
}

func fixtures(t testing.TB, patterns ...string) map[string][]byte {
	files := map[string][]byte{}
	for _, p := range patterns {
		paths, err := filepath.Glob(filepath.Join("testdata", p))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files[filepath.Base(path)] = raw
		}
	}
	if len(files) == 0 {
		t.Fatalf("no fixtures match %v", patterns)
	}
	// A safetensors file, which PyTorch does not write.
	sd := NewStateDict()
	sd.Set("a", &Tensor{Shape: []int{2, 3}, Data: ramp[float32](6, 0)})
	sd.Set("b", &Tensor{Shape: []int{3}, Data: ramp[int64](3, 0)})
	var b bytes.Buffer
	if err := encodeSafetensors(&b, sd); err != nil {
		t.Fatal(err)
	}
	files["small.safetensors"] = b.Bytes()
	return files
}

func TestEveryTruncationIsAnError(t *testing.T) {
	for name, raw := range fixtures(t, "*.pth", "*.npy", "*.npz") {
		for n := range raw {
			if sd, err := readAll(raw[:n]); err == nil {
				t.Errorf("%s cut to %d of %d bytes reads as %v", name, n, len(raw), sd.Names())
				break
			}
		}
	}
}

// TestDamageNeverPanics changes bytes one at a time. A changed weight is not
// noticed where a format has no checksum; anything may be an error.
func TestDamageNeverPanics(t *testing.T) {
	for name, raw := range fixtures(t, "*.pth", "float32.npy", "fortran.npy", "*.npz") {
		t.Run(name, func(t *testing.T) {
			for i := range raw {
				for _, v := range []byte{0, 0xff, raw[i] + 1, raw[i] ^ 0x80} {
					bad := bytes.Clone(raw)
					bad[i] = v
					_, _ = readAll(bad)
				}
			}
		})
	}
}

func TestErrorsNameTheFileOnce(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "some.pth")
	if err := os.WriteFile(path, []byte("no model"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, dir, filepath.Join(dir, "missing.pth"), os.DevNull} {
		if _, err := ReadFile(p); err == nil || strings.Count(err.Error(), p) != 1 {
			t.Errorf("%v: want %s in it once", err, p)
		}
	}
}
