package train

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"math/rand/v2"
	"time"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/lowrank-go/lowrank/conv"
	"github.com/lowrank-go/lowrank/dataset"
	"github.com/lowrank-go/lowrank/eval"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/model"
)

// ErrDiverged is wrapped by the error of a run whose loss became NaN or infinite.
var ErrDiverged = errors.New("train: diverged")

// Learner is what a job trains; a *graph.Learner is one.
type Learner interface {
	// Forward gives Classes logits for each image of x, or, where Segments, for each
	// pixel; Backward then computes the
	// gradients of the parameters from that of the logits.
	Forward(ctx context.Context, x *conv.Map, workers int) ([]float32, error)
	Backward(ctx context.Context, gradient []float32, workers int) error
	Classes() int
	Segments() bool
	Params() []*graph.Param
	// Statistics are values that Forward changes.
	Statistics() [][]float32
	// Updated is called when parameters or statistics were changed.
	Updated()
	// Diverged names what first went wrong in the last Forward.
	Diverged() string
	// State is everything that is learnt; SetState goes back to it.
	State() (*model.StateDict, error)
	SetState(*model.StateDict) error
}

// Job is a training run. Where the learner segments, Data must be a
// dataset.Segmented; its pixels of class dataset.Ignore neither teach nor count, and
// there is no mixup.
type Job struct {
	Learner    Learner
	Data       dataset.Set
	Preprocess dataset.Preprocess
	Recipe     Recipe
	// Validate, where not nil, is called after each epoch, while the learner has the
	// weights that would come out.
	Validate func(ctx context.Context) (eval.Score, error)
	// Teacher, where not nil, gives logits for Recipe.Teaching, as many as the learner or
	// Recipe.Kept, of pixels where the learner segments, those to ignore among them. What
	// it returns need stay valid until its next call only.
	Teacher func(ctx context.Context, x *conv.Map, workers int) ([]float32, error)
	// Checkpoint, where not "", is a file that is written after each epoch, whenever
	// Every has passed (0 means a minute), and when the context ends.
	Checkpoint string
	Every      time.Duration
	// Resume goes on from the checkpoint, if that is there. It is an error if it is
	// another job's.
	Resume bool
	// What says, in words of the caller's, what is trained beside what Recipe and Data say:
	// a checkpoint where it was another is another job's.
	What string
	// Log, where not "", is a file with a line of JSON, an Epoch, for each epoch.
	Log string
	// Progress, where not nil, is called after each step.
	Progress func(Progress)
	// Cache, where above 0, is how many bytes may be taken to keep what the frozen lower
	// part of the network makes of each image, so that it runs once and not in each
	// epoch. Nothing that changes images may be in the recipe then.
	Cache int64
	// Workers bounds the goroutines; 0 means GOMAXPROCS. It does not change the
	// result.
	Workers int
}

// Progress is how far a run is.
type Progress struct {
	// Epoch and Step are being worked on, counted from 1; Step is within the epoch.
	Epoch, Epochs, Step, Steps int
	// Loss and Accuracy are means over the epoch so far, of images or of pixels.
	Loss, Accuracy float64
	// Rate is in images a second, over what this process did.
	Rate float64
}

// Epoch is the log of one epoch.
type Epoch struct {
	Epoch    int     `json:"epoch"` // counted from 1
	Rate     float64 `json:"rate"`  // the learning rate of its last step
	Loss     float64 `json:"loss"`  // mean over its images, or their pixels, as they were seen
	Accuracy float64 `json:"accuracy"`
	// The validation's; nil without one. ValMIoU is the mean intersection over union
	// where the learner segments; ValAccuracy is then that of the pixels.
	ValLoss         *float64 `json:"val_loss,omitempty"`
	ValAccuracy     *float64 `json:"val_accuracy,omitempty"`
	ValMIoU         *float64 `json:"val_miou,omitempty"`
	Seconds         float64  `json:"seconds"` // of training
	ImagesPerSecond float64  `json:"images_per_second"`
}

// position is how far a run is, as a checkpoint holds it.
type position struct {
	Format int    `json:"format"`
	Recipe Recipe `json:"recipe"`
	Of     string `json:"of,omitempty"` // Job.What
	// What the data were, to recognise others.
	Images  int `json:"images"`
	Classes int `json:"classes"`
	// Epoch and Step count what is done.
	Epoch int `json:"epoch"`
	Step  int `json:"step"`
	// Of the epoch's steps so far.
	Loss    float64 `json:"loss"` // summed over images, or counted pixels
	Correct int     `json:"correct"`
	Seen    int     `json:"seen"`             // images
	Pixels  int     `json:"pixels,omitempty"` // that were counted
	Seconds float64 `json:"seconds"`
	History []Epoch `json:"history"`
}

const (
	positionKey = "lowrank.train"
	// sumKey holds the checkpoint's own SHA-256, without which a flipped bit would go
	// on unnoticed.
	sumKey         = "lowrank.sha256"
	positionFormat = 1
)

// run is a job at work.
type run struct {
	*Job
	position
	recipe   Recipe
	opt      *optimiser
	avg      *average
	steps    int
	cache    *cache // nil for none
	saved    time.Time
	x        *conv.Map
	gradient []float32
	second   []float32
	given    []uint8 // the classes of pixels
	// Some of the logits' columns, and the gradient in them.
	part, partGradient []float32
}

// Run trains, and leaves the learner with the weights that come out: the last, or
// their average if the recipe has one. It returns the log of all epochs. When the
// context ends it writes the checkpoint and returns the context's cause; where the
// loss is no longer finite it stops with an error that wraps ErrDiverged, the
// checkpoint as it was.
func (j *Job) Run(ctx context.Context) ([]Epoch, error) {
	r := &run{Job: j, recipe: j.Recipe.withDefaults(), saved: time.Now()}
	if err := j.Recipe.Validate(); err != nil {
		return nil, err
	}
	if j.Data.Len() == 0 {
		return nil, fmt.Errorf("%w: %s", dataset.ErrEmpty, j.Data.Name())
	}
	if err := errors.Join(j.checkClasses(), j.checkTask(), j.checkCache()); err != nil {
		return nil, err
	}
	if j.Teacher == nil {
		r.recipe.Teaching = 0
	}
	if len(j.Learner.Params()) == 0 {
		return nil, fmt.Errorf("%w: the network has no parameter that learns", ErrRecipe)
	}
	r.steps = (j.Data.Len() + r.recipe.Batch - 1) / r.recipe.Batch
	r.opt = newOptimiser(&r.recipe, j.Learner.Params())
	r.avg = newAverage(r.recipe.EMA, j.Learner)
	r.position = position{Format: positionFormat, Recipe: r.recipe, Of: j.What, Images: j.Data.Len(), Classes: j.Data.Classes()}
	if j.Resume {
		if err := r.load(); err != nil {
			return nil, err
		}
	}
	if j.Cache > 0 {
		var err error
		if r.cache, err = newCache(ctx, j, j.Cache); err != nil {
			return nil, err
		}
	}
	for r.Epoch < r.recipe.Epochs {
		if err := r.epoch(ctx); err != nil {
			if ctx.Err() != nil && !errors.Is(err, ErrDiverged) {
				err = errors.Join(context.Cause(ctx), r.save())
			}
			return r.History, err
		}
	}
	if r.avg != nil {
		r.avg.swap()
		j.Learner.Updated()
	}
	return r.History, nil
}

// stream is the random numbers for one purpose at one place.
func (r *run) stream(purpose uint64, at int) *rand.Rand {
	return rand.New(rand.NewPCG(r.recipe.Seed, purpose<<48+uint64(at)))
}

const (
	orderStream = 1 + iota
	mixupStream
)

// epoch does what is left of an epoch.
func (r *run) epoch(ctx context.Context) error {
	order := r.stream(orderStream, r.Epoch).Perm(r.Images)
	began, seen := time.Now(), 0
	for b, err := range r.batches(ctx, order) {
		if err != nil {
			return err
		}
		t := time.Now()
		// A step that is broken off would leave statistics behind that a resumed run
		// changes again.
		if err := r.step(context.WithoutCancel(ctx), b); err != nil {
			return err
		}
		r.Seconds += time.Since(t).Seconds()
		seen += len(b.Labels)
		if r.Progress != nil {
			r.Progress(Progress{
				Epoch: r.Epoch + 1, Epochs: r.recipe.Epochs, Step: r.Step, Steps: r.steps,
				Loss: r.Loss / r.counted(), Accuracy: float64(r.Correct) / r.counted(),
				Rate: float64(seen) / time.Since(began).Seconds(),
			})
		}
		every := r.Every
		if every == 0 {
			every = time.Minute
		}
		if r.Step < r.steps && time.Since(r.saved) > every {
			if err := r.save(); err != nil {
				return err
			}
		}
	}
	e := Epoch{
		Epoch: r.Epoch + 1, Rate: r.recipe.rate(r.Epoch*r.steps+r.steps-1, r.steps), Loss: r.Loss / r.counted(),
		Accuracy: float64(r.Correct) / r.counted(), Seconds: r.Seconds, ImagesPerSecond: float64(r.Seen) / r.Seconds,
	}
	if err := r.avg.with(r.Learner, func() error { return r.validate(ctx, &e) }); err != nil {
		return err
	}
	r.History = append(r.History, e)
	r.Epoch, r.Step, r.Loss, r.Correct, r.Seen, r.Pixels, r.Seconds = r.Epoch+1, 0, 0, 0, 0, 0, 0
	if err := r.save(); err != nil {
		return err
	}
	return r.log()
}

// validate adds the validation's figures to an epoch's.
func (r *run) validate(ctx context.Context, e *Epoch) error {
	if r.Validate == nil {
		return nil
	}
	score, err := r.Validate(ctx)
	if err != nil {
		return err
	}
	e.ValLoss, e.ValAccuracy = new(score.Loss), new(score.Accuracy())
	if score.Segments() {
		e.ValMIoU = new(score.MeanIoU())
	}
	return nil
}

// batches are what is left of an epoch.
func (r *run) batches(ctx context.Context, order []int) iter.Seq2[dataset.Batch, error] {
	if r.cache != nil {
		return r.cache.batches(ctx, order, r.recipe.Batch, r.Step)
	}
	return dataset.TrainBatches(ctx, r.Data, r.Preprocess, dataset.Epoch{
		Order: order, Batch: r.recipe.Batch, Skip: r.Step, Augment: r.recipe.Augment, Seed: r.recipe.Seed, Number: uint64(r.Epoch), Masks: r.Learner.Segments(), Workers: r.Workers,
	})
}

// forward is the learner's, of images or of what the cache has of them.
func (r *run) forward(ctx context.Context, x *conv.Map) ([]float32, error) {
	if r.cache == nil {
		return r.Learner.Forward(ctx, x, r.Workers)
	}
	x.C = r.cache.c
	return r.cache.ForwardFeatures(ctx, x, r.Workers)
}

// step is one step of the optimiser.
func (r *run) step(ctx context.Context, b dataset.Batch) error {
	n := len(b.Labels)
	at := r.Epoch*r.steps + r.Step
	if err := r.checkLabels(b); err != nil {
		return err
	}
	x := &conv.Map{N: n, H: b.H, W: b.W, C: 3, Data: b.X}
	share, partners := 1., b.Labels
	if r.recipe.Mixup > 0 {
		x, share, partners = r.mix(x, b.Labels, at)
	}
	logits, err := r.forward(ctx, x)
	if err != nil {
		return err
	}
	if err := r.checkLogits(logits, b); err != nil {
		return err
	}
	if cap(r.gradient) < len(logits) {
		r.gradient, r.second = make([]float32, len(logits)), make([]float32, len(logits))
	}
	g := r.gradient[:len(logits)]
	loss, counted := r.loss(g, logits, b)
	if share < 1 {
		other, _ := r.loss(r.second[:len(logits)], logits, dataset.Batch{Labels: partners})
		loss = r.blend(g, loss, other, 1-share)
	}
	if r.recipe.Teaching > 0 {
		taught, err := r.Teacher(ctx, x, r.Workers)
		if err != nil {
			return fmt.Errorf("teacher: %w", err)
		}
		other, err := r.distill(r.second[:len(logits)], logits, taught)
		if err != nil {
			return err
		}
		loss = r.blend(g, loss, other, r.recipe.Teaching)
	}
	rate := r.recipe.rate(at, r.steps)
	if math.IsNaN(loss) || math.IsInf(loss, 0) {
		return r.diverged(loss, rate)
	}
	r.Correct += r.correct(logits, b)
	if err := r.Learner.Backward(ctx, g, r.Workers); err != nil {
		return err
	}
	r.opt.clip(r.Workers)
	r.opt.step(at+1, rate, r.Workers)
	r.Learner.Updated()
	r.avg.add(at+1, r.Workers)
	r.Loss += loss * float64(counted)
	r.Seen += n
	if r.Learner.Segments() {
		r.Pixels += counted
	}
	r.Step++
	return nil
}

// blend gives the second gradient and loss a share of the first.
func (r *run) blend(g []float32, loss, second, share float64) float64 {
	for i, v := range r.second[:len(g)] {
		g[i] += float32(share) * (v - g[i])
	}
	return loss + share*(second-loss)
}

// mix is x with each image mixed with another of the batch, the share of the first,
// and the labels of the others.
func (r *run) mix(x *conv.Map, labels []int, at int) (*conv.Map, float64, []int) {
	rng := r.stream(mixupStream, at)
	share := distuv.Beta{Alpha: r.recipe.Mixup, Beta: r.recipe.Mixup, Src: rng}.Rand()
	partners := make([]int, len(labels))
	r.x = r.x.Resize(x.N, x.H, x.W, x.C)
	size := x.H * x.W * x.C
	for i, p := range rng.Perm(len(labels)) {
		partners[i] = labels[p]
		other := x.Data[p*size : (p+1)*size]
		for j, v := range x.Data[i*size : (i+1)*size] {
			r.x.Data[i*size+j] = other[j] + float32(share)*(v-other[j])
		}
	}
	return r.x, share, partners
}

// best is the class of the highest logit, the lower of equals.
func best(logits []float32) int {
	at := 0
	for c, v := range logits {
		if v > logits[at] {
			at = c
		}
	}
	return at
}

func (r *run) diverged(loss, rate float64) error {
	where := r.Learner.Diverged()
	if where == "" {
		where = "the logits"
	}
	hint := ""
	if r.Checkpoint != "" && (r.Epoch > 0 || r.Step > 0) {
		hint = "; the checkpoint before it is kept"
	}
	return fmt.Errorf("%w: the loss is %g at epoch %d, step %d of %d, with a rate of %.3g, and %s is the first layer that is not finite; a lower rate, a warm-up or a bound on the gradient may help%s",
		ErrDiverged, loss, r.Epoch+1, r.Step+1, r.steps, rate, where, hint)
}

// save writes the checkpoint.
func (r *run) save() error {
	r.saved = time.Now()
	if r.Checkpoint == "" {
		return nil
	}
	sd, err := r.Learner.State()
	if err != nil {
		return err
	}
	if err := sd.CheckFinite(); err != nil {
		return fmt.Errorf("%w: at epoch %d, step %d: %w; the checkpoint before it is kept", ErrDiverged, r.Epoch+1, r.Step, err)
	}
	if err := r.opt.save(sd); err != nil {
		return err
	}
	if err := r.avg.save(sd); err != nil {
		return err
	}
	text, err := json.Marshal(r.position)
	if err != nil {
		return err
	}
	sd.Meta[positionKey] = string(text)
	if sd.Meta[sumKey], err = sd.Sum(sumKey); err != nil {
		return err
	}
	return model.WriteSafetensors(r.Checkpoint, sd)
}

// log writes the whole log, so that it is never longer than the run.
func (r *run) log() error {
	if r.Log == "" {
		return nil
	}
	return model.WriteAtomic(r.Log, func(w io.Writer) error {
		enc := json.NewEncoder(w)
		for _, e := range r.History {
			if err := enc.Encode(e); err != nil {
				return err
			}
		}
		return nil
	})
}
