"""NSCD: how far inverted codes point away from the generator's own (LSAP, Eqs. 12 and 15). Loss and score alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lsap.errors import BadValue

Anchor = Literal["unit", "raw"]
Reduction = Literal["mean", "sum", "none"]


def nscd(
    styles: Sequence[Tensor],
    mean: Sequence[Tensor],
    *,
    reduction: Reduction = "mean",
    anchor: Anchor = "unit",
) -> Tensor:
    """Normalised-style-space cosine distance of every image (LSAP, Eq. 12). Differentiable.

    With s_l the unit style of a layer and mu_l the mean of the generator's unit styles:

        anchor="unit"   1 - <s_l, mu_l / |mu_l|>   the cosine distance; 0 along the mean, 2 opposite it
        anchor="raw"    1 - <s_l, mu_l>            Eq. 12's second line and the released code; never below 1 - |mu_l|

    Both are one number seen on two scales, raw = |mu_l| * unit + (1 - |mu_l|), so per layer they order codes alike.

    Args:
        styles: raw styles, one [N, C_l] per layer; only their direction counts.
        mean: mean unit style mu_l [C_l] of the same layers, not normalised again; see `NormalizedStyleSpace.mean`.
        reduction: over layers: "mean" (score), "sum" (encoder loss) or "none".
        anchor: see above.

    Returns:
        [N], or [N, layers] with reduction="none"; unitless, lower is better.

    Raises:
        BadValue: other layers or widths than those of `mean`, or an unknown option.
    """
    check_widths([s.shape[-1] for s in styles], [len(m) for m in mean])
    per_layer = torch.stack([_distance(s, m, anchor) for s, m in zip(styles, mean, strict=True)], 1)
    if reduction == "mean":
        return per_layer.mean(1)
    if reduction == "sum":
        return per_layer.sum(1)
    if reduction == "none":
        return per_layer
    raise BadValue(f"reduction={reduction!r}; accepted: 'mean', 'sum', 'none'")


def _distance(style: Tensor, mean: Tensor, anchor: Anchor) -> Tensor:
    """One layer's distance [N]."""
    style = style if style.dtype == torch.float64 else style.float()  # never in half precision
    # Half the squared chord between unit vectors is 1 - cosine without its cancellation: exactly 0 at the mean.
    chord = F.normalize(style, dim=1) - F.normalize(mean, dim=0)
    unit = chord.square().sum(1) / 2
    if anchor == "unit":
        return unit
    if anchor == "raw":
        length = mean.norm()
        return length * unit + (1 - length)
    raise BadValue(f"anchor={anchor!r}; accepted: 'unit', 'raw'")


def check_widths(styles: Sequence[int], mean: Sequence[int]) -> None:
    """Refuse styles that belong to other layers than the mean.

    Raises:
        BadValue: another number of layers, or a layer of another width.
    """
    if len(styles) != len(mean):
        raise BadValue(
            f"styles of {len(styles)} layers came with a mean of {len(mean)} layers; the codes belong to another "
            "resolution or to other layers: use the mean of their own generator"
        )
    for layer, (got, expected) in enumerate(zip(styles, mean, strict=True)):
        if got != expected:
            raise BadValue(
                f"the style of layer {layer} has {got} channels, but its mean has {expected}; the codes belong to "
                "another generator: use the mean of their own"
            )
