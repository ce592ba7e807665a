# Makes nested.pth in this directory, with PyTorch 1.13: a checkpoint as training scripts
# write it, with a network, its average (here ten times the network's head) and settings.
import argparse
import os

import torch

here = os.path.dirname(os.path.abspath(__file__))
net = torch.load(os.path.join(here, "../../../zoo/testdata/cifar_pad.pth"))
net = net.get("state_dict", net)
ema = {"module." + k: v * (10 if v.dim() == 2 else 1) for k, v in net.items()}
ema["n_averaged"] = torch.tensor(5)
torch.save(
    {"model": net, "model_ema": ema, "best_acc1": torch.tensor(91.5), "epoch": 3, "args": argparse.Namespace(lr=0.1)},
    os.path.join(here, "nested.pth"),
)
