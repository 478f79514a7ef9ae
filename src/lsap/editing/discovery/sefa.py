"""SeFa (Shen & Zhou 2021): directions that the modulation of chosen layers amplifies most; no samples are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lsap.checkpoints import SPREAD, Direction
from lsap.editing.directions import centred, spread
from lsap.editing.discovery.ganspace import upright
from lsap.editing.discovery.samples import Samples
from lsap.errors import BadValue
from lsap.stylegan2 import StyledLayer, StyleGenerator


@dataclass(frozen=True)
class SeFa:
    """Eigenvectors of the modulation weights of chosen convolutions.

    The weights that turn a code into the layers' styles are put side by side, every channel's row at unit length; the
    eigenvectors of their Gram matrix by falling eigenvalue are the directions.

    An edit moves the rows of W+ that the chosen convolutions read. The published code of e4e's repository moves the
    rows before those (for layers 2 to 5, rows 1 to 4); the vectors are the same.

    Args:
        layers: numbers of the convolutions, 0 is the first at 4 pixels; None takes all. In StyleGAN2, convolution k
            reads row k.
        count: how many directions.

    Raises:
        BadValue: a count below 1.
    """

    layers: Sequence[int] | None = None
    count: int = 5

    supervised = False

    def __post_init__(self) -> None:
        if self.count < 1:
            raise BadValue(f"sefa.count={self.count}: at least one direction")

    def find(self, generator: StyleGenerator, samples: Samples) -> list[Direction]:
        """One direction per eigenvector; samples only measure the unit of strength."""
        chosen = self.chosen(generator)
        moved = [_convolutions(generator)[number].row for number in chosen]
        _, vectors = self.eigenvectors(generator)
        whole = self.layers is None
        label = "all" if whole else "-".join(map(str, chosen))
        deviations = centred(samples.w).cpu()
        return [
            Direction(
                name=f"sefa_{label}_{number}", vector=vector.float(), generator=samples.generator,
                step=spread(deviations, vector), unit=SPREAD, rows=None if whole else tuple(moved),
                origin=f"SeFa: eigenvector {number} of the modulation of {'all convolutions' if whole else label}",
            )
            for number, vector in enumerate(vectors[: self.count])
        ]  # fmt: skip

    @torch.no_grad()
    def eigenvectors(self, generator: StyleGenerator) -> tuple[Tensor, Tensor]:
        """Eigenvalues [C], falling, and their unit vectors [C, C], one per row, the largest entry of each positive."""
        rows = []
        convolutions = _convolutions(generator)
        for number in self.chosen(generator):
            rows.append(F.normalize(generator.modulation(convolutions[number].name).double().cpu(), dim=1))
        weights = torch.cat(rows)
        values, vectors = torch.linalg.eigh(weights.T @ weights)
        return values.flip(0), upright(vectors.flip(1).T)

    def chosen(self, generator: StyleGenerator) -> list[int]:
        """Numbers of the layers.

        Raises:
            BadValue: one that the generator does not have, or none at all.
        """
        last = len(_convolutions(generator)) - 1
        chosen = list(range(last + 1)) if self.layers is None else sorted(set(self.layers))
        if not chosen or chosen[0] < 0 or chosen[-1] > last:
            raise BadValue(f"sefa.layers={self.layers}: convolutions are numbered 0 to {last} in this generator")
        return chosen


def _convolutions(generator: StyleGenerator) -> list[StyledLayer]:
    return [layer for layer in generator.layers if layer.demodulates]
