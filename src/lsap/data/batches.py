"""From draws to batches of tensors, past images that cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from itertools import count
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from lsap.data.order import Draw, TrainingOrder
from lsap.data.source import Source, UnreadableImage
from lsap.errors import BadValue, LsapError

log = logging.getLogger(__name__)


class TrainingBatch(TypedDict):
    """image [B, 3, H, W] in [-1, 1], mirrored where the order says so; index [B], each image's number in its source."""

    image: Tensor
    index: Tensor


class EvaluationBatch(TrainingBatch):
    """The same, never mirrored, with the images' names."""

    names: list[str]


class Unreadable:
    """Which images of a source turned out to be broken; shared by all worker processes, so each is named once."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.flags = torch.zeros(len(source), dtype=torch.bool).share_memory_()

    def __contains__(self, index: int) -> bool:
        return bool(self.flags[index])

    @property
    def names(self) -> list[str]:
        return [self.source.names[index] for index in self.flags.nonzero().flatten().tolist()]

    def recall(self, names: Collection[str]) -> None:
        """Take over what an earlier process found broken; names that the source does not have are left out."""
        known = set(names)
        self.flags |= torch.tensor([name in known for name in self.source.names])

    def add(self, error: UnreadableImage) -> None:
        """Remember a broken image and, the first time, tell the user."""
        if error.index in self:
            return
        self.flags[error.index] = True
        log.warning("%s; skipped (%d so far). data.strict=true stops instead.", error, int(self.flags.sum()))

    def refuse_all(self, indices: Sequence[int]) -> None:
        """Raises BadValue if none of these images can be read."""
        if self.flags[torch.tensor(indices)].all():
            raise none_readable(self.source, indices)


def none_readable(source: Source, indices: Sequence[int]) -> BadValue:
    """What to say when every one of these images is broken."""
    first = source.names[indices[0]]
    return BadValue(f"none of {len(indices)} images can be read (the first: {first}); look at the files")


class TrainingImages(Dataset[TrainingBatch]):
    """Draws in, a training batch out. A draw that cannot be read is replaced, so that a batch keeps its size."""

    def __init__(self, source: Source, order: TrainingOrder, unreadable: Unreadable) -> None:
        self.source = source
        self.order = order
        self.unreadable = unreadable

    def __getitems__(self, draws: Sequence[Draw]) -> TrainingBatch | LsapError:
        """A batch, or the error that ends the run: raised in a worker, it would reach the user as a traceback."""
        try:
            while True:
                draws = [self.readable(draw) for draw in draws]
                try:
                    images = self.source.read([draw.image for draw in draws])
                except UnreadableImage as error:
                    self.unreadable.add(error)
                else:
                    break
        except LsapError as error:
            return error
        flip = torch.tensor([draw.flip for draw in draws])
        return {
            "image": torch.where(flip[:, None, None, None], images.flip(-1), images),
            "index": torch.tensor([draw.image for draw in draws]),
        }

    def readable(self, draw: Draw) -> Draw:
        """This draw, or the next in its place that is not known to be broken."""
        for step in count():
            if draw.image not in self.unreadable:
                break
            if step % len(self.order.indices) == 0:  # not only at first: other workers find broken images meanwhile
                self.unreadable.refuse_all(self.order.indices)
            draw = self.order.later(draw)
        return draw


class EvaluationImages(Dataset[EvaluationBatch]):
    """Indices in, an evaluation batch out. A broken image is left out: a stand-in would count twice in a mean.

    Args:
        source: where images come from.
        unreadable: what is known to be broken.
        may_be_empty: a batch without any readable image is None and is skipped; else an error, as under DDP, where the
            other processes would wait for it.
    """

    def __init__(self, source: Source, unreadable: Unreadable, may_be_empty: bool = True) -> None:
        self.source = source
        self.unreadable = unreadable
        self.may_be_empty = may_be_empty

    def __getitems__(self, indices: Sequence[int]) -> EvaluationBatch | LsapError | None:
        """A batch, None if none of its images can be read, or the error that ends the run."""
        kept = [index for index in indices if index not in self.unreadable]
        try:
            while kept:
                try:
                    images = self.source.read(kept)
                except UnreadableImage as error:
                    self.unreadable.add(error)
                    kept = [index for index in kept if index not in self.unreadable]
                else:
                    names = [self.source.names[index] for index in kept]
                    return {"image": images, "index": torch.tensor(kept), "names": names}
        except LsapError as error:
            return error
        return None if self.may_be_empty else none_readable(self.source, indices)


class ImageLoader(DataLoader[Any]):
    """A DataLoader over ready-made batches that leaves the rest of the program alone.

    It raises the errors that workers hand over, leaves empty batches out, and has a random state of its own: a plain
    DataLoader draws from the global one whenever it is iterated, which would tell a resumed run from an unbroken one.
    """

    def __init__(
        self, dataset: Dataset[Any], batches: Sampler[list[Any]] | Sequence[list[Any]], num_workers: int
    ) -> None:
        """`batches`: what `__getitems__` of the dataset is given, one after the other."""
        self.batches = batches
        super().__init__(
            dataset,
            batch_sampler=batches,
            num_workers=num_workers,
            collate_fn=as_it_is,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),
        )

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        empty = True
        for batch in super().__iter__():
            if isinstance(batch, LsapError):
                raise batch
            if batch is not None:
                empty = False
                yield batch
        if empty and isinstance(self.dataset, EvaluationImages):
            raise none_readable(self.dataset.source, [index for batch in self.batches for index in batch])


def as_it_is(batch: Any) -> Any:
    """The collate function of batches that come ready-made."""
    return batch
