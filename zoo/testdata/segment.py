#!/usr/bin/env python3
"""Makes the fixtures of segmentation networks with PyTorch (1.13 was used):

    python3 segment.py

They are the networks of make.py with their last stages dilated and a fully
convolutional head, as torchvision makes fcn_resnet50 of a ResNet, without the
dropout; names are torchvision's. NAME.pth holds the state dict, NAME.npz an input
x (N, 3, H, W) and the logits y (N, classes, H, W) in eval mode, and NAME_step.npz,
in float64, what step.py's have, of labels (N, H, W) with some pixels to ignore,
255, and label smoothing 0.1.
"""
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from make import Net, randomise


def dilate(net, replace):
    """Puts dilation in place of stride in the stages where replace is set."""
    dilation = 1
    for stage, wanted in zip(net.stages, replace):
        previous = dilation
        blocks = getattr(net, stage)
        if wanted:
            dilation *= blocks[0].stride
            for m in blocks[0].modules():
                if isinstance(m, nn.Conv2d):
                    m.stride = (1, 1)
            blocks[0].stride = 1
        for i, block in enumerate(blocks):
            for m in block.modules():
                if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3):
                    m.dilation = m.padding = (dilation if i else previous,) * 2


class Segmenter(nn.Module):
    def __init__(self, net, replace, channels, classes, aux):
        super().__init__()
        delattr(net, net.head)
        dilate(net, replace)
        self.backbone = net
        inner = channels // 4
        self.classifier = nn.Sequential(
            nn.Conv2d(channels, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(), nn.Identity(),
            nn.Conv2d(inner, classes, 1))
        if aux:
            self.aux_classifier = nn.Sequential(nn.Conv2d(channels // 2, classes, 1))

    def forward(self, x):
        size, net = x.shape[-2:], self.backbone
        x = F.relu(net.bn1(net.conv1(x)))
        if not net.cifar:
            x = F.max_pool2d(x, 3, 2, 1)
        for s in net.stages:
            for block in getattr(net, s):
                x = forward(block, x)
        return F.interpolate(self.classifier(x), size=size, mode="bilinear", align_corners=False)


def forward(block, x):
    """A block whose option A shortcut follows the stride."""
    if not (block.pad and block.stride == 1):
        return block(x)
    y = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x)))))
    return F.relu(y + F.pad(x, (0, 0, 0, 0, block.pad, block.pad)))


def labels(n, h, w, classes):
    """Stripes, with a rim and a block to ignore."""
    n, y, x = np.ogrid[:n, :h, :w]
    t = (n + y // 5 + x // 3) % classes
    t[:, ((x == 0) | (y > h - 3) & (x > 9))[0]] = 255
    return torch.from_numpy(t)


def main():
    torch.manual_seed(2)
    cases = {
        "fcn_basic": (Segmenter(Net([1, 1, 2, 2], 2, 7), [0, 0, 1, 1], 16, 5, False), (2, 3, 45, 38)),
        "fcn_bottleneck": (Segmenter(Net([1, 1, 2, 2], 2, 7, bottleneck=True), [0, 0, 1, 1], 64, 4, True), (2, 3, 61, 50)),
        "fcn_cifar": (Segmenter(Net([1, 1, 2], 4, 7, shortcut="A"), [0, 0, 1], 16, 6, False), (3, 3, 17, 13)),
    }
    for name, (net, size) in cases.items():
        randomise(net)
        net.eval()
        x = torch.randn(size)
        with torch.no_grad():
            y = net(x)
        torch.save(net.state_dict(), name + ".pth")
        np.savez_compressed(name + ".npz", x=x.numpy(), y=y.numpy())

        net = net.double()
        t = labels(size[0], size[2], size[3], y.shape[1])
        out = {"labels": t.numpy()}
        for mode in ("fixed_", ""):
            net.train(mode == "")
            net.zero_grad()
            loss = F.cross_entropy(net(x.double()), t, ignore_index=255, label_smoothing=0.1)
            loss.backward()
            out[mode + "loss"] = np.array([loss.item()])
            for n, p in net.named_parameters():
                if p.grad is not None:
                    out[mode + "grad." + n.replace("backbone.", "")] = p.grad.numpy().astype(np.float32)
        for n, b in net.named_buffers():
            if "running" in n:
                out["stat." + n.replace("backbone.", "")] = b.numpy().astype(np.float32)
        np.savez_compressed(name + "_step.npz", **out)


if __name__ == "__main__":
    main()
