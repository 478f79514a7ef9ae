"""`python -m lsap.train refinement=sam`: train what a refinement brings of its own, a network beside the generator.

Which network, and how, says the node `training` of the refinement's YAML: a `RefinementTraining`, the parts that it
borrows (`Parts`), its length. Where a node `examples` stands in it, what the network learns from is made
first, once, by a store like that of inversions. Started again, all of it goes on where it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import LightningModule, Trainer

from lsap.checkpoints import fingerprint, write_state
from lsap.config.checks import OWN_TRUNK, TRUNK_NEED, check_root, refuse_missing
from lsap.config.stored import as_stored
from lsap.data import ImageDataModule, Source
from lsap.errors import BadValue
from lsap.inversion import Embedded
from lsap.pipelines.build import Parts, check_optimizer, check_sizes
from lsap.pipelines.devices import global_rank, own_device, process_count, refuse_nested_launch
from lsap.pipelines.fit import TrainingPlan, best_weights, check_trainer, fit
from lsap.pipelines.images import Chosen
from lsap.pipelines.measurement import rows_of
from lsap.pipelines.plan_work import Clock, work
from lsap.pipelines.run_identity.refinements import examples_folder, network_class, network_folder
from lsap.pipelines.stages import Stage
from lsap.refinement import RefinementTraining, StoredExamples
from lsap.reports.run_reports import training_report
from lsap.runs import RunFolder, Store, manifest, write_json, write_text
from lsap.runs.dashboard import own_run

# The weights in `training` without which files of these settings take no part.
WEIGHTS = {"perceptual.checkpoint": "lambda_lpips", "similarity.checkpoint": "lambda_id"}


def train_refinement(config: DictConfig) -> Path:
    """Train the own network of a configuration's refinement, or pick up what an earlier start of it left.

    Returns:
        The run's folder; the finished network lies in it, as safetensors.

    Raises:
        BadValue, MissingFile: the configuration cannot run, or the refinement has no network of its own.
        StoppedRun: a loss was not finite, or the disk is full; what was saved stays.
    """
    check(config)
    refuse_nested_launch(config)
    parts = Parts(config, own_device(config.trainer))
    check_sizes(parts, loaded(parts, parts.training_images))
    folder = network_folder(parts)
    rank = global_rank()
    file = folder.path / network_class(config.refinement).file
    if folder.state() == "finished":
        if rank == 0:
            print(f"finished before: {file} (delete the folder to train again)")
        return folder.path
    data = training_data(parts)
    if data is None:
        return folder.path
    module = parts.training()
    with folder.claim(rank) as state, own_run():
        if state == "finished":  # by another process, meanwhile
            return folder.path
        if rank == 0:
            write_text(folder.path / "config.yaml", as_stored(config))
        node = config.refinement.training
        plan = TrainingPlan(
            f"{config.refinement.name}'s network", node.max_steps, node.batch_size, "val/loss",
            "refinement.training.batch_size",
        )  # fmt: skip
        trainer, progress = fit(config, folder, state, module, data, plan)
        if trainer.is_global_zero:
            keep(parts, module, folder, file)
            numbers = {name: float(f"{value:.6g}") for name, value in trainer.callback_metrics.items()}
            speed = float(f"{progress.images_per_second:.3g}") or None
            write_json(
                folder.path / "metrics.json",
                {"last": numbers, "images_per_second": speed, "training_images": len(data.train_indices)}
                | {"held_out_images": len(data.val_indices), "skipped_images": data.skipped}
                | manifest(parts.device),
            )
            training_report(folder.path, title=f"{config.refinement.name}'s network on {config.domain.name}")
            folder.finish(trainer.global_step)
            print(f"done: {file}")
    return folder.path


def check(config: DictConfig) -> None:
    """Refuse a configuration that cannot run, before anything is loaded or written.

    Raises:
        BadValue: the refinement has no network of its own, or a number that cannot work.
        MissingFile: weights or images are not there; all of them are listed.
    """
    network_class(config.refinement)
    node = config.refinement.training
    check_optimizer("refinement.training.optimizer", node.optimizer)
    check_root(config)
    check_trainer(config.trainer)
    if node.batch_size % (processes := process_count(config.trainer)):
        raise BadValue(
            f"refinement.training.batch_size={node.batch_size} cannot be shared equally by {processes} processes; take "
            f"a multiple of {processes}"
        )
    weighed = [key for key in node.get("needs", ()) if node.get(WEIGHTS.get(key, ""), 1) != 0]
    wanted = {"generator.checkpoint", "data.root", *weighed}
    needs = [need for need in config.domain.needs if need.key in wanted]
    if OWN_TRUNK in wanted and "net" in config.perceptual:
        needs.append(OmegaConf.create(TRUNK_NEED | {"key": OWN_TRUNK}))
    refuse_missing(f"refinement={config.refinement.name} on domain={config.domain.name}", config, needs)


def training_data(parts: Parts) -> ImageDataModule | None:
    """The images that the network learns from, with the examples beside them where it needs some.

    None while other processes are still at work on the examples.
    """
    node = parts.config.refinement.training
    source = parts.training_images
    if "examples" in node:
        store = examples(parts, source)
        if store.unfinished():
            print(f"{len(store.unfinished())} batches of {store.path} are with other processes; start again after them")
            return None
        source = StoredExamples(source, store, network_class(parts.config.refinement).learns)
    return loaded(parts, source)


def loaded(parts: Parts, source: Source) -> ImageDataModule:
    """The images of a source in batches of the training's."""
    node, data = parts.config.refinement.training, parts.config.data
    return ImageDataModule(
        source, {}, batch_size=node.batch_size, seed=parts.seed, val_images=node.get("val_images", data.val_images),
        num_workers=data.num_workers, eval_batch_size=data.get("eval_batch_size"),
    )  # fmt: skip


def examples(parts: Parts, source: Source) -> Store:
    """Make what the training learns from, or what is left of it; the store that holds it.

    Its folder is named by its own settings, so that trainings that differ in other things share it.
    """
    config = parts.config
    node = config.refinement.training.examples
    folder = examples_folder(parts)
    chosen = Chosen(source, tuple(source.names[: node.images]), "training images")
    stage = Stage(
        f"examples of {config.refinement.name}", folder.path, folder.settings, parts.generator, parts.examples
    )
    store = stage.open(chosen, node.images_per_batch)
    if store.unfinished():
        work(config, stage, chosen, store, ExampleKeeper(store))
    return store


class ExampleKeeper(Clock):
    """Writes every batch of examples into the store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, _: int = 0
    ) -> None:
        found: Embedded = outputs
        planned = self.store.batches[batch["number"]]
        notes = {name: dict(note) for name, note in found.notes.items()}
        rows = rows_of(planned, notes, batch["skipped"], found.failed)
        self.store.write(planned, rows, found.inversion, None, self.times(batch))


def keep(parts: Parts, module: RefinementTraining, folder: RunFolder, file: Path) -> None:
    """Take the best checkpoint and write its network."""
    state = best_weights(folder.path, "network", torch.device("cpu"))
    if state is not None:
        module.network.load_state_dict(state)
    tensors, card = module.cpu().eval().product()
    names = {"refinement": parts.config.refinement.name, "domain": parts.config.domain.name}
    write_state(file, tensors, {**card, **names, "generator": fingerprint(parts.generator)})
