package main

import (
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/internal/figures"
	"github.com/lowrank-go/lowrank/internal/progress"
	"github.com/lowrank-go/lowrank/model"
	"github.com/lowrank-go/lowrank/peft"
	"github.com/lowrank-go/lowrank/zoo"
	"github.com/lowrank-go/lowrank/zoo/letters"
)

// modelFlags are the flags of every command that reads a network.
type modelFlags struct {
	strideFirst bool
	dilate      int
	norm        normFlags
	threads     int
	image       string
	json        bool
	// which says what of a file is the network.
	which model.ReadOptions
	// sources are where the networks that were read lay in their files, by path.
	sources map[string]model.Source
	// types are the types of the numbers in those files.
	types map[string]model.DType
	cmd   *cobra.Command
}

func (f *modelFlags) add(cmd *cobra.Command) {
	f.addReading(cmd)
	f.norm.add(cmd)
	cmd.Flags().IntVar(&f.threads, "threads", 0, "threads to use, 0 for all; results do not depend on it")
}

// addReading is add for commands that run no network.
func (f *modelFlags) addReading(cmd *cobra.Command) {
	f.cmd = cmd
	cmd.Flags().StringVar(&f.which.Key, "key", "", "of PyTorch checkpoints: where the weights lie, such as model_ema or ema.state_dict; left out, they are found")
	cmd.Flags().StringVar(&f.which.Prefix, "prefix", "", "of networks: what the names of their tensors begin with, such as teacher.backbone; left out, wrappers such as module. are found")
	cmd.Flags().StringVar(&f.image, "image", "", "size of images, 320 or 240x320 (rows by columns), that costs are stated for; left out, the model's, or what its kind of network usually has")
	cmd.Flags().BoolVar(&f.strideFirst, "stride-first", false, "bottlenecks stride in their first 1×1 convolution (ResNet v1, not v1.5)")
	cmd.Flags().IntVar(&f.dilate, "dilate", autoDilate, "of segmentation networks, for files that do not say it and for new ones: how many last stages keep their resolution and dilate; -1 means 1 for 32×32 networks and 2 for others")
	cmd.Flags().BoolVar(&f.json, "json", false, "print one JSON object on standard output and nothing else there")
}

// autoDilate is --dilate where it is not given.
const autoDilate = -1

// options are what a network is loaded with.
func (f *modelFlags) options() (zoo.Options, error) {
	size, err := parseSize(f.image)
	opt := zoo.Options{StrideFirst: f.strideFirst, Input: size}
	if err != nil {
		return opt, err
	}
	if f.dilate < autoDilate {
		return opt, usagef("--dilate %d; want a number of stages, or -1 for the usual one", f.dilate)
	}
	if f.dilate != autoDilate {
		opt.Dilate = &f.dilate
	}
	return opt, nil
}

// readNetwork reads a file, or the embedded network, without what training programs put around a
// network. It refuses NaN, infinities and numbers beyond float32, which no decomposition
// and no network can use.
func (f *modelFlags) readNetwork(path string) (*model.StateDict, error) {
	if path == embeddedName {
		net, err := letters.Net()
		if err != nil {
			return nil, err
		}
		return net.StateDict()
	}
	sd, err := f.which.ReadFile(f.cmd.Context(), path)
	if err != nil {
		return nil, err
	}
	if err := sd.CheckFloat32(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if _, ok := sd.Meta[peft.MetaKey]; !ok {
		sd = model.Strip(sd)
	}
	if f.sources == nil {
		f.sources, f.types = map[string]model.Source{}, map[string]model.DType{}
	}
	f.types[path] = sd.FloatType()
	f.sources[path] = sd.Source
	return sd, nil
}

// source is what reading path found, nil where there is nothing to tell.
func (f *modelFlags) source(path string) *model.Source {
	s := f.sources[path]
	if s.IsZero() {
		return nil
	}
	return &s
}

// tell prints what reading path found, if it was more than a network.
func (f *modelFlags) tell(w io.Writer, path string) {
	for _, line := range f.sources[path].Lines() {
		fmt.Fprintf(w, "%s: %s\n", path, line)
	}
}

// embeddedName stands for the network in the program.
const embeddedName = "embedded"

// argument is the model that the arguments name, the embedded one if they name none.
func argument(args []string) string {
	if len(args) == 0 {
		return embeddedName
	}
	return args[0]
}

// dataFlags are the flags of every command that reads images.
type dataFlags struct {
	data  string
	split string
	limit int
	batch int
	cmd   *cobra.Command
}

func (f *dataFlags) add(cmd *cobra.Command) {
	f.cmd = cmd
	cmd.Flags().StringVar(&f.data, "data", "", "labelled images: cifar10:DIR, cifar100:DIR, idx:DIR, folder:DIR or folder:FILE.zip (one folder a class; PATH,holdout=0.25 divides each class), glyphs:TASK (drawn; letters, lowercase, digits, shapes, textures, inverted, segments), or images with masks: pairs:DIR, glyphs:segments")
	cmd.Flags().StringVar(&f.split, "split", "test", "part of the data, test or train, where the format tells them apart")
	cmd.Flags().IntVar(&f.limit, "limit", 0, "use N images spread evenly over the data, 0 for all")
	cmd.Flags().IntVar(&f.batch, "batch", 0, "images run at a time, 0 for a default")
}

// forModel sets the data where none are named and the network is the embedded one.
func (f *dataFlags) forModel(path string) {
	if !f.cmd.Flags().Changed("data") && path == embeddedName {
		f.data = letters.Data
	}
}

// open opens the data; close it after use.
func (f *dataFlags) open() (dataset.Set, func(), error) {
	if f.split != "test" && f.split != "train" {
		return nil, nil, usagef("--split %q; want test or train", f.split)
	}
	if f.limit < 0 {
		return nil, nil, usagef("--limit %d; want a number of images, or 0 for all", f.limit)
	}
	set, err := dataset.Open(f.data, dataset.Options{Split: dataset.Split(f.split), Limit: f.limit})
	if err != nil {
		return nil, nil, err
	}
	done := func() {}
	if c, ok := set.(io.Closer); ok {
		done = func() { _ = c.Close() } // opened for reading only
	}
	return set, done, nil
}

// progressLine shows progress on standard error, and nothing where that has
// been redirected by a caller of run.
func progressLine(cmd *cobra.Command, what string) *progress.Line {
	if f, ok := cmd.ErrOrStderr().(*os.File); ok {
		return progress.New(f, what)
	}
	return nil
}

func printJSON(w io.Writer, v any) error { return figures.Encode(w, v) }

// table prints rows in aligned columns, the first row being the heading; the
// first column is text, the others are numbers or short words.
func table(w io.Writer, rows [][]string) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(tw, "\t")
			}
			fmt.Fprint(tw, visible(cell, ""))
		}
		fmt.Fprintln(tw)
	}
	_ = tw.Flush() // output remembers failures
}

// count prints n with separators, 11,689,512.
func count[T int | int64](n T) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// times prints how many times smaller after is than before.
func times[T int | int64](before, after T) string {
	if after == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2fx", float64(before)/float64(after))
}

func rankText(r []int) string {
	if len(r) == 0 {
		return "-"
	}
	s := fmt.Sprint(r[0])
	for _, v := range r[1:] {
		s += fmt.Sprintf(",%d", v)
	}
	return s
}
