package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/lowrank-go/lowrank/internal/chart"
)

// curves draws the logs of the CIFAR-10 runs in bench/cifar, whose lines have a loss
// and a validation accuracy for each epoch.
func curves(o options) error {
	paths, err := filepath.Glob("bench/cifar/*.jsonl")
	if err != nil {
		return err
	}
	sort.Strings(paths)
	loss := chart.Chart{Title: "ResNet-20 on CIFAR-10 (JPEG), training loss", XLabel: "epoch", YLabel: "loss", LogY: true}
	accuracy := chart.Chart{Title: "ResNet-20 on CIFAR-10 (JPEG), held-out images", XLabel: "epoch", YLabel: "top-1"}
	for _, p := range paths {
		name := strings.TrimSuffix(filepath.Base(p), ".jsonl")
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		l, a := chart.Line{Name: name}, chart.Line{Name: name}
		for s := bufio.NewScanner(f); s.Scan(); {
			var e struct {
				Epoch, Loss float64
				Accuracy    float64 `json:"val_accuracy"`
			}
			if err := json.Unmarshal(s.Bytes(), &e); err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
			if e.Epoch == 0 {
				break // not a log of epochs
			}
			l.X, l.Y = append(l.X, e.Epoch), append(l.Y, e.Loss)
			a.X, a.Y = append(a.X, e.Epoch), append(a.Y, e.Accuracy)
		}
		if err := f.Close(); err != nil {
			return err
		}
		if len(l.X) > 0 {
			loss.Lines, accuracy.Lines = append(loss.Lines, l), append(accuracy.Lines, a)
		}
	}
	for name, c := range map[string]chart.Chart{"cifar-loss.svg": loss, "cifar-accuracy.svg": accuracy} {
		path := filepath.Join(o.plots, name)
		b, err := c.Draw(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			return err
		}
		fmt.Println("wrote", path)
	}
	return nil
}
