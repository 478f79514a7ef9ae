"""Names of NVIDIA's first lineage: the StyleGAN2 networks of its TensorFlow pickles (`stylegan2-*-config-f.pkl`).

Weights of a dense layer are stored inputs first, those of a convolution rows first and its channels last; where a
convolution doubles the resolution its kernel is turned round, and styles lack the 1 that our affine maps start from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lsap.checkpoints.arrays import as_tensor
from lsap.checkpoints.nvidia import TENSORFLOW, Network
from lsap.checkpoints.pickles import Record
from lsap.errors import BadValue

LAYERS = {"Conv0_up": "up", "Conv1": "conv", "Conv": "conv", "ToRGB": "rgb"}
IGNORED = {"lod", "images_out", "labels_in", "dlatents_in", "latents_in"}


def read_network(record: Record) -> Network:
    """A generator object of a pickle.

    Raises:
        BadValue: it is no StyleGAN2 generator of the architecture with skip connections.
    """
    own, parts = _variables(record), _attributes(record).get("components")
    if not isinstance(parts, dict) or not {"synthesis", "mapping"} <= set(parts):
        raise BadValue("its network has no mapping and synthesis; it is no StyleGAN2 generator")
    settings = _attributes(parts["synthesis"]).get("static_kwargs")
    settings = settings if isinstance(settings, dict) else {}
    if settings.get("architecture", "skip") != "skip":
        raise BadValue(f"its synthesis has the architecture {settings['architecture']!r}; lsap supports 'skip' only")
    state: dict[str, Tensor] = {}
    for name, tensor in _variables(parts["mapping"]).items():
        found = re.fullmatch(r"Dense(\d+)/(weight|bias)", name)
        if not found:
            raise BadValue(f"'mapping/{name}' is no tensor of an unconditional StyleGAN2 generator")
        state[f"mapping.layers.{found[1]}.{found[2]}"] = tensor.T.contiguous() if found[2] == "weight" else tensor
    for name, tensor in _variables(parts["synthesis"]).items():
        if name not in IGNORED:
            ours, value = _synthesis(name, tensor)
            state[ours] = value
    clamp = settings.get("conv_clamp")
    return Network(state, own.get("dlatent_avg"), clamp=None if clamp is None else float(clamp))


def _synthesis(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """Our name and form of a tensor of the synthesis network."""
    if name == "4x4/Const/const":
        return "constant", tensor
    if found := re.fullmatch(r"noise(\d+)", name):
        number = int(found[1])
        return f"blocks.{'conv' if number % 2 == 0 else 'up'}{4 << (number + 1) // 2}.noise", tensor
    found = re.fullmatch(r"(\d+)x\1/(Conv0_up|Conv1|Conv|ToRGB)/(\w+)", name)
    if not found:
        raise BadValue(f"'synthesis/{name}' is no tensor of a StyleGAN2 generator with skip connections")
    layer, inner = f"blocks.{LAYERS[found[2]]}{found[1]}", found[3]
    if inner == "weight":
        kernel = tensor.permute(3, 2, 0, 1)
        return f"{layer}.weight", (kernel.flip(2, 3) if found[2] == "Conv0_up" else kernel).contiguous()
    if inner == "mod_weight":
        return f"{layer}.affine.weight", tensor.T.contiguous()
    if inner == "mod_bias":
        return f"{layer}.affine.bias", tensor + 1
    return f"{layer}.{inner}", tensor


def _attributes(record: object) -> Mapping[str, Any]:
    state = record.state if isinstance(record, Record) and record.name == TENSORFLOW else None
    return state if isinstance(state, dict) else {}


def _variables(record: object) -> dict[str, Tensor]:
    """The tensors that a network holds itself, by name."""
    listed = _attributes(record).get("variables")
    pairs = [pair for pair in listed if isinstance(pair, tuple) and len(pair) == 2] if isinstance(listed, list) else []
    tensors = {str(name): torch.tensor(v) if isinstance(v, float) else as_tensor(v) for name, v in pairs}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}
