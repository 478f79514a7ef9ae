"""What a person sees while something trains: images per second, every loss term, the stage, the time left."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class ReadableProgress(Callback):
    """A live bar in a terminal; elsewhere (a log file, CI) one plain line every `seconds`.

    Args:
        batch_size: images per step over all processes, for images/s.
        title: what is running.
        seconds: between plain lines.
        updates: optimiser steps per batch, which Lightning counts; shown are batches.
    """

    def __init__(self, batch_size: int, title: str, seconds: float = 15.0, updates: int = 1) -> None:
        self.batch_size, self.title, self.seconds, self.updates = batch_size, title, seconds, updates
        self.images_per_second = 0.0
        self._bar: Progress | None = None
        self._busy = 0.0  # seconds spent in training steps, validation and saving left out
        self._batches = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._printed = time.perf_counter()
        self._first_step = trainer.global_step
        if not trainer.is_global_zero:
            return
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("[bold]{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn(),
                TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[numbers]}"),
                console=Console(stderr=True),
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task(
                self.title,
                total=trainer.max_steps // self.updates,
                completed=trainer.global_step // self.updates,
                numbers="",
            )

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self._began = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        now = time.perf_counter()
        self._busy += now - self._began
        self._batches += 1
        self.images_per_second = self._batches * self.batch_size / max(self._busy, 1e-9)
        if not trainer.is_global_zero:
            return
        if self._bar is not None:
            if trainer.global_step % 10 == 0 or trainer.global_step == trainer.max_steps:
                self._bar.update(
                    self._task, completed=trainer.global_step // self.updates, numbers=self._numbers(trainer)
                )
        elif now - self._printed > self.seconds or trainer.global_step == trainer.max_steps:
            self._printed = now
            left = (
                (trainer.max_steps - trainer.global_step) * self._busy / max(trainer.global_step - self._first_step, 1)
            )
            minutes, seconds = divmod(round(left), 60)
            done, of = (steps // self.updates for steps in (trainer.global_step, trainer.max_steps))
            print(
                f"{self.title}  step {done}/{of}  {minutes}:{seconds:02d} left  {self._numbers(trainer)}",
                file=sys.stderr,
                flush=True,
            )

    def _numbers(self, trainer: Trainer) -> str:
        metrics = trainer.callback_metrics
        terms = [
            f"{name.split('/', 1)[1]} {float(value):.4g}"
            for name, value in sorted(metrics.items())
            if name.startswith("train/") and name not in ("train/stage", "train/loss")
        ]
        stage = f"stage {int(metrics['train/stage'])}  " if "train/stage" in metrics else ""
        return f"{self.images_per_second:.3g} images/s  {stage}{'  '.join(terms)}"

    def on_train_end(self, *_: Any) -> None:
        self._stop()

    def on_exception(self, *_: Any) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


# Advice of Lightning's that a user of ours cannot act on: we chose what it remarks upon.
REMARKS = (
    ".*does not have many workers.*",
    ".*LeafSpec.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*module.s. in eval mode at the start of training.*",
    ".*IterableDataset.*",
    ".*GPU available but not used.*",
)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Hide Lightning's start-up remarks; warnings of any other kind stay."""
    talkers = [
        logging.getLogger(f"pytorch_lightning.{name}")
        for name in ("utilities.rank_zero", "accelerators.cuda", "trainer.connectors.checkpoint_connector")
    ]
    levels = [talker.level for talker in talkers]
    with warnings.catch_warnings():
        for remark in REMARKS:
            warnings.filterwarnings("ignore", remark)
        for talker in talkers:
            talker.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for talker, level in zip(talkers, levels, strict=True):
                talker.setLevel(level)
