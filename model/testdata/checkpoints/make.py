# Makes the checkpoints in this directory and expected.json, which says what reading each
# must give: python3 make.py, with NumPy 1.24 and PyTorch 1.13. Every layout is one that
# people have: the comments name the programs that write it.
import argparse
import collections
import dataclasses
import datetime
import decimal
import enum
import json
import os
import pathlib
import pickle
import random
import uuid

import numpy as np
import torch

here = os.path.dirname(os.path.abspath(__file__))
expected = {}

SHAPES = collections.OrderedDict([
    ("conv1.weight", (2, 3, 1, 1)), ("bn1.weight", (2,)), ("bn1.running_mean", (2,)), ("bn1.num_batches_tracked", ()),
    ("layer1.0.conv1.weight", (2, 2, 1, 1)), ("fc.weight", (3, 2)), ("fc.bias", (3,)),
])


# Tensor i of the network has the elements first + 10*i + 0, 1, 2, ...
def net(first=0, prefix="", dtype=torch.float32):
    sd = collections.OrderedDict()
    for i, (name, shape) in enumerate(SHAPES.items()):
        n = int(np.prod(shape, dtype=int))
        t = torch.arange(n, dtype=torch.float32).reshape(shape) + first + 10 * i
        sd[prefix + name] = torch.tensor(7) if name.endswith("tracked") else t.to(dtype)
    return sd


def arrays(**kw):
    return {k: v.numpy() for k, v in net(**kw).items()}


def optimizer():
    names = [n for n in SHAPES if not n.endswith(("mean", "tracked"))]
    return {
        "state": {i: {"step": 3, "exp_avg": torch.ones(SHAPES[n]), "exp_avg_sq": torch.ones(SHAPES[n])} for i, n in enumerate(names)},
        "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999), "params": list(range(len(names)))}],
    }


# want says what reading gives: the first element of the first tensor, the key, the prefix
# taken off, names left out, and keys or prefixes of other state dicts.
def want(file, first=0, key="", prefix="", left_out=(), others=(), extra=(), dtype="F32", error=None, option_key="", option_prefix="", names=None):
    expected.setdefault(file, []).append(dict(
        first=first, key=key, prefix=prefix, left_out=list(left_out), others=list(others), extra=list(extra), dtype=dtype,
        error=error, option_key=option_key, option_prefix=option_prefix, names=names))


def save(file, obj, zipped=True, **kw):
    torch.save(obj, os.path.join(here, file), _use_new_zipfile_serialization=zipped)
    want(file, **kw)


def dump(file, obj, protocol, **kw):
    with open(os.path.join(here, file), "wb") as f:
        pickle.dump(obj, f, protocol=protocol)
    want(file, **kw)


class Config(dict):
    pass


class Settings:
    def __init__(self):
        self.rate, self.names = 0.1, ["a"]


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Record:
    epoch: int = 3


Point = collections.namedtuple("Point", "x y")


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 2, 1, bias=False)
        self.fc = torch.nn.Linear(2, 3)

    def forward(self, x):
        return self.fc(self.conv1(x).mean((2, 3)))


torch.manual_seed(0)
random.seed(0)
np.random.seed(0)

save("plain.pth", net())
save("plain_legacy.pth", net(), zipped=False)
# pytorch/examples, imagenet
save("best_acc1.pth.tar", {"epoch": 3, "arch": "x", "state_dict": net(), "best_acc1": torch.tensor(91.7), "optimizer": optimizer()}, key="state_dict")
save("acc_legacy.pth", {"net": net(), "acc": torch.tensor(91.7), "rng": torch.zeros(9, dtype=torch.uint8)}, zipped=False, key="net")
# torchvision's references
save("namespace.pth", {"model": net(), "optimizer": optimizer(), "lr_scheduler": {"base_lrs": [0.1]}, "epoch": 3, "args": argparse.Namespace(lr=0.1, model="x")}, key="model")
save("numpy_beside.pth", {"model": net(), "history": np.arange(5.0), "best": np.float64(0.5), "labels": np.array(["a", "b"])}, key="model")
save("random_states.pth", {"state_dict": net(), "torch": torch.ByteTensor([1, 2]), "numpy": ("MT19937", np.arange(4, dtype=np.uint32), 3, 0, 0.0), "python": random.getstate()[0:1], "generator": np.random.RandomState(0)}, key="state_dict")
save("collections.pth", {"model": net(), "meters": collections.defaultdict(list, {"loss": [1.0]}), "counts": collections.Counter("aab"), "last": collections.deque([1, 2], maxlen=2)}, key="model")
save("objects.pth", {"model": net(), "when": datetime.datetime(2020, 1, 1), "where": pathlib.PurePosixPath("/tmp"), "colour": Colour.RED, "range": range(3), "slice": slice(1, 2), "decimal": decimal.Decimal("1.5"), "id": uuid.UUID(int=1), "complex": 1j, "set": {1, 2}, "point": Point(1, 2), "record": Record()}, key="model")
save("objects_legacy.pth", {"model": net(), "config": Config(a=1), "settings": Settings(), "function": len, "class": Config}, zipped=False, key="model")
save("loss_object.pth", {"state_dict": net(), "criterion": torch.nn.CrossEntropyLoss(weight=torch.ones(3))}, key="state_dict")
q = torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)
odd = {"complex": torch.ones(2, 2, dtype=torch.complex64), "sparse": torch.eye(3).to_sparse(), "quantised": q, "meta": torch.ones(2, 2, device="meta")}
save("odd_tensors_beside.pth", {"state_dict": net(), **odd}, key="state_dict")
save("odd_tensors_legacy.pth", {"state_dict": net(), "complex": odd["complex"], "sparse": odd["sparse"]}, zipped=False, key="state_dict")
save("odd_tensors_within.pth", {**net(), **odd}, left_out=list(odd))
# a state dict in a dict of another class
save("own_dict.pth", Config(state_dict=Config(net()), epoch=3), key="state_dict")
# torch.optim.swa_utils.AveragedModel
x = net(prefix="module.")
x["n_averaged"] = torch.tensor(5)
save("swa.pth", x, prefix="module.", left_out=["n_averaged"])
# Lightning
x = net(prefix="model.")
x["criterion.weight"] = torch.ones(10)
save("lightning.ckpt", {"state_dict": x, "epoch": 1, "global_step": 2, "optimizer_states": [optimizer()], "lr_schedulers": [], "callbacks": {}, "hyper_parameters": Config(rate=0.1)}, key="state_dict", prefix="model.", left_out=["criterion.weight"])
x = net(prefix="net.")
x["val_acc.correct"], x["val_acc.total"], x["loss_fn.pos_weight"] = torch.tensor(5), torch.tensor(6), torch.ones(3)
save("metrics.ckpt", {"state_dict": x}, key="state_dict", prefix="net.", left_out=["val_acc.correct", "val_acc.total", "loss_fn.pos_weight"])
# thop
x = net()
x["total_ops"], x["total_params"], x["conv1.total_ops"] = torch.zeros(1), torch.zeros(1), torch.zeros(1, dtype=torch.float64)
save("thop.pth", x, left_out=["total_ops", "total_params", "conv1.total_ops"])
for p in ("encoder", "resnet", "network", "student", "base_model.model", "0", "_orig_mod.module", "module._orig_mod", "anything"):
    save("prefix_%s.pth" % p.replace(".", "_"), net(prefix=p + "."), prefix=p + ".")
# MoCo
x = net(prefix="module.encoder_q.")
x.update(net(prefix="module.encoder_k.", first=1000))
x["module.queue"], x["module.queue_ptr"] = torch.zeros(2, 8), torch.zeros(1, dtype=torch.long)
save("moco.pth.tar", {"state_dict": x}, key="state_dict", prefix="module.encoder_q.", left_out=["module.queue", "module.queue_ptr"], others=["module.encoder_k."])
want("moco.pth.tar", first=1000, key="state_dict", prefix="module.encoder_k.", option_prefix="module.encoder_k", left_out=list(net(prefix="module.encoder_q.")) + ["module.queue", "module.queue_ptr"])
# timm, DeiT
save("model_ema.pth", {"model_ema": net(first=1000), "model": net(), "epoch": 3}, key="model", others=["model_ema"])
want("model_ema.pth", first=1000, key="model_ema", others=["model"], option_key="model_ema")
want("model_ema.pth", error='"nothing"', option_key="nothing")
save("state_dict_ema.pth", {"state_dict": net(), "state_dict_ema": net(first=1000), "args": argparse.Namespace(lr=1)}, key="state_dict", others=["state_dict_ema"])
# BasicSR
save("params_ema.pth", {"params_ema": net(first=1000), "params": net()}, key="params", others=["params_ema"])
save("ema_alone.pth", {"ema": net(first=1000), "epoch": 3}, first=1000, key="ema")
# DINO
save("dino.pth", {"student": net(prefix="module.backbone."), "teacher": net(prefix="backbone.", first=1000), "optimizer": optimizer(), "args": argparse.Namespace(lr=1)}, key="student", prefix="module.backbone.", others=["teacher"])
save("two_levels.pth", {"model": {"state_dict": net()}, "epoch": 3}, key="model.state_dict")
save("three_levels.pth", {"trainer": {"weights": {"model": net()}}}, key="trainer.weights.model")
# the optimizer's state is twice as large as the network and under a key that says nothing
save("large_state.pth", {"opt": optimizer(), "w": net()}, key="w")
save("gan.pth", {"netD": {"main.0.weight": torch.ones(2, 2)}, "netG": net()}, key="netG", others=["netD"])
save("tuple.pth", (3, net()), key="1")
save("list_of_two.pth", [net(), net(first=1000)], key="0", others=["1"])
# the head has no wrapper: mmcls
x = net(prefix="backbone.")
x["head.fc.weight"], x["head.fc.bias"] = x.pop("backbone.fc.weight"), x.pop("backbone.fc.bias")
save("mmcls.pth", {"meta": {"epoch": 3}, "state_dict": x}, key="state_dict", prefix="backbone.", names=["conv1.weight", "bn1.weight", "bn1.running_mean", "bn1.num_batches_tracked", "layer1.0.conv1.weight", "head.fc.weight", "head.fc.bias"])
# nn.Sequential(normalise, network)
x = net(prefix="1.")
x["0.mean"], x["0.std"] = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
save("normalise_within.pth", x, prefix="1.", left_out=["0.mean", "0.std"])
# a layer's attributes, as tensor subclasses have
p = torch.nn.Parameter(net()["conv1.weight"])
p.tag = "x"
x = net()
x["conv1.weight"] = p
save("attributes.pth", x)
x = net()
x["conv1.weight"] = x["conv1.weight"].contiguous(memory_format=torch.channels_last)
x["fc.weight"] = x["fc.weight"].t().contiguous().t()
save("views.pth", x)
save("half.pth", net(dtype=torch.float16), dtype="F16")
save("bfloat16.pth", net(dtype=torch.bfloat16), dtype="BF16")
# not by torch.save
dump("pickled_0.pkl", arrays(), 0)
dump("pickled_2.pkl", {"model": net(), "epoch": 3}, 2, key="model")
dump("pickled_4.pkl", net(), 4)
dump("detectron.pkl", {"model": arrays(), "__author__": "x", "matching_heuristics": True}, 5, key="model")
# programs, not weights
save("module.pth", Net(), error="torch.save(model.state_dict()")
save("module_within.pth", {"model": Net(), "epoch": 3}, error="torch.save(model.state_dict()")
save("module_legacy.pth", Net(), zipped=False, error="torch.save(model.state_dict()")
save("module_beside.pth", {"ema": Net(), "state_dict": net()}, key="state_dict")
torch.jit.save(torch.jit.script(Net().eval()), os.path.join(here, "script.pt"))
want("script.pt", error="TorchScript")
save("object_alone.pth", Settings(), error="__main__.Settings")
save("only_numbers.pth", {"epoch": 3}, error="no tensors")

with open(os.path.join(here, "expected.json"), "w") as f:
    json.dump(expected, f, indent=1, sort_keys=True)
    f.write("\n")
