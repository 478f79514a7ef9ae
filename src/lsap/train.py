"""`python -m lsap.train domain=car lambda_nscd=0.5`: train an encoder (LSAP_E and its ablations, e4e, pSp).

The run's folder follows from its settings. Started again, an unfinished run goes on, a finished one says so.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers.logger import Logger

from lsap.assembly import (
    Parts,
    as_written,
    check,
    check_sizes,
    check_trainable,
    checked_file,
    device_of,
    fill_encoder,
    global_rank,
    lambdas,
    plain,
    process_count,
    refuse_nested_launch,
)
from lsap.cli import command, composed, searchpath
from lsap.data import ImageDataModule
from lsap.embedding import EncoderTraining, RowEncoder
from lsap.errors import BadValue
from lsap.evaluation.fidelity import Row, evaluate, evaluate_mean_latent, labels, synthetic_row
from lsap.evaluation.pictures import reconstruction_grid
from lsap.evaluation.pictures import save as save_picture
from lsap.evaluation.report import row_title, training_report
from lsap.formats import file_digest, fingerprint, write_state
from lsap.runs import (
    AtomicCheckpoints,
    LastCheckpoint,
    MetricsFile,
    ReadableProgress,
    RunFolder,
    manifest,
    quiet_lightning,
    write_json,
    write_text,
)

# What decides the outcome of a run, beside all lambdas, as far as its embedding has it; a change makes another run.
IDENTITY = (
    "seed", "max_steps", "batch_size", "lr", "optimizer", "stages", "space", "objective", "encoder", "adversary",
    "view",
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
    check_trainable(config)
    check(config)
    refuse_nested_launch(config)
    parts = Parts(config, device_of(config.trainer.accelerator))
    data = parts.data()
    folder = run_folder(config, parts, data.train.names)
    rank = global_rank()
    if folder.state() == "finished":
        return _finished_before(folder, rank)
    check_sizes(parts, data)
    module = training_module(config, parts)  # what is wrong with weights or images shows before anything is written
    with folder.claim(rank) as state:
        if state == "finished":  # by another process, meanwhile
            return _finished_before(folder, rank)
        if rank == 0:
            write_text(folder.path / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
        with quiet_lightning():
            trainer, progress = _fit(config, folder, state, module, data)
        if trainer.is_global_zero:
            results = _measure(config, parts, module, data, folder.path, progress)
            training_report(folder.path, title=f"{config.embedding.name} on {config.domain.name}")
            folder.finish(trainer.global_step)
            print(f"done: {folder.path}/report.html")
            return results
    return Trained(folder.path, {}, {})


def _finished_before(folder: RunFolder, rank: int) -> Trained:
    if rank == 0:
        print(f"finished before: {folder.path}/report.html (delete the folder to train again)")
    return stored(folder.path)


def training_module(config: DictConfig, parts: Parts) -> EncoderTraining:
    """The LightningModule that the embedding's YAML names, with its parts."""
    encoder = parts.encoder()
    if config.init is not None:
        start_from(encoder, config.init, parts.generator.size)
    opposed = {"adversary": parts.adversary} if "adversary" in config else {}
    way: type[EncoderTraining] = get_class(config.embedding._target_)
    return way(
        encoder, parts.generator, parts.view, parts.objective(), parts.space, parts.stages(),
        optimizer=parts.optimizer(), seed=config.seed, **opposed,
    )  # fmt: skip


def start_from(encoder: RowEncoder, path: str, size: int) -> None:
    """Give an encoder the weights and the mean latent of another of its kind, for a generator of `size` pixels.

    Args:
        encoder: the one that is to be trained.
        path: `encoder.safetensors` of a run, or a published checkpoint of pSp, e4e or LSAP.
        size: of the generator.

    Raises:
        BadValue: the file holds no encoder of this kind and size.
    """
    try:
        fill_encoder(encoder, path, size, f"this encoder ({type(encoder).__name__})")
    except BadValue as error:
        raise BadValue(f"init={path}: {str(error).removeprefix(f'{path}: ')}") from error


def row_name(config: DictConfig) -> str:
    """What a run's row is called in tables: LSAP_E's by its weight, `lambda_0.5`, the others by their embedding."""
    weight = f"lambda_{config.lambda_nscd:g}"
    if config.embedding.name == "lsap_e":
        return weight
    return f"{config.embedding.name}_{weight}" if config.lambda_nscd > 0 else str(config.embedding.name)


def run_folder(config: DictConfig, parts: Parts, names: Sequence[str]) -> RunFolder:
    """The folder that these settings, these weights and training images of these names call for."""
    usual = composed(
        "train", [f"domain={config.domain.name}", f"embedding={config.embedding.name}"], searchpath=searchpath()
    )
    settings, defaults = (
        {name: plain(c[name]) for name in (*lambdas(c), *IDENTITY) if name in c}
        | {"train": {k: v for k, v in plain(c.data.train).items() if k not in ("root", "strict")}}
        for c in (config, usual)
    )
    for name in IDENTITY:  # a setting that only repeats another one (objective.nscd.weight) need not be in the name too
        if OmegaConf.is_config(config.get(name)) and as_written(config[name]) == as_written(usual[name]):
            defaults[name] = settings[name]
    for name in WEIGHTS:
        mark = _mark(config, parts, name)
        settings[name] = mark
        same = config[name].get("checkpoint") == usual[name].get("checkpoint")
        defaults[name] = mark if same else None
    images = hashlib.sha256("/".join(names).encode()).hexdigest()[:12]
    settings["images"], defaults["images"] = images, images if config.data.root == usual.data.root else None
    settings["init"] = None if config.init is None else file_digest(checked_file("init", config.init))[:12]
    defaults["init"] = None
    return RunFolder(config.outputs, config.domain.name, config.embedding.name, settings, defaults)


def _mark(config: DictConfig, parts: Parts, name: str) -> str:
    """The fingerprint of one set of weights, shortened: which generator, which judge."""
    if name == "generator":
        return fingerprint(parts.generator)[:12]
    if name == "backbone":
        start = config.backbone.checkpoint
        return start if start == "random" else file_digest(checked_file("backbone.checkpoint", start))[:12]
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
    curves = MetricsFile(folder.path / "metrics.csv", first_step)
    callbacks: list[Callback] = [progress, Recorder(folder), *_panels(config, data)]
    if data.val_indices:  # before `last`, which keeps what `best` knows
        best = ModelCheckpoint(
            checkpoints, "best", "val/image_loss", save_top_k=1, save_weights_only=True, enable_version_counter=False
        )
        callbacks.append(best)
    log_every = max(1, min(10, config.max_steps // 50))
    callbacks.append(LastCheckpoint(last, save_every, validate_every if data.val_indices else None, curves, log_every))
    accumulate = settings.accumulate_grad_batches
    trainer = Trainer(
        accelerator=settings.accelerator, devices=settings.devices, num_nodes=settings.num_nodes,
        # rows of W+ that are not trained yet have heads without gradients
        strategy="ddp_find_unused_parameters_true" if process_count(settings) > 1 else "auto",
        precision=settings.precision, accumulate_grad_batches=accumulate, gradient_clip_val=settings.gradient_clip_val,
        max_steps=config.max_steps, max_epochs=-1, logger=[curves, *_dashboards(config, folder)], callbacks=callbacks,
        val_check_interval=validate_every * accumulate if data.val_indices else None, check_val_every_n_epoch=None,
        limit_val_batches=1.0 if data.val_indices else 0, num_sanity_val_steps=0,
        log_every_n_steps=log_every, use_distributed_sampler=False, enable_progress_bar=False,
        enable_model_summary=False, plugins=[AtomicCheckpoints()],
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
    write_state(folder / "encoder.safetensors", encoder.state_dict(), card | {"encoder": encoder.kind})
    data.trainer = None  # one process measures alone: nothing is sharded, nothing padded
    judges: dict[str, Any] = {"distance": parts.perceptual, "embedder": parts.similarity}
    splits: dict[str, dict[str, Row]] = {}
    row = row_name(config)
    for split, loader in test_loaders(data).items():
        splits[split] = {
            "mean_latent": evaluate_mean_latent(parts.generator, parts.view, parts.space, loader, **judges),
            "synthetic": synthetic_row(parts.space),
            row: evaluate(encoder, parts.generator, parts.view, parts.space, loader, **judges),
        }
    first = next(iter(next(iter(test_loaders(data).values()))))["image"][:8].to(device)
    with torch.no_grad():
        output = parts.view(parts.generator(encoder(first)))
    save_picture(reconstruction_grid(first, {row_title(row): output}), folder / "reconstructions.png")
    named = labels(**judges)
    write_json(
        folder / "metrics.json",
        {"splits": splits, "labels": named, "images_per_second": float(f"{progress.images_per_second:.3g}") or None,
         "skipped_images": data.skipped} | manifest(device),
    )  # fmt: skip
    return Trained(folder, splits, named)


def test_loaders(data: ImageDataModule) -> dict[str, Any]:
    """The test splits; without any, the held-out slice of the training images, named as what it is."""
    if data.tests:
        return dict(zip(data.test_names, data.test_dataloader(), strict=True))
    return {
        "validation": data.val_dataloader()
        if data.val_indices
        else data.evaluation(data.train, data.train_indices, "train")
    }


def stored(folder: Path) -> Trained:
    """The numbers of a finished run, from its folder."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return Trained(folder, metrics["splits"], metrics["labels"])


def _dashboards(config: DictConfig, folder: RunFolder) -> list[Logger]:
    loggers: list[Logger] = []
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


main = command("train")(train)

if __name__ == "__main__":
    main()
