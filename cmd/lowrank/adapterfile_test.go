package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/peft"
)

// Whatever is wrong with an adapter's file, a command says it in one line that names the
// file, fails, and writes nothing; what is right gives the same bytes each time.
func TestDamagedAdapters(t *testing.T) {
	dir := t.TempDir()
	images := filepath.Join(dir, "images")
	if err := os.Mkdir(images, 0o755); err != nil {
		t.Fatal(err)
	}
	makeImages(t, images)
	base := filepath.Join("..", "..", "zoo", "testdata", "cifar_pad.pth")
	good := filepath.Join(dir, "good.safetensors")
	var stdout, stderr bytes.Buffer
	if status := run([]string{"adapt", base, "--data", "folder:" + images, "--method", "tucker", "--epochs", "1", "--batch", "6", "-o", good}, &stdout, &stderr); status != 0 {
		t.Fatal(stderr.String())
	}
	content, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(dir, "bad.safetensors")
	out := filepath.Join(dir, "out")
	refused := func(what string) {
		t.Helper()
		for _, args := range [][]string{
			{"merge", base, bad, "-o", out}, {"eval", base, "--adapter", bad, "--data", "folder:" + images},
			{"stack", bad, "-o", out}, {"convert", bad, "--to", "peft", "-o", out},
		} {
			stdout.Reset()
			stderr.Reset()
			status := run(args, &stdout, &stderr)
			text := stderr.String()
			if status != 1 || strings.Count(text, "\n") != 1 || !strings.HasPrefix(text, "lowrank: ") || !strings.Contains(text, "bad.safetensors") {
				t.Errorf("%s: %s: status %d, %q", what, args[0], status, text)
			}
			if _, err := os.Lstat(out); err == nil {
				t.Fatalf("%s: %s wrote something", what, args[0])
			}
		}
	}
	for _, n := range []int{0, 1, 7, 8, 100, len(content) / 2, len(content) - 4} {
		if err := os.WriteFile(bad, content[:n], 0o644); err != nil {
			t.Fatal(err)
		}
		refused("cut")
	}
	for what, damage := range map[string]func(*model.StateDict){
		"a tensor less": func(sd *model.StateDict) { sd.Delete("layer1.0.conv1.tucker2.core") },
		"a head less":   func(sd *model.StateDict) { sd.Delete("linear.weight") },
		"a tensor more": func(sd *model.StateDict) { sd.Set("more", &model.Tensor{Shape: []int{1}, Data: []float32{1}}) },
		"another shape": func(sd *model.StateDict) {
			sd.Set("layer1.0.conv1.tucker2.in", &model.Tensor{Shape: []int{1}, Data: []float32{1}})
		},
		"no number":      func(sd *model.StateDict) { setFirst(sd, "layer1.0.conv1.tucker2.core", nan()) },
		"another kind":   func(sd *model.StateDict) { replaceMeta(sd, `"kind":"tucker2"`, `"kind":"tucker9"`) },
		"a huge rank":    func(sd *model.StateDict) { replaceMeta(sd, `"rank":[4,4]`, `"rank":[70000,4]`) },
		"a larger rank":  func(sd *model.StateDict) { replaceMeta(sd, `"rank":[4,4]`, `"rank":[60000,60000]`) },
		"a later format": func(sd *model.StateDict) { replaceMeta(sd, `"format":1`, `"format":2`) },
		"no JSON":        func(sd *model.StateDict) { sd.Meta[peft.MetaKey] = "{" },
	} {
		sd, err := model.ReadFile(good)
		if err != nil {
			t.Fatal(err)
		}
		before := sd.Meta[peft.MetaKey]
		n := sd.Len()
		damage(sd)
		if err := model.WriteSafetensors(bad, sd); err != nil {
			t.Fatal(err)
		}
		if again, _ := os.ReadFile(bad); bytes.Equal(again, content) {
			t.Fatalf("%s: nothing was damaged (%d tensors, %s)", what, n, before)
		}
		refused(what)
	}

	var first []byte
	for range 2 {
		if status := run([]string{"merge", base, good, "--as-adapter", "--round", "2", "-o", out, "--force"}, &stdout, &stderr); status != 0 {
			t.Fatal(stderr.String())
		}
		again, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if first != nil && !bytes.Equal(first, again) {
			t.Error("the same command wrote other bytes")
		}
		first = again
	}
}

func nan() float32 {
	var zero float32
	return zero / zero
}

func setFirst(sd *model.StateDict, name string, v float32) {
	t, _ := sd.Get(name)
	t.Data.([]float32)[0] = v
}

func replaceMeta(sd *model.StateDict, old, with string) {
	sd.Meta[peft.MetaKey] = strings.Replace(sd.Meta[peft.MetaKey], old, with, 1)
}
