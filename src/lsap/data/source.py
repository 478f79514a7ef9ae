"""What the DataModule asks of anything that holds images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from lsap.errors import BadValue


@runtime_checkable
class Source(Protocol):
    """Images by number: a folder, an archive, a renderer.

    Whole batches are asked for, so that a renderer can draw one at once. What `read` returns depends on the indices
    alone, never on what was read before: order, flips and resumption are the DataModule's business.
    """

    @property
    def names(self) -> Sequence[str]:
        """One unique name per image, in the order of the indices."""
        ...

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> Tensor:
        """Images [B, 3, H, W], float32 in [-1, 1], all of one size.

        Raises:
            UnreadableImage: one of them is broken and may be left out.
            BadValue: one of them is broken, and the source was told to be strict.
        """
        ...


class UnreadableImage(BadValue):
    """One broken image of a source, which a tolerant reader leaves out."""

    def __init__(self, index: int, name: str, reason: str) -> None:
        # the bare fields as arguments: pickle rebuilds exceptions from them
        super().__init__(index, name, reason)
        self.index = index
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name} cannot be read ({self.reason})"
