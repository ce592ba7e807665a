package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lowrank-go/lowrank/dataset"
)

// normFlags say how images are normalised, where a network's file does not or is wrong.
type normFlags struct{ mean, std string }

func (f *normFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.mean, "mean", "", "what is subtracted from images scaled to 0 to 1: one number, three for red, green and blue with commas between, or none (then --std is none too); left out, what the file says or networks of its kind had")
	cmd.Flags().StringVar(&f.std, "std", "", "what they are then divided by, likewise")
}

// apply changes p as the flags say.
func (f *normFlags) apply(p *dataset.Preprocess) error {
	mean, err := triple("--mean", f.mean)
	if err != nil {
		return err
	}
	std, err := triple("--std", f.std)
	if err != nil {
		return err
	}
	if f.mean != "" {
		p.Mean = mean
		if f.mean == "none" {
			p.Std = [3]float32{}
		}
	}
	if f.std != "" {
		p.Std = std
		if f.std != "none" && std[0]*std[1]*std[2] == 0 {
			return usagef("--std %s; want positive numbers", f.std)
		}
	}
	if err := p.Validate(); err != nil {
		return usageError{err}
	}
	return nil
}

// triple reads three numbers, one for all, or none.
func triple(flag, s string) (v [3]float32, err error) {
	if s == "" || s == "none" {
		return v, nil
	}
	parts := strings.Split(s, ",")
	if len(parts) != 1 && len(parts) != 3 {
		return v, usagef("%s %s; want one number, three, or none", flag, s)
	}
	for i := range v {
		x, err := strconv.ParseFloat(strings.TrimSpace(parts[min(i, len(parts)-1)]), 32)
		if err != nil || x-x != 0 {
			return v, usagef("%s %s; want one number, three, or none", flag, s)
		}
		v[i] = float32(x)
	}
	return v, nil
}

// normalisation tells how images are normalised.
func normalisation(p dataset.Preprocess) string {
	if p.Mean == [3]float32{} && (p.Std == [3]float32{} || p.Std == [3]float32{1, 1, 1}) {
		return "none, images from 0 to 1"
	}
	std := p.Std
	if std == [3]float32{} {
		std = [3]float32{1, 1, 1}
	}
	numbers := func(v [3]float32) string {
		if v[0] == v[1] && v[1] == v[2] {
			return fmt.Sprint(v[0])
		}
		return fmt.Sprintf("%v, %v, %v", v[0], v[1], v[2])
	}
	return fmt.Sprintf("mean %s; deviation %s", numbers(p.Mean), numbers(std))
}
