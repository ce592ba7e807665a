"""Runs adapters in the packages that published their formats: PEFT, LyCORIS, loralib.

    PYTHONPATH=PEFT/src:LYCORIS:LORALIB python3 check.py DIR

The Go test (LOWRANK_PACKAGES=… go test ./peft -run Packages) calls it. DIR has
base.safetensors, adapters that lowrank wrote below ours and, by the same names below
merged, the networks that lowrank merged from them. Each adapter is loaded by its
package, and what the network then answers, how each layer then computes and what the
package's own merge gives are compared with those. Then the packages make adapters of
their own below theirs; expected.safetensors has the kernels by which the layers compute
with them, and the other tensors that they replace. report.json has all differences, in
the norm and relative.

Python with PyTorch is needed, and of the packages those that are to be checked.
"""

import importlib
import json
import os
import sys

import torch

import smallnet
import standins
import theirs

standins.install()
from safetensors.torch import load_file, save_file  # after what stands in for it


def input_batch():
    return torch.randn(4, 6, 11, 11, generator=torch.Generator().manual_seed(1))


def replaced(net):
    """The tensors of batch norm and biases, whatever wraps them."""
    out = {}
    for name, m in net.named_modules():
        inner = getattr(m, "modules_to_save", None)
        m = inner[next(iter(inner))] if isinstance(inner, torch.nn.ModuleDict) else m
        if name == "bn1":
            out.update({f"bn1.{k}": v for k, v in m.state_dict().items() if "tracked" not in k})
        if name == "fc":
            out["fc.bias"] = m.bias if getattr(m, "bias", None) is not None else m.base_layer.bias
    return {k: v.detach().clone() for k, v in out.items()}


def load_lycoris(path, net):
    """The network of a file, and whether LyCORIS's own loader made it. In 3.3.0 that one
    takes a side of a LoKr with a core of taps for its rank, and does not think of the
    unbalanced factors that LyCORIS has as an option: it cannot load all that LyCORIS
    saves. Then each layer is made as for training, and given the tensors."""
    import lycoris

    try:
        return lycoris.create_lycoris_from_weights(1.0, path, net)[0], True
    except (AttributeError, RuntimeError):
        tensors = load_file(path)
        network = lycoris.LycorisNetwork(net, init_only=True)
        for name, layer in net.named_modules():
            key = "lycoris_" + name.replace(".", "_")
            own = {k[len(key) + 1:]: v for k, v in tensors.items() if k.startswith(key + ".")}
            if own:
                kind, values = lycoris.modules.get_module(tensors, key)
                network.loras.append(lokr_layer(key, layer, own) if kind is lycoris.LokrModule else lycoris.make_module(kind, values, key, layer))
        return network, False


def lokr_layer(key, layer, own):
    """A LoKr with the options under which it has the shapes of own."""
    import lycoris

    low = own.get("lokr_w1_b", own.get("lokr_w2_b"))
    for factor in range(-1, 20):
        for unbalanced in (False, True):
            m = lycoris.LokrModule(
                key, layer, 1.0, lora_dim=1 if low is None else low.shape[0], alpha=float(own["alpha"]), factor=factor or -1, use_tucker="lokr_t2" in own,
                decompose_both="lokr_w1_b" in own, full_matrix=low is None, unbalanced_factorization=unbalanced)
            if {k: v.shape for k, v in m.state_dict().items()} == {k: v.shape for k, v in own.items()}:
                m.load_state_dict(own)
                return m
    raise ValueError(f"{key}: no options of LyCORIS's give the shapes { {k: v.shape for k, v in own.items()} }")


@torch.no_grad()
def check_ours(root, case):
    base = load_file(os.path.join(root, "base.safetensors"))
    want = load_file(os.path.join(root, "merged", case + ".safetensors"))
    path = os.path.join(root, "ours", case)
    net = smallnet.SmallNet(base)
    twice = {}  # what the package's merge is known to give for a layer instead
    if case.startswith("peft"):
        import peft

        model = peft.PeftModel.from_pretrained(net, path).eval()
        merge = model.merge_and_unload
    elif case.startswith("lycoris"):
        network, loaded = load_lycoris(path, net)
        assert len(network.loras) == len({k.split(".")[0] for k in load_file(path)}), "some module was not loaded"
        for m in network.loras:
            # A full change of 3.3.0 takes the layer's weight away and then asks the
            # layer's forward for it: it can be merged but not run, and beside a bias
            # neither.
            m.merge_to() if type(m).__name__ == "FullModule" else m.apply_to()
            m.eval()
        model = net

        def merge():
            fresh = smallnet.SmallNet(base)
            again, _ = load_lycoris(path, fresh)
            again.merge_to()
            for m in again.loras:
                # LoHa and LoKr have α/rank in their weight, and once more in
                # get_diff_weight, which merge_to uses; their forward has it once.
                if type(m).__name__ in ("LohaModule", "LokrModule"):
                    flat = {n.replace(".", "_"): n for n in smallnet.LAYERS}
                    name = flat[m.lora_name[len("lycoris_"):]] + ".weight"
                    v = base[name] + m.scale * m.get_weight(m.shape)
                    if m.wd:
                        v *= m.dora_scale / v.flatten(1).norm(dim=1).reshape(m.dora_scale.shape)
                    twice[name] = v
            return fresh

    else:
        import loralib

        tensors = load_file(path)
        rank = tensors["fc.lora_A"].shape[0]
        model = net = smallnet.SmallNet({**base, **theirs.conv_names(base)}, theirs.loralib_layer(loralib, rank))
        net.train()  # unmerged
        net.bn1.eval()
        assert not net.load_state_dict(tensors, strict=False).unexpected_keys
        merge = net.eval

    x = input_batch()
    plain = smallnet.SmallNet(want)
    got = smallnet.kernels(net)
    report = {"outputs": smallnet.differs(model(x), plain(x)), "layers": max(smallnet.differs(got[k], want[k]) for k in got)}
    merged = smallnet.kernels(merge())
    if case.startswith("lycoris") and not loaded:
        report["made again"] = 0.0
    report["merged"] = 0.0
    for k in merged:
        d = smallnet.differs(merged[k], want[k])
        if k in twice:
            d = min(d, smallnet.differs(merged[k], twice[k]))
        report["merged"] = max(report["merged"], d)
    return report


@torch.no_grad()
def check_theirs(base, case, net, model, merge, expected):
    x = input_batch()
    kernels = smallnet.kernels(net)
    outputs = model(x)
    now = {**kernels, **replaced(net)}
    # A plain network of these tensors answers the same: they are all there is to it.
    report = {"outputs": smallnet.differs(smallnet.SmallNet({**base, **now})(x), outputs)}
    if merge is not None:
        merged = smallnet.kernels(merge())
        report["merged"] = max(smallnet.differs(merged[k], kernels[k]) for k in kernels)
    for k, v in now.items():
        if not torch.equal(v, base[k]):
            expected[case + "/" + k] = v
    return report


def main(root):
    torch.manual_seed(1)
    report = {"versions": {}, "ours": {}, "theirs": {}}
    have = {}
    for package in ("peft", "lycoris", "loralib"):
        try:
            m = importlib.import_module(package)
            report["versions"][package] = getattr(m, "__version__", "")
            have[package] = True
        except ImportError as e:
            report["versions"][package] = f"not there: {e}"
    for case in sorted(os.listdir(os.path.join(root, "ours"))):
        if case.split("-")[0].split(".")[0] in have:
            report["ours"][case] = check_ours(root, case)
    base = load_file(os.path.join(root, "base.safetensors"))
    os.makedirs(os.path.join(root, "theirs"), exist_ok=True)
    expected = {}
    for package, make in {"peft": theirs.make_peft, "lycoris": theirs.make_lycoris, "loralib": theirs.make_loralib}.items():
        if package in have:
            for made in make(base, os.path.join(root, "theirs")):
                report["theirs"][made[0]] = check_theirs(base, *made, expected)
    save_file(expected, os.path.join(root, "expected.safetensors"))
    with open(os.path.join(root, "report.json"), "w") as f:
        json.dump(report, f, indent=1)


if __name__ == "__main__":
    main(sys.argv[1])
