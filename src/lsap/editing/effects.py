"""What an edit does, as an attribute reader sees it: strength needed for an effect, and what else changes with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lsap.editing.directions import Direction, apply, data_direction, matched_strength
from lsap.errors import BadValue


class Reader(Protocol):
    """Reads attributes off images: [N, 3, H, W] in [-1, 1] → [N, A], each in its own standard deviations.

    names: of the attributes, in the order of the columns.
    """

    names: Sequence[str]

    def __call__(self, images: Tensor) -> Tensor: ...


Renderer = Callable[[Tensor], Tensor]


LIMIT = 3.0  # standard deviations of the samples; further out codes are hardly the generator's own any more


@dataclass(frozen=True)
class MatchedEdit:
    """One direction applied so strongly that its attribute changes by a wanted amount, on average over images.

    Attributes:
        direction: what was applied.
        strength: how far, in standard deviations of the samples along it.
        effect: mean change of the attribute, in its standard deviations; short of the wanted one where that is out of
            reach.
        leakage: mean absolute change of all other attributes, in theirs.
    """

    direction: Direction
    strength: float
    effect: float
    leakage: float


@torch.no_grad()
def discover(
    attributes: dict[str, int], w: Tensor, render: Renderer, read: Reader, generator: str, chunk: int = 128
) -> dict[str, Direction]:
    """Directions of attributes, found on the generator's own samples.

    Args:
        attributes: name of the edit → column of the reader's output.
        w: [N, C] codes of samples.
        render: codes → images.
        read: images → attributes [N, A].
        generator: the generator's fingerprint.
        chunk: samples rendered at once.
    """
    values = torch.cat([read(render(part)) for part in w.split(chunk)])
    return {name: data_direction(name, w, values[:, column], generator) for name, column in attributes.items()}


@torch.no_grad()
def match(
    codes: Tensor, direction: Direction, column: int, target: float, render: Renderer, read: Reader, chunk: int = 128
) -> MatchedEdit:
    """Find the strength at which an edit of these codes [N, L, C] has the wanted mean effect, and measure its leakage.

    Where the effect is out of reach, the edit is made at the strength `LIMIT`, and its `effect` says how far it got.
    """

    def attributes(moved: Tensor) -> Tensor:
        return torch.cat([read(render(part)) for part in moved.split(chunk)])

    before = attributes(codes)

    def effect(strength: float) -> float:
        return (attributes(apply(codes, direction, strength)) - before)[:, column].mean().item()

    try:
        strength = matched_strength(effect, target, limit=LIMIT, tolerance=0.02)
    except BadValue:
        strength = LIMIT if target > 0 else -LIMIT
    change = attributes(apply(codes, direction, strength)) - before
    others = torch.arange(change.shape[1], device=change.device) != column
    return MatchedEdit(direction, strength, change[:, column].mean().item(), change[:, others].abs().mean().item())
