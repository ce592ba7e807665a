#!/usr/bin/env python3
"""Makes full-size networks of torchvision with random weights:

    python3 live.py DIR NAME SIDE [NAME SIDE ...]

DIR gets NAME.pth, a state dict, and NAME.npz with the logits y of an image of
SIDE x SIDE that families.py's fill makes, the number of parameters, params, and the
multiply-accumulates of its convolutions and linear layers, macs; both without
auxiliary heads.
"""
import os
import sys
import warnings

import numpy as np
import torch
import torchvision
from torch import nn

from families import fill, randomise


def make(folder, name, side):
    torch.manual_seed(3)
    models = torchvision.models
    if name.startswith(("deeplab", "fcn")):
        net = getattr(models.segmentation, name)(weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
    elif name == "googlenet":
        net = models.googlenet(weights=None, init_weights=False, aux_logits=True)
    else:
        net = getattr(models, name)(weights=None)
    randomise(net)
    net.eval()
    macs = []
    for n, m in net.named_modules():
        if isinstance(m, (nn.Conv2d, nn.Linear)) and not n.startswith("aux"):
            m.register_forward_hook(lambda m, _, y: macs.append(m.weight[0].numel() * y[0].numel()))
    x = torch.tensor(fill(3 * side * side), dtype=torch.float32).reshape(1, 3, side, side)
    with torch.no_grad():
        y = net(x)
        y = y["out"] if isinstance(y, dict) else y
    params = sum(p.numel() for n, p in net.named_parameters() if not n.startswith("aux"))
    torch.save(net.state_dict(), os.path.join(folder, name + ".pth"))
    np.savez(os.path.join(folder, name + ".npz"), y=y.numpy(), params=np.array(params), macs=np.array(sum(macs)))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for network, size in zip(sys.argv[2::2], sys.argv[3::2]):
        make(sys.argv[1], network, int(size))
