"""The network that the packages adapt, and the kernels that its layers have then."""

import torch
import torch.nn as nn
import torch.nn.functional as F

# The layers: inputs, outputs, size of the kernel, stride. The Go test has the same.
LAYERS = {
    "layer1.0.conv1": (6, 8, 3, 1),
    "layer1.0.conv2": (8, 8, 3, 1),
    "layer2.0.conv1": (8, 12, 3, 2),
    "layer2.0.conv2": (12, 12, 3, 1),
    "layer2.0.downsample.0": (8, 12, 1, 2),
    "fc": (12, 5, 0, 1),
}


class SmallNet(nn.Module):
    """Two blocks of a ResNet and a head; made lets a layer be a package's own."""

    def __init__(self, base, made=lambda name, layer: layer):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(6)
        for name, (c, o, k, s) in LAYERS.items():
            layer = nn.Conv2d(c, o, k, stride=s, padding=k // 2, bias=False) if k else nn.Linear(c, o)
            path = name.split(".")
            parent = self
            for p in path[:-1]:
                if p not in dict(parent.named_children()):
                    parent.add_module(p, nn.Module())
                parent = getattr(parent, p)
            parent.add_module(path[-1], made(name, layer))
        missing, unexpected = self.load_state_dict(base, strict=False)
        assert not unexpected, unexpected
        self.eval()

    def forward(self, x):
        one, two = getattr(self.layer1, "0"), getattr(self.layer2, "0")
        h = F.relu(one.conv2(F.relu(one.conv1(self.bn1(x)))))
        h = F.relu(two.conv2(F.relu(two.conv1(h))) + getattr(two.downsample, "0")(h))
        return self.fc(h.mean((2, 3)))


@torch.no_grad()
def kernels(net):
    """The kernel by which each layer of net computes, measured from what it answers to
    impulses. A package's formula for it is not asked."""
    modules = dict(net.named_modules())
    out = {}
    for name, (c, o, k, s) in LAYERS.items():
        layer = modules[name]
        if k == 0:
            much = 2.0**60  # beside which no bias counts
            out[name + ".weight"] = (layer(torch.eye(c) * much) / much).T.contiguous()
            continue
        # Output (1, 1) sees the inputs from s − padding on.
        first, size = s - k // 2, s + 2 * k
        x = torch.zeros(c * k * k, c, size, size)
        for i in range(c * k * k):
            x[i, i // (k * k), first + i // k % k, first + i % k] = 1
        out[name + ".weight"] = layer(x)[:, :, 1, 1].T.reshape(o, c, k, k).contiguous()
    return out


def differs(got, want):
    """‖got − want‖/‖want‖."""
    got, want = got.detach().double(), want.detach().double()
    return float((got - want).norm() / want.norm())


@torch.no_grad()
def randomise(parameters):
    """Values for factors, of a fixed generator's; what is a norm stays away from zero."""
    for name, p in parameters:
        v = torch.randn(p.shape) / 2
        p.copy_(v.abs() + 1 if "magnitude" in name or "dora_scale" in name else v)
