package torchmodule

import (
	"fmt"
	"strings"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/graph"
)

// node writes what computes a node's output.
func (w *writer) node(n *graph.Node) error {
	in := make([]string, len(n.In))
	for i, x := range n.In {
		in[i] = w.value[x]
	}
	switch op := n.Op.(type) {
	case *graph.Input:
		w.value[n] = w.variable(n)
	case *graph.Identity:
		w.value[n] = in[0]
	case *graph.Dropout:
		w.line("F.dropout(%s, %s, self.training)", in[0], float(op.Rate))
	case *graph.Conv:
		x := in[0]
		// PyTorch's layers pad both ends alike.
		if first := op.Chain.Stages[0].Normal(); !op.Linear && first.Extra != [2]int{} {
			x = padded(x, first)
		}
		for _, k := range op.Chain.Stages[1:] {
			if k.Normal().Extra != [2]int{} {
				return w.stages(n, op, x)
			}
		}
		w.line("%s(%s)", w.root.access(n.Name), x)
	case *graph.BatchNorm:
		w.line("%s(%s)", w.root.access(n.Name), in[0])
	case *graph.Activation:
		f, err := activation(op, in[0])
		if err != nil {
			return err
		}
		w.line("%s", f)
	case *graph.Pool:
		return w.pool(op, in[0])
	case *graph.Binary:
		f, ok := binaries[op.Op]
		if !ok {
			return fmt.Errorf("%w: it has no counterpart in PyTorch", graph.ErrUnsupported)
		}
		w.line(f, in[0], in[1])
	case *graph.Flatten:
		w.line("%s.flatten(1)", in[0])
	case *graph.Reshape:
		size := []string{in[0] + ".shape[0]"}
		for i, d := range op.Size {
			if d == 0 {
				size = append(size, fmt.Sprintf("%s.shape[%d]", in[0], i+1))
				continue
			}
			size = append(size, fmt.Sprint(d))
		}
		w.line("%s.reshape(%s)", in[0], strings.Join(size, ", "))
	case *graph.Transpose:
		order := []string{"0"}
		for _, d := range op.Order {
			order = append(order, fmt.Sprint(d+1))
		}
		w.line("%s.permute(%s)", in[0], strings.Join(order, ", "))
	case *graph.Concat:
		w.line("torch.cat([%s], %d)", strings.Join(in, ", "), op.Axis+1)
	case *graph.Slice:
		return w.slice(n, op, in[0])
	case *graph.Subsample:
		w.line("F.pad(%s[:, :, ::%d, ::%d], (0, 0, 0, 0, %d, %d))", in[0], op.Stride[0], op.Stride[1], op.Before, op.After)
	case *graph.Scale:
		w.line("%s * %s", in[0], float(op.Value))
	case *graph.Resize:
		size := fmt.Sprintf("(%d, %d)", op.Size[0], op.Size[1])
		if len(in) == 2 {
			size = in[1] + ".shape[2:]"
		}
		w.line("F.interpolate(%s, size=%s, mode=\"bilinear\", align_corners=False)", in[0], size)
	case *graph.Shuffle:
		w.line("F.channel_shuffle(%s, %d)", in[0], op.Groups)
	case *graph.DepthToSpace:
		if !op.Channels {
			return fmt.Errorf("%w: it has no counterpart in PyTorch", graph.ErrUnsupported)
		}
		w.line("F.pixel_shuffle(%s, %d)", in[0], op.Block)
	case *graph.SpaceToDepth:
		if !op.Channels {
			return fmt.Errorf("%w: it has no counterpart in PyTorch", graph.ErrUnsupported)
		}
		w.line("F.pixel_unshuffle(%s, %d)", in[0], op.Block)
	default:
		return fmt.Errorf("%w: it has no counterpart in PyTorch", graph.ErrUnsupported)
	}
	return nil
}

// padded is x with a convolution's zeros around it.
func padded(x string, g conv.Geometry) string {
	return fmt.Sprintf("F.pad(%s, (%d, %d, %d, %d))", x, g.Padding[1], g.Padding[1]+g.Extra[1], g.Padding[0], g.Padding[0]+g.Extra[0])
}

// stages writes a chain whose later stages pad their ends differently.
func (w *writer) stages(n *graph.Node, op *graph.Conv, x string) error {
	layers := w.root.access(n.Name)
	for i, k := range op.Chain.Stages {
		if i > 0 && k.Normal().Extra != [2]int{} {
			x = padded(x, k.Normal())
		}
		x = fmt.Sprintf("%s[%d](%s)", layers, i, x)
	}
	w.line("%s", x)
	return nil
}

var binaries = map[graph.BinaryOp]string{
	graph.Add: "%s + %s", graph.Sub: "%s - %s", graph.Mul: "%s * %s", graph.Div: "%s / %s",
	graph.Max: "torch.maximum(%s, %s)", graph.Min: "torch.minimum(%s, %s)", graph.Pow: "%s ** %s",
}

// pool writes pooling.
func (w *writer) pool(op *graph.Pool, x string) error {
	in := w.shape[w.n.In[0]]
	kind, dims := "max", "2d"
	if op.Average {
		kind = "avg"
	}
	if len(in) == 2 {
		dims = "1d"
	}
	pair := func(p [2]int) string {
		if len(in) == 2 {
			return fmt.Sprint(p[1])
		}
		if p[0] == p[1] {
			return fmt.Sprint(p[0])
		}
		return fmt.Sprintf("(%d, %d)", p[0], p[1])
	}
	if op.Adaptive != [2]int{} {
		w.line("F.adaptive_%s_pool%s(%s, %s)", kind, dims, x, pair(op.Adaptive))
		return nil
	}
	size, stride, dilation := op.Size, op.Stride, op.Dilation
	for a := range 2 {
		stride[a], dilation[a] = max(stride[a], 1), max(dilation[a], 1)
	}
	padding := op.Begin
	if op.Begin != op.End {
		if op.Average && !op.CountPadding || op.Ceil {
			return fmt.Errorf("%w: pooling with other paddings at the end, %v and %v", graph.ErrUnsupported, op.Begin, op.End)
		}
		fill := ""
		if !op.Average {
			fill = `, value=float("-inf")`
		}
		x = fmt.Sprintf("F.pad(%s, (%d, %d, %d, %d)%s)", x, op.Begin[1], op.End[1], op.Begin[0], op.End[0], fill)
		padding = [2]int{}
	}
	rest := fmt.Sprintf("%s, stride=%s", pair(size), pair(stride))
	if padding != [2]int{} {
		rest += ", padding=" + pair(padding)
	}
	if op.Ceil {
		rest += ", ceil_mode=True"
	}
	switch {
	case op.Average && dilation != [2]int{1, 1}:
		return fmt.Errorf("%w: an average over dilated windows", graph.ErrUnsupported)
	case op.Average && padding != [2]int{} && !op.CountPadding:
		rest += ", count_include_pad=False"
	case !op.Average && dilation != [2]int{1, 1}:
		rest += ", dilation=" + pair(dilation)
	}
	w.line("F.%s_pool%s(%s, %s)", kind, dims, x, rest)
	return nil
}

// slice writes parts of dimensions; steps backwards have no counterpart.
func (w *writer) slice(n *graph.Node, op *graph.Slice, x string) error {
	parts := []string{":"}
	for range w.shape[n.In[0]] {
		parts = append(parts, ":")
	}
	for _, c := range op.Cuts {
		if c.Step < 0 {
			return fmt.Errorf("%w: a slice with step %d", graph.ErrUnsupported, c.Step)
		}
		end := fmt.Sprint(c.End)
		if c.End >= w.shape[n.In[0]][c.Axis] {
			end = ""
		}
		s := fmt.Sprintf("%d:%s", c.Start, end)
		if c.Step > 1 {
			s += fmt.Sprintf(":%d", c.Step)
		}
		parts[c.Axis+1] = s
	}
	w.line("%s[%s]", x, strings.Join(parts, ", "))
	return nil
}

// activation is a function of x as an expression.
func activation(a *graph.Activation, x string) (string, error) {
	one := a.Alpha
	if one == 0 {
		one = 1
	}
	switch a.Name {
	case "relu", "sigmoid", "tanh", "exp", "log", "sqrt", "reciprocal", "abs", "neg", "sign", "erf", "sin", "cos", "floor", "ceil", "round":
		return fmt.Sprintf("torch.%s(%s)", a.Name, x), nil
	case "clip":
		if a.Alpha == 0 && a.Beta == 6 {
			return fmt.Sprintf("F.relu6(%s)", x), nil
		}
		return fmt.Sprintf("torch.clamp(%s, %s, %s)", x, float(a.Alpha), float(a.Beta)), nil
	case "leaky_relu":
		return fmt.Sprintf("F.leaky_relu(%s, %s)", x, float(a.Alpha)), nil
	case "thresholded_relu":
		return fmt.Sprintf("F.threshold(%s, %s, 0)", x, float(a.Alpha)), nil
	case "elu", "celu":
		return fmt.Sprintf("F.%s(%s, %s)", a.Name, x, float(a.Alpha)), nil
	case "selu", "hardswish", "mish", "gelu", "softsign":
		return fmt.Sprintf("F.%s(%s)", a.Name, x), nil
	case "hard_swish":
		return fmt.Sprintf("F.hardswish(%s)", x), nil
	case "log_sigmoid":
		return fmt.Sprintf("F.logsigmoid(%s)", x), nil
	case "gelu_tanh":
		return fmt.Sprintf("F.gelu(%s, approximate=\"tanh\")", x), nil
	case "hard_sigmoid":
		if a.Alpha == 1./6 && a.Beta == .5 {
			return fmt.Sprintf("F.hardsigmoid(%s)", x), nil
		}
		return fmt.Sprintf("torch.clamp(%s * %s + %s, 0, 1)", x, float(a.Alpha), float(a.Beta)), nil
	case "silu":
		if one == 1 {
			return fmt.Sprintf("F.silu(%s)", x), nil
		}
		return fmt.Sprintf("%s * torch.sigmoid(%s * %s)", x, x, float(one)), nil
	case "softplus":
		return fmt.Sprintf("F.softplus(%s, %s)", x, float(one)), nil
	case "pow":
		return fmt.Sprintf("%s ** %s", x, float(a.Alpha)), nil
	case "linear":
		return fmt.Sprintf("%s * %s + %s", x, float(a.Alpha), float(a.Beta)), nil
	}
	return "", fmt.Errorf("%w: %s has no counterpart in PyTorch", graph.ErrUnsupported, a.Name)
}
