"""What may be taken from a run folder that somebody else made: numbers, words and lists of them, never a class.

`config.yaml` of a run is data. Classes come from the project's own YAML, and from YAML and command lines of the user.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lsap.config.containers import editable
from lsap.errors import BadValue
from lsap.runs.class_paths import current

LARGEST = 1_000_000  # bytes of a config.yaml
DEEPEST = 32  # levels of one
ENCODERS = frozenset(
    f"lsap.embedding.{name}"
    for name in (
        "IndependentRows", "IterativeEncoder", "IterativeResNetEncoder", "PSPEncoder", "PyramidEncoder",
        "SmallIterativeEncoder", "SmallPSPEncoder", "SmallPyramidEncoder", "StepEncoder", "WEncoder",
    )
)  # fmt: skip
# Settings that are never taken, wherever they stand: what describes, names modules, or joins parts.
NEVER = ("imports", "borrows", "needs", "published", "hydra")
# Parts that only a training, a refinement or the process of the stored run needed, or that are chosen by name.
NOT_OF_AN_ENCODER = (
    "objective", "optimizer", "adversary", "stages", "backbone", "backbones", "trainer", "logger", "refinement",
    "optimisation", "embedding", "domain", "protocol", "preset", "debug", "images", "split", "count", "save_to", "init",
    "checkpoint",
)  # fmt: skip
SHOWN = 80  # characters of a value in a message
NAMED = 4  # settings that a message lists

ESCAPED = re.compile(r"(?<!\\)\\\$\{")  # one backslash before "${": text, not a reference

Key = tuple[str, ...]


# ---- files


def as_stored(config: DictConfig) -> str:
    """The content of a run's `config.yaml`: references resolved, and "${" in the values escaped."""
    return OmegaConf.to_yaml(OmegaConf.create(_escaped(OmegaConf.to_container(config, resolve=True))))


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _escaped(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_escaped(inner) for inner in value]
    return value.replace("${", "\\${") if isinstance(value, str) else value


def read_settings(file: Path) -> dict[str, Any]:
    """The content of a run's `config.yaml`, references unresolved; nothing that it names is looked up.

    Raises:
        BadValue: it is damaged or too large, or uses aliases or tags of YAML, which lsap never writes.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise BadValue(f"{file} has more than {LARGEST} bytes; it is no config.yaml of a run")
        text = data.decode("utf-8")
        _refuse_structure(file, text)
        found = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=False)
    except BadValue:
        raise
    except (OSError, ValueError, AttributeError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise BadValue(f"{file} cannot be read ({' '.join(str(error).split())}); restore it, or delete it") from error
    if not isinstance(found, dict):
        raise BadValue(f"{file} holds no settings; restore it, or delete it")
    return {str(key): value for key, value in found.items()}


def _refuse_structure(file: Path, text: str) -> None:
    """Refuse aliases, tags and deep nesting before any value is built."""
    depth = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            raise BadValue(f"{file} uses YAML aliases (*{event.anchor}), which are not taken from a run folder")
        if getattr(event, "tag", None) is not None:
            raise BadValue(f"{file} uses YAML tags ({event.tag}), which are not taken from a run folder")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise BadValue(f"{file} is nested more than {DEEPEST} levels deep; it is no config.yaml of a run")


def stored_value(stored: Mapping[str, Any], key: str) -> Any:
    """A setting by its dotted key, as it is written; None where there is none."""
    found: Any = stored
    for name in key.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def stored_text(stored: Mapping[str, Any], key: str, source: Path) -> str | None:
    """A stored setting that is text or null.

    Raises:
        BadValue: it is anything else, or holds an interpolation.
    """
    found = stored_value(stored, key)
    if found is None or (isinstance(found, str) and _plain_scalar(found)):
        return found
    raise _refused(source, key, found)


def choice(group: str, name: object, source: Path) -> str:
    """The choice of a config group that a file names, e.g. its domain.

    Raises:
        BadValue: it is not a plain name of letters, digits, `_` and `-`.
    """
    if isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_-]+", name):
        return name
    raise BadValue(f"{source}: {group}={_short(name)} is no name of a {group} (letters, digits, '_' and '-')")


def component(key: str, name: object, source: Path) -> str:
    """The name of a file or folder that a file gives, for a path.

    Raises:
        BadValue: it is not a single name.
    """
    if isinstance(name, str) and name not in ("", ".", "..") and not re.search(r"[/\\\0]", name):
        return name
    raise BadValue(f"{source}: {key}={_short(name)} is no name of a folder")


# ---- settings


def adopt(
    config: DictConfig,
    stored: Mapping[str, Any],
    source: Path,
    keys: Collection[str] | None = None,
    skip: Collection[str] = (),
    typed: Collection[str] = (),
    hint: str = "",
) -> None:
    """Give a composed configuration the values of a run's own `config.yaml`.

    Numbers, words and lists of them are taken for settings that the configuration has; unknown settings are left out. A
    class is never taken, except that `encoders` and `encoder._target_` may name an encoder of `lsap.embedding`.

    Args:
        config: changed in place.
        stored: from `read_settings`.
        source: the file, for messages.
        keys: settings at the root that are taken with all below them; None: all.
        skip: settings at the root that are left out.
        typed: dotted settings that the user gave; they stay as they are, with all below them.
        hint: what else has to be typed where the user names a refused setting again, e.g. "domain=face ".

    Raises:
        BadValue: a stored setting differs from the configuration's and may not be taken. `config` is then not changed.

    Settings that are left out are listed on stderr.
    """
    wanted = {
        key: value
        for key, value in stored.items()
        if (keys is None or key in keys) and key not in skip and key not in NEVER
    }
    before = _resolved(config)
    unknown: list[str] = []
    changes = list(_changes(before, wanted, (), source, frozenset(typed), hint, unknown))
    changed = editable(config)
    for key, value in changes:
        _set(changed, key, value)
    old, new = dict(_classes(before)), dict(_classes(_resolved(changed)))
    for place in sorted(old.keys() | new.keys()):
        if old.get(place) != new.get(place) and not (place == "encoder._target_" and new.get(place) in ENCODERS):
            raise _refused(source, place, new.get(place), old.get(place), hint)
    for key, value in changes:
        _set(config, key, value)
    if unknown:
        listed = ", ".join(map(_short, unknown[:NAMED])) + (", …" if len(unknown) > NAMED else "")
        print(f"{source}: left out, as there are no such settings here: {listed}", file=sys.stderr)


def _changes(
    own: Mapping[str, Any],
    stored: Mapping[str, Any],
    above: Key,
    source: Path,
    typed: frozenset[str],
    hint: str,
    unknown: list[str],
) -> Iterator[tuple[Key, Any]]:
    """The stored values that differ from the composed ones, by key; `unknown` gets the keys that are left out."""
    for raw, value in stored.items():
        name = str(raw)
        key = (*above, name)
        dotted = ".".join(key)
        if name in NEVER or dotted in typed:
            continue
        if name not in own:
            if name.startswith("_") or _names_class(value):
                raise _refused(source, dotted, value, None, f"{hint}+")
            unknown.append(dotted)
            continue
        there = own[name]
        if isinstance(value, Mapping) and isinstance(there, Mapping):
            yield from _changes(there, value, key, source, typed, hint, unknown)
            continue
        is_encoder = dotted == "encoder._target_" or above == ("encoders",)
        if isinstance(value, str) and (is_encoder or name == "_target_"):
            value = current(value)
        if value == there:
            continue
        if not (value in ENCODERS if is_encoder and isinstance(value, str) else _may_replace(name, there, value)):
            raise _refused(source, dotted, value, there, hint)
        yield key, value


def _may_replace(name: str, there: Any, value: Any) -> bool:
    """Whether a stored value may take the place of a composed one."""
    if name.startswith("_") or _is_class(there):
        return False
    listed = there if isinstance(there, list) else [there]
    if not all(map(_scalar, listed)) or not all(map(_plain_scalar, value if isinstance(value, list) else [value])):
        return False
    if value is None or there is None:
        return True
    if isinstance(there, list):
        return isinstance(value, list)
    return isinstance(value, int | float) or not isinstance(there, int | float)


def _scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def _plain_scalar(value: Any) -> bool:
    """Whether a value is a number, truth value or null, or text that OmegaConf does not interpret."""
    return _scalar(value) and not (isinstance(value, str) and ("${" in ESCAPED.sub("", value) or value == "???"))


def _is_class(value: Any) -> bool:
    """Whether a composed value names something importable: YAML may refer to it as the `_target_` of another part."""
    return (
        isinstance(value, str)
        and re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", value) is not None
        and value.partition(".")[0] in sys.modules
    )


def _names_class(value: Any) -> bool:
    """Whether an instruction to build something (`_target_`, `_args_`, …) stands anywhere in a stored value."""
    if isinstance(value, Mapping):
        return any(str(key).startswith("_") or _names_class(inner) for key, inner in value.items())
    return isinstance(value, list) and any(map(_names_class, value))


def _set(config: DictConfig, key: Key, value: Any) -> None:
    """Set what is there already; a part that only refers to another one gets a copy of its own first."""
    node: Any = config
    for name in key[:-1]:
        if OmegaConf.is_interpolation(node, name):
            node[name] = _resolved(node[name])
        node = node[name]
    node[key[-1]] = value


def _resolved(node: Any) -> Any:
    """A configuration as plain containers, references resolved; None for those that cannot be."""
    if isinstance(node, DictConfig):
        return {name: _resolved(_item(node, name)) for name in node}
    if isinstance(node, ListConfig):
        return [_resolved(_item(node, place)) for place in range(len(node))]
    return node


def _item(node: DictConfig | ListConfig, name: Any) -> Any:
    try:
        return node[name]
    except OmegaConfBaseException:
        return None


def _classes(node: Any, above: Sequence[str] = ()) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every `_target_`."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in pairs:
        if name == "_target_":
            yield ".".join((*above, name)), value
        yield from _classes(value, (*above, str(name)))


def _refused(source: Path, key: str, value: Any, there: Any = None, hint: str = "") -> BadValue:
    usual = "" if there is None else f" (here it is {_short(there)})"
    return BadValue(
        f"{source}: {key}={_short(value)}{usual} is not taken from a run folder: classes, references and nested values "
        f"never are. If you trust it, name it again: {hint}{key}=…, or --config-dir=… of the YAML that holds it"
    )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) and value.isprintable() else ascii(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
