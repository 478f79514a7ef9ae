"""Which image comes when: a function of the seed and the batch counter, and of nothing else.

Training reads an endless sequence, one permutation of the training images after the other; batch b takes the places
b·B … b·B + B - 1 of it. Nothing is drawn from a random state that lives on, so a run can start at any batch, with any
number of workers, on N processes that share each batch between them, and see what one unbroken process would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Sampler

from lsap.errors import BadValue
from lsap.seeds import derive


class Draw(NamedTuple):
    """One place in the training sequence: slot `slot` of batch `batch` shows image `image`, mirrored if `flip`."""

    batch: int
    slot: int
    image: int
    flip: bool


@lru_cache(maxsize=4)
def permutation(seed: int, size: int, epoch: int) -> Tensor:
    """The order [size] in which an epoch visits the images."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(derive(seed, "order", epoch)))


@lru_cache(maxsize=4)
def mirrored(seed: int, size: int, batch: int) -> tuple[bool, ...]:
    """For each of the `size` slots of a batch, whether its image is mirrored (probability 1/2)."""
    coins = torch.rand(size, generator=torch.Generator().manual_seed(derive(seed, "flip", batch)))
    return tuple((coins < 0.5).tolist())


class TrainingOrder:
    """The endless sequence of training images.

    Args:
        indices: the source's indices that are trained on.
        batch_size: images per batch, over all processes together.
        seed: of order and flips.
        flip: whether images are mirrored at random.
    """

    def __init__(self, indices: Sequence[int], batch_size: int, seed: int, flip: bool = True) -> None:
        self.indices = tuple(indices)
        self.batch_size = batch_size
        self.seed = seed
        self.flip = flip

    def draw(self, batch: int, slot: int) -> Draw:
        """What slot `slot` of batch `batch` shows."""
        epoch, place = divmod(batch * self.batch_size + slot, len(self.indices))
        image = self.indices[int(permutation(self.seed, len(self.indices), epoch)[place])]
        return Draw(batch, slot, image, self.flip and mirrored(self.seed, self.batch_size, batch)[slot])

    def later(self, draw: Draw) -> Draw:
        """The draw that stands in for an unreadable one: the same slot of the next batch, mirrored as the first was.

        Another process need not know of it, and within one batch two replacements differ.
        """
        return self.draw(draw.batch + 1, draw.slot)._replace(flip=draw.flip)


class TrainingBatches(Sampler[list[Draw]]):
    """Endless batches of draws for one process.

    Args:
        order: the sequence that all processes share.
        start: asked at the beginning of every iteration for the number of batches already trained on.
        rank, world_size: this process takes the rank-th of `world_size` equal parts of every batch.

    Raises:
        BadValue: the batch cannot be shared equally.
    """

    def __init__(
        self, order: TrainingOrder, start: Callable[[], int] = lambda: 0, rank: int = 0, world_size: int = 1
    ) -> None:
        if order.batch_size % world_size:
            raise BadValue(
                f"batch_size={order.batch_size} cannot be shared equally by {world_size} processes; "
                f"it counts the images of all of them together: take a multiple of {world_size}"
            )
        share = order.batch_size // world_size
        self.order = order
        self.start = start
        self.slots = range(rank * share, (rank + 1) * share)

    def __iter__(self) -> Iterator[list[Draw]]:
        for batch in count(self.start()):
            yield [self.order.draw(batch, slot) for slot in self.slots]


def evaluation_batches(indices: Sequence[int], batch_size: int, rank: int = 0, world_size: int = 1) -> list[list[int]]:
    """This process's batches of an evaluation in which every image comes once.

    The images are cut in order, and as evenly as possible, into batches of at most `batch_size`, dealt out in turn.
    Nothing is dropped or repeated, yet all processes have equally many batches: DDP exchanges buffers in every forward
    pass, and a process with one batch more would wait for the others. Only where batches of one image cannot be shared
    out equally do some of them hold two.

    Raises:
        BadValue: fewer images than processes.
    """
    total = len(indices)
    if total < world_size:
        raise BadValue(f"{total} images cannot be shared by {world_size} processes; evaluate on fewer devices")
    rounds = min(-(-total // (batch_size * world_size)), total // world_size)
    pieces = rounds * world_size
    return [list(indices[i * total // pieces : (i + 1) * total // pieces]) for i in range(rank, pieces, world_size)]


def held_out(size: int, val_images: int | None, seed: int) -> tuple[list[int], list[int]]:
    """Split the training images into those trained on and those held out for validation, both in rising order.

    Args:
        size: number of images.
        val_images: how many to hold out; None: every twentieth, at least one and at most 1000.
        seed: of the choice. A larger slice contains every smaller one of the same seed.

    Raises:
        BadValue: nothing would be left to train on.
    """
    held = max(1, min(1000, round(size / 20))) if val_images is None else val_images
    if size <= min(held, 1):
        raise BadValue(
            f"{size} training images: at least 2 are needed, one of them to validate on (or set val_images=0)"
        )
    if held >= size:
        raise BadValue(f"val_images={held} leaves none of {size} images to train on; take at most {size - 1}")
    chosen = torch.randperm(size, generator=torch.Generator().manual_seed(derive(seed, "validation")))
    return sorted(chosen[held:].tolist()), sorted(chosen[:held].tolist())
