"""Truth as a metric: what an edit or an inversion did to factors that are known.

Images alone, as everywhere else, can only be compared with images. Here the portrait that an edit *should* have given
can be rendered: the same person before the same wall, one factor moved. Whatever the edit changed beyond that is
leakage, and whatever the reader sees change even in that rendering (age greys hair by itself) is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lsap.demo import factors
from lsap.demo.networks import FactorReader
from lsap.demo.source import Portraits
from lsap.demo.weights import load_factor_reader

SIGMA = factors.STANDARD_DEVIATION


@dataclass(frozen=True)
class EditTruth:
    """What an edit did, per image [N]; factors in standard deviations.

    Attributes:
        effect: change of the edited factor, as read.
        leakage: mean absolute change of all other factors, as read.
        unavoidable: the same of the re-rendering in which only the edited factor moved, by the same effect.
        distance: mean squared difference of the edited image and that re-rendering, images in [-1, 1].
        clipped: 1 where the effect leads beyond the factor's range, so that the re-rendering stops at its end.
    """

    effect: Tensor
    leakage: Tensor
    unavoidable: Tensor
    distance: Tensor
    clipped: Tensor

    @property
    def excess(self) -> Tensor:
        """Leakage beyond what the factor itself brings about."""
        return self.leakage - self.unavoidable


@torch.no_grad()
def edit_truth(
    before: Tensor, after: Tensor, factor: str, source: Portraits, indices: list[int], reader: FactorReader
) -> EditTruth:
    """Measure an edit of inverted portraits against the truth.

    Args:
        before: [N, 3, 64, 64] in [-1, 1], the inversions.
        after: the same under the edit.
        factor: name of the factor that the edit is to move.
        source: where the portraits came from.
        indices: which of its portraits they are.
        reader: of measurements, on the images' device.
    """
    column = factors.index(factor)
    change = ((reader(after) - reader(before)) / SIGMA).cpu()
    truth = source.factors(indices)
    wanted = truth.clone()
    wanted[:, column] += change[:, column] * SIGMA
    clipped = ((wanted[:, column] < 0) | (wanted[:, column] > 1)).float()
    wanted = wanted.clamp(0, 1)
    was, should = (source.again(indices, f).to(after.device) for f in (truth, wanted))
    expected = ((reader(should) - reader(was)) / SIGMA).cpu()
    others = torch.arange(factors.COUNT) != column
    return EditTruth(
        effect=change[:, column],
        leakage=change[:, others].abs().mean(1),
        unavoidable=expected[:, others].abs().mean(1),
        distance=(after - should).square().mean((1, 2, 3)).cpu(),
        clipped=clipped,
    )


@torch.no_grad()
def reconstruction_error(
    output: Tensor, source: Portraits, indices: list[int], reader: FactorReader
) -> tuple[Tensor, Tensor]:
    """Absolute error of every factor read off inversions, in standard deviations, and beside it the reader's own.

    Args:
        output: [N, 3, 64, 64] in [-1, 1], inversions of these portraits of the source.

    Returns:
        [N, F] of the inversions, and [N, F] of the reader on the portraits themselves.
    """
    truth = source.factors(indices)
    own = (reader(source.read(indices).to(output.device)).cpu() - truth).abs() / SIGMA
    return (reader(output).cpu() - truth).abs() / SIGMA, own


class KnownFactors:
    """The two measurements above by the portraits' names, one number per image.

    Args:
        source: the portraits.
        reader: of measurements; the shipped one by default.
    """

    def __init__(self, source: Portraits, reader: FactorReader | None = None) -> None:
        self.source = source
        self.reader = load_factor_reader() if reader is None else reader
        self.places = {name: place for place, name in enumerate(source.names)}

    def inversion(self, output: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """`factor_error` [N] of inversions [N, 3, 64, 64]: mean over factors, in standard deviations.

        `own_error` is the reader's, on the portraits themselves.
        """
        reader = self.reader.to(output.device)
        found, own = reconstruction_error(output, self.source, [self.places[name] for name in names], reader)
        return {"factor_error": found.mean(1), "own_error": own.mean(1)}

    def edit(self, before: Tensor, after: Tensor, attribute: str, names: Sequence[str]) -> dict[str, Tensor]:
        """What an edit did [N]: `effect`, `leakage`, `excess` (the leakage that is the edit's fault), `distance`.

        Empty where the attribute is no factor.
        """
        if attribute not in factors.NAMES:
            return {}
        indices = [self.places[name] for name in names]
        found = edit_truth(before, after, attribute, self.source, indices, self.reader.to(after.device))
        return {name: getattr(found, name) for name in ("effect", "leakage", "excess", "distance")}
