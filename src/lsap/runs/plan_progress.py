"""What a person sees while the batches of a plan are worked on: images done, losses, the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lsap.errors import StoppedRun
from lsap.runs.store import Store

RESCAN = 5.0  # seconds between two looks at what other processes have done; on a network disk each look costs


class PlanProgress(Callback):
    """How far the whole plan is: a live bar in a terminal, elsewhere a plain line every `seconds`."""

    def __init__(self, store: Store, title: str, seconds: float = 15.0) -> None:
        self.store, self.title, self.seconds = store, title, seconds
        self.total = len(store.plan.names)
        self.batch = 0  # images of the current one
        self.began = self.said = time.perf_counter()
        self.left = self.store.batches
        self.first = self.done = self._finished()
        self.bar: Progress | None = None
        self.trainer: Trainer | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.trainer = trainer
        self.began = time.perf_counter()
        if trainer.is_global_zero and sys.stderr.isatty():
            self.bar = Progress(
                TextColumn("[bold]{task.description}"), BarColumn(24), TextColumn("{task.fields[numbers]}"),
                TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=Console(stderr=True),
            )  # fmt: skip
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=self.total, completed=self.done, numbers="")

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, _: int = 0
    ) -> None:
        self.batch = len(batch["names"])

    def within(self, share: float, losses: Mapping[str, float]) -> None:
        """Called from within a batch: the share of it that is done, and its losses."""
        self.show(self.done + share * self.batch, losses)

    def on_predict_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.done += self.batch
        if time.perf_counter() - self.scanned > RESCAN:
            self.done = self._finished()
        self.show(self.done, {})

    def on_predict_end(self, *_: Any) -> None:
        if self.done < self.total:  # the last look may be some batches of other processes ago
            self.done = self._finished()
            self.show(self.done, {})

    def show(self, done: float, losses: Mapping[str, float]) -> None:
        """Draw the bar, or say a line if the last one is old.

        Raises:
            StoppedRun: the system asked to stop (SIGTERM, as a scheduler sends it); Lightning only takes note of that.
        """
        if self.trainer is not None and self.trainer.received_sigterm:
            raise StoppedRun("asked to stop; give the same command again to go on, what was done is kept")
        if self.trainer is not None and not self.trainer.is_global_zero:
            return
        terms = "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
        numbers = f"{int(done)}/{self.total} images  {terms}"
        now = time.perf_counter()
        if self.bar is not None:
            self.bar.update(self.task, completed=done, numbers=numbers)
        elif now - self.said > self.seconds or done >= self.total:
            self.said = now
            rate = (done - self.first) / max(now - self.began, 1e-9)
            minutes, seconds = divmod(round((self.total - done) / max(rate, 1e-9)), 60)
            print(f"{self.title}  {numbers}  {minutes}:{seconds:02d} left", file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def _finished(self) -> int:
        """Images whose batch is done; looks at every file that was not there before."""
        self.left = [batch for batch in self.left if not self.store.done(batch)]
        self.scanned = time.perf_counter()
        return self.total - sum(len(batch.names) for batch in self.left)
