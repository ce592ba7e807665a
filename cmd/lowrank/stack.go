package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lowrank-go/lowrank/adapt"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/peft"
)

func newStack() *cobra.Command {
	var mf modelFlags
	var base, out string
	var force bool
	cmd := &cobra.Command{
		Use:   "stack ADAPTER... -o FILE",
		Short: "Keep the adapters of several tasks in one file",
		Long: `Writes one file with the adapters of several tasks over one frozen network; merge,
eval --adapter and programs take a task from it as FILE:NAME. Nothing is added up.

An ADAPTER is a file of adapt, extract or convert, all its tasks or, as FILE:NAME, one
of them; NAME=FILE gives it a new name. An adapter without one is called as its file.

All must have been made for the same network. Each file names the tensors that must be
as they were, and their SHA-256; where those are other tensors in each file (a method
that trains the norms replaces them), give the network with --base.`,
		Example: `  lowrank stack --base embedded digits.safetensors shapes.safetensors -o tasks.safetensors
  lowrank stack kmnist=a.safetensors letters=b.safetensors:old -o tasks.safetensors
  lowrank eval embedded --adapter tasks.safetensors:digits --data glyphs:digits`,
		Args: atLeast(1, "adapters"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if out == "" {
				return usagef("stack needs -o FILE")
			}
			if err := checkEnding(out, ".safetensors"); err != nil {
				return err
			}
			if err := checkOutput(out, force); err != nil {
				return err
			}
			var files []*peft.File
			for _, argument := range args {
				f, err := tasksOf(cmd.Context(), argument)
				if err != nil {
					return err
				}
				files = append(files, f)
			}
			var sd *model.StateDict
			if base != "" {
				t, err := mf.target(base, false)
				if err != nil {
					return err
				}
				sd = t.sd
			}
			file, err := adapt.Stack(sd, files...)
			if errors.Is(err, adapt.ErrOption) {
				return fmt.Errorf("%w (--base)", err)
			}
			if err != nil {
				return err
			}
			if err := file.Write(out); err != nil {
				return err
			}
			return printAdapters(cmd, file, mf.json)
		},
	}
	mf.addReading(cmd)
	fl := cmd.Flags()
	fl.StringVar(&base, "base", "", `the network they were made for; "embedded" is the one in the program`)
	fl.StringVarP(&out, "output", "o", "", "file to write (safetensors)")
	fl.BoolVar(&force, "force", false, "overwrite an existing output")
	return cmd
}

// tasksOf reads [NAME=]FILE[:TASK].
func tasksOf(ctx context.Context, argument string) (*peft.File, error) {
	name := ""
	if _, err := os.Lstat(argument); errors.Is(err, fs.ErrNotExist) {
		if n, rest, ok := strings.Cut(argument, "="); ok && n != "" {
			name, argument = n, rest
		}
	}
	path, task := splitTask(argument)
	format, sd, err := adapterFormat(ctx, path, model.ReadOptions{})
	if err != nil {
		return nil, err
	}
	if format != formatNative {
		return nil, fmt.Errorf("%s: not an adapter file of lowrank's; lowrank convert makes one of those of other programs", path)
	}
	f, err := peft.FromStateDict(sd)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if task != "" || name != "" {
		a, err := adapt.Pick(f, task)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		f.Adapters = []*peft.Adapter{a}
	}
	for _, a := range f.Adapters {
		switch {
		case name != "":
			a.Name = name
		case a.Name == "":
			a.Name = stem(path)
		}
	}
	return f, nil
}

// stem is a file's name without folder and ending.
func stem(path string) string {
	return strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
}
