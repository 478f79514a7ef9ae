"""Where the training of an encoder lives: the folder that settings, weights and images call for.

Whoever wants a trained encoder finds it by the same function that its training wrote to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from lsap.assembly import Parts, as_written, checked_file, lambdas, plain
from lsap.cli import composed, searchpath
from lsap.formats import file_digest, fingerprint
from lsap.runs import RunFolder

# What decides the outcome of a run, beside all lambdas, as far as its embedding has it; a change makes another run.
IDENTITY = (
    "seed", "max_steps", "batch_size", "lr", "optimizer", "stages", "space", "objective", "encoder", "adversary",
    "iterations", "view",
)  # fmt: skip
WEIGHTS = ("generator", "backbone", "perceptual", "similarity")


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
