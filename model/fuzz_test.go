package model

import (
	"archive/zip"
	"bytes"
	"io"
	"strings"
	"testing"
)

// The parsers must neither panic nor take much memory, whatever they are given,
// and what they accept must be consistent.

func checkRead(t *testing.T, sd *StateDict, err error) {
	if err != nil {
		return
	}
	for _, name := range sd.Names() {
		x, _ := sd.Get(name)
		if err := x.check(); err != nil {
			t.Errorf("%q was read with %v", name, err)
		}
	}
}

// nothing are storages of which there is none.
type nothing struct{}

func (nothing) load(*pyStorage) ([]byte, error) { return nil, ErrCorrupt }

func FuzzUnpickle(f *testing.F) {
	for _, s := range []string{
		tensorPickle(4, 0, 4, 1), "\x80\x02}q\x00" + pickleText("a") + "h\x00s.", "(dp0\nS'a'\np1\nI1\ns.", "\x80\x02cposix\nsystem\n.",
		"\x80\x02ccollections\nOrderedDict\n]\x85R.", "\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00\x8f(K\x01\x90.", "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.",
	} {
		f.Add([]byte(s))
	}
	// The pickles of checkpoints with objects of all kinds.
	for _, raw := range fixtures(f, "checkpoints/*.pth") {
		z, err := zip.NewReader(bytes.NewReader(raw), int64(len(raw)))
		if err != nil {
			continue // a legacy stream
		}
		for _, e := range z.File {
			if strings.HasSuffix(e.Name, "data.pkl") {
				r, err := e.Open()
				if err != nil {
					f.Fatal(err)
				}
				text, err := io.ReadAll(r)
				if err != nil {
					f.Fatal(err)
				}
				f.Add(text)
			}
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		v, err := newUnpickler(bytes.NewReader(raw), int64(len(raw)), "fuzz").run()
		if err == nil {
			_ = describe(v)
			sd, err := ReadOptions{}.gather(v, nothing{}, int64(len(raw)), false)
			checkRead(t, sd, err)
		}
	})
}

func FuzzTorch(f *testing.F) {
	for _, raw := range fixtures(f, "*.pth", "checkpoints/*.p*", "checkpoints/*.ckpt") {
		f.Add(raw)
	}
	f.Add(torchArchive(f, tensorPickle(4, 0, 4, 1), "0123456789abcdef"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		sd, err := ReadTorch(bytes.NewReader(raw), int64(len(raw)))
		checkRead(t, sd, err)
		if err == nil {
			checkRead(t, Strip(sd), nil)
		}
	})
}

func FuzzSafetensors(f *testing.F) {
	f.Add(fixtures(f, "list.pth")["small.safetensors"])
	f.Add(safetensors(`{"a":{"dtype":"F16","shape":[],"data_offsets":[0,2]},"__metadata__":{"x":"y"}}`, 2))
	f.Fuzz(func(t *testing.T, raw []byte) {
		sd, err := ReadSafetensors(bytes.NewReader(raw), int64(len(raw)))
		checkRead(t, sd, err)
		if err != nil {
			return
		}
		// What was read is written as it was.
		var b bytes.Buffer
		if err := encodeSafetensors(&b, sd); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadSafetensors(bytes.NewReader(b.Bytes()), int64(b.Len())); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzNPY(f *testing.F) {
	for _, raw := range fixtures(f, "*.npy") {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		x, err := ReadNPY(bytes.NewReader(raw), int64(len(raw)))
		if err != nil {
			return
		}
		if err := x.check(); err != nil {
			t.Error(err)
		}
	})
}

func FuzzNPZ(f *testing.F) {
	for _, raw := range fixtures(f, "*.npz") {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		sd, err := ReadNPZ(bytes.NewReader(raw), int64(len(raw)))
		checkRead(t, sd, err)
	})
}
