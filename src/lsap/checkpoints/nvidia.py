"""Names of NVIDIA's lineage: the StyleGAN2 networks of its PyTorch pickles (the ADA and StyleGAN3 repositories).

Such a pickle holds objects and the source text that would rebuild them. The text is left alone: what is wanted is in
the attributes, which become a tree of inert records.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lsap.checkpoints.arrays import MAKERS, as_tensor
from lsap.checkpoints.pickles import Maker, Record, inert, refuse
from lsap.errors import BadValue

DEEPEST = 12  # modules within modules; a published generator has 4
LAYERS = {"conv0": "up", "conv1": "conv", "torgb": "rgb"}
DEFAULT_MAPPING_LR = 0.01
PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
TENSORFLOW = "dnnlib.tflib.network.Network"


class Network(NamedTuple):
    """A generator under our names.

    state: tensors, without the mean latent.
    latent_avg: [C], where the file has one.
    mapping_lr, clamp: as `Generator` takes them.
    """

    state: dict[str, Tensor]
    latent_avg: Tensor | None
    mapping_lr: float = DEFAULT_MAPPING_LR
    clamp: float | None = None


def nvidia_globals(name: str) -> Maker:
    """What stands for a name that a pickle of this lineage asks for.

    Raises:
        BadValue: no such pickle needs it.
    """
    if name == PERSISTENT:
        return _persistent
    if name == TENSORFLOW:
        return inert(name)
    return MAKERS.get(name) or refuse(name)


def is_module(record: Record) -> bool:
    """Whether an object is a network of this lineage or of the one before it, in TensorFlow."""
    return record.name == TENSORFLOW or "_modules" in _attributes(record)


def recognises(state: Mapping[str, object]) -> bool:
    """Whether these are the names of one of NVIDIA's StyleGAN2 generators."""
    return "synthesis.b4.const" in state


def read_network(record: Record) -> Network:
    """A generator object of a pickle.

    Raises:
        BadValue: it is a network of another kind, or one that takes labels.
    """
    tensors = dict(_tensors(record, ""))
    if not recognises(tensors):
        what = "StyleGAN3" if any(name.startswith("synthesis.input") for name in tensors) else record.name
        raise BadValue(f"its network is a {what} and no StyleGAN2 generator; only those have styles to align")
    network = rename(tensors)
    layer = _module(record, "synthesis", "b4", "conv1")
    clamp = layer.get("conv_clamp")
    gain = _module(record, "mapping", "fc0").get("bias_gain", DEFAULT_MAPPING_LR)
    return network._replace(mapping_lr=float(gain), clamp=None if clamp is None else float(clamp))


def rename(state: Mapping[str, Tensor]) -> Network:
    """A generator's state dict under our names and in our shapes; values are untouched.

    Layers that were built without noise get noise of strength zero. The low-pass filters, constants of the
    architecture, are left out.

    Raises:
        BadValue: a name that no unconditional StyleGAN2 generator has, or other filters.
    """
    latent_avg, ours = None, {}
    for name, tensor in state.items():
        inner = name.rpartition(".")[2]
        if inner == "resample_filter":
            _check_filter(name, tensor)
        elif name == "mapping.w_avg":
            latent_avg = tensor
        elif name == "synthesis.b4.const":
            ours["constant"] = tensor[None]
        elif found := re.fullmatch(r"mapping\.fc(\d+)\.(weight|bias)", name):
            ours[f"mapping.layers.{found[1]}.{found[2]}"] = tensor
        elif found := re.fullmatch(r"synthesis\.b(\d+)\.(conv0|conv1|torgb)\.(.+)", name):
            layer = f"blocks.{LAYERS[found[2]]}{found[1]}"
            if inner == "noise_const":
                ours[f"{layer}.noise"] = tensor[None, None]
            else:
                ours[f"{layer}.{found[3]}"] = tensor
        elif ".skip." in name:
            raise BadValue("its synthesis has the architecture 'resnet'; lsap supports 'skip' only")
        elif name.startswith("mapping.embed."):
            raise BadValue("this generator takes class labels (c_dim > 0); lsap supports unconditional generators")
        else:
            raise BadValue(f"{name!r} is no tensor of one of NVIDIA's StyleGAN2 generators with skip connections")
    _fill_noise(ours)
    return Network(ours, latent_avg)


def _fill_noise(state: dict[str, Tensor]) -> None:
    for name in [n for n in state if re.fullmatch(r"blocks\.(up|conv)\d+\.weight", n)]:
        layer, side = name.removesuffix(".weight"), int(re.sub(r"\D", "", name))
        if f"{layer}.noise" not in state and f"{layer}.noise_strength" not in state:
            state[f"{layer}.noise"] = torch.zeros(1, 1, side, side)
            state[f"{layer}.noise_strength"] = torch.zeros(())


def _check_filter(name: str, tensor: Tensor) -> None:
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    if tensor.shape != (4, 4) or not torch.allclose(tensor.float(), torch.outer(line, line), atol=1e-6):
        raise BadValue(f"{name} is another filter than StyleGAN2's [1, 3, 3, 1]; the images would differ")


def _persistent(meta: Any) -> Record:
    """An object that carried its own source text: its class name and attributes; the text is dropped."""
    if not isinstance(meta, dict) or not isinstance(meta.get("class_name"), str):
        raise BadValue("refused, because one of its objects has no class name")
    return Record(meta["class_name"], state=meta.get("state"))


def _attributes(record: object) -> dict[str, Any]:
    state = record.state if isinstance(record, Record) else None
    return state if isinstance(state, dict) else {}


def _children(record: object, kind: str) -> dict[str, Any]:
    found = _attributes(record).get(kind)
    return found if isinstance(found, dict) else {}


def _module(record: object, *path: str) -> dict[str, Any]:
    """The attributes of a module inside another; empty where there is none."""
    for name in path:
        record = _children(record, "_modules").get(name)
    return _attributes(record)


def _tensors(record: object, prefix: str, depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a module and of those inside it, by their full names."""
    if depth > DEEPEST:
        raise BadValue("refused, because its modules lie within one another without end")
    for kind in ("_parameters", "_buffers"):
        for name, value in _children(record, kind).items():
            tensor = as_tensor(value)
            if tensor is not None:
                yield f"{prefix}{name}", tensor
    for name, module in _children(record, "_modules").items():
        yield from _tensors(module, f"{prefix}{name}.", depth + 1)
