"""One DataModule for every domain: what differs between domains is the source."""

from __future__ import annotations

from collections.abc import Mapping

from pytorch_lightning import LightningDataModule

from lsap.data.batches import EvaluationImages, ImageLoader, TrainingImages, Unreadable
from lsap.data.order import TrainingBatches, TrainingOrder, evaluation_batches, held_out
from lsap.data.source import Source
from lsap.values import COUNT, WHOLE


class ImageDataModule(LightningDataModule):
    """Training images in a reproducible endless order, a held-out slice of them, and test splits.

    The training loader starts at the batch that the LightningModule's counter `batches_seen` names (0 without one), has
    no length and never ends: the Trainer needs `max_steps`, a whole number as `val_check_interval` with
    `check_val_every_n_epoch=None`, and `use_distributed_sampler=False`, since processes share batches here.

    Args:
        train: what is trained on, less the held-out slice.
        tests: test splits by name.
        batch_size: training images per step, over all processes together, so that a run means the same on any number.
        seed: of order, flips and the held-out slice.
        val_images: size of the held-out slice; None: every twentieth image, at most 1000; 0: no validation.
        flip: mirror training images at random.
        num_workers: reading processes per loader; 0 reads in the training process. The batches are the same.
        eval_batch_size: largest batch of validation and test, per process; None: as `batch_size`.

    Batches are dicts: `TrainingBatch` in training, `EvaluationBatch` in validation and test.

    Raises:
        BadValue: a count that cannot work, or no image left to train on.
    """

    def __init__(
        self,
        train: Source,
        tests: Mapping[str, Source],
        *,
        batch_size: int,
        seed: int,
        val_images: int | None = None,
        flip: bool = True,
        num_workers: int = 0,
        eval_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        COUNT.require("batch_size", batch_size)
        WHOLE.require("num_workers", num_workers)
        WHOLE.or_null().require("val_images", val_images)
        COUNT.or_null().require("eval_batch_size", eval_batch_size)
        self.train = train
        self.tests = dict(tests)
        self.num_workers = num_workers
        self.eval_batch_size = eval_batch_size or batch_size
        self.train_indices, self.val_indices = held_out(len(train), val_images, seed)
        self.order = TrainingOrder(self.train_indices, batch_size, seed, flip)
        self.unreadable = {"train": Unreadable(train)}
        self.unreadable |= {f"test/{name}": Unreadable(source) for name, source in self.tests.items()}

    @property
    def test_names(self) -> list[str]:
        """Names of the test splits, in the order of their loaders."""
        return list(self.tests)

    @property
    def skipped(self) -> dict[str, list[str]]:
        """Names of the images that could not be read so far, by source: `train`, `test/<name>`."""
        return {key: broken.names for key, broken in self.unreadable.items() if broken.names}

    def state_dict(self) -> dict[str, dict[str, list[str]]]:
        """What a checkpoint keeps of the data: the images skipped so far, so that a resumed run counts them too."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, dict[str, list[str]]]) -> None:
        for key, names in state_dict["skipped"].items():
            if key in self.unreadable:
                self.unreadable[key].recall(names)

    def train_dataloader(self) -> ImageLoader:
        batches = TrainingBatches(self.order, self.batches_seen, *self.processes())
        return ImageLoader(TrainingImages(self.train, self.order, self.unreadable["train"]), batches, self.num_workers)

    def val_dataloader(self) -> ImageLoader | list[ImageLoader]:
        return self.evaluation(self.train, self.val_indices, "train") if self.val_indices else []

    def test_dataloader(self) -> list[ImageLoader]:
        return [self.evaluation(source, range(len(source)), f"test/{name}") for name, source in self.tests.items()]

    def evaluation(self, source: Source, indices: list[int] | range, key: str) -> ImageLoader:
        """A loader in which each of these images comes once."""
        rank, world_size = self.processes()
        images = EvaluationImages(source, self.unreadable[key], may_be_empty=world_size == 1)
        return ImageLoader(
            images, evaluation_batches(indices, self.eval_batch_size, rank, world_size), self.num_workers
        )

    def batches_seen(self) -> int:
        """How many training batches the model has been given, by its own counter, which its checkpoint keeps."""
        return int(getattr(self.trainer.lightning_module, "batches_seen", 0)) if self.trainer else 0

    def processes(self) -> tuple[int, int]:
        """(rank, world size)."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
