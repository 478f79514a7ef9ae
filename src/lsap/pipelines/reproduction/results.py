"""Our numbers of an experiment: gathered over seeds, as a table, and beside the published ones."""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lsap.errors import BadValue, MissingFile
from lsap.pipelines.reproduction.claims import Measured
from lsap.pipelines.reproduction.stages import Experiment

GAIN = "gain"  # column of Table 1: MSE relative to that of the same refinement over the other embedding
DIGITS = 5
LEC = re.compile("^lec/")  # as published it is of a whole set; of single images only the plain mean can be taken


@dataclass(frozen=True)
class Results:
    """Row → column → (mean, standard deviation over seeds or None); `seeds` and `images` that went in."""

    rows: Mapping[str, Mapping[str, tuple[float, float | None]]]
    columns: Sequence[str]
    seeds: int
    images: int

    def csv(self) -> str:
        """One line per row; beside every column, where there are several seeds, its deviation over them."""
        text = io.StringIO()
        deviations = self.seeds > 1
        heads = [head for column in self.columns for head in ([column, f"{column} sd"] if deviations else [column])]
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["row", *heads, "seeds", "images"])
        for name, row in self.rows.items():
            cells: list[str] = []
            for column in self.columns:
                mean, sd = row.get(column, (None, None))
                cells += [_written(mean), _written(sd)] if deviations else [_written(mean)]
            writer.writerow([name, *cells, self.seeds, self.images])
        return text.getvalue()


def values_of(evaluations: Mapping[int, Path], rows: Sequence[str]) -> list[Measured]:
    """All measures of all rows, [seeds, images] each, from the folders of one evaluation per seed.

    Measures of single images come from `images.csv`, those of whole sets from `table.csv`. An image that lacks a
    measure in any seed is left out of that measure's row.

    Raises:
        BadValue: the seeds have not the same images.
    """
    found: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
    names: list[list[str]] = []
    of_images: set[str] = set()
    for path in evaluations.values():
        by_row: dict[str, list[dict[str, str]]] = {row: [] for row in rows}
        for line in _lines(path / "images.csv"):
            if line["method"] in by_row:
                by_row[line["method"]].append(line)
        for row, lines in by_row.items():
            names.append([line["name"] for line in lines])
            for column in lines[0].keys() - {"method", "name"}:
                measure = LEC.sub("lec_mean/", column)
                of_images.add(measure)
                found[row, measure].append(np.array([float(line[column] or "nan") for line in lines]))
        for line in _lines(path / "table.csv"):
            if line["method"] in by_row and line["mean"] and line["measure"] not in of_images:
                found[line["method"], line["measure"]].append(np.array([float(line["mean"])]))
    if any(each != names[0] for each in names[1:]):
        raise BadValue(
            "the runs of this experiment are not of the same images; see that no command changed count or split"
        )
    values = []
    for (row, measure), each in found.items():
        stacked = np.stack(each)
        known = np.isfinite(stacked).all(0)
        if known.any():
            images = [name for name, kept in zip(names[0], known, strict=True) if kept] if measure in of_images else []
            values.append(Measured(row, measure, stacked[:, known], images))
    return values


def measured(values: Sequence[Measured], experiment: Experiment) -> Results:
    """The table of an experiment."""
    rows: dict[str, dict[str, tuple[float, float | None]]] = {}
    seeds = max(len(each.values) for each in values)
    images = max(each.values.shape[1] for each in values)
    for each in values:
        row = rows.setdefault(each.method, {})
        if each.measure in experiment.measures:
            over = each.values.mean(1)
            row[each.measure] = (each.mean, float(over.std(ddof=1)) if len(over) > 1 else None)
    for name, other in experiment.gain.items():
        if name in rows and other in rows and rows[other]["mse"][0] != 0:  # perfect pictures leave no ratio
            rows[name][GAIN] = (rows[name]["mse"][0] / rows[other]["mse"][0] - 1, None)
    columns = [*experiment.measures, *([GAIN] if experiment.gain else [])]
    return Results(rows, columns, seeds, images)


def published(experiment: Experiment) -> dict[str, dict[str, float]]:
    """The paper's numbers, row → column → value, typed from it into `published.csv`; a figure has none.

    Raises:
        MissingFile: an experiment with claims, but without that file.
    """
    path = experiment.folder / "published.csv"
    if not path.is_file() and experiment.figures and not experiment.claims:
        return {}
    if not path.is_file():
        raise MissingFile(f"{path} is missing: the paper's numbers stand there")
    rows = {}
    for line in _lines(path):
        name = " / ".join(line[key] for key in experiment.key)
        rows[name] = {column: float(value) for column, value in line.items() if _is_number(value)}
    return rows


def results_table(ours: Results, paper: Mapping[str, Mapping[str, float]], experiment: Experiment) -> str:
    """Markdown: every cell ours ± deviation over seeds, and the paper's behind it in italics."""
    lines = [
        "| " + " / ".join(experiment.key) + " | " + " | ".join(ours.columns) + " |",
        "|---" * (len(ours.columns) + 1) + "|",
    ]
    for name, row in ours.rows.items():
        cells = []
        for column in ours.columns:
            mean, sd = row.get(column, (None, None))
            own = "–" if mean is None else f"{mean:.4g}" + ("" if sd is None else f" ± {sd:.2g}")
            theirs = paper.get(name, {}).get(column)
            cells.append(own + ("" if theirs is None else f" *({theirs:g})*"))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    note = f"{ours.seeds} seed{'s' * (ours.seeds > 1)}, {ours.images} images"
    note += "; in italics what the paper has on faces." if paper else "."
    return "\n".join(lines) + f"\n\n{note}\n"


def _lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _written(value: float | None) -> str:
    return "" if value is None else f"{value:.{DIGITS}g}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
