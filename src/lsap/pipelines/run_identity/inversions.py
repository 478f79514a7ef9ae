"""The folder of inversions, determined by settings, weights and the content of the images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from lsap.checkpoints import file_digest, fingerprint
from lsap.config.checks import (
    FOR_VERBS,
    checked_file,
    lambdas,
    optimises,
)
from lsap.config.compose import composed, searchpath
from lsap.config.containers import as_written, plain
from lsap.pipelines.images import Chosen
from lsap.pipelines.run_identity.images import GivenImages, names_digest
from lsap.pipelines.run_identity.refinements import marks
from lsap.runs import RunFolder, content_digest

if TYPE_CHECKING:
    from lsap.pipelines.build import Parts

OF_OPTIMISATIONS = ("steps", "patience", "optimisation", "objective", "init")


OF_ALL = ("seed", "space", "view", "images", "split", "count", "iterations")


def run_folder(parts: Parts, chosen: Chosen) -> RunFolder:
    """Where the inversions of these settings, weights and images go; its `settings` are what the store keeps."""
    config = parts.config
    save_to = config.save_to if config.refinement.name == "none" else None
    return inversion_folder(config, chosen, f"inversions/{config.embedding.name}", *identity(parts), save_to)


def inversion_folder(
    config: DictConfig,
    chosen: Chosen,
    method: str,
    settings: dict[str, Any],
    defaults: dict[str, Any],
    save_to: str | None = None,
) -> RunFolder:
    """The folder of inversions of these settings and of the content of these images; `save_to` names another one.

    Inversions of version 0.1, which recorded only the names of images, are found where they can be of no others.
    """

    def folder(images: str | None) -> RunFolder:
        known = RunFolder(
            config.outputs, config.domain.name, method, settings | {"images": images}, defaults | {"images": None}
        )
        known.path = known.path if save_to is None else Path(save_to)
        return known

    if chosen.digests is None:
        return folder(None)
    by_names = None if config.images is None else f"{chosen.label}-{names_digest(chosen.names)[:6]}"
    setting = "images" if by_names else "data.test_root" if config.data.get("test_root") else "data.root"
    given = GivenImages(chosen.source, chosen.names, setting, OmegaConf.select(config, setting))
    return given.find(folder(content_digest(chosen.digests)), folder(by_names))


def identity(parts: Parts) -> tuple[dict[str, Any], dict[str, Any]]:
    """What decides the inversions of an embedding beside its images, and the same when the user changes nothing."""
    config = parts.config
    usual = composed(
        "invert", [f"domain={config.domain.name}", f"embedding={config.embedding.name}"], searchpath=searchpath()
    )
    settings, defaults = _settings(config), _settings(usual)
    for name in ("objective", "optimisation"):  # what only repeats a knob at the root need not be in the name too
        if name in settings and as_written(config[name]) == as_written(usual[name]):
            defaults[name] = settings[name]
    if config.images is None and config.split == next(iter(config.data.tests), None):
        settings["split"] = None  # the one that is taken anyway
    settings["precision"], defaults["precision"] = config.trainer.precision, usual.trainer.precision
    settings["images_per_batch"], defaults["images_per_batch"] = config.images_per_batch, usual.images_per_batch
    same = config.generator.get("checkpoint") == usual.generator.get("checkpoint")
    settings["generator"], defaults["generator"] = parts.fingerprint[:12], parts.fingerprint[:12] if same else None
    for role, judge in parts.judges.items():
        settings[role] = defaults[role] = None if judge is None else fingerprint(judge)[:12]
    if optimises(config):
        settings["trunk"] = defaults["trunk"] = fingerprint(parts.trunk)[:12] if config.lambda_lpips > 0 else None
        if config.init not in (None, "mean", "encoder"):
            settings["init"] = file_digest(checked_file("init", config.init))[:12]
        elif config.init == "encoder":
            settings["init"] = f"encoder-{file_digest(parts.of_encoder().trained_encoder[1])[:8]}"
    else:
        path = parts.trained_encoder[1]
        settings["encoder"] = file_digest(path)[:12]
        own = config.checkpoint is None
        settings["run"], defaults["run"] = (path.parent.name if own else None), ("default" if own else None)
        defaults["encoder"] = settings["encoder"] if own else None
    return settings, defaults


def _settings(config: DictConfig) -> dict[str, Any]:
    names = (*lambdas(config), *OF_OPTIMISATIONS, *OF_ALL) if optimises(config) else OF_ALL
    return {name: plain(config[name]) for name in names if name in config}


def refined_folder(parts: Parts, chosen: Chosen) -> RunFolder:
    """Where refined inversions go: named by what was changed of the embedding's and the refinement's settings."""
    config = parts.config
    settings, defaults = identity(parts)
    name = config.refinement.name
    choices = [f"domain={config.domain.name}", f"embedding={config.embedding.name}", f"refinement={name}"]
    usual = composed("invert", choices, searchpath=searchpath())
    for node, into in ((config.refinement, settings), (usual.refinement, defaults)):
        into["refinement"] = {
            "name": name,
            **{key: value for key, value in plain(node).items() if key not in FOR_VERBS},
        }
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
