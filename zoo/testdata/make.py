#!/usr/bin/env python3
"""Makes the fixtures of this folder with PyTorch (1.13 was used):

    python3 make.py

For each small residual network NAME.pth holds its state dict and NAME.npz an
input x (N, 3, H, W) and the logits y that PyTorch gives in eval mode. The
networks are written out here so that no other package is needed; names follow
torchvision, and the common CIFAR port for those of three stages.
"""
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, cin, width, stride, bottleneck, stride_first, shortcut):
        super().__init__()
        out = width * (4 if bottleneck else 1)
        if bottleneck:
            s1, s2 = (stride, 1) if stride_first else (1, stride)
            self.conv1 = nn.Conv2d(cin, width, 1, s1, bias=False)
            self.conv2 = nn.Conv2d(width, width, 3, s2, 1, bias=False)
            self.conv3 = nn.Conv2d(width, out, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(out)
        else:
            self.conv1 = nn.Conv2d(cin, width, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.bottleneck, self.stride, self.pad = bottleneck, stride, 0
        self.name = shortcut
        if stride != 1 or cin != out:
            if shortcut == "A":
                self.pad = (out - cin) // 2
            else:
                setattr(self, shortcut, nn.Sequential(nn.Conv2d(cin, out, 1, stride, bias=False), nn.BatchNorm2d(out)))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.bottleneck:
            y = self.bn3(self.conv3(F.relu(y)))
        if self.pad:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        elif self.name != "A" and hasattr(self, self.name):
            x = getattr(self, self.name)(x)
        return F.relu(y + x)


class Net(nn.Module):
    def __init__(self, blocks, width, classes, bottleneck=False, stride_first=False, shortcut="downsample"):
        super().__init__()
        self.cifar = len(blocks) == 3
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False) if self.cifar else nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        cin = width
        self.stages = []
        for s, n in enumerate(blocks):
            layers = []
            for i in range(n):
                layers.append(Block(cin, width << s, 2 if s and not i else 1, bottleneck, stride_first, shortcut))
                cin = (width << s) * (4 if bottleneck else 1)
            self.stages.append("layer%d" % (s + 1))
            setattr(self, self.stages[-1], nn.Sequential(*layers))
        self.head = "linear" if self.cifar and shortcut != "downsample" else "fc"
        setattr(self, self.head, nn.Linear(cin, classes))

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        if not self.cifar:
            x = F.max_pool2d(x, 3, 2, 1)
        for s in self.stages:
            x = getattr(self, s)(x)
        return getattr(self, self.head)(x.mean((2, 3)))


def randomise(net):
    """Gives the batch norms weights and statistics as after training."""
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias, 0, 0.2)
            nn.init.normal_(m.running_mean, 0, 0.2)
            nn.init.uniform_(m.running_var, 0.5, 2)


def main():
    torch.manual_seed(1)
    cases = {
        "basic": (Net([1, 2, 1, 1], 4, 7), (2, 3, 45, 38)),
        "bottleneck": (Net([2, 1, 1, 1], 2, 5, bottleneck=True), (2, 3, 33, 40)),
        "bottleneck_v1": (Net([1, 1, 1, 1], 2, 5, bottleneck=True, stride_first=True), (2, 3, 33, 40)),
        "cifar_pad": (Net([1, 2, 1], 4, 6, shortcut="A"), (3, 3, 17, 16)),
        "cifar_projection": (Net([1, 1, 2], 4, 6, shortcut="shortcut"), (3, 3, 16, 19)),
    }
    for name, (net, size) in cases.items():
        randomise(net)
        net.eval()
        x = torch.randn(size)
        with torch.no_grad():
            y = net(x)
        torch.save(net.state_dict(), name + ".pth")
        np.savez(name + ".npz", x=x.numpy(), y=y.numpy())


if __name__ == "__main__":
    main()
