"""Directions in W along which one attribute changes: fitted to samples, purified, matched in effect.

The record itself, `Direction`, and its files are those of `lsap.checkpoints`. The strengths of directions found
here are counted in standard deviations of the samples along them, so that a strength of 1 means the same for every
direction and generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lsap.checkpoints import SPREAD, Direction, same_generator
from lsap.errors import BadValue


class OutOfReach(BadValue):
    """A change that no strength within the limit brings about."""


class Unreadable(BadValue):
    """A change that nobody can read off any of the images, so that no strength can be found for it."""


def data_direction(name: str, w: Tensor, values: Tensor, generator: str) -> Direction:
    """The direction in which the generator's own codes move, on average, when an attribute grows.

    The codes are regressed on the attribute: the slope is Cov(w, value) / Var(value), and factors that are independent
    of the attribute cancel out of it. The other regression, of the attribute on the codes, predicts better but is no
    edit: its direction leans on the coordinates in which codes hardly vary, and leads off the generator's own codes at
    once (measured on the demo generator: a predicted change of 0.94 standard deviations of pose came out as 0.01;
    along the slope it came out as 0.8).

    Args:
        name: of the attribute.
        w: [N, C] codes of the generator's own samples.
        values: [N] attribute read from their images, in any unit, as by a factor regressor.
        generator: the generator's fingerprint.

    Raises:
        BadValue: shapes that do not belong together, fewer than two samples, values that are not finite or all equal,
            or codes that do not move with the attribute at all.
    """
    check_samples(name, w, values)
    codes, wanted = centred(w), centred(values)
    variance = wanted.square().mean()
    slope = (codes * wanted[:, None]).mean(0) / variance
    length = slope.norm()
    if not length > 0:
        raise BadValue(f"direction {name!r}: codes do not move with the attribute at all; no direction changes it")
    vector = slope / length
    return Direction(
        name=name, vector=vector.float(), step=spread(codes, vector), unit=SPREAD, attribute=name,
        change=1 / length.item(), generator=generator, origin=f"slope of {len(w)} samples' codes on the attribute",
    )  # fmt: skip


def check_samples(name: str, w: Tensor, values: Tensor) -> None:
    """Refuse codes [N, C] and values [N] that no direction can be learned from; raises BadValue."""
    if w.ndim != 2 or values.shape != w.shape[:1] or len(w) < 2:
        raise BadValue(
            f"direction {name!r}: needs codes [N, C] and one value for each, N at least 2; "
            f"got {list(w.shape)} and {list(values.shape)}"
        )
    wanted = centred(values)
    if not wanted.isfinite().all() or wanted.square().mean().sqrt() <= 1e-9 * (1 + values.double().abs().max()):
        raise BadValue(f"direction {name!r}: the attribute must vary over the samples and be finite; check its reader")


def conditional(direction: Direction, others: Sequence[Direction], w: Tensor) -> Direction:
    """The part of a direction that leaves other attributes alone: their span is projected out.

    The conditional manipulation of InterFaceGAN (Shen et al. 2020), for any number of conditions.

    Args:
        direction: to be purified; it and the others hold one vector [C].
        others: directions of the attributes that shall stay.
        w: [N, C] samples, to measure the new direction's spread.

    Returns:
        A unit direction at a right angle to every one of `others`; its change per length is the old one times the
        cosine between old and new.

    Raises:
        BadValue: a direction of another generator or of [L, C], or nothing remains.
    """
    for other in (direction, *others):
        same_generator(direction, other)
        if other.vector.ndim != 1:
            raise BadValue(f"direction {other.name!r} has a vector of its own for every row; conditions need one, [C]")
    vector = direction.vector.double()
    vector = vector / vector.norm()
    if others:
        stacked = torch.stack([other.vector.double().to(vector.device) for other in others], dim=1)
        left, sizes, _ = torch.linalg.svd(stacked, full_matrices=False)
        basis = left[:, sizes > 1e-6 * sizes.max()]  # others may repeat one another
        vector = vector - basis @ (basis.T @ vector)
    remains = vector.norm().item()
    names = ", ".join(other.name for other in others)
    if remains < 1e-4:
        raise BadValue(f"direction {direction.name!r} lies in the span of {names}: nothing of it remains without them")
    unit = vector / remains
    change = None if direction.change is None else direction.change * remains
    origin = direction.origin + (f"; at a right angle to {names}" if others else "")
    return replace(
        direction, vector=unit.float(), step=spread(centred(w), unit), unit=SPREAD, change=change, origin=origin
    )


def apply(codes: Tensor, direction: Direction, strength: float | Tensor) -> Tensor:
    """Move codes [N, C] or [N, L, C] along a direction; see `Direction.moved`."""
    return direction.moved(codes, strength)


def matched_strength(
    change: Callable[[float], float], target: float, *, limit: float = 8.0, tolerance: float = 0.01, steps: int = 30
) -> float:
    """The strength at which a measured change reaches a target: edits are compared at equal effect, not equal strength.

    Doubles the strength until the target lies within reach, then halves the interval. The change need not be linear,
    but should grow along the direction.

    Args:
        change: strength → mean change of the attribute, as its judge reads it; 0 at strength 0.
        target: the wanted change; a negative one is sought among negative strengths.
        limit: largest strength that is tried, in standard deviations; beyond it codes leave the generator's range.
        tolerance: accepted miss, as a share of the target.
        steps: most halvings.

    Raises:
        OutOfReach: the target is not reached within the limit.
        Unreadable: at a strength that was tried the change is no number.
    """
    if target == 0:
        return 0.0
    sign = 1.0 if target > 0 else -1.0

    def read(size: float) -> float:
        reached = change(sign * size)
        if not math.isfinite(reached):
            raise Unreadable(
                f"at strength {sign * size:g} the attribute cannot be read off any of the images, so nobody knows how "
                "strong an edit must be; choose another reader or other images, or give strength= in place of effect="
            )
        return reached

    low, high = 0.0, min(0.5, limit)
    reached = read(high)
    while sign * reached < sign * target:
        if high >= limit:
            raise OutOfReach(
                f"a change of {target:g} is out of reach: at strength {sign * limit:g} it is {reached:g}; "
                "ask for a smaller change, or leave out images on which the attribute is already at its end"
            )
        low, high = high, min(2 * high, limit)
        reached = read(high)
    if abs(reached - target) <= tolerance * abs(target):
        return sign * high
    middle = (low + high) / 2
    for _ in range(steps):
        middle = (low + high) / 2
        reached = read(middle)
        if abs(reached - target) <= tolerance * abs(target):
            break
        low, high = (middle, high) if sign * reached < sign * target else (low, middle)
    return sign * middle


def matched_strengths(
    change: Callable[[Tensor], Tensor], target: float, count: int, *, limit: float = 8.0, steps: int = 12
) -> tuple[Tensor, Tensor]:
    """The same image by image: every image gets the strength at which its own change reaches the target.

    All images are searched at once: the interval of each is doubled until its target lies inside, then halved.

    Args:
        change: strengths [N] → change of the attribute of every image [N]; NaN where it cannot be read.
        target: the wanted change.
        count: N.
        limit: largest strength that is tried.
        steps: halvings of every interval.

    Returns:
        Strengths [N], and whether the target was reached [N]; where it was not, the strength is the limit, and where
        the attribute cannot be read, 0.
    """
    if target == 0:
        return torch.zeros(count), torch.ones(count, dtype=torch.bool)
    sign = 1.0 if target > 0 else -1.0
    low, high = torch.zeros(count), torch.full((count,), min(0.5, limit))
    reached = change(sign * high)
    unread = reached.isnan()
    short = sign * reached < sign * target
    while short.any() and bool((high[short] < limit).any()):
        low = torch.where(short, high, low)
        high = torch.where(short, (2 * high).clamp(max=limit), high)
        reached = change(sign * high)
        unread |= reached.isnan()
        short = sign * reached < sign * target
    found = ~short & ~unread
    for _ in range(steps):
        middle = (low + high) / 2
        below = sign * change(sign * middle) < sign * target
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    strength = torch.where(found, (low + high) / 2, torch.full_like(high, limit))
    return sign * torch.where(unread, torch.zeros_like(high), strength), found


def check_generator(directions: Iterable[Direction], generator: str) -> None:
    """Refuse directions of another generator than the one with this fingerprint, naming both."""
    for direction in directions:
        if direction.generator != generator:
            raise BadValue(
                f"direction {direction.name!r} belongs to generator {direction.generator[:12]}, but these codes are of "
                f"{generator[:12]}; find it again for this generator with python -m lsap.discover"
            )


def centred(values: Tensor) -> Tensor:
    """Values less their mean over the first axis, in float64."""
    values = values.detach().double()
    return values - values.mean(0)


def spread(deviations: Tensor, vector: Tensor) -> float:
    """Standard deviation of centred codes [N, C] along a unit vector [C]."""
    return (deviations @ vector.to(deviations)).square().mean().sqrt().item()
