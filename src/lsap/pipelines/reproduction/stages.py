"""An experiment's stages: each is a verb and a sweep over its settings, as a command line with `-m` would have it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from lsap.errors import BadValue, MissingFile, nearest

VERBS = ("train", "invert")
FILE = "experiment.yaml"


@dataclass(frozen=True)
class Member:
    """One command of a sweep.

    verb: "train" or "invert".
    settings: what is typed behind it.
    row: of the table that its numbers go into; None where they go nowhere.
    known_as: what settings of the evaluation may call its folder; None where nobody asks for it.
    """

    verb: str
    settings: Mapping[str, Any]
    row: str | None = None
    known_as: str | None = None

    @property
    def seed(self) -> int:
        return int(self.settings.get("seed", 0))

    @property
    def overrides(self) -> list[str]:
        """As Hydra reads them."""
        return [f"{name}={written(value)}" for name, value in self.settings.items()]

    def __str__(self) -> str:
        return " ".join([f"python -m lsap.{self.verb}", *self.overrides])


@dataclass(frozen=True)
class Stage:
    """A verb and its settings; a setting with a list is swept, and all combinations run, the last setting fastest.

    row: names the row of each member: a text with settings in braces, as in "{embedding} + {refinement}".
    known_as: names the folder of each member for settings of the evaluation, in the same way.
    """

    verb: str
    sweep: Mapping[str, Any]
    row: str | None = None
    known_as: str | None = None

    def members(self, more: Mapping[str, Any]) -> Iterator[Member]:
        """Its commands, with further settings for all of them, which win."""
        settings = {**self.sweep, **more}
        choices = [value if isinstance(value, list) else [value] for value in settings.values()]
        for values in itertools.product(*choices):
            typed = dict(zip(settings, values, strict=True))
            yield Member(self.verb, typed, _filled("row", self.row, typed), _filled("known_as", self.known_as, typed))


def _filled(field_name: str, text: str | None, settings: Mapping[str, Any]) -> str | None:
    try:
        return None if text is None else text.format(**settings)
    except KeyError as error:
        raise BadValue(f"{field_name}={text!r} speaks of {error}, which its stage does not set") from error


@dataclass(frozen=True)
class Experiment:
    """What `experiment.yaml` holds.

    folder: where it lies, with published.csv and, after a run, what was found.
    title: as the page has it.
    section: of the paper.
    domains: on which it can run.
    key: columns of published.csv that name a row; rows of ours are called by the same words, joined by " / ".
    measures: columns of the table.
    stages: in order.
    claims: descriptions of `lsap.pipelines.reproduction.Claim`s, by domain where they differ.
    figures: descriptions of `lsap.pipelines.reproduction.figures.Figure`s.
    gain: row → the row whose MSE its own is compared with, for Table 1's Gain column.
    settings: by domain and verb, what every member gets there; of `evaluate`, texts may name folders of members of the
        same seed in braces, as they are `known_as`.
    """

    folder: Path
    title: str
    section: str
    domains: Sequence[str]
    key: Sequence[str]
    measures: Sequence[str]
    stages: Sequence[Stage]
    claims: Sequence[Mapping[str, Any]] = ()
    figures: Sequence[Mapping[str, Any]] = ()
    gain: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)

    def members(self, domain: str, more: Mapping[str, Any]) -> list[Member]:
        """All commands of a domain in order, each once; `more` are settings of all of them.

        Raises:
            BadValue: the experiment does not run on this domain.
        """
        if domain not in self.domains:
            raise BadValue(f"domain={domain}: {self.folder.name} is not for it; {nearest(domain, self.domains)}")
        own = self.settings.get(domain, {})
        given = {"domain": domain, **more}
        return list({str(m): m for s in self.stages for m in s.members({**given, **own.get(s.verb, {})})}.values())


def read_experiment(folder: Path) -> Experiment:
    """The experiment of a folder.

    Raises:
        MissingFile: there is none; the message names those that there are.
        BadValue: its YAML cannot be read, or lacks something, or has too much.
    """
    path = folder / FILE
    if not path.is_file():
        there = sorted(each.parent.name for each in folder.parent.glob(f"*/{FILE}"))
        raise MissingFile(f"experiment={folder.name}: there is no {path}; {nearest(folder.name, there)}")
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
        stages = [
            Stage(each["verb"], each["sweep"], each.get("row"), each.get("known_as")) for each in content.pop("stages")
        ]
        found = Experiment(folder, stages=stages, **content)
    except (YAMLError, OmegaConfBaseException, TypeError, KeyError, AttributeError) as error:
        raise BadValue(f"{path} is not an experiment: {error}") from error
    wrong = [stage.verb for stage in found.stages if stage.verb not in VERBS]
    if wrong:
        raise BadValue(f"{path}: there is no stage {wrong[0]!r}; {nearest(wrong[0], VERBS)}")
    return found


def written(value: Any) -> str:
    """A setting's value in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{written(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    return str(value)
