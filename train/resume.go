package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"strings"

	"github.com/lowrank-go/lowrank/model"
)

// ErrOtherJob is wrapped by the error of a checkpoint that is not the job's.
var ErrOtherJob = errors.New("train: the checkpoint is another job's")

// load goes on from the checkpoint, if there is one.
func (r *run) load() error {
	sd, err := model.ReadFile(r.Checkpoint)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	fail := func(err error) error { return fmt.Errorf("%s: %w", r.Checkpoint, err) }
	if want, ok := sd.Meta[sumKey]; ok { // older ones have none
		got, err := sd.Sum(sumKey)
		if err != nil {
			return fail(err)
		}
		if got != want {
			return fail(fmt.Errorf("%w: its SHA-256 is not the one that it names: it is damaged", model.ErrCorrupt))
		}
		delete(sd.Meta, sumKey)
	}
	text, ok := sd.Meta[positionKey]
	if !ok {
		return fail(fmt.Errorf("%w: it has no metadata entry %q", model.ErrCorrupt, positionKey))
	}
	var p position
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return fail(fmt.Errorf("%w: metadata entry %q: %w", model.ErrCorrupt, positionKey, err))
	}
	switch {
	case p.Format != positionFormat:
		return fail(fmt.Errorf("%w: format %d, this version reads %d", model.ErrUnsupported, p.Format, positionFormat))
	case p.Images != r.Images || p.Classes != r.Classes:
		return fail(fmt.Errorf("%w: of %d images of %d classes, the data have %d of %d", ErrOtherJob, p.Images, p.Classes, r.Images, r.Classes))
	case !reflect.DeepEqual(p.Recipe, r.recipe):
		return fail(fmt.Errorf("%w: %s", ErrOtherJob, differences(p.Recipe, r.recipe)))
	case p.Of != r.What:
		return fail(fmt.Errorf("%w: of %s; this one is of %s", ErrOtherJob, p.Of, r.What))
	case p.Epoch < 0 || p.Epoch > r.recipe.Epochs || p.Step < 0 || p.Step > r.steps || len(p.History) != p.Epoch:
		return fail(fmt.Errorf("%w: epoch %d, step %d, with %d epochs logged", model.ErrCorrupt, p.Epoch, p.Step, len(p.History)))
	}
	if err := r.opt.load(sd); err != nil {
		return fail(err)
	}
	if err := r.avg.load(sd); err != nil {
		return fail(err)
	}
	for _, name := range append([]string(nil), sd.Names()...) {
		if strings.HasPrefix(name, "optimiser.") || strings.HasPrefix(name, "average.") {
			sd.Delete(name)
		}
	}
	if err := r.Learner.SetState(sd); err != nil {
		return fail(err)
	}
	r.Learner.Updated()
	r.position = p
	return r.log()
}

// differences tells in which settings two recipes differ.
func differences(was, is Recipe) string {
	a, b := reflect.ValueOf(was), reflect.ValueOf(is)
	var parts []string
	for i := range a.NumField() {
		if x, y := a.Field(i).Interface(), b.Field(i).Interface(); !reflect.DeepEqual(x, y) {
			parts = append(parts, fmt.Sprintf("%s was %v and is %v", strings.ToLower(a.Type().Field(i).Name), x, y))
		}
	}
	return strings.Join(parts, ", ")
}
