// Package adapt adapts a trained network to a new task: it freezes the network, gives
// it a new head, and says what else learns, by one of the methods that are compared in
// the literature: low-rank changes of the kernels (package peft), residual adapters,
// biases or batch norms alone, modules beside the convolutions that are no change of
// them, and, for comparison, everything.
//
// What becomes of the batch norms is part of a method. Of the four policies the one
// that trains their scales and shifts on the new task's statistics is worth more than
// the choice between kinds of change, and is the default of all but a few.
//
// Ranks are given, or chosen for each kernel by itself or by the gradient of the loss in it
// (Choice, Gradients), and factors start at random or from a decomposition of either (Start).
//
// What was trained is a peft.File of one Adapter, of LwF of two. Merge and Sum put several together,
// Stack keeps those of several tasks in one file, between which Tasks switches with one
// network in memory; Extract makes an adapter of a network that was fine-tuned in full;
// WritePEFT, LyCORIS, Loralib and ToKind turn adapters into those of other programs and
// kinds, exactly or with the error told.
package adapt
