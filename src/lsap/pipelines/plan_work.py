"""Working through the plan of a store with Lightning: batches that are left, their images, their time."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from omegaconf import DictConfig
from pytorch_lightning import Callback, LightningModule, Trainer

from lsap.errors import StoppedRun
from lsap.pipelines.devices import device_of, global_rank, process_count
from lsap.pipelines.fit import memory_is_full
from lsap.pipelines.images import Chosen
from lsap.pipelines.measurement import (
    rows_of,
)
from lsap.pipelines.stages import Stage
from lsap.runs import PlanProgress, Store, peak_memory, quiet_lightning


def work(config: DictConfig, stage: Stage, chosen: Chosen, store: Store, keeper: Callback) -> None:
    """Do what is left of a stage's plan; `keeper` writes the batches that were worked on into the store."""
    module = stage.module()
    home = stage.generator.latent_avg.device  # Lightning leaves a module, and all that it shares, on the CPU
    if global_rank() == 0:
        store.report_resumed()
    bar = PlanProgress(store, f"{stage.title} on {chosen.label}")
    module.watch = bar.within
    pending = Pending(store, chosen) if stage.before is None else PendingInversions(store, chosen, stage)
    settings = config.trainer
    with quiet_lightning():
        trainer = Trainer(
            accelerator=device_of(settings.accelerator).type, devices=settings.devices, num_nodes=settings.num_nodes,
            precision=settings.precision, logger=False, inference_mode=False, callbacks=[keeper, bar],
            strategy="ddp" if process_count(settings) > 1 else "auto", use_distributed_sampler=False,
            enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        )  # fmt: skip
        try:
            trainer.predict(module, pending, return_predictions=False)
        except RuntimeError as error:
            if not memory_is_full(error):
                raise
            raise StoppedRun(
                f"images_per_batch={config.images_per_batch}: so many at once do not fit into memory; take fewer in "
                "another folder (the batch size is part of the plan). What was done is kept"
            ) from error
        except SystemExit as stop:
            if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning leaves by sys.exit(1)
                raise KeyboardInterrupt from None
            raise
        finally:
            module.to(home)
            store.let_go()
            bar.stop()
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()


class Pending:
    """The batches that nobody is working on, read when their turn comes; for Lightning a loader without a length."""

    def __init__(self, store: Store, chosen: Chosen) -> None:
        self.store, self.chosen = store, chosen

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.store.pending():
            began = time.perf_counter()
            names, images, skipped = self.chosen.read(batch.names)
            for name, reason in skipped.items():
                print(f"{name} cannot be read ({reason}); skipped", file=sys.stderr)
            if images is None:
                self.store.write(batch, rows_of(batch, {}, skipped, {}), None)
                continue
            reading = time.perf_counter() - began
            yield {"image": images, "names": names, "number": batch.number, "skipped": skipped, "reading": reading}


class PendingInversions:
    """The same for a refinement: every batch comes with the inversion that the stage before made of it.

    A batch that the stage before has not finished is with another process. That one will go on with it, so it is passed
    over here.
    """

    def __init__(self, store: Store, chosen: Chosen, stage: Stage) -> None:
        assert stage.before is not None
        self.store, self.chosen, self.generator = store, chosen, stage.generator
        self.before = Store.read(stage.before.path)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.store.pending():
            if not self.before.done(batch):
                self.store.let_go(batch)
                continue
            began = time.perf_counter()
            earlier = {row["name"]: row for row in self.before.rows(batch)}
            skipped = {name: row["skipped"] for name, row in earlier.items() if "skipped" in row}
            failed = {name: row["failed"] for name, row in earlier.items() if "failed" in row}
            inversion = self.before.load(batch, self.generator)
            names, images, unread = self.chosen.read(() if inversion is None else inversion.names)
            skipped |= unread
            if inversion is None or images is None:
                self.store.write(batch, rows_of(batch, {}, skipped, failed), None)
                continue
            kept = inversion.select([inversion.names.index(name) for name in names])
            yield {
                "image": images, "names": names, "inversion": kept, "number": batch.number, "skipped": skipped,
                "failed": failed, "reading": time.perf_counter() - began,
            }  # fmt: skip


class Clock(Callback):
    """Takes the time of every batch: that of reading it, and from when the stage is given it.

    Lightning asks for the next batch before this one is worked on, so the two do not follow one another.
    """

    began: float

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, _: int = 0
    ) -> None:
        self.began = time.perf_counter()

    def times(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """What the store keeps of a batch's costs: seconds so far, images, peak memory in MB."""
        seconds = batch["reading"] + time.perf_counter() - self.began
        return {"seconds": round(seconds, 3), "images": len(batch["names"]), "peak_memory_mb": peak_memory()}
