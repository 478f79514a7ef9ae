"""DataModules under a Trainer, with a source in memory and a module that records what it was given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lsap.data import ImageDataModule, Source, UnreadableImage


class Counted:
    """A source in memory that knows how it was asked. Image i is i/1000 on its left half and -1 on its right."""

    def __init__(self, count: int, broken: Sequence[int] = ()) -> None:
        self.names = [f"image {i}" for i in range(count)]
        self.broken = set(broken)
        self.asked: list[list[int]] = []

    def __len__(self) -> int:
        return len(self.names)

    def read(self, indices: Sequence[int]) -> Tensor:
        self.asked.append(list(indices))
        for index in indices:
            if index in self.broken:
                raise UnreadableImage(index, self.names[index], "test")
        images = torch.tensor(indices).div(1000).view(-1, 1, 1, 1).repeat(1, 3, 2, 4)
        images[..., 2:] = -1
        return images


def module(source: Source, tests: dict[str, Source] | None = None, **options: Any) -> ImageDataModule:
    return ImageDataModule(source, tests or {}, **{"batch_size": 4, "seed": 7, "val_images": 3, **options})


class Watcher(LightningModule):
    """Learns nothing; writes down what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.shown: list[tuple[list[int], float]] = []
        self.validated: list[int] = []

    @property
    def batches_seen(self) -> int:
        return int(self.seen)

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        self.shown.append((batch["index"].tolist(), float(batch["image"].double().sum())))
        self.seen += 1
        return self.weight * batch["image"].mean()

    def validation_step(self, batch: dict[str, Any], _: int, dataloader_idx: int = 0) -> None:
        self.validated += batch["index"].tolist()

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(
    folder: Path,
    data: ImageDataModule,
    steps: int,
    ckpt: Path | None = None,
    model: Watcher | None = None,
    **options: Any,
) -> Watcher:
    model = model or Watcher()
    saving = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        callbacks=[saving],
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **{"val_check_interval": 3, "check_val_every_n_epoch": None, **options},
    )
    trainer.fit(model, data, ckpt_path=ckpt, weights_only=ckpt and True)
    return model
