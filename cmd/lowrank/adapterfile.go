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
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/peft"
)

// The formats of adapters and of networks that convert knows.
const (
	formatNative      = "native"
	formatPEFT        = "peft"
	formatLyCORIS     = "lycoris"
	formatLoralib     = "loralib"
	formatSafetensors = "safetensors"
)

// peftConfigName tells a directory of PEFT's from others.
const peftConfigName = "adapter_config.json"

// adapterFormat tells what an adapter's file is; formatSafetensors, a network, where it
// is no adapter.
func adapterFormat(ctx context.Context, path string, which model.ReadOptions) (string, *model.StateDict, error) {
	if _, err := os.Stat(filepath.Join(path, peftConfigName)); err == nil {
		return formatPEFT, nil, nil
	}
	sd, err := which.ReadFile(ctx, path)
	if err != nil {
		return "", nil, err
	}
	if _, ok := sd.Meta[peft.MetaKey]; ok {
		return formatNative, sd, nil
	}
	for _, name := range sd.Names() {
		_, param, _ := strings.Cut(name, ".")
		switch {
		case strings.HasPrefix(name, "base_model.model.") && (strings.Contains(name, ".lora_") || strings.Contains(name, ".hada_w") || strings.Contains(name, ".lokr_w")):
			return "", nil, fmt.Errorf("%s: tensors of PEFT's, which mean nothing without %s beside them: name the directory", path, peftConfigName)
		case strings.HasSuffix(name, ".lora_A") || strings.HasSuffix(name, ".lora_B"):
			return formatLoralib, sd, nil
		case strings.HasSuffix(name, ".lora_up.weight"), strings.Contains(name, ".hada_w"), strings.Contains(name, ".lokr_w"),
			strings.HasSuffix(name, ".diff"), strings.HasSuffix(name, ".diff_b"), strings.HasSuffix(name, ".w_norm"), strings.HasSuffix(name, ".b_norm"),
			(strings.HasPrefix(name, peft.LyCORISPrefix+"_") || strings.HasPrefix(name, "lora_")) && peft.Algorithm(param) != "":
			return formatLyCORIS, sd, nil
		}
	}
	return formatSafetensors, sd, nil
}

// foreignFlags are what other programs' files do not say.
type foreignFlags struct {
	prefix string
	alpha  float64
	cmd    *cobra.Command
}

func (f *foreignFlags) add(cmd *cobra.Command) {
	f.cmd = cmd
	cmd.Flags().StringVar(&f.prefix, "lycoris-prefix", "", "what the names in LyCORIS files begin with, such as lora_unet; left out, it is found, and "+peft.LyCORISPrefix+" is written")
	cmd.Flags().Float64Var(&f.alpha, "lora-alpha", 1, "the alpha of loralib files, which do not hold it")
}

// read reads an adapter file of any format for a network; format is what
// it is, or "" to look.
func (f *foreignFlags) read(path, format string, base peft.Base) (*peft.File, error) {
	found, sd, err := adapterFormat(f.cmd.Context(), path, model.ReadOptions{})
	if err != nil {
		return nil, err
	}
	if format == "" {
		format = found
	}
	var a *peft.Adapter
	switch {
	case format == formatPEFT && sd != nil:
		return nil, fmt.Errorf("%s: not PEFT's: it has no %s", path, peftConfigName)
	case format == formatPEFT:
		a, err = base.ReadPEFT(f.cmd.Context(), path)
		if err != nil {
			return nil, err // it names the directory
		}
	case sd == nil:
		return nil, fmt.Errorf("%s: a directory of PEFT's, not a %s file", path, format)
	case format == formatNative:
		file, err := peft.FromStateDict(sd)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return file, nil
	case format == formatLyCORIS:
		a, err = base.DecodeLyCORIS(sd, f.prefix)
	case format == formatLoralib:
		a, err = base.DecodeLoralib(sd, f.alpha)
	default:
		return nil, fmt.Errorf("%s: no adapter: it has the tensors of a network, such as %q", path, first(sd.Names()))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &peft.File{Adapters: []*peft.Adapter{a}}, nil
}

func first(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return names[0]
}

// splitTask cuts FILE:NAME, unless there is a file of the whole name.
func splitTask(argument string) (path, task string) {
	if _, err := os.Lstat(argument); !errors.Is(err, fs.ErrNotExist) {
		return argument, ""
	}
	if i := strings.LastIndexByte(argument, ':'); i > 0 {
		return argument[:i], argument[i+1:]
	}
	return argument, ""
}

// target is a network that adapters are put on.
type target struct {
	path  string
	net   *graph.Graph
	sd    *model.StateDict
	force bool // take it for another's base
}

// base is the network as adapters of other programs need it.
func (t *target) base() peft.Base { return peft.Base{Sites: adapt.Sites(t.net), State: t.sd} }

// target loads the network.
func (f *modelFlags) target(path string, force bool) (*target, error) {
	net, err := f.net(path)
	if err != nil {
		return nil, err
	}
	sd, err := net.StateDict()
	if err != nil {
		return nil, err
	}
	return &target{path, net, sd, force}, nil
}

// adapter reads FILE[:NAME] and checks that it belongs to the network.
func (t *target) adapter(argument string, f *foreignFlags) (*peft.Adapter, error) {
	path, task := splitTask(argument)
	file, err := f.read(path, "", t.base())
	if err != nil {
		return nil, err
	}
	a, err := adapt.Pick(file, task)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	one := *file
	one.Adapters = []*peft.Adapter{a}
	if err := one.Check(t.sd, t.force); err != nil {
		return nil, fmt.Errorf("%s on %s: %w", argument, t.path, err)
	}
	if file.Base == "" && len(a.Modules) == 0 && a.Extra == nil {
		return nil, fmt.Errorf("%s: an adapter of nothing", argument)
	}
	if a.Name == "" {
		a.Name = stem(path)
	}
	return a, nil
}
