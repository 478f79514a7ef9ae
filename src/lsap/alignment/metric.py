"""NSCD as a metric of a set of inversions (LSAP, Eq. 12)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lsap.alignment.functional import Anchor, nscd


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
