"""Portraits as a source of images: rendered when first asked for, remembered as eight-bit pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lsap.demo import factors, portraits
from lsap.demo.accessories import Accessories
from lsap.demo.out_of_distribution import estrange
from lsap.errors import BadValue, nearest

FAMILIES = ("plain", "rich", "far")

# Both trainings of a comparison see the same portraits; each is rendered once per process.
_REMEMBERED: dict[tuple[int, str, str], dict[int, Tensor]] = {}


class Portraits:
    """Portraits of one family and split: deterministic by seed and index; people differ between splits.

    Args:
        family: "plain" (what the generator learned), "rich" (the domain's photographs) or "far" (rich ones that hold
            what no portrait should: writing, hands, paint, or another art).
        split: name of the random stream, e.g. "train" or "test".
        count: how many there are.
        seed: of factors and extras.

    Raises:
        BadValue: unknown family, or a count below 1.
    """

    def __init__(self, family: str, split: str, count: int, seed: int = 0) -> None:
        if family not in FAMILIES:
            raise BadValue(f"family={family}: there is no such family of portraits; {nearest(family, FAMILIES)}")
        if count < 1:
            raise BadValue(f"count={count}: a source holds at least one portrait")
        self.family, self.split, self.count, self.seed = family, split, count, seed
        self.names = [f"{family}-{split}-{index:05d}" for index in range(count)]

    def __len__(self) -> int:
        return self.count

    def factors(self, indices: Sequence[int]) -> Tensor:
        """The true factors [B, F] of these portraits."""
        return factors.draw(self.seed, self.split, indices)

    def read(self, indices: Sequence[int]) -> Tensor:
        """Images [B, 3, 64, 64] in [-1, 1], of eight bits as a photograph has."""
        remembered = _REMEMBERED.setdefault((self.seed, self.family, self.split), {})
        unseen = [index for index in indices if index not in remembered]
        if unseen:
            drawn = self._draw(unseen)
            remembered.update(zip(unseen, ((drawn + 1) * 127.5).round().byte(), strict=True))
        return torch.stack([remembered[index] for index in indices]).float() / 127.5 - 1

    def again(self, indices: Sequence[int], factors: Tensor) -> Tensor:
        """These portraits as they were, extras included, but with other factors [B, F]; [B, 3, 64, 64] in [-1, 1]."""
        extras = Accessories.draw(self.seed, self.split, indices) if self.family != "plain" else None
        drawn = portraits.render(factors, extras)
        return estrange(drawn, factors, extras) if self.family == "far" and extras is not None else drawn

    def _draw(self, indices: Sequence[int]) -> Tensor:
        return self.again(indices, self.factors(indices))
