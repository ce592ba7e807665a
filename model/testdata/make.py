# Makes the fixtures in this directory: python3 make.py, with NumPy 1.24 and
# PyTorch 1.13. The contents follow formulas, which the tests repeat.
import collections
import os

import numpy as np
import torch

here = os.path.dirname(os.path.abspath(__file__))


def path(name):
    return os.path.join(here, name)


# Tensor "dtype" has elements i - 2 (unsigned: i) for i = 0..5, shape 2x3.
def ramp(dtype):
    v = torch.arange(6)
    return (v if dtype in (torch.uint8,) else v - 2).to(dtype).reshape(2, 3)


state = collections.OrderedDict()
for name in "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8".split():
    state[name] = ramp(getattr(torch, name))
state["bool"] = torch.tensor([[True, False, True], [False, False, True]])
base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
state["base"] = base
state["transposed"] = base.permute(2, 0, 1)  # shares base's storage
state["strided"] = base[:, ::2, 1:]
state["expanded"] = torch.arange(3, dtype=torch.float32).reshape(3, 1).expand(3, 4)
state["scalar"] = torch.tensor(7.5)
state["empty"] = torch.zeros(0, 3)
state["parameter"] = torch.nn.Parameter(torch.arange(4, dtype=torch.float32))
state._metadata = collections.OrderedDict([("", {"version": 1})])

for suffix, zipped in (("zip", True), ("legacy", False)):
    torch.save(state, path(f"state_{suffix}.pth"), _use_new_zipfile_serialization=zipped)
    torch.save(
        {
            "epoch": 3,
            "arch": "tiny",
            "state_dict": {"module.fc.weight": ramp(torch.float32), "module.steps": torch.tensor(9)},
            "best_prec1": 91.5,
            "numpy_scalar": np.float64(0.25),
            "optimizer": {"state": {0: {"momentum": ramp(torch.float32)}}, "groups": [{"lr": 0.1, "params": [0]}]},
        },
        path(f"nested_{suffix}.pth"),
        _use_new_zipfile_serialization=zipped,
    )
torch.save([1, 2, 3], path("list.pth"))

for name in "float64 float32 float16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool".split():
    np.save(path(f"{name}.npy"), np.arange(6).reshape(2, 3).astype(name))
np.save(path("fortran.npy"), np.asfortranarray(np.arange(24, dtype=np.float32).reshape(2, 3, 4)))
np.save(path("big_endian.npy"), np.arange(6, dtype=">f8").reshape(2, 3))
np.save(path("scalar.npy"), np.float32(7.5))
np.save(path("empty.npy"), np.zeros((0, 3), np.float32))
with open(path("version2.npy"), "wb") as f:
    np.lib.format.write_array(f, np.arange(6, dtype=np.float32).reshape(2, 3), version=(2, 0))
np.save(path("structured.npy"), np.zeros(2, dtype=[("a", "<f4"), ("b", "<i4")]))
np.save(path("object.npy"), np.array([None, {}], dtype=object), allow_pickle=True)
np.save(path("complex.npy"), np.zeros(2, np.complex64))
np.savez(path("stored.npz"), a=np.arange(6, dtype=np.float32).reshape(2, 3), b=np.int64(4))
np.savez_compressed(path("deflated.npz"), a=np.arange(6, dtype=np.float32).reshape(2, 3), b=np.int64(4))

np.savez(path("labelled.npz"), x=np.arange(6.0).reshape(2, 3), names=np.array(["a", "b"]), objects=np.array([{}], dtype=object))
np.savez(path("only_labels.npz"), names=np.array(["a", "b"]))
# scipy.sparse.save_npz's arrays, of [[0 1 0 0] [0 0 2 3] [4 0 0 0]].
data = np.arange(1.0, 5.0)
i4 = lambda *v: np.array(v, np.int32)
np.savez_compressed(path("sparse_coo.npz"), row=i4(0, 1, 1, 2), col=i4(1, 2, 3, 0), format=b"coo", shape=np.array([3, 4]), data=data)
np.savez_compressed(path("sparse_csr.npz"), indices=i4(1, 2, 3, 0), indptr=i4(0, 1, 3, 4), format=b"csr", shape=np.array([3, 4]), data=data)
np.savez_compressed(path("sparse_csc.npz"), indices=i4(2, 0, 1, 1), indptr=i4(0, 1, 2, 3, 4), format=b"csc", shape=np.array([3, 4]), data=data[[3, 0, 1, 2]])
np.savez_compressed(path("sparse_large.npz"), row=i4(0), col=i4(1), format=b"coo", shape=np.array([10**6, 10**6]), data=np.ones(1))
