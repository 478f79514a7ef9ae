"""GANSpace (Härkönen et al. 2020): the principal components of w."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lsap.checkpoints import Components, Direction
from lsap.editing.directions import centred
from lsap.editing.discovery.samples import Samples
from lsap.errors import BadValue
from lsap.stylegan2 import StyleGenerator


@dataclass(frozen=True)
class GANSpace:
    """Components of the samples' codes by falling variance; edits lead to a coordinate along one of them.

    Args:
        count: how many.
        rows: first row of W+ that is moved and the one after the last; None moves all.

    Raises:
        BadValue: a count below 1.
    """

    count: int = 10
    rows: tuple[int, int] | None = None

    supervised = False

    def __post_init__(self) -> None:
        if self.count < 1:
            raise BadValue(f"ganspace.count={self.count}: at least one component")

    def find(self, generator: StyleGenerator, samples: Samples) -> list[Direction]:
        """One direction per component."""
        found = self.components(samples.w, samples.generator)
        rows = None if self.rows is None else (int(self.rows[0]), int(self.rows[1]))
        if rows is not None and rows[1] > generator.n_latent:
            raise BadValue(f"ganspace.rows={list(rows)}: this generator has {generator.n_latent} rows")
        origin = f"GANSpace: principal component of {len(samples.w)} samples' w"
        return [found.direction(number, rows, origin=origin) for number in range(len(found.stds))]

    def components(self, w: Tensor, generator: str) -> Components:
        """The first `count` components of codes [N, C]; signs are such that the largest entry is positive.

        Raises:
            BadValue: fewer samples than components, or fewer dimensions.
        """
        if self.count > min(len(w) - 1, w.shape[1]):
            raise BadValue(
                f"ganspace.count={self.count}: {len(w)} samples of {w.shape[1]} numbers have at most "
                f"{min(len(w) - 1, w.shape[1])} components"
            )
        deviations = centred(w).cpu()
        variances, vectors = torch.linalg.eigh(deviations.T @ deviations / len(w))
        stds = variances.flip(0)[: self.count].clamp_min(0).sqrt()
        rows = upright(vectors.flip(1).T[: self.count])
        return Components(w.detach().double().mean(0).cpu().float(), rows.float(), stds.float(), generator)


def upright(vectors: Tensor) -> Tensor:
    """Vectors [K, C], each with the sign that makes its largest entry positive."""
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return vectors * largest.sign()
