"""Does an encoder find an edited code again? Latent editing consistency (LEC), as e4e publishes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lsap.errors import BadValue
from lsap.evaluation.rows import seven_digits

BATCH = 8  # images of a batch in the published script, which its value depends on
TAILS = (1.0, 99.0)  # percentiles beyond which a batch is dropped


@torch.no_grad()
def round_trip(
    codes: Tensor,
    edit: Callable[[Tensor], Tensor],
    undo: Callable[[Tensor], Tensor],
    draw: Callable[[Tensor], Tensor],
    embed: Callable[[Tensor], Tensor],
) -> Tensor:
    """How far codes come back from where they were: edited, drawn, embedded again, and the edit taken back.

    Args:
        codes: [N, L, C], what the encoder made of N images.
        edit: codes → codes.
        undo: the inverse of `edit` in the latent space, as by adding the negative direction.
        draw: codes → images as the encoder takes them; neither clamped nor rounded to 8 bits.
        embed: images → codes.

    Returns:
        Per image the Frobenius norm over all rows and channels [N]; not divided by their number nor by the strength.
    """
    return (codes.double() - undo(embed(draw(edit(codes)))).double()).flatten(1).norm(dim=1)


def consistent(means: np.ndarray) -> np.ndarray:
    """The batch means [B] that the published rule keeps: from the 1st to the 99th percentile.

    Percentiles are samples: the next lower one at the lower end, the next higher one at the upper. So nothing goes
    while there are no more than a hundred batches.
    """
    low = np.percentile(means, TAILS[0], method="lower")
    high = np.percentile(means, TAILS[1], method="higher")
    return means[(means >= low) & (means <= high)]


class LEC(Metric):
    """Latent editing consistency (Tov et al. 2021): the mean of `round_trip`, after outliers among *batches* went.

    The published rule looks at the means of batches in the order of the images, so its value depends on their size.
    Here that size is the metric's, and images carry their number: however they come, in whichever batches and from
    whichever process, the value is the same. A last batch that is not full is dropped, as published; it stays where it
    is the only one. `plain` is the mean over all images, without a rule.

    Args:
        batch: images of a batch of the rule.

    update(distances, numbers): [N] each; an image that comes twice counts once.
    compute(): scalar in units of W+, at least 0, lower is better.

    Raises:
        BadValue: no image has come, or a batch below 1.

    Example:
        >>> metric = LEC(batch=2)
        >>> metric.update(torch.tensor([5.0, 1.0]), torch.tensor([2, 0]))
        >>> metric.update(torch.tensor([3.0]), torch.tensor([1]))
        >>> metric.compute(), metric.plain()
        (tensor(2.), tensor(3.))
    """

    full_state_update = False
    higher_is_better = False
    label = "LEC"
    unit = "distance in W+"
    distances: list[Tensor]
    numbers: list[Tensor]

    def __init__(self, batch: int = BATCH, **options: Any) -> None:
        super().__init__(**options)
        if batch < 1:
            raise BadValue(f"batch={batch}: LEC's rule looks at batches of at least one image")
        self.batch = batch
        self.add_state("distances", default=[], dist_reduce_fx="cat")
        self.add_state("numbers", default=[], dist_reduce_fx="cat")

    def update(self, distances: Tensor, numbers: Tensor) -> None:
        self.distances.append(distances.detach().double())
        self.numbers.append(numbers.to(distances.device))

    def compute(self) -> Tensor:
        values = self._in_order()
        full = len(values) // self.batch * self.batch or len(values)
        means = np.array([part.mean() for part in np.split(values[:full], range(self.batch, full, self.batch))])
        return torch.tensor(consistent(means).mean(), dtype=torch.float32)

    def plain(self) -> Tensor:
        """The mean over all images."""
        return torch.tensor(self._in_order().mean(), dtype=torch.float32)

    def _in_order(self) -> np.ndarray:
        """The distance of every image, by number."""
        if not self.distances:
            raise BadValue("LEC needs at least one image")
        numbers, distances = (dim_zero_cat(s).cpu().numpy() for s in (self.numbers, self.distances))
        found: np.ndarray = distances[np.unique(numbers, return_index=True)[1]]
        return found


def published_lec(values: Sequence[float | None], batch: int) -> float | None:
    """LEC of distances in the order of the images, with its rule about batches; None where there is no value."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    metric = LEC(batch)
    metric.update(torch.tensor(known, dtype=torch.float64), torch.arange(len(known)))
    return seven_digits(metric.compute())
