package model

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
)

// ReadOptions choose what of a file is read. The zero value reads the network, as far as
// that can be told.
type ReadOptions struct {
	// Key is where in a checkpoint the state dict lies, keys with dots between, such as
	// "model_ema"; "." is the whole checkpoint, dicts in it flattened. Where it is empty,
	// the dict is taken that has the most kernels (tensors of two dimensions or more):
	// first one under a usual key (state_dict, model_state_dict, model_state, model, net,
	// network, weights, params, state, module), then any, then averages and teachers.
	Key string
	// Prefix is what the names of the tensors begin with, with or without a dot at its
	// end. It is taken off; tensors of other names are left out. Where it is empty, names
	// are what they are in the file; see Strip.
	Prefix string
}

// ReadFile is ReadOptions{}.ReadFile.
func ReadFile(path string) (*StateDict, error) {
	return ReadOptions{}.ReadFile(context.Background(), path)
}

// ReadFile reads any file that this package knows, recognised by its content: a
// safetensors file, a PyTorch checkpoint (zip or legacy stream) or another pickle, an ONNX
// model, a .npz archive, a .npy file (one tensor, called as the file without its ending),
// or a directory of .npy files. Errors name the file. Reading ends where ctx does.
func (o ReadOptions) ReadFile(ctx context.Context, path string) (*StateDict, error) {
	sd, err := o.readFile(ctx, path)
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) || errors.Is(err, context.Canceled) {
			return nil, err // names the file already, or has nothing to do with it
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return sd, nil
}

// cut takes the prefix off the names, and leaves other tensors out.
func (o ReadOptions) cut(sd *StateDict) (*StateDict, error) {
	if o.Prefix == "" {
		return sd, nil
	}
	prefix := strings.TrimSuffix(o.Prefix, ".") + "."
	out := sd.empty()
	out.Source.Prefix += prefix
	parts := map[string]bool{}
	for _, name := range sd.names {
		short, ok := strings.CutPrefix(name, prefix)
		if !ok || short == "" {
			first, _, _ := strings.Cut(name, ".")
			parts[first] = true
			out.LeaveOut(name, "its name does not begin with "+quoted(prefix))
			continue
		}
		out.Set(short, sd.tensors[name])
	}
	if out.Len() == 0 {
		var list []string
		for p := range parts {
			list = append(list, quoted(p))
		}
		sort.Strings(list)
		if len(list) > 6 {
			list = append(list[:6], "…")
		}
		return nil, fmt.Errorf("%w: no tensor's name begins with %s; they begin with %s", ErrFormat, quoted(prefix), strings.Join(list, ", "))
	}
	return out, nil
}

// empty is sd without its tensors.
func (sd *StateDict) empty() *StateDict {
	out := NewStateDict()
	for k, v := range sd.Meta {
		out.Meta[k] = v
	}
	out.Source = sd.Source
	out.Source.LeftOut = append([]LeftOut(nil), sd.Source.LeftOut...)
	out.Source.Others = append([]Other(nil), sd.Source.Others...)
	return out
}

// patient reads in pieces and looks at a context between them.
type patient struct {
	ctx context.Context
	r   io.ReaderAt
}

const piece = 4 << 20

func (p patient) ReadAt(b []byte, at int64) (int, error) {
	for n := 0; ; {
		if err := p.ctx.Err(); err != nil {
			return n, err
		}
		k := min(len(b)-n, piece)
		got, err := p.r.ReadAt(b[n:n+k], at+int64(n))
		n += got
		if err != nil || n == len(b) {
			return n, err
		}
	}
}
