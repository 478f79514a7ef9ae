"""Training images with what a store holds about them, as a source for the DataModule."""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from safetensors import safe_open
from torch import Tensor

from lsap.data import Source
from lsap.errors import BadValue
from lsap.inversion import STATE
from lsap.runs import Store


class StoredExamples:
    """Images, and maps of a store's inversions as further channels: mirrored with them, in the same order.

    Only images that have an inversion are there. Maps are read when their image is.

    Args:
        source: of the images.
        store: a finished store of inversions of some of them, at the images' size.
        kept: name of the maps [N, S, H, W] in its state.

    Raises:
        BadValue: the store has no image of the source.
    """

    def __init__(self, source: Source, store: Store, kept: str) -> None:
        self.source, self.store, self.kept = source, store, kept
        numbers = {name: number for number, name in enumerate(source.names)}
        self.places: list[tuple[int, int, int]] = []  # number in the source, batch, row in it
        self.names: list[str] = []
        for batch in store.batches:
            file = store.file(batch)
            if not file.is_file():
                continue
            with safe_open(file, "pt") as stored:
                found = json.loads((stored.metadata() or {})["names"])
            for row, name in enumerate(found):
                if name in numbers:
                    self.names.append(name)
                    self.places.append((numbers[name], batch.number, row))
        if not self.names:
            raise BadValue(f"{store.path} holds no inversion of these images; delete it and start again")

    def __len__(self) -> int:
        return len(self.names)

    def read(self, indices: Sequence[int]) -> Tensor:
        """Images and their maps [B, 3 + S, H, W]; raises as the source does."""
        chosen = [self.places[index] for index in indices]
        images = self.source.read([number for number, _, _ in chosen])
        return torch.cat([images, torch.stack([self.maps(batch, row) for _, batch, row in chosen]).to(images)], 1)

    def maps(self, batch: int, row: int) -> Tensor:
        """The maps [S, H, W] of one image."""
        with safe_open(self.store.file(self.store.batches[batch]), "pt") as stored:
            found: Tensor = stored.get_slice(f"{STATE}{self.kept}")[row : row + 1][0]
        return found
