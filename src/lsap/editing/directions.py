"""Directions in W along which one attribute changes: found on the generator's own samples, applied to any code.

A direction belongs to one generator and carries its fingerprint. Strengths are counted in standard deviations of the
samples along it, so that a strength of 1 means the same for every direction and generator.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lsap.errors import BadValue, MissingFile
from lsap.runs.atomic import save_safetensors

FORMAT = "lsap.directions/1"


@dataclass(frozen=True)
class Direction:
    """One attribute's direction in W.

    Attributes:
        name: of the attribute.
        vector: [C], unit length.
        std: standard deviation of the samples' projections on it; one unit of strength.
        change: of the attribute per unit of length along it, in the attribute's own unit, by the fit on samples.
        generator: fingerprint of the generator whose W it lies in.
    """

    name: str
    vector: Tensor
    std: float
    change: float
    generator: str


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
    if w.ndim != 2 or values.shape != w.shape[:1] or len(w) < 2:
        raise BadValue(
            f"direction {name!r}: needs codes [N, C] and one value for each, N at least 2; "
            f"got {list(w.shape)} and {list(values.shape)}"
        )
    codes, wanted = _centred(w), _centred(values)
    variance = wanted.square().mean()
    if not wanted.isfinite().all() or variance.sqrt() <= 1e-9 * (1 + values.double().abs().max()):
        raise BadValue(f"direction {name!r}: the attribute must vary over the samples and be finite; check its reader")
    slope = (codes * wanted[:, None]).mean(0) / variance
    length = slope.norm()
    if not length > 0:
        raise BadValue(f"direction {name!r}: codes do not move with the attribute at all; no direction changes it")
    vector = slope / length
    return Direction(name, vector.float(), _spread(codes, vector), 1 / length.item(), generator)


def conditional(direction: Direction, others: Sequence[Direction], w: Tensor) -> Direction:
    """The part of a direction that leaves other attributes alone: their span is projected out.

    The conditional manipulation of InterFaceGAN (Shen et al. 2020), for any number of conditions.

    Args:
        direction: to be purified.
        others: directions of the attributes that shall stay.
        w: [N, C] samples, to measure the new direction's spread.

    Returns:
        A unit direction at a right angle to every one of `others`; its change per length is the old one times the
        cosine between old and new.

    Raises:
        BadValue: a direction of another generator, or nothing remains.
    """
    for other in others:
        _same_generator(direction, other)
    vector = direction.vector.double()
    if others:
        stacked = torch.stack([other.vector.double().to(vector.device) for other in others], dim=1)
        left, sizes, _ = torch.linalg.svd(stacked, full_matrices=False)
        basis = left[:, sizes > 1e-6 * sizes.max()]  # others may repeat one another
        vector = vector - basis @ (basis.T @ vector)
    remains = vector.norm().item()
    if remains < 1e-4:
        names = ", ".join(other.name for other in others)
        raise BadValue(f"direction {direction.name!r} lies in the span of {names}: nothing of it remains without them")
    unit = vector / remains
    return Direction(
        direction.name, unit.float(), _spread(_centred(w), unit), direction.change * remains, direction.generator
    )


def apply(codes: Tensor, direction: Direction, strength: float | Tensor) -> Tensor:
    """Move codes along a direction.

    Args:
        codes: [N, C] in W or [N, L, C] in W+, where every row moves alike.
        direction: of the generator that the codes belong to.
        strength: standard deviations of the samples; one number, or [N], one per code. Negative goes the other way.

    Returns:
        New codes of the same shape; the given ones are untouched.

    Raises:
        BadValue: codes of another width.
    """
    if codes.shape[-1] != len(direction.vector) or codes.ndim not in (2, 3):
        raise BadValue(
            f"direction {direction.name!r} has {len(direction.vector)} numbers and moves codes [N, C] or [N, L, C], "
            f"but these have the shape {list(codes.shape)}; use a direction of their own generator"
        )
    step = direction.vector.to(codes) * direction.std
    amount = torch.as_tensor(strength, dtype=codes.dtype, device=codes.device)
    return codes + amount.reshape(-1, *[1] * (codes.ndim - 1)) * step


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
        BadValue: the target is not reached within the limit.
    """
    if target == 0:
        return 0.0
    sign = 1.0 if target > 0 else -1.0
    low, high = 0.0, min(0.5, limit)
    reached = change(sign * high)
    while sign * reached < sign * target:
        if high >= limit:
            raise BadValue(
                f"a change of {target:g} is out of reach: at strength {sign * limit:g} it is {reached:g}; "
                "ask for a smaller change, or leave out images on which the attribute is already at its end"
            )
        low, high = high, min(2 * high, limit)
        reached = change(sign * high)
    if abs(reached - target) <= tolerance * abs(target):
        return sign * high
    middle = (low + high) / 2
    for _ in range(steps):
        middle = (low + high) / 2
        reached = change(sign * middle)
        if abs(reached - target) <= tolerance * abs(target):
            break
        low, high = (middle, high) if sign * reached < sign * target else (low, middle)
    return sign * middle


def save_directions(directions: Sequence[Direction], path: Path) -> Path:
    """Write directions of one generator as safetensors, whole or not at all.

    Raises:
        BadValue: none, two of one name, or of different generators.
    """
    if not directions:
        raise BadValue(f"{path.name}: there is no direction to save")
    names = [direction.name for direction in directions]
    if len(set(names)) < len(names):
        raise BadValue(f"{path.name}: directions need names of their own, but got {', '.join(names)}")
    for direction in directions[1:]:
        _same_generator(directions[0], direction)
    card = {direction.name: {"std": direction.std, "change": direction.change} for direction in directions}
    metadata = {"format": FORMAT, "generator": directions[0].generator, "directions": json.dumps(card)}
    save_safetensors(path, {d.name: d.vector.float() for d in directions}, metadata)
    return path


def load_directions(path: Path, generator: str | None = None) -> dict[str, Direction]:
    """Read directions by name, in the order in which they were saved.

    Args:
        path: a file of `save_directions`.
        generator: fingerprint that they must belong to; None skips the check.

    Raises:
        MissingFile: there is no such file.
        BadValue: the file is not one of ours, is cut short, or belongs to another generator.
    """
    if not path.is_file():
        raise MissingFile(f"{path} does not exist; find directions on the generator's own samples first")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            vectors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        card = json.loads(metadata["directions"])
        owner = metadata["generator"]
        found = {n: Direction(n, vectors[n], float(c["std"]), float(c["change"]), owner) for n, c in card.items()}
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BadValue(
            f"{path} holds no directions ({error}); it may be cut short: delete it and find them again"
        ) from error
    if generator is not None and owner != generator:
        raise BadValue(
            f"{path.name} belongs to generator {owner[:12]}, but this run uses {generator[:12]}; directions work in "
            "the W of their own generator only: find them again for this one"
        )
    return found


def check_generator(directions: Iterable[Direction], generator: str) -> None:
    """Refuse directions of another generator than the one with this fingerprint, naming both."""
    for direction in directions:
        if direction.generator != generator:
            raise BadValue(
                f"direction {direction.name!r} belongs to generator {direction.generator[:12]}, but these codes are of "
                f"{generator[:12]}; find it again for this generator"
            )


def _same_generator(one: Direction, other: Direction) -> None:
    if one.generator != other.generator:
        raise BadValue(
            f"directions {one.name!r} and {other.name!r} belong to different generators, {one.generator[:12]} and "
            f"{other.generator[:12]}; they cannot be used together"
        )


def _centred(values: Tensor) -> Tensor:
    values = values.detach().double()
    return values - values.mean(0)


def _spread(centred: Tensor, vector: Tensor) -> float:
    """Standard deviation of projections."""
    return (centred @ vector.to(centred)).square().mean().sqrt().item()
