// Command lowrank makes convolutional networks smaller by low-rank tensor
// factorisation. Run it with --help for its commands.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/lowrank-go/lowrank/compress"
	"github.com/lowrank-go/lowrank/ranks"
)

func main() {
	// Most of the memory is maps and weights that live as long as a run: little of it
	// becomes garbage, and waiting for as much garbage again would double the peak.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(25)
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program: it returns the exit status, 0, 1 for a failure, 2 for
// wrong usage, 130 when interrupted.
func run(args []string, stdout, stderr io.Writer) int {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	defer stop()
	// What does not look at the context, a second signal ends as it ends any program.
	context.AfterFunc(ctx, stop)
	root := newRoot()
	root.SetArgs(args)
	out := &output{w: stdout}
	root.SetOut(out)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil && out.err != nil {
		err = fmt.Errorf("standard output: %w", out.err)
	}
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		if errors.Is(err, errBestSoFar) {
			fmt.Fprintln(stderr, "lowrank: interrupted; the result is the best so far")
		} else if errors.Is(err, errResumable) {
			fmt.Fprintln(stderr, "lowrank: interrupted; the checkpoint is written, --resume goes on from it")
		} else {
			fmt.Fprintln(stderr, "lowrank: interrupted; no output was written")
		}
		return 130
	case errors.As(err, &usage) || errors.Is(err, compress.ErrOption) || errors.Is(err, ranks.ErrRule):
		fmt.Fprintf(stderr, "lowrank: %s\n", message(err))
		return 2
	default:
		fmt.Fprintf(stderr, "lowrank: %s\n", message(err))
		return 1
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "lowrank",
		Short: "Low-rank tensor decomposition of convolutional networks",
		Long: `lowrank makes trained convolutional networks smaller: it replaces convolutions
by chains of small ones, found by tensor decomposition, with ranks chosen for
them. Everything runs on the CPU, from one binary.`,
		Example: `  lowrank inspect resnet20.th
  lowrank compress resnet20.th --method tucker --rank energy=0.9 -o small.safetensors
  lowrank eval small.safetensors --data cifar10:cifar-10-batches-bin`,
		SilenceErrors: true,
		SilenceUsage:  true,
		// Without a command there is nothing to do: show the help, as a failure.
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q; lowrank --help lists them", args[0])
			}
			_ = cmd.Help()
			return usagef("a command is needed")
		},
		Args: cobra.ArbitraryArgs,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%v; see %s --help", err, cmd.CommandPath())
	})
	root.AddCommand(newInspect(), newCompress(), newTrain(), newAdapt(), newCompare(), newMerge(), newStack(), newExtract(), newConvert(), newEval(), newReport(), newDecompose(), newBench())
	return root
}

// errBestSoFar is wrapped by errors that did not keep a command from its result.
var errBestSoFar = errors.New("the result is the best so far")

// errResumable is wrapped by errors of runs that can go on.
var errResumable = errors.New("the run can go on")

// usageError is a mistake in how the command was called.
type usageError struct{ error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// exactly wants n arguments and says what they are.
func exactly(n int, what string) cobra.PositionalArgs { return between(n, n, what) }

// atMost wants up to n arguments and says what they are.
func atMost(n int, what string) cobra.PositionalArgs { return between(0, n, what) }

// atLeast wants n arguments or more and says what they are.
func atLeast(n int, what string) cobra.PositionalArgs { return between(n, math.MaxInt, what) }

func between(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if n := len(args); n < least || n > most {
			return usagef("%s wants %s, got %d arguments; see %s --help", cmd.CommandPath(), what, n, cmd.CommandPath())
		}
		return nil
	}
}
