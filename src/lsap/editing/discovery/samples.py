"""What directions are found on: codes of a generator's own samples, and what is known of their images."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from lsap.checkpoints import Direction
from lsap.errors import BadValue, MissingFile, nearest
from lsap.stylegan2 import StyleGenerator
from lsap.values import expanded


@dataclass(frozen=True)
class Samples:
    """Codes of samples, and labels of their images.

    Attributes:
        w: [N, C].
        generator: fingerprint of the generator whose samples they are.
        labels: name of a direction → [N] label or score of every sample; NaN where it has none.
        attributes: name of a direction → what the labels' reader calls its attribute.
        labelled_by: who labelled them, for the record.
    """

    w: Tensor
    generator: str
    labels: Mapping[str, Tensor] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)
    labelled_by: str = ""

    def labelled(self, name: str) -> tuple[Tensor, Tensor]:
        """Codes [M, C] and labels [M] of the samples that have one, on the CPU."""
        labels = self.labels[name].cpu()
        known = ~labels.isnan()
        return self.w.cpu()[known], labels[known]


class Discovery(Protocol):
    """A method of finding directions.

    supervised: whether it needs labels.
    """

    supervised: bool

    def find(self, generator: StyleGenerator, samples: Samples) -> list[Direction]:
        """Directions, each with its unit and origin.

        Raises:
            BadValue: settings or samples that it cannot work with.
        """
        ...


def existing_labels(path: str | Path) -> Path:
    """The table of labels; raises MissingFile where there is none."""
    path = expanded(path)
    if not path.is_file():
        raise MissingFile(f"labels={path}: there is no such file; make samples to label with draw=500")
    return path


def read_labels(path: str | Path, names: Sequence[str]) -> dict[str, Tensor]:
    """Labels of named samples from a CSV file.

    Args:
        path: its first column, `name`, holds names of samples; every other column is an attribute: 0 and 1, or any
            score that grows with it. An empty cell is no label.
        names: of all samples.

    Returns:
        Attribute → [N], in the order of `names`; NaN where there is no label.

    Raises:
        MissingFile: there is no such file.
        BadValue: no such table, a name that is unknown or occurs twice, or a cell that is no number.
    """
    path = existing_labels(path)
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = [str(column).strip() for column in reader.fieldnames or []]
        if columns[:1] != ["name"] or len(columns) < 2 or len(set(columns)) < len(columns):
            raise BadValue(
                f"labels={path}: its first line must be name,ATTRIBUTE,… with attributes of different names; it is "
                f"{','.join(columns) or 'empty'}"
            )
        reader.fieldnames = columns
        rows = list(reader)
    places = {name: place for place, name in enumerate(names)}
    found = {column: torch.full((len(names),), math.nan) for column in columns[1:]}
    seen: set[str] = set()
    for number, row in enumerate(rows, 2):
        name = (row["name"] or "").strip()
        if name not in places:
            raise BadValue(
                f"labels={path}, line {number}: there is no sample {name!r}; {nearest(name, list(names)[:50])}"
            )
        if name in seen:
            raise BadValue(f"labels={path}, line {number}: sample {name!r} occurs twice")
        seen.add(name)
        for column, labels in found.items():
            text = (row[column] or "").strip()
            if text:
                labels[places[name]] = _number(path, number, column, text)
    return found


def _number(path: Path, line: int, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadValue(f"labels={path}, line {line}: {column} is {text!r}; write a number, such as 0 or 1, or nothing")
    return value
