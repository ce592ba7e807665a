package adapt

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/eval"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/peft"
	"github.com/lowrank-go/lowrank/train"
	"github.com/lowrank-go/lowrank/zoo/letters"
)

func TestTheOldClassesAreAsTheyWereAtFirst(t *testing.T) {
	for _, file := range []string{"cifar_pad", "fcn_cifar"} {
		b := base(t, file)
		want := logits(t, b)
		for _, m := range []Method{LwF, Full, Head, "lora", "bottleneck"} {
			n, err := New(b, Options{Method: m, Classes: 3, Segment: b.Segments(), Seed: 1})
			if err != nil {
				t.Fatal(err)
			}
			kept := 0
			if m == LwF {
				kept = b.Classes()
			}
			if n.Kept() != kept || n.Learner.Classes() != kept+3 {
				t.Errorf("%s, %s: %d outputs of %d are kept, want %d of %d", file, m, n.Kept(), n.Learner.Classes(), kept, kept+3)
			}
			old, err := n.Old()
			if err != nil {
				t.Fatal(err)
			}
			if got := logits(t, old); !slices.Equal(got, want) {
				t.Errorf("%s, %s: other logits of the old classes", file, m)
			}
			if net, err := n.Net(); err != nil || net.Classes() != 3 {
				t.Errorf("%s, %s: a network of %d classes (%v)", file, m, net.Classes(), err)
			}
		}
	}
}

func TestAFileOfLwFHasBothTasks(t *testing.T) {
	for _, name := range []string{"", "digits"} {
		b := base(t, "cifar_pad")
		n, file := trained(t, b, LwF, name)
		path := filepath.Join(t.TempDir(), "adapter.safetensors")
		if err := file.Write(path); err != nil {
			t.Fatal(err)
		}
		file, err := peft.Read(path)
		if err != nil {
			t.Fatal(err)
		}
		tasks, err := NewTasks(b, file, false)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(tasks.Names(), []string{name, Before}) {
			t.Errorf("tasks %q", tasks.Names())
		}
		for task, want := range map[string]func() (*graph.Graph, error){"": n.Net, name: n.Net, Before: n.Old} {
			got, err := tasks.Switch(task)
			if err != nil {
				t.Fatal(err)
			}
			net, err := want()
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(logits(t, got), logits(t, net)) {
				t.Errorf("%q in a file of %q: other logits than what was trained", task, name)
			}
		}
	}
	b := base(t, "cifar_pad")
	n, err := New(b, Options{Method: LwF, Classes: 3})
	if err != nil {
		t.Fatal(err)
	}
	sd, err := b.StateDict()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.File(sd, Before); !errors.Is(err, ErrOption) {
		t.Errorf("two tasks of one name gave %v", err)
	}
}

// The network in the program learns digits. Of the letters that it knew, full training
// loses about a third, LwF less than a tenth.
func TestLwFForgetsLessThanHalfOfWhatFullDoes(t *testing.T) {
	if testing.Short() {
		t.Skip("trains for some seconds: not in short mode")
	}
	b, err := letters.Net()
	if err != nil {
		t.Fatal(err)
	}
	open := func(spec string, split dataset.Split) dataset.Set {
		s, err := dataset.Open(spec, dataset.Options{Split: split})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	const task = "glyphs:digits,train=400,test=200"
	digits := open(task, dataset.Train)
	accuracy := func(net *graph.Graph, s dataset.Set) float64 {
		p, err := net.Compile()
		if err != nil {
			t.Fatal(err)
		}
		score, err := eval.Evaluate(t.Context(), p, s, eval.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return score.Accuracy()
	}
	letters := open(letters.Data+",test=200", dataset.Test)
	knew := accuracy(b, letters)
	teacher, err := b.Compile()
	if err != nil {
		t.Fatal(err)
	}
	forgot := map[Method]float64{}
	for _, m := range []Method{Full, LwF} {
		n, err := New(b, Options{Method: m, Classes: digits.Classes(), Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		job := &train.Job{Learner: n.Learner, Data: digits, Preprocess: b.Preprocess,
			Recipe: train.Recipe{Epochs: 3, Batch: 32, Optimiser: train.Adam, Rate: .001, Warmup: 1, Seed: 1, Kept: n.Kept()}}
		if m == LwF {
			job.Teacher, job.Recipe.Teaching, job.Recipe.Temperature = teacher.Forward, .5, 2
		}
		if _, err := job.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		net, err := n.Net()
		if err != nil {
			t.Fatal(err)
		}
		old, err := n.Old()
		if err != nil {
			t.Fatal(err)
		}
		learnt := accuracy(net, open(task, dataset.Test))
		forgot[m] = knew - accuracy(old, letters)
		t.Logf("%s: %.1f %% of the digits, and %.1f of %.1f %% of the letters forgotten", m, 100*learnt, 100*forgot[m], 100*knew)
		if learnt < .6 {
			t.Errorf("%s: %.1f %% of the digits are right", m, 100*learnt)
		}
	}
	if !(forgot[Full] > .1 && forgot[LwF] < forgot[Full]/2) {
		t.Errorf("forgotten: %v", forgot)
	}
}
