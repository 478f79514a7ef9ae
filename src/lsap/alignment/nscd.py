"""NSCD: how far inverted codes point away from the generator's own (LSAP, Eqs. 12 and 15). Loss and score alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

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


class NSCD(Metric):
    """Mean normalised-style-space cosine distance of a set of inversions (LSAP, Eq. 12).

    How far inverted codes point away from the generator's own. Only direction counts: demodulation hides a style's
    length from the image (Property 1). Differentiable; the loss of Eq. 15 is the same function, `nscd`.

    Args:
        mean: mean normalised style per layer, shape [C_l] each, in generator order; see `NormalizedStyleSpace.mean`.
        anchor: "unit" for the cosine distance, "raw" for the variant that published values use; see `nscd`.

    update(styles): raw styles, one [N, C_l] tensor per layer; they are normalised here.
    compute(): scalar in [0, 2], unitless, lower is better, averaged over layers and then over images.

    Raises:
        ValueError: layer widths differ from those of `mean`, as when the codes belong to another resolution.

    Example:
        >>> import torch
        >>> mean = [torch.tensor([3.0, 4.0]), torch.tensor([1.0, 0.0])]
        >>> metric = NSCD(mean)
        >>> metric.update([7 * m[None] for m in mean])                    # same direction, other length
        >>> metric.compute()
        tensor(0.)
        >>> metric.update([mean[0][None], torch.tensor([[0.0, 1.0]])])    # one of two layers at a right angle
        >>> metric.compute()
        tensor(0.2500)
    """

    is_differentiable = True
    higher_is_better = False
    full_state_update = False
    values: list[Tensor]

    def __init__(self, mean: Sequence[Tensor], *, anchor: Anchor = "unit", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.anchor = anchor
        self.layers = len(mean)
        for index, tensor in enumerate(mean):
            self.register_buffer(f"mean_{index}", tensor.detach().clone(), persistent=False)
        # Values of single images, not their sum: the result cannot depend on how images were batched.
        self.add_state("values", default=[], dist_reduce_fx="cat")

    @property
    def mean(self) -> list[Tensor]:
        """The mean style of every layer, on the metric's device."""
        return [self.get_buffer(f"mean_{index}") for index in range(self.layers)]

    def update(self, styles: Sequence[Tensor]) -> None:
        """Add the codes of N images by their raw styles, one [N, C_l] per layer."""
        self.values.append(nscd(styles, self.mean, anchor=self.anchor))

    def compute(self) -> Tensor:
        """Mean over all images so far, scalar."""
        return dim_zero_cat(self.values).mean()
