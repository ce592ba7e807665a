#!/usr/bin/env python3
"""Makes NAME_modules.npz for two of the fixtures of make.py, with PyTorch in float64:

    python3 module.py

Every unit of the network has modules, of four kinds in turn, in execution order with a
block's shortcut before its units: adapter.TENSOR holds their random weights and
statistics, y the logits in eval mode, and the rest is as in step.py; of the bottlenecks
with the gradients of the modules alone.
"""
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from make import Net, randomise

NETS = {
    "bottleneck": lambda: Net([2, 1, 1, 1], 2, 5, bottleneck=True),
    "cifar_pad": lambda: Net([1, 2, 1], 4, 6, shortcut="A"),
}


class Norm(nn.Module):
    """A step that is a batch norm alone."""

    def __init__(self, channels):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return self.norm(x)


class Step(nn.Conv2d):
    def __init__(self, *args, norm=False, relu=False, **kwargs):
        super().__init__(*args, **kwargs)
        if norm:
            self.norm = nn.BatchNorm2d(self.out_channels)
        self.relu = relu

    def forward(self, x):
        x = super().forward(x)
        if hasattr(self, "norm"):
            x = self.norm(x)
        return F.relu(x) if self.relu else x


def modules(i, conv):
    """The modules of the i-th unit: places, scales and steps."""
    cin, out, (k, _), stride, (p, _) = conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding
    kind = i % 4
    if kind == 0:
        return [("serial", 1, [Norm(out), Step(out, out, 1, bias=False)])]
    if kind == 1:
        g = min((d for d in range(1, cin + 1) if cin % d == 0), key=lambda d: (abs(d - 4), d))
        return [("parallel", 1, [Step(cin, cin // g, k, stride, p, groups=cin // g, relu=True), Step(cin // g, out, 1)])]
    if kind == 2:
        return [("after", 0.5, [Step(cin, out, (k, 1), stride, (p, 0), bias=False, norm=True, relu=True),
                                Step(out, out, 1, groups=out, bias=False)])]
    return [("serial", 0.25, [Step(out, out, 1, relu=True), Step(out, out, 3, 1, 1, groups=out, bias=False, norm=True)]),
            ("parallel", -0.5, [Step(cin, out, 1, stride, bias=False, norm=True)]),
            ("after", 2, [Step(cin, out, 1, stride, bias=True)])]


def unit(conv, bn, x, short=None, relu=True):
    def run(place, x, y):
        for where, scale, steps in conv.places:
            if where == place:
                a = y if place == "serial" else x
                for s in steps:
                    a = s(a)
                y = y + scale * a
        return y

    z = F.conv2d(x, conv.weight, None, conv.stride, conv.padding)
    z = bn(run("serial", x, run("parallel", x, z)))
    if short is not None:
        z = z + short
    return run("after", x, F.relu(z) if relu else z)


def forward(net, x):
    x = unit(net.conv1, net.bn1, x)
    if not net.cifar:
        x = F.max_pool2d(x, 3, 2, 1)
    for s in net.stages:
        for b in getattr(net, s):
            short = x
            if b.pad:
                short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, b.pad, b.pad))
            elif hasattr(b, "downsample"):
                short = unit(b.downsample[0], b.downsample[1], x, relu=False)
            y = unit(b.conv1, b.bn1, x)
            if b.bottleneck:
                x = unit(b.conv3, b.bn3, unit(b.conv2, b.bn2, y), short)
            else:
                x = unit(b.conv2, b.bn2, y, short)
    return getattr(net, net.head)(x.mean((2, 3)))


def convs(net):
    yield net.conv1
    for s in net.stages:
        for b in getattr(net, s):
            if hasattr(b, "downsample"):
                yield b.downsample[0]
            yield b.conv1
            yield b.conv2
            if b.bottleneck:
                yield b.conv3


torch.manual_seed(3)
for name, make in NETS.items():
    net = make()
    net.load_state_dict(torch.load(name + ".pth"))
    out = {}
    for i, c in enumerate(list(convs(net))):
        c.places = modules(i, c)
        c.adapter = nn.Sequential(*[s for _, _, steps in c.places for s in steps])
        randomise(c.adapter)
    for n, v in net.state_dict().items():
        if ".adapter." in n:
            out["adapter." + n] = v.numpy().copy()
    net = net.double()
    x = torch.tensor(np.load(name + ".npz")["x"]).double()
    for mode in ("fixed_", ""):
        net.train(mode == "")
        net.zero_grad()
        y = forward(net, x)
        if mode:
            out["y"] = y.detach().numpy().astype(np.float32)
        labels = torch.arange(len(x)) % y.shape[1]
        loss = F.cross_entropy(y, labels, label_smoothing=0.1)
        loss.backward()
        out[mode + "loss"] = np.array([loss.item()])
        for n, p in net.named_parameters():
            if name == "cifar_pad" or ".adapter." in n:  # the other's are large
                out[mode + "grad." + n] = p.grad.numpy().astype(np.float32)
    for n, b in net.named_buffers():
        if "running" in n:
            out["stat." + n] = b.numpy().astype(np.float32)
    np.savez_compressed(name + "_modules.npz", **out)
