"""Recomputes merged kernels from adapter files without this project's code.

    python3 recompute.py recompute

reads recompute/base.safetensors and the adapters below recompute/ours, which the Go
test writes (go test ./peft -run Recompute -recompute.write), and merges them by the
formulas that Hugging Face's PEFT and LyCORIS publish, in float64 NumPy; it also writes
adapters of its own in their published layouts below recompute/theirs. All merged
kernels go to recompute/expected.safetensors, as <case>/<module>.weight. The Go test
compares them with what the package makes of the same files.

Where a change runs as convolutions, the merged kernel is checked against those, run by
PyTorch on random input. Only NumPy and PyTorch are needed.
"""

import json
import os
import struct
import sys

import numpy as np
import torch
import torch.nn.functional as F

DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64}


def read(path):
    with open(path, "rb") as f:
        (n,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(n))
        data = f.read()
    out = {}
    for name, e in header.items():
        if name != "__metadata__":
            begin, end = e["data_offsets"]
            out[name] = np.frombuffer(data[begin:end], DTYPES[e["dtype"]]).reshape(e["shape"])
    return out


def write(path, tensors):
    names = {np.dtype(v).str: k for k, v in DTYPES.items()}
    header, data = {}, b""
    # By falling alignment, as the reference writer does.
    for name in sorted(tensors, key=lambda k: (-tensors[k].dtype.itemsize, k)):
        t = np.ascontiguousarray(tensors[name])
        header[name] = {"dtype": names[t.dtype.str], "shape": list(tensors[name].shape), "data_offsets": [len(data), len(data) + t.nbytes]}
        data += t.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def wide(t):
    return np.asarray(t, np.float64)


def lora(up, down, mid=None):
    """up (O,r,1,1), down (r,C,kh,kw), or with a mid (r,r,kh,kw) down (r,C,1,1)."""
    up = up.reshape(up.shape[0], -1)
    if mid is not None:
        return np.einsum("nmkl,in,mj->ijkl", mid, up, down.reshape(down.shape[0], -1))
    return np.einsum("or,r...->o...", up, down)


def loha(p):
    if "hada_t1" in p:
        one = np.einsum("ijkl,jr,ip->prkl", p["hada_t1"], p["hada_w1_b"], p["hada_w1_a"])
        two = np.einsum("ijkl,jr,ip->prkl", p["hada_t2"], p["hada_w2_b"], p["hada_w2_a"])
        return one * two
    return (p["hada_w1_a"] @ p["hada_w1_b"]) * (p["hada_w2_a"] @ p["hada_w2_b"])


def lokr(p):
    one = p["lokr_w1"] if "lokr_w1" in p else p["lokr_w1_a"] @ p["lokr_w1_b"]
    if "lokr_w2" in p:
        two = p["lokr_w2"]
    elif "lokr_t2" in p:
        two = np.einsum("ijkl,ip,jr->prkl", p["lokr_t2"], p["lokr_w2_a"], p["lokr_w2_b"])
    else:
        two = p["lokr_w2_a"] @ p["lokr_w2_b"].reshape(p["lokr_w2_b"].shape[0], -1)
    if two.ndim == 2:  # low rank: (o2, c2*kh*kw)
        o2 = two.shape[0]
        return lambda shape: np.kron(one.reshape(*one.shape, 1, 1), two.reshape(o2, shape[1] // one.shape[1], *(list(shape[2:]) + [1, 1])[:2])).reshape(shape)
    return lambda shape: np.kron(one.reshape(*one.shape, 1, 1), two).reshape(shape)


def dora(w, delta, magnitude):
    merged = w + delta
    norm = np.sqrt((merged.reshape(w.shape[0], -1) ** 2).sum(1))
    return merged * (magnitude.reshape(-1) / norm).reshape([-1] + [1] * (w.ndim - 1))


def as_convolutions(w, merged, down, up, scale, mid=None):
    """The published forward: base(x) + scale * up([mid](down(x)))."""
    if w.ndim != 4:
        return
    t = [torch.from_numpy(wide(v).copy()) for v in (w, merged, down, up)]
    x = torch.randn(2, w.shape[1], 9, 9, dtype=torch.float64)
    y = F.conv2d(F.conv2d(x, t[2]), t[3]) if mid is None else F.conv2d(F.conv2d(F.conv2d(x, t[2]), torch.from_numpy(wide(mid).copy())), t[3])
    want, got = F.conv2d(x, t[0]) + scale * y, F.conv2d(x, t[1])
    assert (want - got).abs().max() < 1e-10, (want - got).abs().max()


def grouped(tensors, split):
    modules = {}
    for name, t in tensors.items():
        module, param = split(name)
        modules.setdefault(module, {})[param] = wide(t)
    return modules


PEFT_PARAMS = ["lora_A.weight", "lora_B.weight", "lora_magnitude_vector"]


def split_peft(name):
    assert name.startswith("base_model.model."), name
    name = name[len("base_model.model."):]
    for p in PEFT_PARAMS:
        if name.endswith("." + p):
            return name[: -len(p) - 1], p
    module, param = name.rsplit(".", 1)
    return module, param


def pattern(patterns, module, otherwise):
    """PEFT's get_pattern_key: the first key that, as a regular expression, ends the name."""
    import re

    for key, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return otherwise


def merge_peft(base, directory):
    with open(os.path.join(directory, "adapter_config.json")) as f:
        config = json.load(f)
    out = {}
    for module, p in grouped(read(os.path.join(directory, "adapter_model.safetensors")), split_peft).items():
        if not any(k.startswith(("lora_", "hada_", "lokr_")) for k in p):
            for param, t in p.items():  # modules_to_save
                out[f"{module}.{param}"] = t
            continue
        w = wide(base[module + ".weight"])
        r = pattern(config.get("rank_pattern"), module, config["r"])
        alpha = pattern(config.get("alpha_pattern"), module, config["lora_alpha"] if config["peft_type"] == "LORA" else config["alpha"])
        scale = alpha / r ** 0.5 if config.get("use_rslora") else alpha / r
        if config["peft_type"] == "LORA":
            assert p["lora_A.weight"].shape[0] == r
            delta = lora(p["lora_B.weight"], p["lora_A.weight"]).reshape(w.shape) * scale
            if "lora_magnitude_vector" in p:
                assert config["use_dora"]
                out[module + ".weight"] = dora(w, delta, p["lora_magnitude_vector"])
                continue
            as_convolutions(w, w + delta, p["lora_A.weight"], p["lora_B.weight"], scale)
        elif config["peft_type"] == "LOHA":
            delta = loha(p).reshape(w.shape) * scale
        else:
            delta = lokr(p)(w.shape) * scale
        out[module + ".weight"] = w + delta
    return out


def merge_lycoris(base, path):
    flat = {"lycoris_" + name[: -len(".weight")].replace(".", "_"): name[: -len(".weight")] for name in base}
    out = {}
    for key, p in grouped(read(path), lambda name: name.split(".", 1)).items():
        module = flat[key]
        w = wide(base[module + ".weight"])
        rank = None
        if "lora_up.weight" in p:
            down, up, mid = p["lora_down.weight"], p["lora_up.weight"], p.get("lora_mid.weight")
            rank = down.shape[0]
            delta = lora(up, down, mid)
        elif "hada_w1_a" in p:
            rank = p["hada_w1_b"].shape[0]
            delta = loha(p)
        elif "lokr_w1" in p or "lokr_w1_a" in p:
            for k in ("lokr_w1_b", "lokr_w2_b"):
                rank = p[k].shape[0] if k in p else rank
            delta = lokr(p)(w.shape)
        else:
            delta = p["diff"]
        # alpha over the rank; no alpha, or nothing with a rank, means 1
        scale = float(p["alpha"]) / rank if rank and "alpha" in p else 1.0
        delta = delta.reshape(w.shape) * scale
        merged = w + delta
        if "dora_scale" in p:
            merged = dora(w, delta, p["dora_scale"])
        elif "lora_up.weight" in p:
            as_convolutions(w, merged, down, up, scale, mid)
        out[module + ".weight"] = merged
    return out


def theirs(base, root):
    """Adapters in the published layouts, of random values."""
    rng = np.random.default_rng(1)

    def rand(*shape):
        return (rng.standard_normal(shape) / 4).astype(np.float32)

    def peft(case, config, tensors):
        path = os.path.join(root, case)
        write(os.path.join(path, "adapter_model.safetensors"), {"base_model.model." + k: v for k, v in tensors.items()})
        with open(os.path.join(path, "adapter_config.json"), "w") as f:
            json.dump(config, f, indent=1)

    def conv_lora(name, r, magnitude=False):
        o, c, *k = base[name + ".weight"].shape
        ones = [1] * len(k)
        t = {name + ".lora_A.weight": rand(r, c, *k), name + ".lora_B.weight": rand(o, r, *ones)}
        if magnitude:
            t[name + ".lora_magnitude_vector"] = np.abs(rand(*([1, o] + ones if k else [o]))) + np.float32(0.5)
        return t

    common = {"base_model_name_or_path": None, "bias": "none", "inference_mode": True, "fan_in_fan_out": False, "task_type": None,
              "init_lora_weights": True, "lora_dropout": 0.0, "revision": None, "peft_type": "LORA", "r": 4, "lora_alpha": 6}
    peft("peft-rslora", {**common, "use_rslora": True, "rank_pattern": {"layer1.0.conv2": 2}, "alpha_pattern": {"fc": 3},
                         "target_modules": ["conv1", "conv2", "downsample.0", "fc"], "modules_to_save": ["bn1"]},
         {**conv_lora("layer1.0.conv1", 4), **conv_lora("layer1.0.conv2", 2), **conv_lora("layer2.0.downsample.0", 4), **conv_lora("fc", 4),
          "bn1.weight": rand(6), "bn1.bias": rand(6), "bn1.running_mean": rand(6), "bn1.running_var": np.abs(rand(6))})
    peft("peft-dora", {**common, "use_dora": True, "target_modules": r"layer\d\.\d\.conv\d|fc"},
         {**conv_lora("layer1.0.conv1", 4, True), **conv_lora("fc", 4, True)})

    o, c, kh, kw = base["layer1.0.conv1.weight"].shape
    o2, c2 = base["layer1.0.conv2.weight"].shape[:2]
    peft("peft-loha", {"peft_type": "LOHA", "r": 3, "alpha": 5, "use_effective_conv2d": True, "target_modules": ["conv1"]},
         {f"layer1.0.conv1.hada_{k}": v for k, v in {
             "w1_a": rand(3, o), "w1_b": rand(3, c), "t1": rand(3, 3, kh, kw), "w2_a": rand(3, o), "w2_b": rand(3, c), "t2": rand(3, 3, kh, kw)}.items()})
    peft("peft-lokr", {"peft_type": "LOKR", "r": 1, "alpha": 2, "decompose_factor": -1, "target_modules": ["conv1"]},
         {f"layer1.0.conv1.lokr_{k}": v for k, v in {"w1": rand(2, 2), "w2_a": rand(o // 2, 1), "w2_b": rand(1, c // 2 * kh * kw)}.items()})

    tensors = {}

    def lycoris(module, alpha=None, **params):
        key = "lycoris_" + module.replace(".", "_")
        for k, v in params.items():
            tensors[key + "." + k.replace("__", ".")] = v
        if alpha is not None:
            tensors[key + ".alpha"] = np.array(alpha, np.float32)

    lycoris("layer1.0.conv1", 2, lora_up__weight=rand(o, 3, 1, 1), lora_mid__weight=rand(3, 3, kh, kw), lora_down__weight=rand(3, c, 1, 1))
    lycoris("layer1.0.conv2", 1, lora_up__weight=rand(o2, 2, 1, 1), lora_down__weight=rand(2, c2, 3, 3), dora_scale=np.abs(rand(o2, 1, 1, 1)) + np.float32(0.5))
    lycoris("layer2.0.downsample.0", 4, hada_w1_a=rand(12, 2), hada_w1_b=rand(2, 8), hada_w2_a=rand(12, 2), hada_w2_b=rand(2, 8))
    lycoris("layer2.0.conv1", 1, lokr_w1=rand(3, 2), lokr_w2_a=rand(1, 4), lokr_w2_b=rand(1, 4), lokr_t2=rand(1, 1, 3, 3))
    lycoris("layer2.0.conv2", diff=rand(*base["layer2.0.conv2.weight"].shape))
    lycoris("fc", 2, lora_up__weight=rand(5, 2), lora_down__weight=rand(2, 12))
    write(os.path.join(root, "lycoris.safetensors"), tensors)


def main(root):
    torch.manual_seed(1)
    base = read(os.path.join(root, "base.safetensors"))
    theirs(base, os.path.join(root, "theirs"))
    out = {}
    for side in ("ours", "theirs"):
        for case in sorted(os.listdir(os.path.join(root, side))):
            path = os.path.join(root, side, case)
            merged = merge_peft(base, path) if os.path.isdir(path) else merge_lycoris(base, path)
            for name, t in merged.items():
                out[f"{side}/{case}/{name}"] = t
    write(os.path.join(root, "expected.safetensors"), out)


if __name__ == "__main__":
    main(sys.argv[1])
