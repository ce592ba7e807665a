package main

import (
	"context"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"

	"github.com/lowrank-go/lowrank/compress"
	"github.com/lowrank-go/lowrank/internal/chart"
	"github.com/lowrank-go/lowrank/train"
)

//go:embed report.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// page is what report writes.
type page struct {
	Title    string
	Sections []section
	compress []named
	ctx      context.Context
}

// named is a report of compress.
type named struct {
	name string
	*compressReport
}

// section is a report: facts, plots and a table whose first row is the heading.
type section struct {
	Title  string
	Facts  [][2]string
	Charts []template.URL
	Rows   [][]string
}

// fact adds a line.
func (s *section) fact(name, format string, values ...any) {
	s.Facts = append(s.Facts, [2]string{name, fmt.Sprintf(format, values...)})
}

// draw adds a plot, unless it has no point.
func (s *section) draw(c chart.Chart) error {
	points := 0
	for _, l := range c.Lines {
		points += len(l.X)
	}
	if points == 0 {
		return nil
	}
	b, err := c.Draw("chart.svg")
	if err != nil {
		return err
	}
	s.Charts = append(s.Charts, template.URL("data:image/svg+xml;base64,"+base64.StdEncoding.EncodeToString(b)))
	return nil
}

func (p *page) addCompress(name string, r *compressReport) error {
	p.compress = append(p.compress, named{name, r})
	s := section{Title: name}
	if r.Arch != nil {
		s.fact("network", "%s", *r.Arch)
	}
	s.fact("compressed by", "%s, ranks by %s, stability %s", r.Method, r.Rank, r.Stability)
	s.fact("parameters", "%s → %s (%s)", count(r.ParamsBefore), count(r.ParamsAfter), times(r.ParamsBefore, r.ParamsAfter))
	if r.MACsBefore != nil && r.MACsAfter != nil {
		s.fact("multiply-accumulates", "%s → %s (%s)", count(*r.MACsBefore), count(*r.MACsAfter), times(*r.MACsBefore, *r.MACsAfter))
	}
	if r.LatencyBefore != nil && r.LatencyAfter != nil {
		s.fact("one image", "%.2f → %.2f ms (%.2fx)", *r.LatencyBefore, *r.LatencyAfter, *r.LatencyBefore / *r.LatencyAfter)
	}
	if r.AccuracyBefore != nil && r.AccuracyAfter != nil {
		s.fact(r.measure(), "%.2f → %.2f %% of %d images", 100**r.AccuracyBefore, 100**r.AccuracyAfter, r.Samples)
	}
	if r.AccuracyCompressed != nil {
		s.fact("before fine-tuning", "%.2f %%", 100**r.AccuracyCompressed)
	}
	if err := s.layers(r.Layers); err != nil {
		return err
	}
	return p.add(&s, s.curves(r.FineTuning))
}

// add puts a section last, unless something of it could not be drawn.
func (p *page) add(s *section, err error) error {
	if err == nil {
		p.Sections = append(p.Sections, *s)
	}
	return err
}

// measure is what a report's accuracies are.
func (r *compressReport) measure() string {
	if r.Measure == "miou" {
		return "mean IoU"
	}
	return "top-1"
}

// layers draws and lists what became of each layer.
func (s *section) layers(all []compress.Result) error {
	before, after, errors := chart.Line{Name: "before", Points: true}, chart.Line{Name: "after", Points: true}, chart.Line{Points: true}
	s.Rows = [][]string{{"layer", "method", "rank", "parameters", "", "MACs", "", "error", "sensitivity", "", "note"}}
	for i, l := range all {
		x := float64(i + 1)
		before.X, before.Y = append(before.X, x), append(before.Y, float64(l.ParamsBefore))
		after.X, after.Y = append(after.X, x), append(after.Y, float64(l.ParamsAfter))
		row := []string{l.Name, l.Method, rankText(l.Rank), count(l.ParamsBefore), count(l.ParamsAfter), count(l.MACsBefore), count(l.MACsAfter), "", "", "", l.Reason}
		if l.Reason == "" {
			errors.X, errors.Y = append(errors.X, x), append(errors.Y, l.RelError)
			row[7] = fmt.Sprintf("%.4f", l.RelError)
			row[8], row[9] = fmt.Sprintf("%.3g", l.SensitivityBefore), fmt.Sprintf("%.3g", l.SensitivityAfter)
		}
		s.Rows = append(s.Rows, row)
	}
	err := s.draw(chart.Chart{Title: "parameters of each layer", XLabel: "layer", LogY: true, Lines: []chart.Line{before, after}})
	if err != nil {
		return err
	}
	return s.draw(chart.Chart{Title: "relative error of each kernel", XLabel: "layer", Lines: []chart.Line{errors}})
}

// curves draws a run's losses and accuracies.
func (s *section) curves(epochs []train.Epoch) error {
	loss := []chart.Line{{Name: "training"}, {Name: "validation"}}
	right := []chart.Line{{Name: "training"}, {Name: "validation"}, {Name: "mean IoU"}}
	add := func(l *chart.Line, epoch int, scale float64, v *float64) {
		if v != nil {
			l.X, l.Y = append(l.X, float64(epoch)), append(l.Y, scale**v)
		}
	}
	for _, e := range epochs {
		add(&loss[0], e.Epoch, 1, &e.Loss)
		add(&loss[1], e.Epoch, 1, e.ValLoss)
		add(&right[0], e.Epoch, 100, &e.Accuracy)
		add(&right[1], e.Epoch, 100, e.ValAccuracy)
		add(&right[2], e.Epoch, 100, e.ValMIoU)
	}
	if err := s.draw(chart.Chart{Title: "loss", XLabel: "epoch", LogY: true, Lines: loss}); err != nil {
		return err
	}
	return s.draw(chart.Chart{Title: "right, %", XLabel: "epoch", Lines: right})
}

func (s *section) reached(accuracy, miou, loss *float64, samples int) {
	if accuracy != nil {
		s.fact("right", "%.2f %% of %d images or their pixels", 100**accuracy, samples)
	}
	if miou != nil {
		s.fact("mean IoU", "%.2f %%", 100**miou)
	}
	if loss != nil {
		s.fact("loss", "%.4f", *loss)
	}
}

func (p *page) addTrain(name string, r *trainReport) error {
	s := section{Title: name}
	s.fact("network", "%s, %s parameters, %s multiply-accumulates", r.Arch, count(r.Params), count(r.MACs))
	s.reached(r.Accuracy, r.MIoU, r.Loss, r.Samples)
	s.fact("trained", "%d epochs in %.0f s", len(r.Epochs), r.Seconds)
	return p.add(&s, s.curves(r.Epochs))
}

func (p *page) addAdapt(name string, r *adaptReport) error {
	s := section{Title: name}
	s.fact("adapted by", "%s, rank %s, batch norms %s", r.Method, rankText(r.Rank), r.Norms)
	s.fact("parameters", "%s trained of %s", count(r.ParamsTrainable), count(r.ParamsBase))
	s.reached(r.Accuracy, r.MIoU, nil, r.Samples)
	s.fact("trained", "%d epochs of %.1f s", len(r.Epochs), r.SecondsPerEpoch)
	return p.add(&s, s.curves(r.Epochs))
}

func (p *page) addLog(name string, epochs []train.Epoch) error {
	s := section{Title: name}
	s.fact("log", "%d epochs", len(epochs))
	return p.add(&s, s.curves(epochs))
}

// addOutcomes draws accuracy against trained parameters, for the methods that have a mean
// over all tasks.
func (p *page) addOutcomes(name string, all outcomes) error {
	t := tabulate(all, nil, nil)
	s := section{Title: name, Rows: t.cells()}
	s.fact("compared", "%d methods on %d tasks in %d runs", len(t.Rows), len(t.Tasks), len(all))
	var lines []chart.Line
	for _, r := range t.Rows {
		if r.Mean != nil && r.Params > 0 {
			lines = append(lines, chart.Line{Name: r.Method, X: []float64{100 * r.Params}, Y: []float64{100 * *r.Mean}})
		}
	}
	return p.add(&s, s.draw(chart.Chart{Title: "mean accuracy, %", XLabel: "trained parameters, %", LogX: true, Lines: lines}))
}

// compare puts a section of all reports of compress first, where there are several.
func (p *page) compare() error {
	if len(p.compress) < 2 {
		return nil
	}
	s := section{Title: "Compressed networks", Rows: [][]string{{"report", "method", "ranks", "parameters", "MACs", "one image, ms", "accuracy, %"}}}
	var lines []chart.Line
	for _, r := range p.compress {
		row := []string{r.name, r.Method, r.Rank, times(r.ParamsBefore, r.ParamsAfter), "", "", ""}
		if r.MACsBefore != nil && r.MACsAfter != nil {
			row[4] = times(*r.MACsBefore, *r.MACsAfter)
		}
		if r.LatencyBefore != nil && r.LatencyAfter != nil {
			row[5] = fmt.Sprintf("%.2f → %.2f", *r.LatencyBefore, *r.LatencyAfter)
		}
		if r.AccuracyBefore != nil && r.AccuracyAfter != nil {
			row[6] = fmt.Sprintf("%.2f → %.2f", 100**r.AccuracyBefore, 100**r.AccuracyAfter)
			if r.MACsAfter != nil {
				lines = append(lines, chart.Line{Name: r.name, X: []float64{float64(*r.MACsAfter)}, Y: []float64{100 * *r.AccuracyAfter}})
			}
		}
		s.Rows = append(s.Rows, row)
	}
	if err := s.draw(chart.Chart{Title: "accuracy, %", XLabel: "multiply-accumulates", LogX: true, Lines: lines}); err != nil {
		return err
	}
	p.Sections = append([]section{s}, p.Sections...)
	return nil
}
