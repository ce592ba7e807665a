#!/usr/bin/env python3
"""Makes NAME_step.npz for the fixtures of make.py, with PyTorch in float64:

    python3 step.py

Of one backward pass with label smoothing 0.1 and labels 0, 1, 2, …, modulo the
classes: loss, grad.PARAMETER, and the running statistics after it, stat.BUFFER;
and the same in eval mode, fixed_loss and fixed_grad.PARAMETER.
"""
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from make import Net

NETS = {
    "basic": lambda: Net([1, 2, 1, 1], 4, 7),
    "bottleneck": lambda: Net([2, 1, 1, 1], 2, 5, bottleneck=True),
    "bottleneck_v1": lambda: Net([1, 1, 1, 1], 2, 5, bottleneck=True, stride_first=True),
    "cifar_pad": lambda: Net([1, 2, 1], 4, 6, shortcut="A"),
    "cifar_projection": lambda: Net([1, 1, 2], 4, 6, shortcut="shortcut"),
}

for name, make in NETS.items():
    net = make().double()
    net.load_state_dict(torch.load(name + ".pth"))
    x = torch.tensor(np.load(name + ".npz")["x"]).double()
    out = {}
    for mode in ("fixed_", ""):
        net.train(mode == "")
        net.zero_grad()
        y = net(x)
        labels = torch.arange(len(x)) % y.shape[1]
        loss = F.cross_entropy(y, labels, label_smoothing=0.1)
        loss.backward()
        out[mode + "loss"] = np.array([loss.item()])
        for n, p in net.named_parameters():
            out[mode + "grad." + n] = p.grad.numpy().astype(np.float32)
    for n, b in net.named_buffers():
        if "running" in n:
            out["stat." + n] = b.numpy().astype(np.float32)
    np.savez_compressed(name + "_step.npz", **out)
