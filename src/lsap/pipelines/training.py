"""`python -m lsap.train domain=car lambda_nscd=0.5`: train an encoder (LSAP_E, e4e, pSp, ReStyle).

With `refinement=sam` it trains that refinement's own network instead (`lsap.pipelines.refinement_training`).

The run's folder follows from its settings. Started again, an unfinished run goes on, a finished one says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class
from omegaconf import DictConfig
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import WandbLogger

from lsap.checkpoints import fingerprint, write_state
from lsap.checkpoints.encoders import encoder_card
from lsap.config.checks import NONE, check_training
from lsap.config.stored import as_stored
from lsap.data import ImageDataModule
from lsap.embedding import EncoderTraining, RowEncoder
from lsap.errors import BadValue
from lsap.evaluation.fidelity import evaluate, evaluate_mean_latent
from lsap.evaluation.metrics import image_metrics, labels
from lsap.evaluation.rows import Row, synthetic_row
from lsap.pipelines.build import Parts, check_optimizer, check_sizes, fill_encoder
from lsap.pipelines.devices import global_rank, own_device, process_count, refuse_nested_launch
from lsap.pipelines.fit import TrainingPlan, best_weights, check_trainer, fit
from lsap.pipelines.refinement_training import train_refinement
from lsap.pipelines.run_identity.encoders import training_folder
from lsap.reports.pictures import reconstruction_grid
from lsap.reports.pictures import save as save_picture
from lsap.reports.run_reports import row_title, training_report
from lsap.runs import ReadableProgress, RunFolder, manifest, read_json, write_json, write_text
from lsap.runs.dashboard import own_run


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
    refuse_nested_launch(config)
    parts = Parts(config, own_device(config.trainer))
    data = parts.data()
    folder = training_folder(config, parts, data.train)
    rank = global_rank()
    if folder.state() == "finished":
        return _finished_before(folder, rank)
    check_sizes(parts, data)
    module = training_module(config, parts)  # what is wrong with weights or images shows before anything is written
    with folder.claim(rank) as state, own_run():
        if state == "finished":  # by another process, meanwhile
            return _finished_before(folder, rank)
        if rank == 0:
            write_text(folder.path / "config.yaml", as_stored(config))
        plan = TrainingPlan(
            f"{config.embedding.name} λ={config.lambda_nscd:g}", config.max_steps, config.batch_size, "val/image_loss"
        )
        trainer, progress = fit(config, folder, state, module, data, plan, _panels(config, parts, data))
        if trainer.is_global_zero:
            results = _measure(config, parts, module, data, folder.path, progress)
            _log(config, parts, module, data, trainer, results)
            training_report(folder.path, title=f"{config.embedding.name} on {config.domain.name}")
            folder.finish(trainer.global_step)
            print(f"done: {folder.path}/report.html")
            return results
    return Trained(folder.path, {}, {})


def check(config: DictConfig) -> None:
    """Refuse a configuration that cannot be trained, before anything is loaded or written.

    Raises:
        BadValue, MissingFile: as `check_training`; or what the Trainer or the optimiser does not take.
    """
    check_training(config)
    check_trainer(config.trainer)
    check_optimizer("optimizer", config.optimizer)
    if config.batch_size % (processes := process_count(config.trainer)):
        raise BadValue(
            f"batch_size={config.batch_size} cannot be shared equally by {processes} processes; it counts the images "
            f"of all of them together: take a multiple of {processes}"
        )


def _finished_before(folder: RunFolder, rank: int) -> Trained:
    if rank == 0:
        print(f"finished before: {folder.path}/report.html (delete the folder to train again)")
    return stored(folder.path)


def training_module(config: DictConfig, parts: Parts) -> EncoderTraining:
    """The LightningModule that the embedding's YAML names, with its parts."""
    encoder = parts.encoder()
    if config.init is not None:
        start_from(encoder, config.init)
    own = {"adversary": parts.adversary} if "adversary" in config else {}
    own |= {"iterations": config.iterations} if "iterations" in config else {}
    module: type[EncoderTraining] = get_class(config.embedding._target_)
    return module(
        encoder, parts.generator, parts.view, parts.objective(), parts.space, parts.stages(),
        optimizer=parts.optimizer(), seed=config.seed, **own,
    )  # fmt: skip


def start_from(encoder: RowEncoder, path: str) -> None:
    """Give an encoder the weights and the mean latent of another of its kind, for a generator with as many rows.

    Args:
        encoder: the one that is to be trained.
        path: `encoder.safetensors` of a run, or a published checkpoint of pSp, e4e or LSAP.

    Raises:
        BadValue: the file holds no encoder of this kind and number of rows.
    """
    try:
        fill_encoder(encoder, path, f"this encoder ({type(encoder).__name__})")
    except BadValue as error:
        raise BadValue(f"init={path}: {str(error).removeprefix(f'{path}: ')}") from error


def row_name(config: DictConfig) -> str:
    """What a run's row is called in tables: LSAP_E's by its weight, `lambda_0.5`, the others by their embedding."""
    weight = f"lambda_{config.lambda_nscd:g}"
    if config.embedding.name == "lsap_e":
        return weight
    return f"{config.embedding.name}_{weight}" if config.lambda_nscd > 0 else str(config.embedding.name)


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
    state = best_weights(folder, "encoder", device)
    if state is not None:
        module.encoder.load_state_dict(state)
    encoder, inverter = module.encoder.eval(), module.inverter
    card = {"embedding": config.embedding.name, "domain": config.domain.name, "generator": fingerprint(parts.generator)}
    card |= encoder_card(encoder.kind, encoder.n_latent)
    write_state(folder / "encoder.safetensors", encoder.state_dict(), card)
    data.trainer = None  # one process measures alone: nothing is sharded, nothing padded
    metrics = image_metrics(**parts.judges)
    splits: dict[str, dict[str, Row]] = {}
    row = row_name(config)
    for split, loader in test_loaders(data).items():
        splits[split] = {
            "mean_latent": evaluate_mean_latent(parts.generator, parts.view, parts.space, loader, metrics),
            "synthetic": synthetic_row(parts.space),
            row: evaluate(inverter, parts.generator, parts.view, parts.space, loader, metrics),
        }
    first = next(iter(next(iter(test_loaders(data).values()))))["image"][:8].to(device)
    with torch.no_grad():
        output = parts.view(parts.generator(inverter(first)))
    save_picture(reconstruction_grid(first, {row_title(row): output}), folder / "reconstructions.png")
    named = labels(metrics)
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
    metrics = read_json(folder / "metrics.json", "delete the folder to train again", dict)
    return Trained(folder, metrics["splits"], metrics["labels"])


def _panels(config: DictConfig, parts: Parts, data: ImageDataModule) -> list[Callback]:
    if config.logger.name != "wandb" or not data.val_indices:
        return []
    from lsap.pipelines.wandb_logging import SHOWN, panel_edits
    from lsap.reports.panels import Panels

    return [Panels(data.train.read(data.val_indices[:SHOWN]), panel_edits(config, parts))]


def _log(
    config: DictConfig, parts: Parts, module: EncoderTraining, data: ImageDataModule, trainer: Trainer, results: Trained
) -> None:
    if config.logger.name != "wandb":
        return
    from lsap.pipelines.wandb_logging import log_training

    (logger,) = (each for each in trainer.loggers if isinstance(each, WandbLogger))
    rows = {split: found[row_name(config)] for split, found in results.splits.items()}
    log_training(logger, max(trainer.global_step - 1, 0), rows, parts, module.inverter, data)


def run(config: DictConfig) -> object:
    """What the verb does: train an encoder or, where a refinement is named, that refinement's own network."""
    return train(config) if config.refinement.name == NONE else train_refinement(config)
