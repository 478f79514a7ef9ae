"""Rows of numbers: how they are written, and the row of the generator's own samples.

Imports torch alone, so that scoring a file of codes starts quickly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from lsap.alignment import NormalizedStyleSpace

Row = dict[str, Any]
MEASURES = ("mse", "lpips", "identity", "nscd", "nscd_raw")  # of an image, and their means over a set


def seven_digits(value: Tensor | float) -> float:
    """A number for a results file: seven digits, all that single precision holds."""
    return float(f"{float(value):.7g}")


def finite(value: float) -> float | None:
    """A number for a results file; None where it is NaN or infinite."""
    return seven_digits(value) if math.isfinite(value) else None


def by_name(names: Iterable[str], values: Mapping[str, Tensor], keys: Iterable[str] = ()) -> dict[str, Row]:
    """Values [N] of metrics as one row per image, seven digits; None where an image has no value.

    Args:
        names: of the N images.
        values: metric → [N].
        keys: metrics that every row has, None where there are no values of them.
    """
    columns = {key: value.double().cpu().tolist() for key, value in values.items()}
    empty: Row = dict.fromkeys(keys)
    return {name: empty | {key: finite(c[place]) for key, c in columns.items()} for place, name in enumerate(names)}


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
