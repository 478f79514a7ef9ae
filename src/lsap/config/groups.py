"""What lsap's own YAML offers: the groups of a command, and the settings that one choice of a group brings with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from omegaconf import OmegaConf

from lsap.config.compose import choices, config_dir


def groups(command: str) -> dict[str, list[str]]:
    """Group → its choices, of the groups that a command has."""
    found: dict[str, list[str]] = {}
    for entry in _content(command).get("defaults", []):
        if isinstance(entry, dict):
            found |= {group: choices(group) for group in entry}
        elif "/" not in entry and (config_dir() / f"{entry}.yaml").is_file():
            found |= groups(entry)  # a command whose settings this one has too
    return found


def settings_of(group: str, name: str) -> set[str]:
    """The settings that one of lsap's own choices of a group brings with it, as they are typed."""
    folder, _, name = name[1:].rpartition("/") if name.startswith("/") else (group, "", name)
    if not (config_dir() / folder / f"{name}.yaml").is_file():
        return set()
    content = _content(f"{folder}/{name}")
    own = {key: value for key, value in content.items() if key != "defaults"}
    others = [each for each in content.get("defaults", []) if isinstance(each, str) and each != "_self_"]
    return set(dotted(own)).union(*(settings_of(folder, each) for each in others))


def dotted(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The keys of nested settings, as they are typed."""
    for key, value in settings.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{key}.")


def _content(name: str) -> dict[str, Any]:
    """One of lsap's YAML files, references unresolved."""
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(config_dir() / f"{name}.yaml"), resolve=False))
