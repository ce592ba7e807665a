package dataset

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"
)

// progressive is the beginning of a progressive JPEG of a size with so many scans.
func progressive(side, scans int) []byte {
	b := []byte("\xff\xd8\xff\xc2\x00\x11\x08")
	b = append(b, byte(side>>8), byte(side), byte(side>>8), byte(side))
	b = append(b, "\x03\x01\x11\x00\x02\x11\x00\x03\x11\x00"...)
	for range scans {
		b = append(b, "\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00\x00\x00"...)
	}
	return b
}

func TestJPEGsOfManyScansAreRefusedBeforeTheyAreDecoded(t *testing.T) {
	for _, b := range [][]byte{progressive(16, 501), progressive(2048, 300)} {
		if _, err := Decode(bytes.NewReader(b)); !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), "scans") {
			t.Errorf("error %v", err)
		}
	}
	// What cameras and the web have passes, and is then found to be no image.
	if _, err := Decode(bytes.NewReader(progressive(2048, 12))); !errors.Is(err, ErrFormat) {
		t.Errorf("error %v", err)
	}
}

// A file of some hundred kilobytes cannot ask for gigabytes.
func TestImagesOutOfProportionToTheirFilesAreRefused(t *testing.T) {
	head := func(side int) []byte {
		b := bytes.Clone([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x00\x00\x00\x00\x00\x10\x06\x00\x00\x00"))
		b[18], b[19], b[22], b[23] = byte(side>>8), byte(side), byte(side>>8), byte(side)
		return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[12:]))
	}
	if _, err := Decode(bytes.NewReader(head(8192))); !errors.Is(err, ErrLimit) {
		t.Errorf("8192×8192 of 16 bits in 33 bytes: %v", err)
	}
	if _, err := Decode(bytes.NewReader(head(512))); !errors.Is(err, ErrFormat) {
		t.Errorf("512×512, truncated: %v", err)
	}
}

func TestImagesOfOtherFormatsAreRead(t *testing.T) {
	m := image.NewPaletted(image.Rect(0, 0, 3, 2), color.Palette{color.RGBA{10, 20, 30, 255}, color.RGBA{200, 100, 50, 255}})
	m.SetColorIndex(1, 1, 1)
	files := map[string]*bytes.Buffer{"gif": {}, "bmp": {}, "tiff": {}}
	if err := gif.Encode(files["gif"], m, nil); err != nil {
		t.Fatal(err)
	}
	if err := bmp.Encode(files["bmp"], m); err != nil {
		t.Fatal(err)
	}
	if err := tiff.Encode(files["tiff"], m, nil); err != nil {
		t.Fatal(err)
	}
	for name, b := range files {
		got, err := Decode(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.W != 3 || got.H != 2 || got.C != 3 || !bytes.Equal(got.Pix[12:15], []byte{200, 100, 50}) || !bytes.Equal(got.Pix[:3], []byte{10, 20, 30}) {
			t.Errorf("%s: %v", name, got)
		}
	}
	webp := "RIFF\x1a\x00\x00\x00WEBPVP8L\x0d\x00\x00\x00\x2f\x00\x00\x00\x10\x07\x10\x11\x11\x88\x88\xfe\x07\x00"
	if got, err := Decode(strings.NewReader(webp)); err != nil || got.W != 1 || got.H != 1 {
		t.Errorf("webp: %v, %v", got, err)
	}
}

func TestImagesThatAreNotReadAreNamed(t *testing.T) {
	dir := t.TempDir()
	var b bytes.Buffer
	if err := gif.Encode(&b, image.NewPaletted(image.Rect(0, 0, 1, 1), color.Palette{color.Black}), nil); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"a/1.gif": b.Bytes(), "b/sub/2.gif": b.Bytes(), "b/3.gif": b.Bytes(), "b/4.heic": {1}} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set, err := Open("folder:"+dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if set.Len() != 3 || set.Classes() != 2 || !strings.Contains(set.Name(), "not read: 1 .heic files") {
		t.Errorf("%d images of %d classes in %s", set.Len(), set.Classes(), set.Name())
	}
}

func TestArchivesOfDeepFoldersAreRefusedAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep.zip")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	if _, err := z.Create(strings.Repeat("a/", 32000) + "1.png"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := Open("folder:"+path, Options{}); !errors.Is(err, ErrLimit) || len(err.Error()) > 500 {
		t.Errorf("error %.200v", err)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("it took %v", d)
	}
}

// Decoding waits where too much would be decoded at once, and never for ever.
func TestTheGateLetsEveryoneThrough(t *testing.T) {
	done := make(chan bool)
	for range 8 {
		go func() {
			for range 50 {
				leave := decoding.enter(3 << 29)
				leave()
			}
			done <- true
		}()
	}
	for range 8 {
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Fatal("someone waits for ever")
		}
	}
}
