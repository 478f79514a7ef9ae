"""What a user reads of an error."""

from __future__ import annotations

import difflib
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

from lsap.cli.arguments import accepted
from lsap.config.compose import composed
from lsap.config.groups import groups, settings_of
from lsap.errors import LsapError, MissingFile, nearest

LIGHTNING = "MisconfigurationException"  # by name: importing Lightning takes seconds


def fetching(config: DictConfig, listed: str) -> str | None:
    """The command that fetches missing files, for the end of their list; None where `lsap.assets` has none of them.

    Args:
        config: of the command that lacks them.
        listed: the message that lists them.
    """
    if "domain" not in config or "\n" not in listed:
        return None
    table = composed("assets")
    served = [each for each in table.files if config.domain.name in each.domains]
    if not any(each.get("url") and Path(each.file).stem in listed for each in served):
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


# Settings that users look for under the name that another command has.
CALLED = {("evaluate", "inversions"): "runs", ("edit", "runs"): "inversions", ("invert", "inversions"): "images"}


def _unknown_key(key: str, config_name: str) -> str:
    """Name the nearest key that the chosen groups do have, or the choices that have this one."""
    if (config_name, key) in CALLED:
        return f"unknown setting {key!r}: lsap.{config_name} calls it {CALLED[config_name, key]}"
    given = [re.match(r"(domain|embedding|refinement|target)=[\w/]+", argument) for argument in sys.argv[1:]]
    chosen = [choice[0] for choice in given if choice]  # of a sweep, the first
    try:
        config = composed(config_name, chosen)
    except (HydraException, OmegaConfBaseException):
        try:
            config = composed(config_name)
        except (HydraException, OmegaConfBaseException):  # a command of the user's own, from --config-dir
            return f"unknown setting {key!r}: --cfg job prints the settings"
    for group, names in groups(config_name).items():
        if owners := [name for name in names if key in settings_of(group, name)]:
            return f"unknown setting {key!r} with {_chosen(group, config)}: it belongs to {group}={' or '.join(owners)}"
    known = accepted(config)
    top = {name.split(".")[0] for name in known}
    beside = {name for name in known if name.startswith(f"{key.split('.')[0]}.")} or known
    pool = beside if "." in key else top | {name for name in known if name.rsplit(".", 1)[-1] == key}
    close = difflib.get_close_matches(key, pool, n=1, cutoff=0.5)
    mend = f"did you mean {close[0]!r}?" if close else f"python -m lsap.{config_name} --help lists the settings"
    return f"unknown setting {key!r}: {mend}"


def _chosen(group: str, config: DictConfig) -> str:
    """What is chosen of a group, as it is typed."""
    node = config.get(group)
    return f"{group}={node.name}" if isinstance(node, DictConfig) and "name" in node else f"this {group}"
