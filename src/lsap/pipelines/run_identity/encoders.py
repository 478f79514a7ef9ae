"""Where the training of an encoder lives: the folder that settings, weights and images call for.

Whoever wants a trained encoder finds it by what its training wrote to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from lsap.checkpoints import file_digest, fingerprint
from lsap.config.checks import SHORT_PRECISIONS, checked_file, lambdas
from lsap.config.compose import composed, searchpath
from lsap.config.containers import as_written, plain
from lsap.config.stored import read_settings, stored_value
from lsap.data import Source
from lsap.pipelines.run_identity.images import GivenImages, names_digest, source_digest
from lsap.runs import RunFolder

if TYPE_CHECKING:
    from lsap.pipelines.build import Parts

# What decides the outcome of a run, beside all lambdas, as far as its embedding has it; a change makes another run.
IDENTITY = (
    "seed", "max_steps", "batch_size", "lr", "optimizer", "stages", "space", "objective", "encoder", "adversary",
    "iterations", "view",
)  # fmt: skip
WEIGHTS = ("generator", "backbone", "perceptual", "similarity")
ACCUMULATED, CLIPPED, PRECISION = "trainer.accumulate_grad_batches", "trainer.gradient_clip_val", "trainer.precision"
# What decides it too, but stands among the settings of a training only where it is not what it usually is.
FURTHER = ("data.val_images", ACCUMULATED, CLIPPED, PRECISION)


def training_folder(config: DictConfig, parts: Parts, images: Source) -> RunFolder:
    """The folder of the training that these settings, these weights and these training images determine."""
    return _folder(config, parts, images, FURTHER)


def run_folder(config: DictConfig, parts: Parts, images: Source) -> RunFolder:
    """Where the encoder that these settings call for lies, for those who use it.

    To them `trainer.precision` is that of their own work: an encoder that was trained in it is taken if there is one,
    else the one of the usual precision.
    """
    exact = training_folder(config, parts, images)
    if exact.state() == "finished":
        return exact
    return _folder(config, parts, images, [name for name in FURTHER if name != PRECISION])


def _folder(config: DictConfig, parts: Parts, images: Source, further: Sequence[str]) -> RunFolder:
    """The folder by the settings that always count and, of `further`, those that are not as usual."""
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
    settings["init"] = None if config.init is None else file_digest(checked_file("init", config.init))[:12]
    defaults["init"] = None
    changed = {name: value for name in further if (value := _setting(config, name)) != _setting(usual, name)}
    place = (config.outputs, config.domain.name, config.embedding.name)
    usual_root = config.data.root == usual.data.root

    def folder(digest: str, more: Mapping[str, Any]) -> RunFolder:
        usually = defaults | {"images": digest if usual_root else None}
        return RunFolder(*place, {**settings, "images": digest, **more}, usually)

    content, by_names = source_digest(images), names_digest(images.names)
    found = folder(content or by_names, changed)
    given = GivenImages(images, images.names, "data.root", config.data.root)
    if content is not None:
        found = given.find(found, folder(by_names, changed))
    if changed and not found.holds_run():  # version 0.1 did not always record these settings
        earlier = folder(by_names, {})
        if _finished_with(earlier, changed) and (content is None or given.certainly_of(earlier.path)):
            return earlier
    return found


def _setting(config: DictConfig, name: str) -> Any:
    """A further setting as it is compared and kept: 32 and 32-true are one precision, 1 and 1.0 one limit."""
    return _comparable(name, plain(OmegaConf.select(config, name)))


def _comparable(name: str, value: Any) -> Any:
    if name == PRECISION:
        return SHORT_PRECISIONS.get(str(value), value)
    return float(value) if name == CLIPPED and isinstance(value, int) else value


def _finished_with(folder: RunFolder, changed: Mapping[str, Any]) -> bool:
    """Whether a finished run, whose record does not have these settings, says in its `config.yaml` that it had them.

    Accumulated batches are not looked for: they were counted as steps of the schedule, which makes another training.
    """
    record, written = folder.read(), folder.path / "config.yaml"
    if record is None or record.status != "finished" or record.settings != folder.settings or not written.is_file():
        return False
    own = read_settings(written)
    return ACCUMULATED not in changed and all(
        _comparable(name, stored_value(own, name)) == value for name, value in changed.items()
    )


def _mark(config: DictConfig, parts: Parts, name: str) -> str:
    """The fingerprint of one set of weights, shortened: which generator, which judge."""
    if name == "generator":
        return fingerprint(parts.generator)[:12]
    if name == "backbone":
        start = config.backbone.checkpoint
        return start if start == "random" else file_digest(checked_file("backbone.checkpoint", start))[:12]
    judge = getattr(parts, name)
    return "none" if judge is None else fingerprint(judge)[:12]
