package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/lowrank-go/lowrank/internal/infile"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/train"
)

type reportFlags struct {
	title string
	out   string
	force bool
}

func newReport() *cobra.Command {
	var f reportFlags
	cmd := &cobra.Command{
		Use:   "report FILE|DIR... -o PAGE",
		Short: "Put reports of other commands on one page",
		Long: `Writes one HTML page, with plots and nothing to fetch, of what other commands told:
the --json of compress, train and adapt, the outcomes of compare, and the logs (.jsonl)
that lie beside trained networks. Of a DIR it takes the .json and .jsonl files that are
reports. Of several reports of compress it draws accuracy against operations.`,
		Example: `  lowrank compress resnet20.th --rank ratio=0.3 --data cifar10:DIR --json -o small.safetensors > small.json
  lowrank report small.json -o small.html
  lowrank report runs/ -o runs.html`,
		Args: atLeast(1, "a report or a directory of reports"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.title, "title", "lowrank", "title of the page")
	fl.StringVarP(&f.out, "output", "o", "", "file to write (HTML)")
	fl.BoolVar(&f.force, "force", false, "overwrite an existing output")
	return cmd
}

func (f *reportFlags) run(cmd *cobra.Command, args []string) error {
	if f.out == "" {
		return usagef("report needs -o PAGE")
	}
	if err := checkOutput(f.out, f.force); err != nil {
		return err
	}
	p := page{Title: f.title, ctx: cmd.Context()}
	for _, path := range args {
		if err := p.addPath(path); err != nil {
			return err
		}
	}
	if err := p.compare(); err != nil {
		return err
	}
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, p); err != nil {
		return err
	}
	err := model.WriteAtomic(f.out, func(w io.Writer) error {
		_, err := w.Write(b.Bytes())
		return err
	})
	if err == nil {
		fmt.Fprintf(cmd.OutOrStdout(), "wrote %s\n", f.out)
	}
	return err
}

// errNoReport is wrapped by errors about files that are none.
var errNoReport = errors.New("no report of compress, train, adapt or compare")

// addPath adds the report in a file, or those in a directory.
func (p *page) addPath(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return p.addFile(path)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	found := 0
	for _, e := range entries {
		if !slices.Contains([]string{".json", ".jsonl"}, filepath.Ext(e.Name())) {
			continue
		}
		switch err := p.addFile(filepath.Join(path, e.Name())); {
		case err == nil:
			found++
		case !errors.Is(err, errNoReport):
			return err
		}
	}
	if found == 0 {
		return fmt.Errorf("%s: %w in this directory", path, errNoReport)
	}
	return nil
}

// addFile adds a report, which it recognises by its keys.
func (p *page) addFile(path string) error {
	text, err := infile.Read(p.ctx, path, 64<<20)
	if err != nil {
		return err
	}
	var keys map[string]json.RawMessage
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&keys); err != nil {
		return fmt.Errorf("%s: %w", path, errNoReport)
	}
	has := func(names ...string) bool {
		return !slices.ContainsFunc(names, func(n string) bool { _, ok := keys[n]; return !ok })
	}
	name := stem(path)
	switch {
	case has("params_before", "params_after", "layers", "method"):
		var r compressReport
		if err = json.Unmarshal(text, &r); err == nil {
			err = p.addCompress(name, &r)
		}
	case has("params_trainable", "epochs", "recipe"):
		var r adaptReport
		if err = json.Unmarshal(text, &r); err == nil {
			err = p.addAdapt(name, &r)
		}
	case has("arch", "epochs", "recipe"):
		var r trainReport
		if err = json.Unmarshal(text, &r); err == nil {
			err = p.addTrain(name, &r)
		}
	case has("task", "method", "split", "settings"):
		var all outcomes
		if all, err = readOutcomes(path); err != nil {
			return err // it names the file
		}
		err = p.addOutcomes(name, all)
	case has("epoch", "rate", "loss", "images_per_second"):
		var epochs []train.Epoch
		for d := json.NewDecoder(bytes.NewReader(text)); err == nil && d.More(); {
			var e train.Epoch
			if err = d.Decode(&e); err == nil {
				epochs = append(epochs, e)
			}
		}
		if err == nil {
			err = p.addLog(name, epochs)
		}
	default:
		return fmt.Errorf("%s: %w", path, errNoReport)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
