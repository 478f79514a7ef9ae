"""What an edit does, as an attribute reader sees it: strength needed for an effect, and what else changes with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lsap.checkpoints import SPREAD, CoordinateDirection, Direction
from lsap.editing.directions import OutOfReach, apply, matched_strength, matched_strengths


class Reader(Protocol):
    """Reads attributes off images: [N, 3, H, W] in [-1, 1] → [N, A], by default each in its own standard deviations.

    An attribute that cannot be read off an image is NaN.

    names: of the attributes, in the order of the columns.
    """

    names: Sequence[str]

    def __call__(self, images: Tensor) -> Tensor: ...


Attributes = Callable[[Tensor], Tensor]  # codes [N, L, C] of the same N images, moved → their attributes [N, A]

LIMIT = 3.0  # standard deviations of the samples; further out codes are hardly the generator's own any more


# ---- how strong an edit is made, a class per rule


class Strengths(Protocol):
    """How strongly images are edited.

    name: of the rule, as outputs and tables show it.
    steps: what the steps of the edit are called by, one number each: strengths, or effects.
    """

    @property
    def name(self) -> str: ...

    @property
    def steps(self) -> Sequence[float]: ...

    def strengths(
        self, codes: Tensor, direction: Direction, column: int | None, attributes: Attributes | None
    ) -> Tensor:
        """[N, S] strengths of N images for each of the steps.

        Args:
            codes: [N, L, C], unedited.
            direction: of the edit; its strengths are steps from where the codes are.
            column: of the attribute among those that `attributes` reads.
            attributes: of these images under moved codes.
        """
        ...


@dataclass(frozen=True)
class FixedStrength:
    """The same strength for every image and method, whatever it does there."""

    steps: Sequence[float]
    name: str = "strength"

    def strengths(
        self, codes: Tensor, direction: Direction, column: int | None = None, attributes: Attributes | None = None
    ) -> Tensor:
        """The steps themselves, for every image."""
        return torch.tensor(list(self.steps), dtype=torch.float32).expand(len(codes), -1)


@dataclass(frozen=True)
class MatchedOnAverage:
    """One strength for all images of a method, so that the mean change of the attribute is the wanted one (§5.1).

    Where it is out of reach, the strength is the limit.
    """

    steps: Sequence[float]
    name: str = "effect, on average"
    limit: float = LIMIT

    @torch.no_grad()
    def strengths(
        self, codes: Tensor, direction: Direction, column: int | None, attributes: Attributes | None
    ) -> Tensor:
        """Searched on these images; those on which the attribute cannot be read take no part.

        Raises:
            Unreadable: it cannot be read on any of them.
        """
        assert column is not None
        assert attributes is not None
        before = attributes(codes)[:, column]

        def effect(strength: float) -> float:
            return (attributes(apply(codes, direction, strength))[:, column] - before).nanmean().item()

        found = []
        for target in self.steps:
            try:
                found.append(matched_strength(effect, target, limit=self.limit, tolerance=0.02))
            except OutOfReach:
                found.append(self.limit if target > 0 else -self.limit)
        return torch.tensor(found, dtype=torch.float32).expand(len(codes), -1)


@dataclass(frozen=True)
class MatchedEach:
    """Every image its own strength, so that the attribute changes by the wanted amount on that very image.

    Where it is out of reach, the strength is the limit; where the attribute cannot be read, 0.
    """

    steps: Sequence[float]
    name: str = "effect, on every image"
    limit: float = LIMIT

    @torch.no_grad()
    def strengths(
        self, codes: Tensor, direction: Direction, column: int | None, attributes: Attributes | None
    ) -> Tensor:
        """Searched on every image by itself, all at once."""
        assert column is not None
        assert attributes is not None
        before = attributes(codes)[:, column]

        def effects(strength: Tensor) -> Tensor:
            return (attributes(apply(codes, direction, strength))[:, column] - before).float().cpu()

        columns = [matched_strengths(effects, target, len(codes), limit=self.limit)[0] for target in self.steps]
        return torch.stack(columns, 1)


def beyond(direction: Direction, strengths: Sequence[float]) -> str | None:
    """One line about strengths outside of a direction's usable range; None where there are none.

    Where no range was measured, and strengths are standard deviations of the samples, it is as wide as searches go.
    """
    wide = (-LIMIT, LIMIT) if direction.unit == SPREAD else None
    low, high = direction.usable or wide or (-math.inf, math.inf)
    outside = [strength for strength in strengths if not low <= strength <= high]
    if not outside:
        return None
    listed = ", ".join(f"{strength:g}" for strength in outside)
    return (
        f"direction={direction.name}: strength {listed} is outside of its usable range, {low:g} to {high:g}; images "
        "edited so far are hardly the generator's own"
    )


def incremental(direction: Direction) -> Direction:
    """The direction whose strength 0 leaves codes where they are, as a search for an effect needs it."""
    return direction.increment() if isinstance(direction, CoordinateDirection) else direction


# ---- what is known of a direction beforehand


@torch.no_grad()
def side_effects(
    w: Tensor, direction: Direction, attributes: Attributes, names: Sequence[str], least: float = 0.05
) -> Mapping[str, float]:
    """What changes on average at a strength of 1, the direction's own attribute first, then by size.

    Args:
        w: [N, C] or [N, L, C], the generator's own samples.
        direction: of the edit.
        attributes: of the samples under moved codes.
        names: of the attributes.
        least: smaller changes are left out.
    """
    change = (attributes(apply(w, direction, 1.0)) - attributes(w)).nanmean(0)
    found = dict(zip(names, change.tolist(), strict=True))
    own = {direction.attribute: found[direction.attribute]} if direction.attribute in found else {}
    others = {k: v for k, v in found.items() if k not in own and abs(v) >= least}
    return {k: round(v, 3) for k, v in (own | dict(sorted(others.items(), key=lambda kv: -abs(kv[1])))).items()}


@torch.no_grad()
def usable_range(
    w: Tensor,
    direction: Direction,
    distance: Callable[[Tensor], Tensor],
    attribute: Callable[[Tensor], Tensor] | None = None,
    *,
    limit: float = 6.0,
    step: float = 0.5,
) -> tuple[float, float]:
    """The strengths between which an edit does something and edited samples stay among the generator's own.

    A strength is usable while the median NSCD of the edited samples does not exceed the NSCD that nineteen of twenty
    unedited ones stay below, and while every further step still changes the attribute by a fifth of what the first did.

    Args:
        w: [N, C] or [N, L, C], the generator's own samples.
        direction: of the edit.
        distance: codes → NSCD [N].
        attribute: codes → the attribute that the direction moves [N], if anybody reads it; NaN where it cannot be read.
        limit, step: strengths that are tried.
    """
    bound = distance(w).quantile(0.95).item()

    def mean(strength: float) -> float:
        return 0.0 if attribute is None else attribute(apply(w, direction, strength)).nanmean().item()

    ends = []
    for sign in (-1.0, 1.0):
        end, reached, first = 0.0, mean(0.0), None
        while end + step <= limit:
            if distance(apply(w, direction, sign * (end + step))).median().item() > bound:
                break
            now = mean(sign * (end + step))
            gain = sign * (now - reached)
            first = gain if first is None else first
            if attribute is not None and (gain <= 0 or gain < 0.2 * first):
                break
            end, reached = end + step, now
        ends.append(sign * end)
    return ends[0] + 0.0, ends[1]
