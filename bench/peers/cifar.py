#!/usr/bin/env python3
"""Trains ResNet-20 with PyTorch as `lowrank train` does, for its loss curve:

    python3 bench/peers/cifar.py ZIP OUT.jsonl EPOCHS SEED

ZIP has CIFAR-10's training images, CLASS/NAME.jpg; a tenth of each class is held
out. The recipe is lowrank's: batches of 128, SGD with momentum 0.9, a rate of 0.1
with a warm-up of one epoch and then half a cosine, weight decay 5e-4 of weights
alone, shifts by up to 4 pixels with black and mirroring, ImageNet's mean and
deviation, option A shortcuts, normal weights of variance 2/(outputs · taps). Runs
on a GPU where there is one. OUT gets a line for each epoch.
"""
import io
import json
import math
import sys
import time
import zipfile
from multiprocessing import Pool

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, cin, out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.pad = (out - cin) // 2

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.pad:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(y + x)


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        layers, cin = [], 16
        for stage in range(3):
            for i in range(3):
                layers.append(Block(cin, 16 << stage, 2 if stage and not i else 1))
                cin = 16 << stage
        self.layers = nn.Sequential(*layers)
        self.linear = nn.Linear(64, 10)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        return self.linear(self.layers(F.relu(self.bn1(self.conv1(x)))).mean((2, 3)))


def decode(b):
    from PIL import Image
    return np.asarray(Image.open(io.BytesIO(b)).convert("RGB"))


def load(path):
    z = zipfile.ZipFile(path)
    names = sorted(n for n in z.namelist() if n.lower().endswith((".jpg", ".jpeg", ".png")))
    classes = sorted({n.split("/")[-2] for n in names})
    with Pool(8) as pool:
        x = np.stack(pool.map(decode, [z.read(n) for n in names], 500))
    return x, np.array([classes.index(n.split("/")[-2]) for n in names])


def main():
    path, out, epochs, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    x, y = load(path)
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rng = np.random.default_rng(seed)
    held = np.zeros(len(y), bool)
    for c in range(10):
        members = np.flatnonzero(y == c)
        held[rng.permutation(members)[:len(members) // 10]] = True
    mean = torch.tensor([0.485, 0.456, 0.406], device=device).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], device=device).view(1, 3, 1, 1)
    x = torch.tensor(x).to(device).permute(0, 3, 1, 2)
    y = torch.tensor(y).to(device)
    train, val = torch.tensor(np.flatnonzero(~held)).to(device), torch.tensor(np.flatnonzero(held)).to(device)
    net = ResNet20().to(device)
    weights = [p for p in net.parameters() if p.dim() > 1]
    others = [p for p in net.parameters() if p.dim() == 1]
    opt = torch.optim.SGD([{"params": weights, "weight_decay": 5e-4}, {"params": others}], 0.1, momentum=0.9)
    n, batch = len(train), 128
    steps = math.ceil(n / batch)
    log = open(out, "w")
    grid = torch.arange(32, device=device)
    for epoch in range(epochs):
        start = time.time()
        net.train()
        order = train[torch.randperm(n, device=device)]
        total = torch.zeros((), device=device)
        right = torch.zeros((), device=device)
        for i in range(steps):
            at, warm = (epoch * steps + i) / steps, steps
            rate = 0.1 * (epoch * steps + i + 1) / warm if epoch * steps + i + 1 < warm else \
                0.05 * (1 + math.cos(math.pi * min(max(at - 1, 0) / (epochs - 1), 1)))
            for g in opt.param_groups:
                g["lr"] = rate
            idx = order[i * batch:(i + 1) * batch]
            b = F.pad(x[idx], (4, 4, 4, 4))
            dy, dx = (torch.randint(0, 9, (len(idx), 1, 1), device=device) for _ in range(2))
            cols = dx + grid.view(1, 1, 32)
            flip = torch.rand(len(idx), 1, 1, device=device) < 0.5
            cols = torch.where(flip, cols.flip(2), cols)
            rows = dy + grid.view(1, 32, 1)
            b = b.permute(0, 2, 3, 1)[torch.arange(len(idx), device=device).view(-1, 1, 1), rows, cols]
            b = (b.permute(0, 3, 1, 2).float() / 255 - mean) / std
            logits = net(b)
            loss = F.cross_entropy(logits, y[idx])
            opt.zero_grad(set_to_none=True)
            loss.backward()
            opt.step()
            total += loss.detach() * len(idx)
            right += (logits.argmax(1) == y[idx]).sum()
        seconds = time.time() - start
        net.eval()
        with torch.no_grad():
            outs = torch.cat([net((x[v].float() / 255 - mean) / std) for v in val.split(500)])
        log.write(json.dumps({
            "epoch": epoch + 1, "loss": total.item() / n, "accuracy": right.item() / n, "val_loss": F.cross_entropy(outs, y[val]).item(),
            "val_accuracy": (outs.argmax(1) == y[val]).float().mean().item(), "seconds": seconds}) + "\n")
        log.flush()


if __name__ == "__main__":
    main()
