"""Adapters that the packages make and save, of random values."""

import os
import shutil

import torch
import torch.nn as nn

import smallnet


def peft_cases():
    from peft import LoHaConfig, LoKrConfig, LoraConfig

    few = ["layer1.0.conv1", "downsample.0", "fc"]
    return {
        "lora": LoraConfig(r=4, lora_alpha=6, target_modules=["conv1", "conv2", "downsample.0", "fc"],
                           rank_pattern={"layer1.0.conv2": 2, r"layer2\..*conv1": 3}, alpha_pattern={"fc": 3, r"layer\d\.0\.conv1": 5}),
        "lora-rs": LoraConfig(r=3, lora_alpha=5, use_rslora=True, target_modules=few, rank_pattern={"fc": 2}, alpha_pattern={"conv1": 7}, modules_to_save=["bn1"]),
        "lora-head": LoraConfig(r=2, lora_alpha=2, init_lora_weights="gaussian", target_modules=r"layer1\.\d\.conv\d", modules_to_save=["bn1", "fc"]),
        "lora-bias": LoraConfig(r=2, lora_alpha=3, target_modules=few, bias="lora_only"),
        "lora-bias-all": LoraConfig(r=2, lora_alpha=3, target_modules=["layer1.0.conv1"], bias="all"),
        "dora": LoraConfig(r=4, lora_alpha=6, use_dora=True, target_modules=few, modules_to_save=["bn1"]),
        "dora-rs": LoraConfig(r=3, lora_alpha=6, use_dora=True, use_rslora=True, target_modules=["layer1.0.conv1", "fc"], rank_pattern={"fc": 2}),
        "loha": LoHaConfig(r=3, alpha=5, target_modules=few, rank_pattern={"fc": 2}, alpha_pattern={"conv1": 2}),
        "loha-effective": LoHaConfig(r=2, alpha=5, use_effective_conv2d=True, target_modules=few),
        "lokr": LoKrConfig(r=1, alpha=2, target_modules=few, alpha_pattern={"fc": 3}),
        "lokr-effective": LoKrConfig(r=1, alpha=2, use_effective_conv2d=True, target_modules=few),
        "lokr-both": LoKrConfig(r=1, alpha=2, decompose_both=True, decompose_factor=4, target_modules=["layer1.0.conv2", "layer2.0.conv2", "fc"]),
        "lokr-factor": LoKrConfig(r=2, alpha=3, decompose_factor=2, target_modules=few),
        "lokr-whole": LoKrConfig(r=8, alpha=3, target_modules=few),
    }


def make_peft(base, root):
    import peft

    for case, config in peft_cases().items():
        net = smallnet.SmallNet(base)
        name = "task" if case == "lora-rs" else "default"  # another name is another directory
        model = peft.get_peft_model(net, config, adapter_name=name)
        ours = [(k, p) for k, p in model.named_parameters() if f".{name}" in k or p.requires_grad]
        smallnet.randomise(ours)
        with torch.no_grad():
            for k, b in model.named_buffers():
                if f".{name}." in k and b.is_floating_point():
                    b.copy_(torch.rand(b.shape) + 0.5)
        model.eval()
        path = os.path.join(root, "peft-" + case)
        model.create_or_update_model_card = lambda directory: None  # of text, by a template
        model.save_pretrained(path, safe_serialization=case != "lora-head")
        if case == "lora-bias" and not any(k.endswith(".bias") for k in peft.load_peft_weights(path)):
            shutil.rmtree(path)  # up to 0.20.0 PEFT does not save these
            continue
        if name != "default":
            path = os.path.join(path, name)
        yield "peft-" + case + ("/" + name if name != "default" else ""), net, model, lambda: model.merge_and_unload()


LYCORIS = {
    "locon": dict(network_module="lora", lora_dim=2, alpha=1, conv_lora_dim=3, conv_alpha=2, everywhere=True),
    "locon-tucker": dict(network_module="locon", conv_lora_dim=3, conv_alpha=2, use_tucker=True),
    "locon-rs": dict(network_module="lora", conv_lora_dim=3, conv_alpha=2, rs_lora=True),
    "locon-dora": dict(network_module="lora", lora_dim=2, conv_lora_dim=3, conv_alpha=2, weight_decompose=True, use_scalar=True),
    "loha": dict(network_module="loha", lora_dim=2, conv_lora_dim=3, conv_alpha=2),
    "loha-tucker": dict(network_module="loha", lora_dim=2, conv_lora_dim=2, conv_alpha=3, use_tucker=True, use_scalar=True),
    "loha-dora": dict(network_module="loha", lora_dim=2, alpha=2, conv_lora_dim=2, conv_alpha=2, weight_decompose=True),
    "lokr": dict(network_module="lokr", lora_dim=1, conv_lora_dim=1, conv_alpha=2),
    "lokr-tucker": dict(network_module="lokr", lora_dim=1, conv_lora_dim=1, conv_alpha=2, use_tucker=True, use_scalar=True),
    "lokr-both": dict(network_module="lokr", lora_dim=1, conv_lora_dim=1, conv_alpha=2, decompose_both=True, factor=4, everywhere=True),
    "lokr-whole": dict(network_module="lokr", lora_dim=4, conv_lora_dim=4, conv_alpha=2, full_matrix=True, unbalanced_factorization=True),
    "lokr-dora": dict(network_module="lokr", lora_dim=1, conv_lora_dim=1, conv_alpha=2, weight_decompose=True),
    "full": dict(network_module="full"),
}


def make_lycoris(base, root):
    from lycoris import LycorisNetwork

    for case, options in LYCORIS.items():
        options = dict(options)
        everywhere = options.pop("everywhere", False)
        LycorisNetwork.apply_preset({"target_module": ["Conv2d", "Linear"], "exclude_name": [] if everywhere else [r"layer2\.0\.conv", r"layer1\.0\.conv2"]})
        net = smallnet.SmallNet(base)
        network = LycorisNetwork(net, **options)
        network.apply_to()
        path = os.path.join(root, f"lycoris-{case}.safetensors")
        if case == "full":  # its parameters are the weights, of which the change is a part
            with torch.no_grad():
                for lora in network.loras:
                    lora.weight.add_(torch.randn(lora.weight.shape) / 2)
        else:
            smallnet.randomise(network.named_parameters())
        network.eval()
        network.save_weights(path, torch.float32, None)
        if case == "full":  # which cannot be run, see check.py
            names = {n.replace(".", "_"): n for n in smallnet.LAYERS}
            weights = {names[lora.lora_name[len("lycoris_"):]] + ".weight": lora.weight for lora in network.loras}
            net = smallnet.SmallNet({**base, **weights})
        yield f"lycoris-{case}.safetensors", net, net, None


LORALIB_ALPHA = 3  # no file has it: the Go test knows it too


def loralib_layer(loralib, rank):
    def made(name, layer):
        c, o, k, s = smallnet.LAYERS[name]
        if k:
            return loralib.Conv2d(c, o, k, r=rank, lora_alpha=LORALIB_ALPHA, stride=s, padding=k // 2, bias=False)
        return loralib.Linear(c, o, r=rank, lora_alpha=LORALIB_ALPHA)

    return made


def conv_names(base):
    """loralib's convolutions hold the frozen one, of which the kernel is a parameter."""
    return {k.replace(".weight", ".conv.weight") if v.dim() == 4 else k: v for k, v in base.items()}


def make_loralib(base, root):
    import loralib

    for case, bias in {"none": "none", "all": "all", "lora-only": "lora_only"}.items():
        net = smallnet.SmallNet({**base, **conv_names(base)}, loralib_layer(loralib, 2))
        net.train()  # unmerged: eval merges, and is how the package computes then
        smallnet.randomise((k, p) for k, p in net.named_parameters() if "lora_" in k)
        if bias != "none":
            smallnet.randomise([("bias", net.fc.bias)] + ([("bias", net.bn1.bias)] if bias == "all" else []))
        net.bn1.eval()
        torch.save(loralib.lora_state_dict(net, bias), os.path.join(root, f"loralib-{case}.pt"))
        yield f"loralib-{case}.pt", net, net, lambda: net.eval()
