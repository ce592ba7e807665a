package model

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// wrappers are names that training programs give the network within something larger: a
// module that holds it, a framework's, a part of a method that trains two.
var wrappers = []string{
	"module", "_orig_mod", "_forward_module", "model", "net", "network", "backbone", "encoder", "resnet", "cnn", "body", "trunk",
	"base_model", "base_encoder", "base", "feature_extractor", "wrapped_model", "inner_model", "visual", "core",
	"encoder_q", "query_encoder", "online", "online_encoder", "online_network", "student", "student_model",
	"encoder_k", "key_encoder", "momentum_encoder", "momentum_backbone", "target", "target_encoder", "target_network", "teacher", "teacher_model",
	"ema", "ema_model", "model_ema", "averaged_model", "shadow",
}

// followers are parts of the names of copies that follow the network: averages, teachers.
var followers = append([]string{"k", "key"}, averageKeys...)

// ownLeaves are the ends of names that tensors of networks have even with one element.
var ownLeaves = []string{"weight", "bias", "running_mean", "running_var", "num_batches_tracked", "weight_g", "weight_v", "weight_orig", "weight_mask", "gamma", "beta", "moving_mean", "moving_variance", "scale", "zero_point"}

// bookkeepingLeaves are the ends of the names of what programs count beside a network.
var bookkeepingLeaves = []string{"n_averaged", "total_ops", "total_params", "num_updates", "rng_state", "cuda_rng_state", "queue", "queue_ptr", "queue_label"}

// bookkeepingParts are first parts of names of what is trained or measured with a network
// and is none of its layers.
var bookkeepingParts = []string{"criterion", "criterions", "loss", "losses", "metric", "metrics", "acc", "accuracy", "auroc", "confmat", "f1"}

// bookkeeping says why a tensor is none of a network's, "" where it may be one.
func bookkeeping(name string, t *Tensor) string {
	leaf := name[strings.LastIndexByte(name, '.')+1:]
	if slices.Contains(bookkeepingLeaves, leaf) {
		return "bookkeeping"
	}
	part, _, dotted := strings.Cut(name, ".")
	if dotted && hasPart(part, bookkeepingParts) || strings.HasSuffix(part, "_fn") {
		return "part of the training, not of the network"
	}
	if leaf != "running_mean" && hasPart(leaf, []string{"mean", "std"}) {
		if n := t.Len(); n == 1 || n == 3 {
			return "normalisation of images within the network: give it by --mean and --std"
		}
	}
	if t.Len() == 1 && !slices.Contains(ownLeaves, leaf) {
		return "a single value"
	}
	return ""
}

// Strip is sd, its tensors aliased, without what training programs put around a network:
// wrappers before the names of most tensors ("module.", "_orig_mod.", "model.",
// "encoder_q.", "student." and others; any that all have), a second copy of the network
// that follows it (a teacher, an average), and tensors that are bookkeeping, such as
// n_averaged, total_ops, those of a criterion or of metrics, and single values. Tensors
// that do not have the wrapper keep their names. What was taken off and left out is in the
// result's Source.
//
// Files of this program, and those read with ReadOptions.Prefix, are returned as they are.
func Strip(sd *StateDict) *StateDict {
	if _, ours := sd.Meta[ManifestKey]; ours || sd.Source.Prefix != "" {
		return sd
	}
	out := sd
	for {
		next := stripOne(out)
		if next == nil {
			return out
		}
		out = next
	}
}

// stripOne takes bookkeeping and one wrapper off, and returns nil where there is nothing to
// take.
func stripOne(sd *StateDict) *StateDict {
	out := sd.empty()
	for _, name := range sd.names {
		t := sd.tensors[name]
		if why := bookkeeping(name, t); why != "" {
			out.LeaveOut(name, why)
			continue
		}
		out.Set(name, t)
	}
	if out.Len() == 0 { // it was all there is
		return nil
	}
	parts, kernels := out.byPart()
	total := 0
	for _, n := range kernels {
		total += n
	}
	prefix := ""
	for i, p := range parts {
		if kernels[i] == 0 || p == "" {
			continue
		}
		var follows []string
		if len(parts) <= 64 { // what trains two networks has few parts
			follows = out.copyOf(p, parts, kernels)
		}
		all := kernels[i] == total && len(parts) == 1
		// torchvision's segmentation networks are a backbone and a classifier.
		wrapper := slices.Contains(wrappers, p) && !(p == "backbone" && slices.Contains(parts, "classifier"))
		// A number is a wrapper where everything with weights is within it and has
		// names: nn.Sequential(normalise, network).
		if _, err := strconv.Atoi(p); err == nil {
			wrapper = kernels[i] == total && out.named(p)
			all = false
		}
		switch {
		case len(follows) > 0 && slices.ContainsFunc(follows, func(q string) bool { return less(q, p, parts) }):
			continue
		case len(follows) > 0 && (wrapper || slices.ContainsFunc(follows, func(q string) bool { return slices.Contains(wrappers, q) })):
			for _, q := range follows {
				n := out.drop(q + ".")
				out.Source.Others = append(out.Source.Others, Other{Prefix: out.Source.Prefix + q + ".", Tensors: n})
			}
			prefix = p + "."
		case wrapper && kernels[i]*2 > total, all && !structural(p) && out.named(p):
			prefix = p + "."
		}
		if prefix != "" {
			break
		}
	}
	if prefix != "" {
		if short := out.without(prefix); short != nil {
			return short
		}
	}
	if out.Len() < sd.Len() {
		return out
	}
	return nil
}

// byPart lists the first parts of the names that have dots, and "" for all others, in
// order, and how many kernels, tensors of two dimensions or more, each has.
func (sd *StateDict) byPart() (parts []string, kernels []int) {
	at := map[string]int{}
	for _, name := range sd.names {
		p, _, dotted := strings.Cut(name, ".")
		if !dotted {
			p = ""
		}
		i, ok := at[p]
		if !ok {
			i = len(parts)
			at[p] = i
			parts, kernels = append(parts, p), append(kernels, 0)
		}
		if len(sd.tensors[name].Shape) > 1 {
			kernels[i]++
		}
	}
	return parts, kernels
}

// structural reports whether a part of a name is one of a network's own parts, which is no
// wrapper even where there is nothing else.
func structural(part string) bool {
	for _, p := range []string{"features", "layer", "layers", "stage", "stages", "block", "blocks", "conv", "stem", "classifier", "fc", "head", "linear"} {
		if rest, ok := strings.CutPrefix(part, p); ok && strings.Trim(rest, "_0123456789") == "" {
			return true
		}
	}
	return false
}

// named reports whether the names after a part have parts that are no numbers: layers.
func (sd *StateDict) named(part string) bool {
	for _, name := range sd.names {
		if rest, ok := strings.CutPrefix(name, part+"."); ok {
			next, _, dotted := strings.Cut(rest, ".")
			if _, err := strconv.Atoi(next); dotted && err != nil {
				return true
			}
		}
	}
	return false
}

// copyOf lists the parts whose tensors have the names and shapes of those of part p, most
// of them: copies of one network.
func (sd *StateDict) copyOf(p string, parts []string, kernels []int) []string {
	var copies []string
	for j, q := range parts {
		if q == p || q == "" || kernels[j] < 2 {
			continue
		}
		same, n := 0, 0
		for _, name := range sd.names {
			rest, ok := strings.CutPrefix(name, q+".")
			if !ok {
				continue
			}
			n++
			t, ok := sd.tensors[p+"."+rest]
			if ok && slices.Equal(t.Shape, sd.tensors[name].Shape) {
				same++
			}
		}
		if same*10 >= n*9 {
			copies = append(copies, q)
		}
	}
	return copies
}

// less reports whether the copy under a is to be read rather than that under b: the one
// that does not follow another, or the first.
func less(a, b string, parts []string) bool {
	fa, fb := hasPart(a, followers), hasPart(b, followers)
	if fa != fb {
		return fb
	}
	return slices.Index(parts, a) < slices.Index(parts, b)
}

// drop removes the tensors whose names begin with prefix, and counts them.
func (sd *StateDict) drop(prefix string) int {
	n := len(sd.names)
	sd.names = slices.DeleteFunc(sd.names, func(name string) bool {
		if !strings.HasPrefix(name, prefix) {
			return false
		}
		delete(sd.tensors, name)
		return true
	})
	return n - len(sd.names)
}

// without is sd with the prefix taken off, nil where two names would become one.
func (sd *StateDict) without(prefix string) *StateDict {
	out := sd.empty()
	out.Source.Prefix += prefix
	for _, name := range sd.names {
		short := strings.TrimPrefix(name, prefix)
		if _, twice := out.tensors[short]; twice || short == "" {
			return nil
		}
		out.Set(short, sd.tensors[name])
	}
	return out
}

// Explain adds to an error about the tensors of sd what its Source says of tensors that
// could not be read, which may be the ones that are missed.
func (s Source) Explain(err error) error {
	if err == nil {
		return nil
	}
	for _, l := range s.LeftOut {
		if strings.Contains(l.Reason, "not read") || strings.Contains(l.Reason, ErrUnsupported.Error()) {
			return fmt.Errorf("%w (%s is left out: %s)", err, quoted(l.Name), l.Reason)
		}
	}
	return err
}
