"""Which kind of weights a file holds, told by the names in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from lsap.checkpoints import encoders, generators
from lsap.checkpoints.arrays import as_tensor
from lsap.checkpoints.directions import is_components
from lsap.pretrained.moco import QUERY

Holding = Literal[
    "generator", "encoder", "arcface", "curricularface", "moco", "alex", "vgg", "bisenet", "components", "codes", "none"
]
TRUNKS: Mapping[int, Holding] = {11: "alex", 3: "vgg"}  # by the width of their first kernel


def holding(content: Mapping[str, Any], card: Mapping[str, str]) -> Holding:
    """What a file holds, judged by content and card (see `read_state`, `read_card`); "none" where nothing is known."""
    if card.get("kind") == generators.KIND:
        return "generator"
    if card.get("kind") == encoders.KIND or "embedding" in card or encoders.holds_encoder(content):
        return "encoder"
    if generators.holds_generator(content):
        return "generator"
    if "input_layer.0.weight" in content and "output_layer.3.weight" in content:
        return "arcface" if "body.0.res_layer.5.fc1.weight" in content else "curricularface"
    if "cp.arm16.conv_atten.weight" in content:
        return "bisenet"
    inner = content.get("state_dict", content)
    names = set(inner) if isinstance(inner, Mapping) else set()
    if f"{QUERY}conv1.weight" in names or {"conv1.weight", "layer4.2.bn3.bias"} <= names:
        return "moco"
    first = content.get("features.0.weight")
    if isinstance(first, Tensor) and first.ndim == 4:
        return TRUNKS.get(first.shape[-1], "none")
    if is_components(content):
        return "components"
    return "codes" if "codes" in content or "w_plus" in content or _single(content) else "none"


def _single(content: Mapping[str, Any]) -> bool:
    return len(content) == 1 and as_tensor(next(iter(content.values()))) is not None
