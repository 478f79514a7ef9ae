"""Checkpoints of the Trainer: whole or absent, and taken when a step is over and done with."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from lsap.errors import BadValue
from lsap.runs.atomic import write_bytes
from lsap.runs.curves import MetricsFile


class AtomicCheckpoints(TorchCheckpointIO):
    """Write checkpoints as `write_bytes` does: forced to the disk, then renamed; a full disk is said in one line.

    Lightning's own writing starts in the system's temporary folder, from where a file is copied, not renamed, if that
    is another disk: a run killed in this moment is left with a piece of its only checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        assert storage_options is None, "storage options belong to remote paths; run folders are local"
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_bytes(path, buffer.getbuffer())

    def load_checkpoint(
        self, path: str | Path, map_location: Any = lambda storage, _: storage, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """What was saved; raises BadValue where the file is damaged."""
        try:
            found: dict[str, Any] = super().load_checkpoint(path, map_location, weights_only=weights_only)
        except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
            raise BadValue(
                f"{path} cannot be read ({type(error).__name__}); it is damaged. Delete it to start this run from its "
                "beginning"
            ) from error
        return found


class LastCheckpoint(Checkpoint):
    """Keeps `last.ckpt`, the state to resume from, such that a killed run ends as one never killed.

    Lightning would save at the end of a batch, which is before the validation that is due there (a resumed run skips
    it, and with it a candidate for the best checkpoint), before the step's numbers are logged (a resumed run lacks
    them), and, resumed, in the middle of accumulated gradients (half of them would be lost). Here a step that is
    validated is saved after its validation, its numbers are in the file first, and accumulation is complete.

    Args:
        path: of the file.
        every: optimiser steps between two saves.
        validated_every: optimiser steps between two validations, all of which are saved too; None without validation.
        curves: the file of numbers, which is to hold the steps before the checkpoint.
        logged_every: optimiser steps between two rows of it.
    """

    def __init__(
        self, path: Path, every: int, validated_every: int | None, curves: MetricsFile, logged_every: int
    ) -> None:
        self.path, self.every, self.validated_every = path, every, validated_every
        self.curves, self.logged_every = curves, logged_every
        self.saved = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.saved = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        step = trainer.global_step
        if step == self.saved or step % self.every or (self.validated_every and step % self.validated_every == 0):
            return
        if step % self.logged_every == 0:  # Lightning logs this step's numbers after this hook
            numbers = {
                name: float(value) for name, value in trainer.logged_metrics.items() if name.startswith("train/")
            }
            self.curves.log_metrics(numbers, step - 1)
        self.save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write the file; all processes take part."""
        self.curves.flush()
        self.saved = trainer.global_step
        trainer.save_checkpoint(self.path, weights_only=False)  # the optimiser's state too
