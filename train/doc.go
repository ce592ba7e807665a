// Package train trains a network on labelled images, or on images with masks: it makes batches, steps an
// optimiser along a schedule, writes checkpoints from which a run goes on bit for
// bit, and keeps a log.
//
// A [Job] has a learner (a [graph.Learner], or whatever else is one), data, and a
// [Recipe]; [Job.Run] does it. Everything random comes from the recipe's seed and the
// number of the epoch and the step, never from the clock or the order in which
// goroutines run, so a job gives the same weights on any number of threads, and
// after any number of interruptions.
package train
