"""What a command says of itself: usage and examples, the version, and how settings are typed."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from lsap.config.compose import config_dir
from lsap.config.groups import groups
from lsap.errors import BadValue

# Hydra's options.
OPTIONS = (
    *("--help", "--hydra-help", "--version", "--run", "--multirun", "--shell-completion", "--resolve", "--info"),
    *("--experimental-rerun", "--cfg", "--package", "--config-path", "--config-name", "--config-dir"),
)


def description(command: str) -> str:
    """What a command does: the first sentence of its module's docstring."""
    source = (Path(__file__).parents[1] / f"{command}.py").read_text(encoding="utf-8")
    first = (ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].replace("\n", " ")
    return first.partition("`: ")[2].removesuffix(".")


def examples(command: str) -> list[str]:
    """The command lines in the head of `conf/<command>.yaml`."""
    text = (config_dir() / f"{command}.yaml").read_text(encoding="utf-8")
    return re.findall(rf"^# (python -m lsap\.{command}\b.*?)(?:: .*)?$", text, re.MULTILINE)


def usage(command: str) -> str:
    """The head of `--help`; Hydra prints the settings below it."""
    listed = "\n".join(f"  {line}" for line in examples(command))
    listed_groups = "".join(f"\n  {group}={' | '.join(names)}" for group, names in groups(command).items())
    what = description(command)
    what = f"{what[:1].upper()}{what[1:]}."
    return (
        f"usage: python -m lsap.{command} [setting=value …] [-m] [--cfg job [--resolve]] [--config-dir=FOLDER]\n\n"
        f"{what[:1].upper()}{what[1:]}.\n\nexamples:\n{listed}\n"
        + (f"\nchoices:{listed_groups}\n" if listed_groups else "")
    )


def commands() -> dict[str, str]:
    """Name → what it does, of every command."""
    return {path.stem: description(path.stem) for path in sorted(config_dir().glob("*.yaml"))}


def overview() -> str:
    """All commands, a line each."""
    listed = commands()
    width = max(map(len, listed))
    lines = "\n".join(f"  {name:{width}}  {what}" for name, what in listed.items())
    return (
        f"usage: python -m lsap.<command> [setting=value …]\n\n{lines}\n\n"
        "python -m lsap.<command> --help prints examples and every setting; docs/ explains the commands"
    )


def answered(arguments: Sequence[str], command: str | None) -> bool:
    """Print the version or the head of the help where they are asked for; whether that is all there is to do.

    Args:
        arguments: as typed.
        command: "train", …; None: `python -m lsap` itself.

    Raises:
        BadValue: an option that does not exist, such as a setting that was typed as one.
    """
    if "--version" in arguments:
        print(f"lsap {version('lsap')}")
        return True
    if command is None:
        print(overview())
        return True
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if re.fullmatch(r"--\w[\w.-]*", name) and not any(option.startswith(name) for option in OPTIONS):
            following = arguments[place + 1 : place + 2]
            typed = (
                value if equals else next((one for one in following if not one.startswith("-") and "=" not in one), "…")
            )
            raise BadValue(
                f"{argument}: settings are typed without dashes, as {name[2:].replace('-', '_')}={typed} "
                f"(python -m lsap.{command} --help lists them)"
            )
    if {"--help", "-h"} & set(arguments):
        print(usage(command))
    return False
