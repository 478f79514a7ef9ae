"""The outermost layer of every command: where the configuration lies, how errors are shown, which exit code they set.

`python -m lsap.<verb> key=value …` composes `conf/<verb>.yaml` with Hydra and calls the verb's function. A user's
mistake is one line (a list of missing files: one line each) and exit code 2; with `debug=true` (and for mistakes of
ours) the traceback is shown.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from lsap.errors import BadValue, LsapError, MissingFile, nearest
from lsap.sweeps import Failed, Sweep

USER_ERROR = 2

logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # it would say what it raises, too


def config_dir() -> Path:
    """The folder of our YAML files: `conf/` of a checkout, else the copy that travels inside the wheel."""
    here = Path(__file__).resolve().parent
    packaged = here / "conf"
    return packaged if packaged.is_dir() else here.parents[1] / "conf"


def composed(config_name: str, overrides: Iterable[str] = (), searchpath: Sequence[str] = ()) -> DictConfig:
    """The configuration that a command line would give; also from within a running command.

    Args:
        config_name: "train", "pretrain", …
        overrides: key=value, as typed.
        searchpath: further folders of YAML files, as file://….
    """
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_dir()), version_base=None):
            found = [f"hydra.searchpath=[{','.join(searchpath)}]"] if searchpath else []
            return compose(config_name, [*overrides, *found])
    finally:
        GlobalHydra.instance().hydra = outer


def searchpath() -> list[str]:
    """Folders of YAML that the user added with --config-dir or hydra.searchpath."""
    if not HydraConfig.initialized():
        return []
    sources = HydraConfig.get().runtime.config_sources
    return [
        f"{s.schema}://{s.path}" for s in sources if s.provider in ("command-line", "hydra.searchpath in command-line")
    ]


def command(config_name: str) -> Callable[[Callable[[DictConfig], object]], Callable[[], None]]:
    """Make a function of a configuration into the command of `conf/<config_name>.yaml`."""

    def decorate(task: Callable[[DictConfig], object]) -> Callable[[], None]:
        def main() -> None:
            os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises; how an error is shown is decided here
            debug = any(re.fullmatch(r"\+?debug=(true|1)", a, re.IGNORECASE) for a in sys.argv[1:])
            failed: list[Exception] = []
            Sweep.begun.clear()
            sys.argv[1:] = [literal(argument) for argument in sys.argv[1:]]

            def job(config: DictConfig) -> object:
                try:
                    import_own(config.imports)
                    return task(config)
                except Exception as error:
                    if isinstance(error, MissingFile) and (told := fetching(config, str(error))):
                        error.add_note(told)
                    if HydraConfig.get().mode == RunMode.MULTIRUN:
                        return _member_failed(error, config_name, debug)  # the others go on
                    failed.append(error)
                    return None

            job.__module__ = f"lsap.{config_name}"  # what Hydra names the program by
            try:
                if {"-m", "--multirun"} & set(sys.argv[1:]):
                    sys.argv[1:] = left_to_members(sys.argv[1:], config_name)
                hydra.main(version_base=None, config_path=str(config_dir()), config_name=config_name)(job)()
                if failed:
                    raise failed[0]
                _swept(None, config_name, debug)
            except KeyboardInterrupt:
                print("\nstopped; start the same command again to go on", file=sys.stderr)
                sys.exit(130)
            except Exception as error:
                _swept(error, config_name, debug)
                line = explain(error, config_name)
                if debug or line is None:
                    raise
                print(f"error: {line}", file=sys.stderr)
                sys.exit(USER_ERROR)
            finally:
                for sweep in Sweep.begun:
                    sweep.tidy()

        return main

    return decorate


def import_own(modules: Sequence[str]) -> None:
    """Import the user's modules that `imports` names, so that what they register is known.

    Raises:
        BadValue: there is no such module; errors inside of one come out as they are.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            raise BadValue(
                f"imports={list(modules)}: there is no module {error.name!r}; put it into the folder where the command "
                "is given, or install it"
            ) from error


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


def _member_failed(error: Exception, config_name: str, debug: bool) -> Failed:
    """Say at once, where the member runs, what was wrong with it."""
    line = explain(error, config_name)
    if debug or line is None:
        traceback.print_exception(error)
    why = line or f"{type(error).__name__}: {error}, a mistake of lsap's own; its traceback stands where it ran"
    print(f"error: {why}", file=sys.stderr, flush=True)
    return Failed(" ".join(why.split()), ours=line is None)


def _swept(error: Exception | None, config_name: str, debug: bool) -> None:
    """At the end of a sweep, which `error` broke off: name the members that failed, and exit if there are any."""
    for sweep in Sweep.begun:
        failures = sweep.failures()
        if not failures or (error is not None and len(failures) == len(sweep.members)):
            continue  # none failed; or none began, and the error says why
        if error is not None:
            if debug:
                traceback.print_exception(error)
            reason = explain(error, config_name) or f"{type(error).__name__}: {error}".strip().splitlines()[0]
            print(f"the launcher stopped: {reason}", file=sys.stderr)
        print(f"error: {sweep.told(failures)}", file=sys.stderr)
        sys.exit(1 if any(each.ours for each in failures.values()) else USER_ERROR)


def literal(argument: str) -> str:
    """An argument as Hydra must read it: a path of our own run folders (`…/batch_size=8,seed=1/…`) needs no quotes."""
    key, equals, value = argument.partition("=")
    if (
        not equals
        or "=" not in value
        or not re.fullmatch(r"[+~]{0,2}\w[\w./@-]*", key)  # --config-dir=… is not Hydra's to parse
        or re.search(r"[\[\](){}'\"]", value)
    ):
        return argument
    return f"{key}='{value}'"


def left_to_members(arguments: Sequence[str], config_name: str) -> list[str]:
    """The arguments of a sweep, those made a sweep of one value that only its members can know.

    Before Hydra composes the members it composes what they share, with a group that is swept at its default. Settings
    of the choices alone, as `steps=` in `embedding=stylegan2_w,lsap_o_w steps=200`, it would refuse there.
    """
    groups = {each.name for each in config_dir().iterdir() if each.is_dir()}
    plain = [each for each in arguments if re.fullmatch(r"\w[\w.]*=.+", each)]
    keys = {each: each.partition("=")[0] for each in plain}
    if not any(keys[each] in groups and "," in each for each in plain):
        return list(arguments)
    chosen = [each for each in plain if keys[each] in groups and "," not in each]
    try:
        known = _accepted(composed(config_name, chosen)) | groups
    except (HydraException, OmegaConfBaseException):
        return list(arguments)  # Hydra itself says what is wrong
    left = [each for each in plain if keys[each] not in known and not keys[each].startswith("hydra.")]
    return [_alone(each) if each in left else each for each in arguments]


def _alone(argument: str) -> str:
    """`key=value` as a sweep over one value, unless it is one over several already."""
    override = OverridesParser.create().parse_override(argument)
    key, _, value = argument.partition("=")
    only = "'null'" if value == "null" else value  # Hydra has no choice of nothing, and reads this text as it
    return argument if override.is_sweep_override() else f"{key}=choice({only})"


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
            return f"cannot read {cause.override!r}: {_as_read(str(cause.override))}"
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
    if isinstance(error, HydraException | OmegaConfBaseException | MisconfigurationException):
        return str(error).strip().splitlines()[0]
    return None


def _as_read(argument: str) -> str:
    """How an argument should have been written that Hydra cannot read."""
    listed = re.fullmatch(r"(\S+?)=([\[{]).*=.*[\]}]", argument)
    if listed is None:
        return "write key=value, as in lambda_nscd=0.5"
    example = "['a,b=1']" if listed[2] == "[" else "{name: 'a,b=1'}"
    return f'quote a path that has = or , in it within the list, and the whole: "{listed[1]}={example}"'


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
        config = composed(config_name)
    accepted = _accepted(config)
    top = {k.split(".")[0] for k in accepted}
    beside = {k for k in accepted if k.startswith(f"{key.split('.')[0]}.")} or accepted
    pool = beside if "." in key else top | {k for k in accepted if k.rsplit(".", 1)[-1] == key}
    return f"unknown setting {key!r}: {nearest(key, pool, 1 if '.' in key else 3)}"


def _accepted(config: DictConfig) -> set[str]:
    """The settings of a configuration, as they are typed."""
    return set(_dotted(cast(Mapping[str, Any], OmegaConf.to_container(config, resolve=False))))


def _dotted(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in settings.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")


def positive(name: str, value: object) -> int:
    """A whole number of at least 1, or one clear line."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadValue(f"{name}={value}: {name} is a whole number of at least 1")
    return value
