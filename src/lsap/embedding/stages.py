"""When the rows of W+ come in: one after another as in e4e, which LSAP_E adopts (section 5.1), or all at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from lsap.errors import BadValue
from lsap.values import STEPS, require


class Stages(Protocol):
    """A schedule: how many rows of W+ are trained at a step."""

    def stage(self, steps_seen: int) -> int:
        """The last row that is trained in the optimiser step after `steps_seen` of them, in 0..n_latent - 1."""
        ...


@dataclass(frozen=True)
class AllRows:
    """Every row from the first step on, as pSp trains.

    Args:
        n_latent: rows of W+.
        max_steps: length of the training; every schedule is told, this one has no use for it.
    """

    n_latent: int
    max_steps: int

    def stage(self, steps_seen: int) -> int:
        """The last row of all, always."""
        return self.n_latent - 1


@dataclass(frozen=True)
class ProgressiveStages:
    """The last row of W+ that is trained, as a function of the optimiser's steps so far.

    Only row 0, the base of all rows, is trained at first; row i gets its own difference from step
    `start + every * (i - 1)` on. As published: 20 000, and then one row every 2 000 steps (e4e, and LSAP's paper) or
    every 100 (the released configuration of LSAP). A step is a batch, or as many of them as are accumulated.

    Args:
        n_latent: rows of W+.
        max_steps: length of the training in optimiser steps; what fractions are fractions of.
        start: when row 1 comes in: a number of steps, or, below 1, a fraction of `max_steps`.
        every: steps from row to row, or, below 1, a fraction of `max_steps`.

    Raises:
        BadValue: no number from 0 upwards, or fewer than one row.

    Example:
        >>> short = ProgressiveStages(n_latent=10, max_steps=2000, start=0.05, every=0.05)
        >>> [short.stage(steps) for steps in (0, 99, 100, 200, 900, 1999)]
        [0, 0, 1, 2, 9, 9]
    """

    n_latent: int
    max_steps: int
    start: float = 20_000
    every: float = 2_000

    def __post_init__(self) -> None:
        require(STEPS, {"start": self.start, "every": self.every}, "stages.")
        if self.n_latent < 1:
            raise BadValue(f"n_latent={self.n_latent}: an encoder has at least one row")

    def begins(self, row: int) -> int:
        """The optimiser step from which on a row is trained."""
        return 0 if row == 0 else round(self._steps(self.start) + self._steps(self.every) * (row - 1))

    def stage(self, steps_seen: int) -> int:
        """The last row that is trained in the optimiser step after `steps_seen` of them, in 0..n_latent - 1."""
        return max(row for row in range(self.n_latent) if self.begins(row) <= steps_seen)

    def _steps(self, value: float) -> float:
        return value * self.max_steps if value < 1 else value
