"""Directions of other tools: InterFaceGAN's vectors (`.pt`, `.npy`) and GANSpace's components (`*_pca.pt`).

Such a file does not say which generator it was found for, and in the W of another one it means nothing. So whoever
reads it names the generator, and from then on the fingerprint goes with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lsap.errors import BadValue
from lsap.formats.codes import check_owner, read_tensors
from lsap.formats.states import read_card, write_state

KIND = "lsap foreign direction"


@dataclass(frozen=True)
class ForeignDirection:
    """A direction that moves codes by `strength * vector`, in the unit of its own tool.

    name: of the attribute, by default that of the file.
    vector: [C], the same on every row of W+, or [L, C].
    generator: fingerprint of the generator whose codes it moves.
    """

    name: str
    vector: Tensor
    generator: str


@dataclass(frozen=True)
class Components:
    """GANSpace's principal components of w.

    mean: [C] of the samples.
    vectors: [K, C], unit length.
    stds: [K], standard deviations of the samples along them.
    generator: fingerprint of the generator whose samples they were.
    """

    mean: Tensor
    vectors: Tensor
    stds: Tensor
    generator: str


def read_direction(path: str | Path, generator: str) -> ForeignDirection:
    """An InterFaceGAN direction: [C], [1, C], [L, C] or [1, L, C].

    Args:
        path: `.pt`, `.npy` or what `write_direction` wrote.
        generator: fingerprint of the generator that it was found for; a file that carries one must carry this.

    Raises:
        MissingFile: there is no such file.
        BadValue: no direction, numbers that are not finite, or one of another generator.
    """
    path = Path(path)
    tensors = read_tensors(path)
    check_owner(path.name, read_card(path).get("generator"), generator)
    vector = next(iter(tensors.values())).float() if len(tensors) == 1 else torch.empty(0)
    while vector.ndim > 1 and vector.shape[0] == 1:
        vector = vector[0]
    if vector.ndim not in (1, 2) or vector.shape[-1] < 2 or not vector.isfinite().all() or not vector.any():
        shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
        raise BadValue(f"{path} holds no direction: expected one finite tensor [C] or [L, C], found {shapes}")
    return ForeignDirection(path.stem, vector, generator)


def read_components(path: str | Path, generator: str) -> Components:
    """GANSpace's components: `mean` [1, C], `comp` [K, 1, C] and `std` [K].

    Raises:
        MissingFile: there is no such file.
        BadValue: other content, or components of another generator.
    """
    path = Path(path)
    tensors = read_tensors(path)
    check_owner(path.name, read_card(path).get("generator"), generator)
    if not is_components(tensors):
        raise BadValue(
            f"{path} holds no GANSpace components (mean, comp, std); it has {', '.join(tensors) or 'nothing'}"
        )
    mean, vectors = tensors["mean"].float().reshape(-1), tensors["comp"].float().flatten(1)
    stds = tensors["std"].float().reshape(-1)
    if vectors.shape != (len(stds), len(mean)):
        raise BadValue(f"{path}: {list(vectors.shape)} components do not go with a mean {list(mean.shape)}")
    return Components(mean, vectors, stds, generator)


def is_components(tensors: Mapping[str, Any]) -> bool:
    """Whether these are the parts of a GANSpace file."""
    return {"mean", "comp", "std"} <= set(tensors)


def write_direction(direction: ForeignDirection | Components, path: str | Path) -> Path:
    """Write as safetensors with the fingerprint of the generator; atomic."""
    card = {"kind": KIND, "generator": direction.generator}
    if isinstance(direction, ForeignDirection):
        return write_state(path, {direction.name: direction.vector}, card)
    parts = {"mean": direction.mean, "comp": direction.vectors, "std": direction.stds}
    return write_state(path, parts, card)
