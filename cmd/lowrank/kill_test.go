package main

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// A run that is killed at random moments, with no chance to clean up, goes on to the
// bytes of one that is not.
func TestAKilledRunResumesToTheSameBytes(t *testing.T) {
	if testing.Short() {
		t.Skip("trains for some seconds: not in short mode")
	}
	const data = "glyphs:digits,train=400,test=40"
	for name, args := range map[string][]string{
		"train": {"train", "--arch", "resnet20", "--data", data, "--epochs", "2", "--batch", "32", "--ema", "0.9"},
		"lwf":   {"adapt", "--method", "lwf", "--data", data, "--epochs", "2", "--batch", "32"},
	} {
		t.Run(name, func(t *testing.T) { killed(t, args) })
	}
}

// killed runs a command whole, and killed at random moments.
func killed(t *testing.T, args []string) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	start := func(out string, more ...string) *exec.Cmd {
		args := append(slices.Clone(args), "--checkpoint-every", "1ms", "-o", filepath.Join(dir, out))
		// The test binary is the program where it is called so: see TestMain.
		c := &exec.Cmd{Path: self, Args: slices.Concat([]string{"lowrank"}, args, more)}
		var stderr bytes.Buffer
		c.Stderr = &stderr
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if t.Failed() {
				t.Log(stderr.String())
			}
		})
		return c
	}
	began := time.Now()
	if err := start("whole.safetensors").Wait(); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	kills := 0
	for ; ; kills++ {
		c := start("killed.safetensors", "--resume")
		done := make(chan error, 1)
		go func() { done <- c.Wait() }()
		limit := time.Duration((.1 + .5*rng.Float64()) * float64(took))
		if kills > 8 {
			limit = time.Hour // a slow machine
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(limit):
			if err := c.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			<-done
			continue
		}
		break
	}
	want, err := os.ReadFile(filepath.Join(dir, "whole.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "killed.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("after %d kills the weights differ", kills)
	}
	t.Logf("killed %d times", kills)
}
