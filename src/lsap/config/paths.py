"""Settings that are paths are taken literally: `images=photos (1)` needs no quotes but the shell's.

The rule (docs/configuration.md): the whole text behind `=` is the path, without interpolation; a leading `~` is the
home folder, as in a shell, and `null` is no path. In a list of paths, `runs=[a,b]` or `runs={name: a}`, and in a sweep,
`-m images=a,b`, commas separate values; a value in quotes of its own is one path, whatever it holds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from lsap.config.settings import kind_of
from lsap.errors import BadValue

ARGUMENT = re.compile(r"([+]{0,2})(\w[\w./@-]*)=(.*)", re.DOTALL)  # neither deletions (~key) nor options (--name)
SWEEP = re.compile(r"(choice|glob|range|interval|shuffle|sort|tag)\(.*\)", re.DOTALL)  # functions of Hydra
OWN_QUOTES = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\"""", re.DOTALL)


def literal(arguments: Iterable[str], command: str, *, sweep: bool = False) -> list[str]:
    """Arguments of the command line as Hydra's grammar must read them, the paths in them quoted.

    Args:
        arguments: as typed, `key=value`; anything else comes back as it is, and so does what is quoted already.
        command: whose settings they are, as "train".
        sweep: whether commas separate the values of a sweep.

    Raises:
        BadValue: a quote is not closed.

    Example:
        >>> literal(["images=photos (1)", "lambda_nscd=0.5"], "invert")
        ["images='photos (1)'", 'lambda_nscd=0.5']
        >>> literal(["runs=[a=1,'b,c']"], "evaluate")
        ["runs=['a=1','b,c']"]
    """
    return [_literal(argument, command, sweep) for argument in arguments]


def _literal(argument: str, command: str, sweep: bool) -> str:
    found = ARGUMENT.fullmatch(argument)
    if found is None:
        return argument
    plus, key, value = found.groups()
    kind = kind_of(key, command)
    if kind is None or not kind.is_path:
        plain_text = "=" in value and not re.search(r"[\[\](){}'\"]", value)
        return f"{plus}{key}='{value}'" if plain_text else argument
    if sweep and SWEEP.fullmatch(value):
        return argument
    parts = _split(value, argument, nested=kind.several) if sweep else [value]
    return f"{plus}{key}={','.join(_value(part, argument, kind.several) for part in parts)}"


def _value(text: str, argument: str, several: bool) -> str:
    """One value: a path, null, or a list of paths where the setting takes several."""
    if text == "null" or not text:
        return text
    if several and re.fullmatch(r"\[.*\]|\{.*\}", text, re.DOTALL):
        items = [item.strip() for item in _split(text[1:-1], argument) if item.strip()]
        if text[0] == "[":
            return f"[{','.join(map(_quoted, items))}]"
        pairs = [item.partition(":") for item in items]
        return "{" + ",".join(f"{name.strip()}: {_quoted(path.strip())}" for name, _, path in pairs) + "}"
    return _quoted(text)


def _quoted(text: str) -> str:
    """A path in quotes that keep it as it is; quotes of the user's own around the whole are taken off first.

    Hydra reads backslashes as escapes only before a quote and at the end.
    """
    own = OWN_QUOTES.fullmatch(text)
    if own is not None:
        inner = own[1] if own[1] is not None else own[2]
        text = re.sub(r"(\\+)(['\"]|$)", lambda found: found[1][: len(found[1]) // 2] + found[2], inner)
    text = re.sub(r"(?<!\\)\$\{", r"\\${", os.path.expanduser(text))
    text = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return "'" + re.sub(r"(\\+)$", r"\1\1", text) + "'"


def _split(text: str, argument: str, nested: bool = True) -> list[str]:
    """The parts of a list at its commas, outside of quotes and, where lists may be nested, of brackets."""
    parts, depth, quote = [""], 0, ""
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote and text[place - 1] != "\\" else quote
        elif letter in "'\"" and not parts[-1].rpartition(":")[2].strip("[{ "):
            quote = letter
        elif nested and letter in "[{":
            depth += 1
        elif nested and letter in "]}":
            depth -= 1
        elif letter == "," and depth <= 0:
            parts.append("")
            continue
        parts[-1] += letter
    if quote:
        raise BadValue(f"{argument}: a quote ({quote}) is not closed")
    return parts
