#!/usr/bin/env python3
"""Exports networks of make.py with PyTorch's ONNX exporter (1.13 was used):

    python3 export.py

NAME.onnx has the network of NAME.pth as it is, NAME_folded.onnx as the exporter makes it
by default, with batch norms folded into the convolutions.
"""
import os

import torch
from torch.onnx import TrainingMode

import make

here = os.path.dirname(os.path.abspath(__file__))


def export(name, net, suffix, mode):
    net.load_state_dict(torch.load(os.path.join(here, name + ".pth")))
    net.eval()
    torch.onnx.export(
        net,
        torch.zeros(1, 3, 32, 32),
        os.path.join(here, name + suffix + ".onnx"),
        training=mode,
        do_constant_folding=mode == TrainingMode.EVAL,
        opset_version=13,
    )


cifar = make.Net([1, 2, 1], 4, 6, shortcut="A")
export("cifar_pad", cifar, "", TrainingMode.PRESERVE)
export("cifar_pad", cifar, "_folded", TrainingMode.EVAL)
export("bottleneck", make.Net([2, 1, 1, 1], 2, 5, bottleneck=True), "_folded", TrainingMode.EVAL)
