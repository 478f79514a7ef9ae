"""What every training of a run folder shares: Lightning's Trainer, from the start or from the last checkpoint."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lsap.config.containers import plain
from lsap.data import ImageDataModule
from lsap.embedding.activation_checkpointing import recompute
from lsap.errors import BadValue, StoppedRun
from lsap.pipelines.devices import device_of, global_rank, process_count
from lsap.runs import AtomicCheckpoints, LastCheckpoint, MetricsFile, ReadableProgress, RunFolder, quiet_lightning
from lsap.runs.folder import State

log = logging.getLogger(__name__)

FULL = ("not enough memory", "out of memory", "can't allocate memory")  # what PyTorch says, by device


def check_trainer(settings: DictConfig) -> None:
    """Refuse an accelerator or devices of the group `trainer` that are not available; raises BadValue."""
    device = device_of(settings.accelerator).type
    if settings.accelerator in ("cuda", "gpu") and device != "cuda":
        raise BadValue(f"trainer.accelerator={settings.accelerator}: no CUDA device is available; use auto or cpu")
    _check_devices(plain(settings.devices), torch.cuda.device_count() if device == "cuda" else None)


def _check_devices(devices: int | str | list[int], gpus: int | None) -> None:
    """Refuse devices that are not available.

    Args:
        devices: as Lightning takes them: "auto", a number, -1 for all, a list, or these as text ("1," is a list).
        gpus: how many there are; None: the work is done by the processor.
    """
    text = str(devices).strip("[]").replace(" ", "")
    listed = isinstance(devices, list) or "," in text
    if text == "auto" or (text == "-1" and gpus is not None and not listed):
        return
    numbers = [int(part) if part.isdigit() else -1 for part in text.removesuffix(",").split(",")]
    if gpus is None:
        if listed or min(numbers) < 1:
            raise BadValue(f"trainer.devices={devices}: without a CUDA device, expected auto or a number of at least 1")
        return
    if min(numbers) < (0 if listed else 1) or len(set(numbers)) < len(numbers):
        raise BadValue(
            f"trainer.devices={devices}: expected auto, a number of GPUs of at least 1, or a list of GPUs as [0,1]"
        )
    if max(numbers) >= gpus + (not listed):
        available = "1 GPU is" if gpus == 1 else f"{gpus} GPUs are"
        raise BadValue(f"trainer.devices={devices}: {available} available, numbered from 0")


@dataclass(frozen=True)
class TrainingPlan:
    """What a training is called, how long it is, and what the best checkpoint is chosen by.

    title: what its progress is headed by.
    max_steps: of the optimiser.
    batch_size: images per step, over all processes.
    watched: a logged quantity of the held-out images; the lowest is best.
    batch_setting: the setting that batch_size comes from.
    """

    title: str
    max_steps: int
    batch_size: int
    watched: str
    batch_setting: str = "batch_size"


def fit(
    config: DictConfig,
    folder: RunFolder,
    state: State,
    module: LightningModule,
    data: ImageDataModule,
    plan: TrainingPlan,
    callbacks: Sequence[Callback] = (),
) -> tuple[Trainer, ReadableProgress]:
    """Run Lightning's Trainer from the start or from the last checkpoint.

    Args:
        config: its groups `trainer` and `logger` say how.
        folder: of the run, claimed; checkpoints and curves go into it.
        state: what `RunFolder.claim` said.
        module: counts its batches in `batches_seen`, which its checkpoint keeps.
        data: training images, and held-out ones if the best checkpoint is to be kept.
        plan: title, length, what the best checkpoint is chosen by.
        callbacks: further ones.

    Raises:
        StoppedRun: a loss was not finite, or the disk or the memory is full; what was saved stays.
    """
    settings = config.trainer
    checkpoints = folder.path / "checkpoints"
    last = checkpoints / "last.ckpt"
    resumed = str(last) if state == "continue" and last.is_file() else None
    first_step = folder.record.step if resumed else 0
    if resumed and global_rank() == 0:
        print(f"resuming {folder.path}: {first_step} of {plan.max_steps} steps are done")
    progress = ReadableProgress(plan.batch_size, plan.title)
    validate_every = max(1, min(round(settings.val_check_interval * plan.max_steps), 2500))
    save_every = max(1, min(round(settings.save_every * plan.max_steps), 1000))
    curves = MetricsFile(folder.path / "metrics.csv", first_step)
    followed: list[Callback] = [progress, Recorder(folder), *callbacks]
    if data.val_indices:  # before `last`, which keeps what `best` knows
        best = ModelCheckpoint(
            checkpoints, "best", plan.watched, save_top_k=1, save_weights_only=True, enable_version_counter=False
        )
        followed.append(best)
    log_every = max(1, min(10, plan.max_steps // 50))
    followed.append(LastCheckpoint(last, save_every, validate_every if data.val_indices else None, curves, log_every))
    accumulate = settings.accumulate_grad_batches
    take_form(module, settings)
    several, device = process_count(settings) > 1, device_of(settings.accelerator).type
    if several and device != "cuda" and global_rank() == 0 and learns_statistics(module):
        log.warning(
            "batch norms see each process's own share of a batch (only on GPUs have they one statistic for all): the "
            "outcome is not that of one process"
        )
    with quiet_lightning():
        trainer = Trainer(
            accelerator=device, devices=settings.devices, num_nodes=settings.num_nodes,
            # rows of W+ that are not trained yet have heads without gradients
            strategy="ddp_find_unused_parameters_true" if several else "auto",
            sync_batchnorm=several and device == "cuda",  # else a batch norm would see one process's share of a batch
            precision=settings.precision, accumulate_grad_batches=accumulate,
            gradient_clip_val=settings.gradient_clip_val, max_steps=plan.max_steps, max_epochs=-1,
            logger=[curves, *_dashboards(config, folder)], callbacks=followed,
            val_check_interval=validate_every * accumulate if data.val_indices else None, check_val_every_n_epoch=None,
            limit_val_batches=1.0 if data.val_indices else 0, num_sanity_val_steps=0,
            log_every_n_steps=log_every, use_distributed_sampler=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=folder.path, plugins=[AtomicCheckpoints(), *_scheduler()],
        )  # fmt: skip
        try:
            trainer.fit(module, datamodule=data, ckpt_path=resumed, weights_only=True)
        except RuntimeError as error:
            if not memory_is_full(error):
                raise
            raise StoppedRun(_no_memory(plan, recomputed=settings.recompute)) from error
        except SystemExit as stop:
            if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning leaves by sys.exit(1)
                raise KeyboardInterrupt from None
            raise
    if torch.distributed.is_initialized():  # what follows is done by one process, and metrics would wait for the others
        torch.distributed.destroy_process_group()
    return trainer, progress


def best_weights(folder: Path, part: str, device: torch.device) -> dict[str, Tensor] | None:
    """The tensors of one part of the module in a run's best checkpoint; None where none was kept.

    Raises:
        BadValue: it is damaged.
    """
    best = folder / "checkpoints" / "best.ckpt"
    if not best.is_file():
        return None
    try:
        state = AtomicCheckpoints().load_checkpoint(best, device)["state_dict"]
    except BadValue as error:
        raise BadValue(
            f"{best} is damaged; delete it to end this run with the weights of its last step, or the whole folder to "
            "train again"
        ) from error
    return {name.removeprefix(f"{part}."): tensor for name, tensor in state.items()}


def _no_memory(plan: TrainingPlan, recomputed: bool) -> str:
    """The one line about a training that does not fit into memory."""
    key = plan.batch_setting
    further = "" if recomputed else " and trainer.recompute=true, which needs far less, goes on from there"
    preset = " or preset=low_memory" if key == "batch_size" else ""
    return (
        f"{key}={plan.batch_size}: a step of so many images does not fit into memory. The work so far stays in "
        f"last.ckpt{further}; a smaller {key}={preset} is another run"
    )


def memory_is_full(error: RuntimeError) -> bool:
    """Whether PyTorch found no memory for something, of whichever device."""
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error).lower() for word in FULL)


def take_form(module: nn.Module, settings: DictConfig) -> None:
    """Give a module the forms of computation that `trainer` asks for, in place: `recompute` and `channels_last`."""
    if settings.recompute:
        recompute(module)
    if settings.channels_last:
        module.to(memory_format=torch.channels_last)


def learns_statistics(module: nn.Module) -> bool:
    """Whether a batch norm in it is in training; those of frozen parts are not."""
    return any(isinstance(part, _BatchNorm) and part.training for part in module.modules())


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
    from lsap.pipelines.wandb_run import opened

    if global_rank() == 0 and "wandb_id" not in folder.record.notes:
        folder.note(wandb_id=secrets.token_hex(4))
    run_id = str(folder.record.notes.get("wandb_id", ""))
    name = f"{folder.path.parent.name}/{folder.path.name}"
    return [opened(config, folder.path, name=name, run_id=run_id, verb="train")]
