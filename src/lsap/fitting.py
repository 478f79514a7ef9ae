"""What every training of a run folder shares: Lightning's Trainer, from the start or from the last checkpoint."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

from lsap.assembly import global_rank, process_count
from lsap.data import ImageDataModule
from lsap.recomputing import recompute
from lsap.runs import AtomicCheckpoints, LastCheckpoint, MetricsFile, ReadableProgress, RunFolder, quiet_lightning
from lsap.runs.folder import State


@dataclass(frozen=True)
class Course:
    """What a training is called, how long it is, and what the best checkpoint is chosen by.

    title: what its progress is headed by.
    max_steps: of the optimiser.
    batch_size: images per step, over all processes.
    watched: a logged quantity of the held-out images; the lowest is best.
    """

    title: str
    max_steps: int
    batch_size: int
    watched: str


def fit(
    config: DictConfig,
    folder: RunFolder,
    state: State,
    module: LightningModule,
    data: ImageDataModule,
    course: Course,
    callbacks: Sequence[Callback] = (),
) -> tuple[Trainer, ReadableProgress]:
    """Run Lightning's Trainer from the start or from the last checkpoint.

    Args:
        config: its groups `trainer` and `logger` say how.
        folder: of the run, claimed; checkpoints and curves go into it.
        state: what `RunFolder.claim` said.
        module: counts its batches in `batches_seen`, which its checkpoint keeps.
        data: training images, and held-out ones if the best checkpoint is to be kept.
        course: title, length, what is watched.
        callbacks: further ones.
    """
    settings = config.trainer
    checkpoints = folder.path / "checkpoints"
    last = checkpoints / "last.ckpt"
    resumed = str(last) if state == "continue" and last.is_file() else None
    first_step = folder.record.step if resumed else 0
    progress = ReadableProgress(course.batch_size, course.title)
    validate_every = max(1, min(round(settings.val_check_interval * course.max_steps), 2500))
    save_every = max(1, min(round(settings.save_every * course.max_steps), 1000))
    curves = MetricsFile(folder.path / "metrics.csv", first_step)
    followed: list[Callback] = [progress, Recorder(folder), *callbacks]
    if data.val_indices:  # before `last`, which keeps what `best` knows
        best = ModelCheckpoint(
            checkpoints, "best", course.watched, save_top_k=1, save_weights_only=True, enable_version_counter=False
        )
        followed.append(best)
    log_every = max(1, min(10, course.max_steps // 50))
    followed.append(LastCheckpoint(last, save_every, validate_every if data.val_indices else None, curves, log_every))
    accumulate = settings.accumulate_grad_batches
    if settings.recompute:
        recompute(module)
    if settings.channels_last:
        module.to(memory_format=torch.channels_last)
    with quiet_lightning():
        trainer = Trainer(
            accelerator=settings.accelerator, devices=settings.devices, num_nodes=settings.num_nodes,
            # rows of W+ that are not trained yet have heads without gradients
            strategy="ddp_find_unused_parameters_true" if process_count(settings) > 1 else "auto",
            precision=settings.precision, accumulate_grad_batches=accumulate,
            gradient_clip_val=settings.gradient_clip_val, max_steps=course.max_steps, max_epochs=-1,
            logger=[curves, *_dashboards(config, folder)], callbacks=followed,
            val_check_interval=validate_every * accumulate if data.val_indices else None, check_val_every_n_epoch=None,
            limit_val_batches=1.0 if data.val_indices else 0, num_sanity_val_steps=0,
            log_every_n_steps=log_every, use_distributed_sampler=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=folder.path, plugins=[AtomicCheckpoints(), *_scheduler()],
        )  # fmt: skip
        try:
            trainer.fit(module, datamodule=data, ckpt_path=resumed, weights_only=True)
        except SystemExit as stop:
            if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning leaves by sys.exit(1)
                raise KeyboardInterrupt from None
            raise
    if torch.distributed.is_initialized():  # what follows is done by one process, and metrics would wait for the others
        torch.distributed.destroy_process_group()
    return trainer, progress


class Recorder(Callback):
    """Writes into `run.json` how far the saved checkpoints have come."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.is_global_zero:
            self.folder.update(trainer.global_step)


def _scheduler() -> list[SLURMEnvironment]:
    """Under SLURM: that Lightning keeps no checkpoints of its own (`hpc_ckpt_*`) when a job is to be requeued.

    It would prefer them to nothing in a fresh run, whichever run they are of; `last.ckpt` is there anyway.
    """
    slurm = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    return [SLURMEnvironment(auto_requeue=False)] if slurm else []


def _dashboards(config: DictConfig, folder: RunFolder) -> list[Logger]:
    if config.logger.name != "wandb":
        return []
    from lsap.logged import opened

    if global_rank() == 0 and "wandb_id" not in folder.record.notes:
        folder.note(wandb_id=secrets.token_hex(4))
    run_id = str(folder.record.notes.get("wandb_id", ""))
    name = f"{folder.path.parent.name}/{folder.path.name}"
    return [opened(config, folder.path, name=name, run_id=run_id, verb="train")]
