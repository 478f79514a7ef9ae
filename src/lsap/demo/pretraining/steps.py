"""What the demo's trainings share: steps that say what they show, a schedule, what is kept.

Each training sees a new batch at every step, drawn from (seed, step): nothing is stored, and a run that is killed and
started again goes on exactly where it was.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from lsap.seeds import derive


class Steps(IterableDataset[int]):
    """Yields the numbers of the steps to come; what a step shows is derived from its number."""

    def __init__(self, first: int) -> None:
        self.first = first

    def __iter__(self) -> Iterator[int]:
        step = self.first
        while True:
            yield step
            step += 1


class Pretraining(LightningModule, abc.ABC):
    """What all trainings share: steps, Adam whose rate warms up and then follows a cosine to zero."""

    betas = (0.9, 0.99)
    updates = 1  # optimiser steps per batch

    def __init__(self, *, seed: int, batch_size: int, lr: float, max_steps: int, warmup: int = 100) -> None:
        super().__init__()
        self.seed, self.batch_size, self.lr, self.max_steps, self.warmup = seed, batch_size, lr, max_steps, warmup

    def train_dataloader(self) -> DataLoader[int]:
        return DataLoader(Steps(self.global_step // self.updates), batch_size=None)

    def schedule(self, step: int) -> float:
        """Share of the full learning rate at a step."""
        progress = min(step / self.max_steps, 1.0)
        return min((step + 1) / self.warmup, 1.0) * (0.5 + 0.5 * math.cos(math.pi * progress))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr, betas=self.betas)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def random(self, *purpose: str | int) -> torch.Generator:
        """A random stream for one purpose of one step."""
        return torch.Generator().manual_seed(derive(self.seed, *purpose))

    @abc.abstractmethod
    def quality(self) -> dict[str, float]:
        """What the finished network is worth, measured on portraits that it was not trained on."""

    @property
    @abc.abstractmethod
    def product(self) -> nn.Module:
        """The network that is kept."""
