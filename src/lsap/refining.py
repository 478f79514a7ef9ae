"""From a composed configuration to the stages of an inversion: the embedding and, if asked for, its refinement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from lsap.assembly import checked_file, plain
from lsap.cli import composed, searchpath
from lsap.data import Source
from lsap.embedders import Chosen, InversionParts, identity, inversion_folder, run_folder, trained
from lsap.embedding import Embedding
from lsap.errors import MissingFile
from lsap.generator import Generator
from lsap.refinement import (
    Consultation,
    Predictor,
    Refinement,
    RefinementTraining,
    consulted_channels,
    load_consultation,
    load_predictor,
)
from lsap.refinement_runs import marks, network_class, network_command, network_folder
from lsap.runs import RunFolder, Store
from lsap.seeds import derive

NONE = "none"  # refinement=none: the embedding alone
# What a refinement's YAML says to the verbs; all else under `refinement` are arguments of its class.
FOR_VERBS = ("name", "_target_", "borrows", "needs", "perceptual", "published", "checkpoint", "training")
# The same of the node `training`, and of `examples` in it.
FOR_TRAINING = ("_target_", "borrows", "needs", "optimizer", "batch_size", "max_steps", "val_images", "examples")
FOR_EXAMPLES = ("_target_", "borrows", "images", "images_per_batch")


class RefinementParts(InversionParts):
    """The parts of an inversion and of its refinement; `borrows` in its YAML names those that it is given."""

    @property
    def seed(self) -> int:
        """Of all that is drawn."""
        return int(self.config.seed)

    @property
    def distance(self) -> nn.Module | None:
        """The perceptual distance that a refinement minimises; None where its weight is 0."""
        return None if self.config.refinement.lambda_lpips == 0 else self.judged

    @cached_property
    def judged(self) -> nn.Module:
        """The perceptual distance of the refinement: the domain's, or over the trunk that its YAML asks for."""
        own = self.config.refinement.get("perceptual")
        chosen = own if own is not None and "net" in self.config.perceptual else {}
        judge: nn.Module = instantiate(self.config.perceptual, **chosen)
        return judge.to(self.device)

    @cached_property
    def training_images(self) -> Source:
        """The domain's images that are trained on, the held-out slice included."""
        source: Source = instantiate(self.config.data.train, _convert_="all")
        return source

    @property
    def distance_in_training(self) -> nn.Module | None:
        """The perceptual distance that a refinement's network learns by; None where its weight is 0."""
        return None if self.config.refinement.training.lambda_lpips == 0 else self.judged

    @cached_property
    def identity_in_training(self) -> nn.Module | None:
        """The judge of identity that a refinement's network learns by; None where its weight is 0."""
        if self.config.refinement.training.lambda_id == 0:
            return None
        judge: nn.Module = instantiate(self.config.similarity)
        return judge.to(self.device)

    @cached_property
    def encoder_in_use(self) -> nn.Module:
        """The trained encoder of the embedding, frozen: images [N, 3, H, W] → codes [N, L, C]; raises as `trained`."""
        return trained(self)[0].requires_grad_(False).to(self.device)

    @cached_property
    def network_file(self) -> Path:
        """Where the refinement's own network lies: `refinement.checkpoint`, or the finished training of these settings.

        Raises:
            MissingFile: neither is there; the message holds the command that trains it.
        """
        node = self.config.refinement
        if node.checkpoint is not None:
            return checked_file("refinement.checkpoint", node.checkpoint)
        elsewhere = f" (published: {node.published})" if "published" in node else ""
        advice = (
            f"train it: {network_command(self.config)}; or name a file of one with refinement.checkpoint={elsewhere}"
        )
        try:
            folder = network_folder(self)
        except (MissingFile, InstantiationException) as error:
            cause = error if isinstance(error, MissingFile) else error.__cause__
            if not isinstance(cause, MissingFile):
                raise
            raise MissingFile(
                f"refinement={node.name} needs a network of its own; {advice}. Yours cannot be looked for: {cause}"
            ) from error
        if folder.state() != "finished":
            raise MissingFile(
                f"refinement={node.name} needs a network of its own, which has not been trained with these settings "
                f"(looked in {folder.path}); {advice}"
            )
        return folder.path / network_class(node).file

    @cached_property
    def predictor(self) -> Predictor:
        """SAM's invertibility predictor; raises as `network_file` and `load_predictor`."""
        return load_predictor(self.network_file, self.fingerprint).to(self.device)

    @cached_property
    def consultation(self) -> Consultation:
        """HFGI's networks; raises as `network_file` and `load_consultation`."""
        channels = consulted_channels(self.generator)
        return load_consultation(self.network_file, channels, self.fingerprint).to(self.device)

    def training(self) -> RefinementTraining:
        """The module that trains the refinement's own network, with its parts."""
        node = self.config.refinement.training
        borrowed = self.borrowed(node)
        torch.manual_seed(derive(self.seed, "refinement"))  # of the network's first weights
        made = arguments(node, FOR_TRAINING)
        optimizer: Callable[..., torch.optim.Optimizer] = instantiate(node.optimizer)
        return network_class(self.config.refinement)(**borrowed, **made, optimizer=optimizer, seed=self.seed)

    def examples(self) -> Refinement:
        """The module that makes what the training learns from."""
        node = self.config.refinement.training.examples
        way: type[Refinement] = get_class(node._target_)
        given = self.borrowed(node) | arguments(node, FOR_EXAMPLES)
        return way(self.generator, self.fingerprint, **given).to(self.device)

    def borrowed(self, node: DictConfig) -> dict[str, Any]:
        """The parts that a node's `borrows` names, by argument."""
        return {str(argument): getattr(self, part) for argument, part in node.get("borrows", {}).items()}

    def refinement(self) -> Refinement:
        """The module that refines, with its parts."""
        node = self.config.refinement
        way: type[Refinement] = get_class(node._target_)
        given = self.borrowed(node) | arguments(node)
        return way(self.generator, self.fingerprint, node.name, **given).to(self.device)


@dataclass(frozen=True)
class Stage:
    """One stage of an inversion, as work on a plan.

    title: what people call it and all before it: `lsap_e`, `lsap_e + pti`.
    path: the folder of its store.
    settings: what the store keeps: all that decides what comes out.
    generator: draws the inversions.
    module: makes what works on the batches.
    before: the stage whose inversions it refines; None for an embedding.
    """

    title: str
    path: Path
    settings: Mapping[str, Any]
    generator: Generator
    module: Callable[[], Embedding | Refinement]
    before: Stage | None = None

    def open(self, images: Chosen, batch_size: int) -> Store:
        """Its store, begun or found; raises as `Store.open`."""
        return Store.open(self.path, images.names, batch_size, self.settings, images.digests)


def stages(parts: RefinementParts, chosen: Chosen) -> list[Stage]:
    """What a configuration asks for, first to last; `save_to` names the folder of the last one.

    Raises:
        BadValue, MissingFile: weights that do not fit, or that are not there.
    """
    config = parts.config
    named = {"embedding": config.embedding.name, "domain": config.domain.name}
    folder = run_folder(parts, chosen)
    first = Stage(config.embedding.name, folder.path, folder.settings | named, parts.generator, parts.embedding)
    if config.refinement.name == NONE:
        return [first]
    folder = refined_folder(parts, chosen)
    title = f"{config.embedding.name} + {config.refinement.name}"
    return [first, Stage(title, folder.path, folder.settings | named, parts.generator, parts.refinement, first)]


def refined_folder(parts: RefinementParts, chosen: Chosen) -> RunFolder:
    """Where refined inversions go: named by what was changed of the embedding's and the refinement's settings."""
    config = parts.config
    settings, defaults = identity(parts)
    name = config.refinement.name
    choices = [f"domain={config.domain.name}", f"embedding={config.embedding.name}", f"refinement={name}"]
    usual = composed("invert", choices, searchpath=searchpath())
    for node, into in ((config.refinement, settings), (usual.refinement, defaults)):
        into["refinement"] = {"name": name, **_plain_arguments(node, FOR_VERBS)}
    own = config.refinement.get("checkpoint") == usual.refinement.get("checkpoint")
    for argument, mark in marks(parts, config.refinement).items():
        settings["refinement"][argument] = mark
        defaults["refinement"][argument] = mark if own else None
    if config.refinement.get("training") is not None and config.refinement.checkpoint is None:
        trained_by = parts.network_file.parent.name  # so that networks of two trainings have folders of their own
        settings["refinement"]["trained"], defaults["refinement"]["trained"] = trained_by, "default"
    return inversion_folder(
        config, chosen, f"inversions/{config.embedding.name}+{name}", settings, defaults, config.save_to
    )


def arguments(node: DictConfig, less: Sequence[str] = FOR_VERBS) -> dict[str, Any]:
    """What the class of a node is built with, the objects that its YAML describes already made; `less`: other keys."""
    made: dict[str, Any] = instantiate(OmegaConf.create(_plain_arguments(node, less)), _convert_="all")
    return made


def _plain_arguments(node: DictConfig, less: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in plain(node).items() if key not in less}
