"""A peer for the benchmark programs: PyTorch, timed on request.

    python3 bench/peers/pytorch.py        (Debian's python3-torch)

Reads lines from standard input and answers each with the nanoseconds of one
call, the best over several batches within the time asked for and over both
memory formats (contiguous and channels_last):

    forward|input|weight N H W C OUT KH KW STRIDE PADH PADW DILATION GROUPS THREADS MILLISECONDS
    chain COUNT, then for each stage: OUT KH KW STRIDE PADH PADW DILATION GROUPS; N H W C THREADS MILLISECONDS
    norm|norm-add-relu|norm-backward|norm-relu-backward|maxpool|maxpool-backward N H W C THREADS MILLISECONDS
    loss N CLASSES THREADS MILLISECONDS
    sgd|adam VALUES THREADS MILLISECONDS
    train|evaluate resnet20|resnet18 N SIZE THREADS MILLISECONDS
    memory
    core

memory is answered with the most MiB that the process held since the last train or
evaluate began.
"""
import gc
import sys
import time

import torch
import torch.nn.functional as F

FORMATS = (torch.contiguous_format, torch.channels_last)


def best(calls, milliseconds):
    """The best mean time of a call among calls, each given an equal share."""
    result = float("inf")
    for call in calls:
        call()
        call()
        reps, end = 1, time.perf_counter() + milliseconds / 1e3 / len(calls)
        while True:
            start = time.perf_counter()
            for _ in range(reps):
                call()
            took = time.perf_counter() - start
            result = min(result, took / reps)
            if took < milliseconds / 1e4:
                reps *= 2
            if time.perf_counter() > end:
                break
    return result * 1e9


def maps(n, c, h, w):
    for fmt in FORMATS:
        yield torch.randn(n, c, h, w).to(memory_format=fmt), fmt


def convolution(kind, n, h, w, c, out, kh, kw, s, ph, pw, d, g):
    calls = []
    for x, fmt in maps(n, c, h, w):
        k = torch.randn(out, c // g, kh, kw).to(memory_format=fmt)
        y = F.conv2d(x, k, None, s, (ph, pw), d, g)
        dy = torch.randn(y.shape).to(memory_format=fmt)
        if kind == "forward":
            calls.append(lambda x=x, k=k: F.conv2d(x, k, None, s, (ph, pw), d, g))
        else:
            mask = [kind == "input", kind == "weight", False]
            calls.append(lambda x=x, k=k, dy=dy, mask=mask: torch.ops.aten.convolution_backward(
                dy, x, k, None, [s, s], [ph, pw], [d, d], False, [0, 0], g, mask))
    return calls


def chain(words):
    stages = [tuple(words[i:i + 8]) for i in range(0, len(words) - 4, 8)]
    n, h, w, c = words[-4:]
    calls = []
    for x, fmt in maps(n, c, h, w):
        kernels, i = [], c
        for out, kh, kw, s, ph, pw, d, g in stages:
            kernels.append(torch.randn(out, i // g, kh, kw).to(memory_format=fmt))
            i = out

        def run(x=x, kernels=kernels):
            for k, (out, kh, kw, s, ph, pw, d, g) in zip(kernels, stages):
                x = F.conv2d(x, k, None, s, (ph, pw), d, g)
            return x
        calls.append(run)
    return calls


def layer(kind, n, h, w, c):
    calls = []
    for x, fmt in maps(n, c, h, w):
        dy = torch.randn(x.shape).to(memory_format=fmt)
        gain, shift, mean, var = torch.ones(c), torch.zeros(c), torch.zeros(c), torch.ones(c)
        if kind == "norm":
            calls.append(lambda x=x: F.batch_norm(x, mean, var, gain, shift, True))
        elif kind == "norm-add-relu":
            calls.append(lambda x=x, dy=dy: F.relu_(F.batch_norm(x, mean, var, gain, shift, True).add_(dy)))
        elif kind in ("norm-backward", "norm-relu-backward"):
            _, m, r = torch.native_batch_norm(x, gain, shift, mean, var, True, 0.1, 1e-5)
            y = F.relu(x) if kind == "norm-relu-backward" else None

            def backward(x=x, dy=dy, y=y, m=m, r=r):
                g = dy if y is None else torch.ops.aten.threshold_backward(dy, y, 0)
                torch.ops.aten.native_batch_norm_backward(g, x, gain, mean, var, m, r, True, 1e-5, [True, True, True])
            calls.append(backward)
        elif kind == "maxpool":
            calls.append(lambda x=x: F.max_pool2d(x, 3, 2, 1))
        elif kind == "maxpool-backward":
            y, where = torch.ops.aten.max_pool2d_with_indices(x, [3, 3], [2, 2], [1, 1])
            g = torch.randn(y.shape).to(memory_format=fmt)
            calls.append(lambda x=x, g=g, where=where: torch.ops.aten.max_pool2d_with_indices_backward(
                g, x, [3, 3], [2, 2], [1, 1], [1, 1], False, where))
        else:
            raise ValueError(kind)
    return calls


def loss(n, classes):
    x = torch.randn(n, classes, requires_grad=True)
    y = torch.randint(0, classes, (n,))

    def run():
        x.grad = None
        F.cross_entropy(x, y).backward()
    return [run]


def optimiser(kind, values):
    p = torch.randn(values, requires_grad=True)
    p.grad = torch.randn(values)
    calls = []
    for foreach in (False, True):
        if kind == "sgd":
            o = torch.optim.SGD([p], 0.1, momentum=0.9, weight_decay=1e-4, foreach=foreach)
        else:
            o = torch.optim.Adam([p], 1e-3, foreach=foreach)
        calls.append(o.step)
    return calls


class Block(torch.nn.Module):
    def __init__(self, cin, out, stride):
        super().__init__()
        conv, norm = torch.nn.Conv2d, torch.nn.BatchNorm2d
        self.conv1, self.bn1 = conv(cin, out, 3, stride, 1, bias=False), norm(out)
        self.conv2, self.bn2 = conv(out, out, 3, 1, 1, bias=False), norm(out)
        self.short = None
        if stride != 1 or cin != out:
            self.short = torch.nn.Sequential(conv(cin, out, 1, stride, bias=False), norm(out))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu_(self.bn1(self.conv1(x)))))
        y += x if self.short is None else self.short(x)
        return F.relu_(y)


def network(arch):
    """A residual network of basic blocks with projections, as torchvision's."""
    small = arch == "resnet20"
    width, blocks, stages, classes = (16, 3, 3, 10) if small else (64, 2, 4, 1000)
    stem = torch.nn.Conv2d(3, width, 3 if small else 7, 1 if small else 2, 1 if small else 3, bias=False)
    layers, cin = [stem, torch.nn.BatchNorm2d(width), torch.nn.ReLU(inplace=True)], width
    if not small:
        layers.append(torch.nn.MaxPool2d(3, 2, 1))
    for s in range(stages):
        for b in range(blocks):
            layers.append(Block(cin, width << s, 2 if s and not b else 1))
            cin = width << s
    return torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(cin, classes))


def whole(kind, arch, n, size, milliseconds):
    """The best time of a step over both formats, one network in memory at a time."""
    result = float("inf")
    for fmt in FORMATS:
        net = network(arch).to(memory_format=fmt)
        x = torch.randn(n, 3, size, size).to(memory_format=fmt)
        y = torch.zeros(n, dtype=torch.long)
        sgd = torch.optim.SGD(net.parameters(), 1e-3, momentum=0.9, weight_decay=1e-4)
        net.train(kind == "train")

        def run():
            if kind == "evaluate":
                with torch.no_grad():
                    net(x)
                return
            sgd.zero_grad(set_to_none=True)
            F.cross_entropy(net(x), y).backward()
            sgd.step()
        result = min(result, best([run], milliseconds / 2))
        del net, sgd, x
        gc.collect()
    return result


def high_water():
    for row in open("/proc/self/status"):
        if row.startswith("VmHWM"):
            return int(row.split()[1]) / 1024


for line in sys.stdin:
    words = line.split()
    kind, words = words[0], words[1:]
    if kind == "core":
        print("PyTorch", torch.__version__, torch.backends.cpu.get_cpu_capability()
              if hasattr(torch.backends, "cpu") else "", flush=True)
        continue
    if kind == "memory":
        print(high_water(), flush=True)
        continue
    milliseconds, threads = float(words[-1]), int(words[-2])
    if kind in ("train", "evaluate"):
        open("/proc/self/clear_refs", "w").write("5")
        torch.set_num_threads(threads)
        print(whole(kind, words[0], int(words[1]), int(words[2]), milliseconds), flush=True)
        continue
    numbers = [int(v) for v in words[:-2]]
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    with torch.enable_grad() if kind == "loss" else torch.no_grad():
        if kind in ("forward", "input", "weight"):
            calls = convolution(kind, *numbers)
        elif kind == "chain":
            calls = chain(numbers)
        elif kind == "loss":
            calls = loss(*numbers)
        elif kind in ("sgd", "adam"):
            calls = optimiser(kind, *numbers)
        else:
            calls = layer(kind, *numbers)
        print(best(calls, milliseconds), flush=True)
