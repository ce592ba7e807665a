package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lowrank-go/lowrank/model"
)

// foreignEndings are those of formats that this program does not write: a file of another
// format under such a name would mislead every reader.
var foreignEndings = []string{".pth", ".pt", ".th", ".ckpt", ".tar", ".bin", ".pkl", ".pickle", ".onnx", ".h5", ".hdf5", ".keras", ".pb", ".tflite", ".gguf", ".msgpack", ".mat", ".zip", ".gz"}

// otherEndings are those of what it writes.
var otherEndings = []string{".safetensors", ".npz", ".npy", ".jsonl", ".json", ".html", ".svg", ".png", ".pdf", ".checkpoint"}

// checkEnding refuses a name that says another format than is written, of which the
// endings are allowed.
func checkEnding(path string, allowed ...string) error {
	ending := strings.ToLower(filepath.Ext(path))
	if path == "" || slices.Contains(allowed, ending) || !slices.Contains(foreignEndings, ending) && !slices.Contains(otherEndings, ending) {
		return nil
	}
	return usagef("-o %s: %s files are not written here; want a name that ends in %s", path, ending, strings.Join(allowed, " or "))
}

// checkOutput finds before any work is done what would keep a file from being written: that
// it is there and --force is not given, that it is a directory, that its folder is missing
// or cannot be written to, or that its name is too long.
func checkOutput(path string, force bool) error {
	if path == "" {
		return nil
	}
	info, err := os.Lstat(path)
	switch {
	case err == nil && info.IsDir():
		return fmt.Errorf("%s is a directory; want the name of a file", path)
	case err == nil && !force:
		return fmt.Errorf("%s exists; --force overwrites it", path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return model.TryAtomic(path)
}

// unfinished tells whether the checkpoint of a run that writes path is there: an output
// beside it is that run's own, which was ended before it discarded the checkpoint.
func unfinished(path string) bool {
	checkpoint, _, _ := trainingFiles(path)
	_, err := os.Lstat(checkpoint)
	return path != "" && err == nil
}

// checkOutputDir is checkOutput for a directory that is to be made.
func checkOutputDir(path string, force bool) error {
	if _, err := os.Lstat(path); err == nil {
		if !force {
			return fmt.Errorf("%s exists; --force overwrites it", path)
		}
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return model.TryAtomic(path)
}

// checkTraining is checkOutput for what a run leaves beside its output: without --resume
// and --force nothing that is there is taken for its own. What a killed run left half
// written is removed where it goes on.
func checkTraining(out string, resume, force, curve bool) error {
	if out == "" {
		return nil
	}
	checkpoint, log, svg := trainingFiles(out)
	files := []string{checkpoint, log}
	if curve {
		files = append(files, svg)
	}
	goesOn := false
	if resume {
		_, err := os.Lstat(checkpoint)
		goesOn = err == nil
		for _, path := range append(files, out) {
			if err := model.RemoveTemporary(path); err != nil {
				return err
			}
		}
	}
	if goesOn { // the log is that of the checkpoint
		files = nil
	}
	for _, path := range files {
		if _, err := os.Lstat(path); err == nil && !force {
			return fmt.Errorf("%s exists; --force overwrites it, and --resume goes on from a checkpoint", path)
		}
		if err := checkOutput(path, force); err != nil {
			return err
		}
	}
	return nil
}

// checkName refuses a name that an adapter in a file cannot have.
func checkName(name string) error {
	if strings.Contains(name, "/") {
		return usagef("--name %s; want a name without /", name)
	}
	return nil
}

// typeFlag is the type of floating-point numbers in an output.
type typeFlag struct{ dtype string }

func (f *typeFlag) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.dtype, "dtype", "keep", "type of the numbers written: keep (that of the input), float32, float16 or bfloat16")
}

var floatTypes = map[string]model.DType{"float32": model.F32, "float16": model.F16, "bfloat16": model.BF16}

func (f *typeFlag) check() error {
	if _, ok := floatTypes[f.dtype]; !ok && f.dtype != "keep" {
		return usagef("--dtype %q; want keep, float32, float16 or bfloat16", f.dtype)
	}
	return nil
}

// apply gives out, made of a network in a file of type was, the type that is asked for.
// Where it keeps the input's, tensors with numbers beyond the type's range stay float32.
func (f *typeFlag) apply(out *model.StateDict, was model.DType) error {
	if f.dtype != "keep" {
		return out.SetFloatType(floatTypes[f.dtype])
	}
	if was != model.F16 && was != model.BF16 {
		return nil
	}
	for _, name := range out.Names() {
		t, _ := out.Get(name)
		one := model.NewStateDict()
		one.Set(name, t)
		if err := one.SetFloatType(was); err == nil {
			t, _ = one.Get(name)
			out.Set(name, t)
		}
	}
	return nil
}
