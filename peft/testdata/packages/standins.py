"""Stand-ins for packages that PEFT and LyCORIS import but adapters have no need of.

PEFT imports Transformers, Accelerate, the Hub's client and Safetensors, LyCORIS Einops,
Toml and Tqdm. Where one of them is not installed, install() makes imports of it succeed:
its modules then hold whatever is asked of them, classes that do nothing, and a name that
ends in Error is an exception. Safetensors, which is needed, is written out here: its
published layout. A package that is installed is never replaced.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import struct
import sys
import types

import torch

PACKAGES = ("transformers", "accelerate", "huggingface_hub", "safetensors", "einops", "toml", "tqdm", "psutil")

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool}


def load_file(path, device="cpu"):
    """All tensors of a safetensors file, by name."""
    with open(path, "rb") as f:
        (n,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(n))
        data = f.read()
    out = {}
    for name, e in header.items():
        if name != "__metadata__":
            begin, end = e["data_offsets"]
            t = torch.frombuffer(bytearray(data[begin:end]), dtype=DTYPES[e["dtype"]]) if end > begin else torch.empty(0, dtype=DTYPES[e["dtype"]])
            out[name] = t.reshape(e["shape"]).to(device)
    return out


def save_file(tensors, path, metadata=None):
    """Writes tensors by falling alignment and then by name, as the reference does."""
    names = {v: k for k, v in DTYPES.items()}
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for name in sorted(tensors, key=lambda k: (-tensors[k].element_size(), k)):
        t = tensors[name].detach().cpu().contiguous()
        raw = t.numpy().tobytes()
        header[name] = {"dtype": names[t.dtype], "shape": list(t.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


class Nothing:
    """What every class of a stand-in derives from."""


class Module(types.ModuleType):
    __path__ = []
    __version__ = "4.50.0"  # between what old and new releases ask for

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (Exception if name.endswith("Error") else Nothing,), {})
        if name.startswith("is_"):  # is_xpu_available and the like
            made = lambda *args, **kwargs: False
        setattr(self, name, made)
        return made


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in self.missing:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        m = Module(spec.name)
        if spec.name == "safetensors.torch":
            m.load_file, m.save_file = load_file, save_file
            m.storage_ptr = lambda t: t.storage().data_ptr()
            m.storage_size = lambda t: t.storage().nbytes()
        if spec.name == "transformers.utils":
            m.http_user_agent = lambda *args, **kwargs: ""
        if spec.name == "tqdm":
            m.tqdm = lambda it=None, *args, **kwargs: it
        return m

    def exec_module(self, module):
        pass


def install():
    """Returns the names of the packages that are stood in for."""
    f = Finder()
    f.missing = [p for p in PACKAGES if importlib.util.find_spec(p) is None]
    sys.meta_path.append(f)
    return f.missing
