package main

import (
	"github.com/spf13/cobra"

	"github.com/lowrank-go/lowrank/adapt"
	"github.com/lowrank-go/lowrank/graph"
	"github.com/lowrank-go/lowrank/train"
)

// What is particular to learning without forgetting, and to its teacher.

// addTeaching adds the flags of commands in which the network as it was teaches; of says
// when.
func (f *recipeFlags) addTeaching(cmd *cobra.Command, of string) {
	fl := cmd.Flags()
	fl.Float64Var(&f.Teaching, "teaching", f.Teaching, of+"share of the loss in which the network as it was is the teacher")
	fl.Float64Var(&f.Temperature, "temperature", f.Temperature, of+"temperature of the teacher's outputs")
}

// teach makes the network as it was the job's teacher, where the recipe has a share for
// one.
func teach(job *train.Job, before *graph.Graph) error {
	if job.Recipe.Teaching == 0 {
		return nil
	}
	teacher, err := before.Compile()
	if err != nil {
		return err
	}
	job.Teacher = teacher.Forward
	return nil
}

// LwF's defaults. At the rate of the other methods, which do not train the kernels, the
// old classes are lost in the first steps.
const (
	lwfRate        = .001
	lwfTeaching    = .5
	lwfTemperature = 2
)

// forMethod makes the recipe the method's.
func (f *adaptFlags) forMethod(cmd *cobra.Command, method adapt.Method) error {
	fl := cmd.Flags()
	switch {
	case method == adapt.LwF && f.name == adapt.Before:
		return usagef("--name %s is what --method %s calls the old classes", f.name, method)
	case method == adapt.LwF && !fl.Changed("lr"):
		f.Rate = lwfRate
	case method == adapt.LwF:
	case fl.Changed("teaching") || fl.Changed("temperature"):
		return usagef("--teaching and --temperature are for --method %s, not %s", adapt.LwF, method)
	default:
		f.Teaching, f.Temperature = 0, 0
	}
	return nil
}
