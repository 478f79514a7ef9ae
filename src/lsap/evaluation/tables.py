"""From numbers of single images to a table: mean, standard deviation, bootstrap interval, n; as CSV, Markdown, JSON."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from lsap.evaluation.columns import NOTHING, Measure, column, number
from lsap.seeds import derive

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Summary:
    """What a set of images came to in one measure.

    Attributes:
        mean: over images that have a value.
        std: standard deviation over them, of a sample (n - 1); None for fewer than two, or where the measure is of the
            set and not of images.
        low, high: 95 % percentile-bootstrap interval of the mean; None where `std` is.
        n: images that have a value.
    """

    mean: float
    std: float | None
    low: float | None
    high: float | None
    n: int


def summary(values: Sequence[float | None], seed: int = 0) -> Summary | None:
    """Of one value per image; None and NaN take no part. None where no image has a value."""
    known = np.array([v for v in values if v is not None and not math.isnan(v)], dtype=np.float64)
    if not len(known):
        return None
    if len(known) < 2:
        return Summary(_digits(known.mean()), None, None, None, len(known))
    means = known[resamples(len(known), seed)].mean(1)
    low, high = interval(means)
    return Summary(_digits(known.mean()), _digits(known.std(ddof=1)), low, high, len(known))


def of_the_set(value: float | None, n: int) -> Summary | None:
    """A value that belongs to a whole set of n images, such as FID."""
    return None if value is None else Summary(_digits(value), None, None, None, n)


def resamples(n: int, seed: int = 0, count: int = RESAMPLES) -> np.ndarray:
    """Which of n images each bootstrap sample takes, [count, n]; the same for equal n and seed."""
    return np.random.default_rng(derive(seed, "bootstrap", n)).integers(0, n, (count, n))


def interval(values: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of a statistic's bootstrap values; those that are not finite take no part."""
    known = values[np.isfinite(values)]
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return _digits(low), _digits(high)


@dataclass(frozen=True)
class ResultsTable:
    """The table of an evaluation: methods in rows, measures in columns.

    Attributes:
        measures: in the order of the columns; those without any value are left out.
        rows: name of the method → key of the measure → `Summary`.
        kinds: name → "reference" for rows that do not compete.
    """

    measures: Sequence[Measure]
    rows: Mapping[str, Mapping[str, Summary | None]]
    kinds: Mapping[str, Literal["reference"]]

    @property
    def shown(self) -> list[Measure]:
        """The measures that somebody has a value of."""
        return [m for m in self.measures if any(row.get(m.key) is not None for row in self.rows.values())]

    def json(self) -> dict[str, Any]:
        """Plain values: method → measure → mean, std, low, high, n; None where there is none."""
        return {
            name: {m.key: None if (found := row.get(m.key)) is None else asdict(found) for m in self.shown}
            for name, row in self.rows.items()
        }

    def csv(self) -> str:
        """One line per method and measure, blank where there is no value."""
        lines = []
        for name, row in self.rows.items():
            for measure in self.shown:
                found = row.get(measure.key)
                values = asdict(found) if found is not None else {"n": 0}
                lines.append({"method": name, "measure": measure.key, "label": measure.label, **values})
        return written(["method", "measure", "label", "mean", "std", "low", "high", "n"], lines)

    def markdown(self) -> str:
        """A table whose cells are `mean ± std [low, high]`; arrows point to the better direction."""
        arrows = {"lower": " ↓", "higher": " ↑", None: ""}
        lines = [
            "| | " + " | ".join(f"{m.label}{arrows[m.better]}" for m in self.shown) + " |",
            "|---" * (len(self.shown) + 1) + "|",
        ]
        for name, row in self.rows.items():
            cells = [_cell(row.get(m.key)) for m in self.shown]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        counts = sorted(
            {s.n for row in self.rows.values() for s in row.values() if s is not None and s.std is not None}
        )
        count = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}" if counts else "0"
        note = "mean ± standard deviation over images [95 % bootstrap interval of the mean]"
        return "\n".join(lines) + f"\n\nn = {count} images; {note}.\n"

    def means(self) -> dict[str, dict[str, Any]]:
        """Method → measure → mean alone."""
        return {
            name: {m.key: None if (found := row.get(m.key)) is None else found.mean for m in self.shown}
            for name, row in self.rows.items()
        }


def written(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV text, what a row lacks left blank."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _cell(found: Summary | None) -> str:
    if found is None:
        return NOTHING
    if found.std is None or found.low is None or found.high is None:
        return number(found.mean)
    mean, std, low, high = column([found.mean, found.std, found.low, found.high], [found.mean])
    return f"{mean} ± {std} [{low}, {high}]"


def _digits(value: float) -> float:
    """Seven digits, all that single precision holds."""
    return float(f"{float(value):.7g}")
