"""The entry point of every command: composing, checking, running, and how errors are shown.

`python -m lsap.<command> key=value …` composes `conf/<command>.yaml` with Hydra and calls the command's function. A
user's mistake is one line (a list of missing files: one line each) and exit code 2; with `debug=true`, and for internal
errors, the traceback is shown.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pkgutil import resolve_name

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from lsap.cli.arguments import left_to_members
from lsap.cli.help import answered
from lsap.cli.messages import explain, fetching
from lsap.cli.sweeps import Failed, Sweep
from lsap.config.compose import config_dir
from lsap.config.moved import rename_classes
from lsap.config.paths import literal
from lsap.config.settings import check_settings
from lsap.errors import BadValue, MissingFile

USER_ERROR = 2

logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # it would log what it raises


def command(config_name: str, task: str, *checks: str) -> Callable[[], None]:
    """The command of `conf/<config_name>.yaml`.

    Args:
        config_name: name of the command.
        task: function of the composed configuration that does the work, as "module:function". Its module is imported
            after the checks, so that `--help`, an unknown setting and a missing file are answered without PyTorch.
        checks: functions that refuse a configuration, written likewise; their modules import no PyTorch.
    """

    def run(config: DictConfig) -> object:
        import_own(config.imports)
        rename_classes(config)
        check_settings(config, config_name)
        OmegaConf.set_readonly(config, True)
        for check in checks:
            resolve_name(check)(config)
        return resolve_name(task)(config)

    def main() -> None:
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises; how an error is shown is decided here
        debug = any(re.fullmatch(r"\+?debug=(true|1)", a, re.IGNORECASE) for a in sys.argv[1:])
        failed: list[Exception] = []
        Sweep.begun.clear()

        def job(config: DictConfig) -> object:
            try:
                return run(config)
            except Exception as error:
                if isinstance(error, MissingFile) and (advice := fetching(config, str(error))):
                    error.add_note(advice)
                if HydraConfig.get().mode == RunMode.MULTIRUN:
                    return _member_failed(error, config_name, debug)  # the others go on
                failed.append(error)
                return None

        job.__module__ = f"lsap.{config_name}"  # what Hydra names the program by
        try:
            if answered(sys.argv[1:], config_name):
                return
            swept = bool({"-m", "--multirun"} & set(sys.argv[1:]))
            sys.argv[1:] = literal(sys.argv[1:], config_name, sweep=swept)
            if swept:
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
        print(f"error: {sweep.summary(failures)}", file=sys.stderr)
        sys.exit(1 if any(each.ours for each in failures.values()) else USER_ERROR)
