"""A W&B run: its logger, its description, the group of a sweep."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from pytorch_lightning.loggers import WandbLogger

from lsap.config.checks import alignment
from lsap.config.containers import plain
from lsap.reports.inversion_reports import method
from lsap.runs.dashboard import wandb_logger

LONGEST_GROUP = 100  # characters; Weights & Biases takes no more than 128


# Settings that say how and where a sweep runs, not what it sweeps.
ASIDE = ("hydra", "logger", "trainer", "outputs", "weights", "debug")


def opened(config: DictConfig, folder: Path, *, name: str, run_id: str, verb: str) -> WandbLogger:
    """The logger of the run that a configuration describes.

    Args:
        config: its group `logger` says where to.
        folder: of the results.
        name: of the run, for people.
        run_id: its id.
        verb: what made the results.
    """
    where = config.logger
    return wandb_logger(
        folder, name=name, project=where.project, entity=where.entity, group=where.group or sweep(verb),
        tags=where.tags, run_id=run_id, offline=where.offline, job=verb, settings=described(config, verb),
    )  # fmt: skip


def described(config: DictConfig, verb: str) -> dict[str, Any]:
    """What runs are chosen and sorted by, flat, and below `settings` everything else."""
    found: dict[str, Any] = {"verb": verb, "domain": config.domain.name, "seed": config.seed}
    if "embedding" in config:
        refinement = None if config.refinement.name == "none" else config.refinement.name
        named = {"embedding": config.embedding.name, "refinement": refinement}
        found |= named | {"method": method(named), "lambda_nscd": alignment(config)}
    return found | {"settings": plain(config)}


def sweep(verb: str) -> str | None:
    """What the members of a sweep are grouped by: the verb and what the user typed; None outside of a sweep.

    The same sweep, started again, is the same group. Under a launcher that starts members with command lines of their
    own (submitit) nothing is left of what was typed; `logger.group` names the group there.
    """
    typed = sys.argv[1:]
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    if not {"-m", "--multirun"} & set(typed):
        return None
    words = [word for word in typed if "=" in word and re.split("[=./@]", word.lstrip("+~"))[0] not in ASIDE]
    group = " ".join([verb, *words])
    if len(group) > LONGEST_GROUP:
        group = f"{group[: LONGEST_GROUP - 10]}… {hashlib.sha256(group.encode()).hexdigest()[:8]}"
    return group
