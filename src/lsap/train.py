"""`python -m lsap.train domain=car lambda_nscd=0.5`: train an encoder (LSAP_E and its ablations).

The run's folder follows from its settings. Started again, an unfinished run goes on, a finished one says so.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers.logger import Logger

from lsap.assembly import Parts, check, device_of
from lsap.cli import command, composed
from lsap.data import ImageDataModule
from lsap.embedding import EncoderTraining
from lsap.errors import BadValue
from lsap.evaluation.fidelity import Row, evaluate, evaluate_mean_latent, labels, synthetic_row
from lsap.evaluation.pictures import reconstruction_grid
from lsap.evaluation.pictures import save as save_picture
from lsap.evaluation.report import training_report
from lsap.formats import file_digest, fingerprint, read_state, write_state
from lsap.runs import (
    AtomicCheckpoints,
    MetricsFile,
    ReadableProgress,
    RunFolder,
    manifest,
    quiet_lightning,
    write_json,
    write_text,
)

# What decides the outcome of a run; a change of any of these is another run.
IDENTITY = (
    "lambda_l2", "lambda_lpips", "lambda_id", "lambda_delta", "lambda_nscd", "seed", "max_steps", "batch_size", "lr",
    "optimizer", "stages", "space", "objective", "encoder", "view", "init",
)  # fmt: skip
WEIGHTS = ("generator", "backbone", "perceptual", "similarity")


@dataclass(frozen=True)
class Trained:
    """A finished run: its folder, and its rows of numbers per split."""

    folder: Path
    splits: dict[str, dict[str, Row]]
    labels: dict[str, str]


def train(config: DictConfig) -> Trained:
    """Train the encoder of a configuration, or pick up what an earlier start of it left.

    Raises:
        BadValue, MissingFile: the configuration cannot run; nothing has been written.
        StoppedRun: a loss was not finite, or the disk is full; what was saved stays.
    """
    check(config)
    _refuse_nested_launch(config)
    parts = Parts(config, device_of(config.trainer.accelerator))
    data = parts.data()
    folder = run_folder(config, parts)
    rank = global_rank()
    with folder.claim(rank) as state:
        if state == "finished":
            if rank == 0:
                print(f"finished before: {folder.path}/report.html (delete the folder to train again)")
            return stored(folder.path)
        if rank == 0:
            write_text(folder.path / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
        module = training_module(config, parts)
        with quiet_lightning():
            trainer, progress = _fit(config, folder, state, module, data)
        if trainer.is_global_zero:
            results = _measure(config, parts, module, data, folder.path, progress)
            training_report(folder.path, title=f"{config.embedding.name} on {config.domain.name}")
            folder.finish(trainer.global_step)
            print(f"done: {folder.path}/report.html")
            return results
    return stored(folder.path) if rank == 0 else Trained(folder.path, {}, {})


def training_module(config: DictConfig, parts: Parts) -> EncoderTraining:
    """The LightningModule that the embedding's YAML names, with its parts."""
    encoder = parts.encoder()
    if config.init is not None:
        encoder.load_state_dict(read_state(config.init))
    module: EncoderTraining = instantiate(
        {"_target_": config.embedding._target_}, encoder, parts.generator, parts.view, parts.objective(), parts.space,
        parts.stages(), optimizer=parts.optimizer(), seed=config.seed, _recursive_=False,
    )  # fmt: skip
    return module


def run_folder(config: DictConfig, parts: Parts) -> RunFolder:
    """The folder that these settings and these weights call for."""
    usual = composed(
        "train", [f"domain={config.domain.name}", f"embedding={config.embedding.name}"], searchpath=_searchpath()
    )
    settings, defaults = (
        {key: OmegaConf.to_container(c[key], resolve=True) if OmegaConf.is_config(c[key]) else c[key] for key in IDENTITY}
        | {"train": {k: v for k, v in OmegaConf.to_container(c.data.train, resolve=True).items() if k not in ("root", "strict")}}
        for c in (config, usual)
    )
    for name in WEIGHTS:
        mark = _mark(config, parts, name)
        settings[name] = mark
        same = config[name].get("checkpoint") == usual[name].get("checkpoint")
        defaults[name] = mark if same else None
    return RunFolder(config.outputs, config.domain.name, config.embedding.name, settings, defaults)


def _mark(config: DictConfig, parts: Parts, name: str) -> str:
    """The fingerprint of one set of weights, shortened: which generator, which judge."""
    if name == "generator":
        return fingerprint(parts.generator)[:12]
    if name == "backbone":
        start = config.backbone.checkpoint
        return start if start == "random" else file_digest(start)[:12]
    judge = getattr(parts, name)
    return "none" if judge is None else fingerprint(judge)[:12]


def _fit(
    config: DictConfig, folder: RunFolder, state: str, module: EncoderTraining, data: ImageDataModule
) -> tuple[Trainer, ReadableProgress]:
    """Run Lightning's Trainer from the start or from the last checkpoint."""
    settings = config.trainer
    checkpoints = folder.path / "checkpoints"
    last = checkpoints / "last.ckpt"
    resumed = str(last) if state == "continue" and last.is_file() else None
    first_step = folder.record.step if resumed else 0
    progress = ReadableProgress(config.batch_size, f"{config.embedding.name} λ={config.lambda_nscd:g}")
    validate_every = max(1, min(round(settings.val_check_interval * config.max_steps), 2500))
    save_every = max(1, min(round(settings.save_every * config.max_steps), 1000))
    callbacks: list[Callback] = [
        progress,
        ModelCheckpoint(checkpoints, "best", "val/image_loss", save_top_k=1, enable_version_counter=False),
        ModelCheckpoint(
            checkpoints, "last", save_top_k=1, every_n_train_steps=save_every, enable_version_counter=False,
            save_on_train_epoch_end=False,
        ),
        Recorder(folder),
        *_panels(config, data),
    ]  # fmt: skip
    accumulate = settings.accumulate_grad_batches
    trainer = Trainer(
        accelerator=settings.accelerator, devices=settings.devices, num_nodes=settings.num_nodes,
        precision=settings.precision, accumulate_grad_batches=accumulate, gradient_clip_val=settings.gradient_clip_val,
        max_steps=config.max_steps, max_epochs=-1, logger=_loggers(config, folder, first_step), callbacks=callbacks,
        val_check_interval=validate_every * accumulate if data.val_indices else None, check_val_every_n_epoch=None,
        limit_val_batches=1.0 if data.val_indices else 0, num_sanity_val_steps=0, log_every_n_steps=10,
        use_distributed_sampler=False, enable_progress_bar=False, enable_model_summary=False,
        plugins=[AtomicCheckpoints()],
    )  # fmt: skip
    trainer.fit(module, datamodule=data, ckpt_path=resumed, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    return trainer, progress


class Recorder(Callback):
    """Writes into `run.json` how far the saved checkpoints have come."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_save_checkpoint(self, trainer: Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        if trainer.is_global_zero:
            self.folder.update(trainer.global_step)


def _measure(
    config: DictConfig,
    parts: Parts,
    module: EncoderTraining,
    data: ImageDataModule,
    folder: Path,
    progress: ReadableProgress,
) -> Trained:
    """Take the best checkpoint, keep its encoder for inference, measure it on every split, draw what it does."""
    device = parts.device
    for part in (module.encoder, parts.generator, parts.view, module.objective):
        part.to(device)
    best = folder / "checkpoints" / "best.ckpt"
    if best.is_file():
        state = torch.load(best, map_location=device, weights_only=True)["state_dict"]
        module.encoder.load_state_dict({k.removeprefix("encoder."): v for k, v in state.items()})
    encoder = module.encoder.eval()
    card = {"embedding": config.embedding.name, "domain": config.domain.name, "generator": fingerprint(parts.generator)}
    write_state(folder / "encoder.safetensors", encoder.state_dict(), card)
    data.trainer = None  # one process measures alone: nothing is sharded, nothing padded
    judges = {"distance": parts.perceptual, "embedder": parts.similarity}
    splits: dict[str, dict[str, Row]] = {}
    row_name = f"lambda_{config.lambda_nscd:g}"
    for split, loader in test_loaders(data).items():
        splits[split] = {
            "mean_latent": evaluate_mean_latent(parts.generator, parts.view, parts.space, loader, **judges),
            "synthetic": synthetic_row(parts.space),
            row_name: evaluate(encoder, parts.generator, parts.view, parts.space, loader, **judges),
        }
    first = next(iter(next(iter(test_loaders(data).values()))))["image"][:8].to(device)
    with torch.no_grad():
        output = parts.view(parts.generator(encoder(first)))
    save_picture(reconstruction_grid(first, {f"λ = {config.lambda_nscd:g}": output}), folder / "reconstructions.png")
    named = labels(**judges)
    write_json(
        folder / "metrics.json",
        {"splits": splits, "labels": named, "images_per_second": round(progress.images_per_second, 1),
         "skipped_images": data.skipped} | manifest(device),
    )  # fmt: skip
    return Trained(folder, splits, named)


def test_loaders(data: ImageDataModule) -> dict[str, Any]:
    """The test splits; without any, the held-out slice of the training images, named as what it is."""
    if data.tests:
        return dict(zip(data.test_names, data.test_dataloader(), strict=True))
    return {"validation": data.val_dataloader() if data.val_indices else data.evaluation(data.train, data.train_indices, "train")}


def stored(folder: Path) -> Trained:
    """The numbers of a finished run, from its folder."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return Trained(folder, metrics["splits"], metrics["labels"])


def _loggers(config: DictConfig, folder: RunFolder, first_step: int) -> list[Logger]:
    loggers: list[Logger] = [MetricsFile(folder.path / "metrics.csv", first_step)]
    if config.logger.name == "wandb":
        from lsap.runs.dashboard import wandb_logger

        if global_rank() == 0 and "wandb_id" not in folder.record.notes:
            folder.note(wandb_id=secrets.token_hex(4))
        chosen = {key: config.logger[key] for key in ("project", "entity", "group")}
        loggers.append(
            wandb_logger(
                folder.path, name=folder.path.name, run_id=str(folder.record.notes.get("wandb_id", "")),
                tags=list(config.logger.tags), **chosen,
            )
        )  # fmt: skip
    return loggers


def _panels(config: DictConfig, data: ImageDataModule) -> list[Callback]:
    if config.logger.name != "wandb" or not data.val_indices:
        return []
    from lsap.evaluation.panels import Panels

    return [Panels(data.train.read(data.val_indices[:8]))]


def _searchpath() -> list[str]:
    """Folders of YAML that the user added with --config-dir or hydra.searchpath."""
    if not HydraConfig.initialized():
        return []
    sources = HydraConfig.get().runtime.config_sources
    return [f"{s.schema}://{s.path}" for s in sources if s.provider in ("command-line", "hydra.searchpath in command-line")]


def _refuse_nested_launch(config: DictConfig) -> None:
    """Lightning starts further processes by repeating the command line; in a multirun each would start the sweep anew."""
    swept = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    devices = config.trainer.devices
    several = (isinstance(devices, int) and devices > 1) or (devices == "auto" and torch.cuda.device_count() > 1)
    if swept and several and "RANK" not in os.environ:
        raise BadValue(
            f"trainer.devices={devices} within a multirun: every process would start the whole sweep again; set "
            "trainer.devices=1, or start the members with torchrun or SLURM"
        )


def global_rank() -> int:
    """This process's number before any Trainer exists, as Lightning, torchrun and SLURM hand it on."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


main = command("train")(train)

if __name__ == "__main__":
    main()
