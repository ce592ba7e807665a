package adapt

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/lowrank-go/lowrank/peft"
)

// What a format made of an adapter merges to what the adapter itself does, to rounding
// where it says that it is exact, and to the errors that it tells.
func TestFormatsHoldWhatTheySay(t *testing.T) {
	b := base(t, "cifar_pad")
	sd, err := b.StateDict()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range Methods() {
		if methods[Method(name)].kind == "" {
			continue
		}
		for _, dora := range []bool{false, true} {
			n, err := New(b, Options{Method: Method(name), Classes: 3, Seed: 1, DoRA: dora, Norms: peft.NormFrozen, Learned: true})
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				step(t, n, .05)
			}
			f, err := n.File(sd, "")
			if err != nil {
				t.Fatal(err)
			}
			for _, format := range []string{"peft", "lycoris", "loralib"} {
				for _, lossy := range []bool{false, true} {
					checkFormat(t, f.Adapters[0], format, ConvertOptions{Base: sd, Lossy: lossy})
				}
			}
		}
	}
}

func checkFormat(t *testing.T, a *peft.Adapter, format string, o ConvertOptions) {
	t.Helper()
	kind := a.Modules[0].Spec().Kind
	var back *peft.Adapter
	var rows []Conversion
	var err error
	bare := *a
	bare.Extra = nil
	switch format {
	case "peft":
		dir := filepath.Join(t.TempDir(), "adapter")
		if _, rows, err = WritePEFT(t.Context(), dir, &bare, o); err == nil {
			back, err = peft.ReadPEFT(dir, modulesSites(a))
		}
	case "lycoris":
		sd, r, left, e := LyCORIS(t.Context(), &bare, "", o)
		if rows, err = r, e; err == nil {
			back, err = peft.DecodeLyCORIS(sd, modulesSites(a), "")
		}
		if len(left) > 0 {
			t.Errorf("%s: %q left out", kind, left)
		}
	case "loralib":
		sd, r, e := Loralib(t.Context(), &bare, 3, o)
		if rows, err = r, e; err == nil {
			back, err = peft.DecodeLoralib(sd, modulesSites(a), 3)
		}
	}
	if !o.Lossy && errors.Is(err, peft.ErrLossy) {
		return
	}
	if err != nil {
		t.Errorf("%s to %s, lossy %v: %v", kind, format, o.Lossy, err)
		return
	}
	for i, m := range a.Modules {
		w, err := kernelOf(o.Base, m.Name)
		if err != nil {
			t.Fatal(err)
		}
		row, err := compare(m, back.Modules[i].Delta, w)
		if err != nil {
			t.Fatal(err)
		}
		if d := row.RelError - rows[i].RelError; d > 1e-6 || d < -1e-6 {
			t.Errorf("%s to %s: %s: an error of %g is told as %g", kind, format, m.Name, row.RelError, rows[i].RelError)
		}
		// A fit of all ranks loses no more than rounding either.
		if rows[i].RelError > 2e-4 {
			t.Errorf("%s to %s: %s, exact %v, has an error of %g", kind, format, m.Name, rows[i].Exact, row.RelError)
		}
	}
}

func TestFormatsRefuseWhatTheyCannotHold(t *testing.T) {
	b := base(t, "cifar_pad")
	sd, err := b.StateDict()
	if err != nil {
		t.Fatal(err)
	}
	_, f := trained(t, b, "residual-serial", "serial")
	a := f.Adapters[0]
	o := ConvertOptions{Base: sd}
	dir := filepath.Join(t.TempDir(), "adapter")
	if _, _, err := WritePEFT(t.Context(), dir, a, o); !errors.Is(err, peft.ErrLossy) {
		t.Errorf("PEFT: %v", err)
	}
	if _, _, _, err := LyCORIS(t.Context(), a, "", o); !errors.Is(err, peft.ErrLossy) {
		t.Errorf("LyCORIS with a head: %v", err)
	}
	if _, _, err := Loralib(t.Context(), a, 1, o); !errors.Is(err, peft.ErrLossy) {
		t.Errorf("loralib: %v", err)
	}
	if _, _, err := ToKind(t.Context(), a, peft.LoRA, o); !errors.Is(err, peft.ErrLossy) {
		t.Errorf("to LoRA: %v", err)
	}
	if _, _, err := ToKind(t.Context(), a, peft.CP, ConvertOptions{Base: sd, Lossy: true}); !errors.Is(err, ErrOption) {
		t.Errorf("to CP without a rank: %v", err)
	}
	out, rows, err := ToKind(t.Context(), a, peft.Full, o)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range rows {
		if !r.Exact || r.RelError > 1e-6 || out.Modules[i].Spec().Kind != peft.Full {
			t.Errorf("whole: %+v", r)
		}
	}
	if a.Modules[0].Spec().Kind != peft.Series {
		t.Error("the adapter itself has changed")
	}
}
