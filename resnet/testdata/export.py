#!/usr/bin/env python3
"""Exports the networks of make.py with PyTorch's ONNX exporter (1.13 was used):

    python3 export.py

NAME.onnx has the network of NAME.pth as it is, NAME_folded.onnx as the exporter makes it
by default, with batch norms folded into the convolutions.
"""
import os

import torch
from torch.onnx import TrainingMode

import make

here = os.path.dirname(os.path.abspath(__file__))
net = make.Net([1, 2, 1], 4, 6, shortcut="A")
net.load_state_dict(torch.load(os.path.join(here, "cifar_pad.pth")))
net.eval()
x = torch.zeros(1, 3, 32, 32)
for name, mode in (("cifar_pad", TrainingMode.PRESERVE), ("cifar_pad_folded", TrainingMode.EVAL)):
    torch.onnx.export(net, x, os.path.join(here, name + ".onnx"), training=mode, do_constant_folding=mode == TrainingMode.EVAL, opset_version=13)
