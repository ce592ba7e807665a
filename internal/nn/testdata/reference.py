#!/usr/bin/env python3
"""Writes reference.json: outputs and gradients of PyTorch for the operators of nn.

Maps are NHWC there and NCHW here. Inputs follow a formula that the Go test has too.
Usage: python3 reference.py >reference.json
"""

import json
import torch
import torch.nn.functional as F

cases = []


def values(*shape, step=7919):
    n = 1
    for d in shape:
        n *= d
    k = (torch.arange(n, dtype=torch.int64) * step + 13) % 1009 - 504
    return (k.double() / 252).float().reshape(shape)


def nhwc(t):
    return t.permute(0, 2, 3, 1).contiguous()


def flat(t):
    return [float("%.6g" % v) for v in t.detach().reshape(-1).tolist()]


def case(op, f, shape=(1, 5, 6, 4), params=(), **args):
    """f takes the NCHW map and the parameters and gives an NCHW map."""
    x = values(*shape).requires_grad_()
    ps = [values(*p, step=104729).requires_grad_() for p in params]
    y = f(x.permute(0, 3, 1, 2), *ps)
    out = nhwc(y)
    out.backward(values(*out.shape, step=611953))
    cases.append(dict(op=op, args=args, x=list(shape), shape=list(out.shape), y=flat(out), dx=flat(x.grad),
                      params=[flat(p.grad) for p in ps]))


# Pooling.
for ceil in (False, True):
    for pad in (0, 1):
        case("max", lambda x: F.max_pool2d(x, 3, 2, pad, ceil_mode=ceil), size=[3, 3], stride=[2, 2], pad=pad, ceil=ceil)
        for count in (False, True):
            case("average", lambda x: F.avg_pool2d(x, 3, 2, pad, ceil, count), size=[3, 3], stride=[2, 2], pad=pad, ceil=ceil, count=count)
case("max", lambda x: F.max_pool2d(x, (2, 3), (1, 3), (1, 1), (2, 1), ceil_mode=True), size=[2, 3], stride=[1, 3], pad=1, dilation=[2, 1], ceil=True)
case("average", lambda x: F.avg_pool2d(x, 2, 1, 1, divisor_override=3), size=[2, 2], stride=[1, 1], pad=1, divisor=3)
for size in ((1, 1), (2, 3), (3, 4), (7, 9)):
    case("average", lambda x: F.adaptive_avg_pool2d(x, size), adaptive=size)
    case("max", lambda x: F.adaptive_max_pool2d(x, size), adaptive=size)

# Resizing.
for size in ((9, 4), (10, 12), (3, 3), (1, 1)):
    case("resize", lambda x: F.interpolate(x, size), shape=(1, 5, 6, 2), mode="nearest", coordinates="asymmetric", rounding="floor", size=size)
    case("resize", lambda x: F.interpolate(x, size, mode="nearest-exact"), shape=(1, 5, 6, 2), mode="nearest", rounding="round_prefer_ceil", size=size)
    for corners in (False, True):
        how = "align_corners" if corners else ""
        case("resize", lambda x: F.interpolate(x, size, mode="bilinear", align_corners=corners), shape=(1, 5, 6, 2), mode="linear", coordinates=how, size=size)
        case("resize", lambda x: F.interpolate(x, size, mode="bicubic", align_corners=corners), shape=(1, 5, 6, 2), mode="cubic", coordinates=how, size=size)
case("resize", lambda x: F.interpolate(x, scale_factor=(1.7, .6), mode="bilinear", align_corners=False), shape=(1, 5, 6, 2), mode="linear", scale=[1.7, .6], size=[8, 3])

# Activations.
for kind, f, a, b in (
    ("relu", F.relu, 0, 0), ("clip", F.relu6, 0, 6), ("clip", lambda x: F.hardtanh(x, -1, .5), -1, .5),
    ("leaky_relu", lambda x: F.leaky_relu(x, .2), .2, 0), ("elu", lambda x: F.elu(x, .7), .7, 0), ("selu", F.selu, 0, 0),
    ("celu", lambda x: F.celu(x, 1.3), 1.3, 0), ("sigmoid", torch.sigmoid, 0, 0), ("log_sigmoid", F.logsigmoid, 0, 0),
    ("hard_sigmoid", F.hardsigmoid, 1 / 6, .5), ("hard_swish", F.hardswish, 0, 0), ("silu", F.silu, 0, 0), ("mish", F.mish, 0, 0),
    ("gelu", F.gelu, 0, 0), ("gelu_tanh", lambda x: F.gelu(x, approximate="tanh"), 0, 0), ("tanh", torch.tanh, 0, 0),
    ("softplus", lambda x: F.softplus(x, 2), 2, 0), ("softsign", F.softsign, 0, 0), ("erf", torch.erf, 0, 0), ("abs", torch.abs, 0, 0),
):
    case("activation", lambda x: f(3 * x) if kind in ("clip", "hard_swish") else f(x), shape=(1, 3, 4, 3), kind=kind, alpha=a, beta=b, factor=3 if kind in ("clip", "hard_swish") else 1)
case("prelu", F.prelu, params=[(4,)])
case("prelu", F.prelu, params=[(1,)])

# Normalisation.
case("group_norm", lambda x, w, b: F.group_norm(x, 2, w, b, 1e-3), shape=(2, 3, 4, 4), params=[(4,), (4,)], groups=2)
case("group_norm", lambda x, w, b: F.instance_norm(x, weight=w, bias=b, eps=1e-3), shape=(2, 3, 4, 4), params=[(4,), (4,)], groups=0)
case("layer_norm", lambda x, w, b: F.layer_norm(x.permute(0, 2, 3, 1), (4,), w, b, 1e-3).permute(0, 3, 1, 2), shape=(2, 3, 4, 4), params=[(4,), (4,)], width=4)
case("layer_norm", lambda x, w, b: F.layer_norm(x, (4, 3, 4), w.reshape(3, 4, 4).permute(2, 0, 1), b.reshape(3, 4, 4).permute(2, 0, 1), 1e-3), shape=(2, 3, 4, 4), params=[(48,), (48,)], width=48)
case("lrn", lambda x: F.local_response_norm(x, 5, .5, .75, 2.), shape=(1, 2, 3, 7))
case("softmax", lambda x: F.softmax(x, 1))
case("log_softmax", lambda x: F.log_softmax(x, 1))

# Padding.
for mode, torch_mode in (("constant", "constant"), ("reflect", "reflect"), ("edge", "replicate"), ("wrap", "circular")):
    case("pad", lambda x: F.pad(x, (3, 1, 0, 2), torch_mode), mode=mode, begin=[0, 0, 3, 0], end=[0, 2, 1, 0])
case("pad", lambda x: F.pad(x, (-1, 2, 1, -2, 1, 1), value=.5), mode="", begin=[0, 1, -1, 1], end=[0, -2, 2, 1], value=.5)

# Shuffles.
case("depth_to_space", lambda x: F.pixel_shuffle(x, 2), shape=(1, 2, 3, 8), block=2)
case("space_to_depth", lambda x: F.pixel_unshuffle(x, 2), shape=(1, 4, 6, 2), block=2)
case("channel_shuffle", lambda x: x.reshape(1, 3, 2, 2, 3).transpose(1, 2).reshape(1, 6, 2, 3), shape=(1, 2, 3, 6), groups=3)

# Convolutions.
case("conv", lambda x, w, b: F.conv2d(F.pad(x, (1, 2, 0, 1)), w, b, (2, 1), 0, (1, 2), 2), params=[(6, 2, 2, 3), (6,)],
     kernel=[6, 2, 2, 3], stride=[2, 1], padding=[0, 1], extra=[1, 1], dilation=[1, 2], groups=2)
case("conv_transpose", lambda x, w, b: F.conv_transpose2d(x, w, b, (2, 3), (1, 0), (1, 2), 2, (1, 2)), params=[(4, 3, 3, 2), (6,)],
     kernel=[4, 3, 3, 2], stride=[2, 3], padding=[1, 0], dilation=[1, 2], groups=2, output=[1, 2])
case("conv_transpose", lambda x, w, b: F.conv_transpose2d(x, w, b, 1, 0, 1, 1, 2), shape=(1, 3, 4, 4), params=[(4, 3, 2, 2), (3,)],
     kernel=[4, 3, 2, 2], stride=[1, 1], padding=[0, 0], dilation=[2, 2], groups=1, output=[1, 1])

print("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]")
