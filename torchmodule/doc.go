// Package torchmodule writes graphs as PyTorch programs: a folder with the network as a
// plain torch.nn module that can be read and changed, its weights, and a training script
// for one process or for torchrun. The files need PyTorch 1.13 or later and nothing of
// lowrank.
package torchmodule
