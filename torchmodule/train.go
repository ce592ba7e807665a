package torchmodule

import (
	"fmt"

	"github.com/lowrank-go/lowrank/graph"
)

// trainScript is train.py for a network.
func trainScript(g *graph.Graph) string {
	return fmt.Sprintf(trainText, g.Arch, g.Input[0], g.Input[1], g.Input[2])
}

// trainText is the script: network, channels, rows, columns.
const trainText = `"""Trains the network of module.py on, on one process or, by torchrun, on several.

    python train.py --data FOLDER
    torchrun --nproc_per_node=8 train.py --data FOLDER --teacher original.pt

FOLDER has train/CLASS/*.jpg and val/CLASS/*.jpg, as torchvision's ImageFolder reads
them; without --data it trains on random images, which shows that everything works.
--teacher is a TorchScript file of the network as it was before it was compressed.
"""
import argparse
import json
import os

import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from module import load


def arguments():
    p = argparse.ArgumentParser(description="train %s on")
    p.add_argument("--data", help="folder with train/CLASS/* and val/CLASS/*")
    p.add_argument("--weights", default="model.safetensors")
    p.add_argument("--output", default="trained.pt")
    p.add_argument("--epochs", type=int, default=10)
    p.add_argument("--batch", type=int, default=64, help="images of a process in a step")
    p.add_argument("--rate", type=float, default=0.01)
    p.add_argument("--momentum", type=float, default=0.9)
    p.add_argument("--decay", type=float, default=1e-4)
    p.add_argument("--steps", type=int, default=0, help="stop an epoch after so many steps, 0 for never")
    p.add_argument("--workers", type=int, default=4)
    p.add_argument("--teacher", help="TorchScript file of the original network, to be distilled from")
    p.add_argument("--temperature", type=float, default=4)
    p.add_argument("--resume", help="file that an earlier run wrote")
    return p.parse_args()


def data(a, split, size):
    if a.data is None:
        with torch.no_grad():
            classes = load(a.weights)(torch.zeros(1, CHANNELS, *size)).shape[1]
        g = torch.Generator().manual_seed(0)
        return TensorDataset(torch.randn(256, CHANNELS, *size, generator=g), torch.randint(0, classes, (256,), generator=g))
    from torchvision import datasets, transforms
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "preprocess.json")) as file:
        pre = json.load(file)
    mean, std = pre["mean"], pre["std"] if any(pre["std"]) else [1, 1, 1]
    finish = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    if split == "train":
        steps = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()]
    else:
        steps = [transforms.Resize([s * 256 // 224 for s in size]), transforms.CenterCrop(size)]
    return datasets.ImageFolder(os.path.join(a.data, split), transforms.Compose(steps + finish))


CHANNELS = %d


def main():
    a = arguments()
    size = (%d, %d)
    distributed = "RANK" in os.environ
    rank, world = 0, 1
    cuda = torch.cuda.is_available()
    if distributed:
        dist.init_process_group("nccl" if cuda else "gloo")
        rank, world = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    network = load(a.weights).to(device)
    optimiser = torch.optim.SGD(network.parameters(), a.rate, momentum=a.momentum, weight_decay=a.decay, nesterov=a.momentum > 0)
    first = 0
    if a.resume:
        state = torch.load(a.resume, map_location=device)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["epoch"]
    teacher = torch.jit.load(a.teacher, map_location=device).eval() if a.teacher else None
    model = DistributedDataParallel(network) if distributed else network
    train, val = data(a, "train", size), data(a, "val", size)
    sampler = DistributedSampler(train) if distributed else None
    loader = DataLoader(train, a.batch, shuffle=sampler is None, sampler=sampler, num_workers=a.workers if a.data else 0, drop_last=True)
    held = DataLoader(val, a.batch, sampler=DistributedSampler(val, shuffle=False) if distributed else None, num_workers=a.workers if a.data else 0)
    steps = min(len(loader), a.steps) if a.steps else len(loader)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda t: 0.5 * (1 + torch.cos(torch.tensor(min(1.0, (first * steps + t) / max(1, a.epochs * steps)) * torch.pi)).item()))
    for epoch in range(first, a.epochs):
        model.train()
        if sampler is not None:
            sampler.set_epoch(epoch)
        total = 0.0
        for step, (x, y) in enumerate(loader):
            if step == steps:
                break
            x, y = x.to(device), y.to(device)
            logits = model(x)
            loss = F.cross_entropy(logits, y)
            if teacher is not None:
                with torch.no_grad():
                    wanted = F.softmax(teacher(x) / a.temperature, 1)
                loss = 0.5 * loss + 0.5 * a.temperature**2 * F.kl_div(F.log_softmax(logits / a.temperature, 1), wanted, reduction="batchmean")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        model.eval()
        counts = torch.zeros(2, device=device)
        with torch.no_grad():
            for x, y in held:
                x, y = x.to(device), y.to(device)
                counts += torch.stack([(model(x).argmax(1) == y).sum(), torch.tensor(len(y), device=device)])
        if distributed:
            dist.all_reduce(counts)
        if rank == 0:
            print(f"epoch {epoch + 1} of {a.epochs}: loss {total / max(1, steps):.4f}, top-1 {100 * counts[0].item() / max(1, counts[1].item()):.2f} %%", flush=True)
            torch.save({"network": network.state_dict(), "optimiser": optimiser.state_dict(), "epoch": epoch + 1}, a.output + ".tmp")
            os.replace(a.output + ".tmp", a.output)
    if distributed:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
`
