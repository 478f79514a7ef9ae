"""Rows of numbers: how they are written, the row of the generator's own samples, and the diversity of codes.

Imports torch alone, so that scoring a file of codes starts quickly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lsap.alignment import NormalizedStyleSpace

Row = dict[str, Any]


def seven_digits(value: Tensor | float) -> float:
    """A number for a results file: seven digits, all that single precision holds."""
    return float(f"{float(value):.7g}")


def synthetic_row(space: NormalizedStyleSpace) -> Row:
    """The row of the generator's own samples, from the lengths of the mean styles alone; they reconstruct nothing.

    Unit NSCD 1 − ‖μ_l‖ and raw NSCD 1 − ‖μ_l‖² (Eq. 12, averaged over layers); their diversity is the latter.
    """
    lengths = torch.stack([m.double().norm() for m in space.mean])
    raw = seven_digits((1 - lengths.square()).mean())
    return {
        "mse": None,
        "lpips": None,
        "identity": None,
        "nscd": seven_digits((1 - lengths).mean()),
        "nscd_raw": raw,
        "diversity": raw,
        "n": space.samples,
        "nscd_layers": by_layer(space, 1 - lengths),
    }


def by_layer(space: NormalizedStyleSpace, values: Tensor) -> dict[str, float]:
    """Values of layers by the names of the layers, with seven digits."""
    return {name: seven_digits(value) for name, value in zip(space.names, values, strict=True)}


def code_diversity(sums: Sequence[Tensor], count: int | Tensor) -> Tensor:
    """The spread of unit styles, 1 − ‖mean‖² averaged over layers, a scalar in [0, 1]; see `CodeDiversity`.

    Args:
        sums: of the unit styles of every layer, [C_l] each, in double precision.
        count: how many codes they are sums of.
    """
    spread = torch.stack([1 - (each / count).square().sum() for each in sums])
    return spread.clamp(min=0).mean().float()  # a single code may round below 0
