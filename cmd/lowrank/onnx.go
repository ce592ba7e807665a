package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lowrank-go/lowrank/compress"
	"github.com/lowrank-go/lowrank/onnx"
	"github.com/lowrank-go/lowrank/onnx/rewrite"
)

// onnxFlags are the flags of compress for outputs that are ONNX models.
type onnxFlags struct {
	multiple int
	size     int
	clean    bool
	raiseIR  bool
}

func (f *onnxFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.IntVar(&f.multiple, "rank-multiple", rewrite.DefaultMultiple, "of ONNX models: make ranks multiples of N, as runtimes compute channels in blocks; 16 suits AVX-512, 8 AVX2, 1 is any rank")
	fl.IntVar(&f.size, "input-size", rewrite.DefaultSize, "of ONNX models: what dimensions of inputs that the model leaves open count as, where costs are weighed")
	fl.BoolVar(&f.clean, "clean", false, "of ONNX models: drop initializers from the graph's inputs, so that runtimes take them for constants")
	fl.BoolVar(&f.raiseIR, "raise-ir", false, "with --clean: raise an IR version below 4 to 4, which that needs")
}

// isONNXName tells whether a file is to be an ONNX model.
func isONNXName(path string) bool { return strings.HasSuffix(strings.ToLower(path), ".onnx") }

// large is the size of files that memory is kept tight for.
const large = 256 << 20

// onnx compresses an ONNX model to another one, without running it.
func (f *compressFlags) onnx(cmd *cobra.Command, path string, opt compress.Options) error {
	switch {
	case f.multiple < 1:
		return usagef("--rank-multiple %d; want at least 1", f.multiple)
	case f.size < 1:
		return usagef("--input-size %d; want at least 1", f.size)
	case f.raiseIR && !f.clean:
		return usagef("--raise-ir needs --clean")
	}
	if opt.Method != compress.CP && opt.Method != compress.Separable && opt.Method != compress.TKDCPD {
		opt.Stability, f.stability = 0, "none"
	}
	line := progressLine(cmd, "layers")
	opt.Progress = line.Update
	start := time.Now()
	m, err := onnx.Open(path)
	if err != nil {
		return err
	}
	defer m.Close()
	// A large file's weights shall not lie in memory as garbage: the program takes
	// at most half as much again as the file.
	if info, err := os.Stat(path); err == nil && info.Size() > large {
		defer debug.SetMemoryLimit(debug.SetMemoryLimit(info.Size() / 10 * 14))
	}
	dropped := 0
	if f.clean {
		if dropped, err = rewrite.Clean(m, f.raiseIR); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	report, err := rewrite.Compress(cmd.Context(), m, rewrite.Options{Options: opt, Multiple: f.multiple, Size: f.size})
	line.Done()
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	r := &compressReport{Method: f.method, Rank: opt.Rank.String(), Stability: f.stability, Layers: report.Layers, graph: true,
		ParamsBefore: report.ParamsBefore, ParamsAfter: report.ParamsAfter, MACsBefore: report.MACsBefore, MACsAfter: report.MACsAfter}
	if f.out != "" {
		if err := m.WriteFile(f.out); err != nil {
			return err
		}
		r.Output = f.out
	}
	r.Seconds = time.Since(start).Seconds()
	if f.json {
		return printJSON(cmd.OutOrStdout(), r)
	}
	r.print(cmd)
	switch n := report.InputsWithDefaults; {
	case dropped > 0:
		fmt.Fprintf(cmd.OutOrStdout(), "%d initializers are no longer inputs: runtimes may take them for constants\n", dropped)
	case n > 0:
		fmt.Fprintf(cmd.OutOrStdout(), "%d initializers are inputs too, which slows runtimes down; --clean drops them there\n", n)
	}
	return nil
}
