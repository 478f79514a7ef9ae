"""What a user reads of an error."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from lsap.cli.arguments import _accepted
from lsap.config.compose import composed
from lsap.errors import LsapError, MissingFile, nearest

LIGHTNING = "MisconfigurationException"  # by name: importing Lightning takes seconds


def fetching(config: DictConfig, told: str) -> str | None:
    """The command that fetches missing files, for the end of their list; None where `lsap.assets` has none of them.

    Args:
        config: of the command that lacks them.
        told: the list.
    """
    if "domain" not in config or "\n" not in told:
        return None
    table = composed("assets")
    served = [each for each in table.files if config.domain.name in each.domains]
    if not any(each.get("url") and Path(each.file).stem in told for each in served):
        return None
    kind = _method(config, {method for each in served for method in each.methods})
    typed = [f"domain={config.domain.name}", f"method={kind}", "fetch=true"]
    if config.get("weights", table.weights) != table.weights:
        typed.append(f"weights={config.weights}")
    return f"or: python -m lsap.assets {' '.join(typed)}"


def _method(config: DictConfig, known: Collection[str]) -> str:
    """What `lsap.assets` calls the method of a configuration."""
    if "embedding" not in config:
        return "editing"
    name = str(config.embedding.name)
    if name in known:
        return name
    if "_target_" not in config.embedding:
        return "optimisation"
    return "restyle" if name.startswith("restyle") else "lsap_e"


def explain(error: BaseException, config_name: str) -> str | None:
    """What a user should read of an error, or None where it is no mistake of theirs.

    It is one line, or of missing files a line for each.
    """
    for cause in _chain(error):
        if isinstance(cause, MissingFile):
            return "\n".join([str(cause), *getattr(cause, "__notes__", [])])
        if isinstance(cause, LsapError):
            return " ".join(str(cause).split())
    for cause in _chain(error):
        if isinstance(cause, MissingConfigException) and cause.missing_cfg_file:
            group, _, choice = cause.missing_cfg_file.rpartition("/")
            return f"{group}={choice}: there is no such {group}; {nearest(choice, cause.options or [])}"
        if isinstance(cause, OverrideParseException):
            return f"cannot read {cause.override!r}: write key=value, as in lambda_nscd=0.5"
        target = re.search(r"Error (?:locating target|loading) '([^']+)'", str(cause))
        if isinstance(cause, InstantiationException | ImportError) and target:
            return (
                f"_target_={target[1]}: there is no such class or function; it is named by module and name, as in "
                "lsap.refinement.PivotalTuning, and an own module lies in the folder where the command is given"
            )
        call = re.match(r"Error in call to target '([^']+)'", str(cause))
        if isinstance(cause, InstantiationException) and call and cause.__cause__ is not None:
            place = re.search(r"full_key: (\S+)", str(cause))
            whose = f"{place[1]} ({call[1]})" if place else call[1]
            return f"{whose} does not take these settings: {' '.join(str(cause.__cause__).split())}"
        key = re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct", str(cause))
        several = re.match("Ambiguous value for argument '(.+)'\n", str(cause))
        if isinstance(cause, ConfigCompositionException) and several:
            name, _, values = several[1].partition("=")
            return (
                f"{several[1]} gives {name} several values: a sweep needs -m, as in python -m lsap.{config_name} -m "
                f"{several[1]}, and a list brackets: {name}=[{values}]"
            )
        if isinstance(cause, ConfigCompositionException) and key:
            return _unknown_key(next(filter(None, key.groups())), config_name)
    if isinstance(error, HydraException | OmegaConfBaseException) or type(error).__name__ == LIGHTNING:
        return str(error).strip().splitlines()[0]
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _unknown_key(key: str, config_name: str) -> str:
    """Name the nearest keys that the chosen groups do have."""
    given = [re.match(r"(domain|embedding|refinement|target)=[\w/]+", argument) for argument in sys.argv[1:]]
    groups = [choice[0] for choice in given if choice]  # of a sweep, the first
    try:
        config = composed(config_name, groups)
    except (HydraException, OmegaConfBaseException):
        try:
            config = composed(config_name)
        except (HydraException, OmegaConfBaseException):  # a command of the user's own, from --config-dir
            return f"unknown setting {key!r}: --cfg job prints the settings"
    accepted = _accepted(config)
    top = {k.split(".")[0] for k in accepted}
    beside = {k for k in accepted if k.startswith(f"{key.split('.')[0]}.")} or accepted
    pool = beside if "." in key else top | {k for k in accepted if k.rsplit(".", 1)[-1] == key}
    return f"unknown setting {key!r}: {nearest(key, pool, 1 if '.' in key else 3)}"
