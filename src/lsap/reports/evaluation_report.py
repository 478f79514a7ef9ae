"""The page of an evaluation: table, pictures of all methods, fidelity against editability, best and worst images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lsap.evaluation.columns import NOTHING, Measure, capitalized, number
from lsap.evaluation.ranks import EVERY, IMAGES, Correlation
from lsap.evaluation.tables import ResultsTable
from lsap.reports import charts
from lsap.reports.page import (
    Block,
    Entry,
    Facts,
    Figure,
    Gallery,
    Points,
    Section,
    SideBySide,
    Source,
    Table,
    Text,
    write_report,
)
from lsap.reports.pictures import Column
from lsap.reports.run_reports import HOW_TO_READ, row_title

SYNTHETIC, THEMSELVES = row_title("synthetic"), "The images themselves"
EDITABILITY = {  # measures of editability, mean over edits: key → title of the axis
    "excess": "excess leakage of edits  (← cleaner)",
    "leakage": "leakage of edits  (← cleaner)",
    "lec_mean": "LEC, plain mean  (← more consistent)",
    "identity": "identity under edit  (more like the image →)",
    "nscd": "NSCD  (← nearer to the generator’s mean style)",
}
EQUAL = {"Equal effect": "Strengths are set so that every method changes the attribute equally (section 5.1)."}
EDIT_METRICS = {
    "Leakage": "The change of all other attributes. If the factors of the images are known, `excess` is the leakage "
    "beyond that of the true picture with only this factor changed.",
    "LEC": "Distance in W+ between a code and the code after the edit is rendered, embedded again and reversed: first "
    "with the published rule about batches, then as a plain mean. It requires an encoder; other cells are empty.",
}
CORRELATION = (
    "Spearman’s rank correlation, over images, between a property of the code before the edit and the result of the "
    "edit. A good predictor is near 1 in every column. Brackets give the 95 % bootstrap interval over images. "
    f"`{EVERY}`: all images of all methods pooled; `{IMAGES}`: the order of the methods on each image."
)


@dataclass(frozen=True)
class Shown:
    """Pictures of one method on the page.

    Attributes:
        pictures: [N, 3, H, W], inversions of the first images.
        edits: name of the edit → [N, 3, H, W], the same images edited.
        best, worst: (names, images, pictures) of those with the lowest and highest error.
    """

    pictures: Tensor
    edits: Mapping[str, Tensor] = field(default_factory=dict)
    best: tuple[Sequence[str], Tensor, Tensor] | None = None
    worst: tuple[Sequence[str], Tensor, Tensor] | None = None


def side_by_side(inputs: Tensor, shown: Mapping[str, Shown]) -> list[Column]:
    """Columns of pictures: the images [N, 3, H, W], then inversion and edits of every method."""
    columns = [Column("input", inputs)]
    for method, each in shown.items():
        columns.append(Column("inversion", each.pictures, method))
        columns += [Column(edit, pictures, method) for edit, pictures in each.edits.items()]
    return columns


def evaluation_report(
    path: Path,
    table: ResultsTable,
    edits: Sequence[str],
    images: tuple[Sequence[str], Tensor],
    shown: Mapping[str, Shown],
    correlations: Sequence[Correlation],
    facts: Mapping[str, Any],
    notes: Sequence[str],
    labels: Mapping[str, str],
) -> Path:
    """Write the page.

    Args:
        path: of the file.
        table: the results.
        edits: names of the edits.
        images: names and images [N, 3, H, W] of the pictures.
        shown: method → its pictures.
        correlations: of predictors with the results of edits.
        facts: settings and provenance.
        notes: what was not measured, and why.
        labels: key of a predictor or target → its label.
    """
    names, inputs = images
    extremes = []
    for method, each in shown.items():
        for label, part in (("best", each.best), ("worst", each.worst)):
            if part is not None:
                pair = [Column("input", part[1], method), Column(label, part[2], method)]
                extremes.append(Gallery(pair, f"{method}: {label} by MSE.", part[0]))
    tradeoffs = _tradeoffs(table, edits)
    sections = [
        Section("Numbers", _numbers(table, facts.get("edits", {}), edits, notes)),
        Section("Pictures", [Gallery(side_by_side(inputs, shown), "The first images, every method.", names)]),
        Section("Fidelity against editability", [SideBySide(tradeoffs, least="24rem")] if tradeoffs else []),
        Section("What predicts editability", _correlations(correlations, labels)),
        Section("Best and worst", [SideBySide(extremes, least="16rem")] if extremes else []),
        Section("How it was made", [Facts(facts)]),
    ]
    count = sum(name not in table.kinds for name in table.rows)
    lead = f"{count} {'method' if count == 1 else 'methods'} on the same {facts['images compared']} images."
    return write_report(
        path, f"Evaluation under {facts['protocol']}", [each for each in sections if each.blocks], lead=lead
    )


def _numbers(
    table: ResultsTable, settings: Mapping[str, str], edits: Sequence[str], notes: Sequence[str]
) -> list[Block]:
    """The tables of inversions and of every edit; `settings`: edit → its strength, up to a semicolon, and origin."""
    entries = [Entry(name, row, table.kinds.get(name, "method")) for name, row in table.means().items()]
    inversion = [measure for measure in table.shown if "/" not in measure.key]
    blocks: list[Block] = [Table(inversion, entries, "Means over images; the best method is bold.", "Method")]
    blocks.append(HOW_TO_READ)
    for edit in edits:  # its name stands in the corner of its table instead of in every column
        columns = [
            replace(measure, label=capitalized(measure.label.removeprefix(f"{edit}: ")))
            for measure in table.shown
            if measure.key.partition("/")[2] == edit
        ]
        edited = [
            entry
            for entry in entries
            if entry.kind == "method" and any(entry.values.get(column.key) is not None for column in columns)
        ]
        if columns:
            caption = f"{edit}: {settings.get(edit, NOTHING).partition(';')[0]}."
            blocks.append(Table(columns, edited, caption, capitalized(edit)))
    if len(inversion) < len(table.shown):
        equal = any(", effect, " in each for each in settings.values())
        blocks.append(Points(EQUAL | EDIT_METRICS if equal else EDIT_METRICS))
    if notes:
        blocks.append(Text(f"Not measured: {'; '.join(notes)}."))
    blocks.append(Source("Standard deviations and 95 % intervals", table.markdown()))
    return blocks


def _tradeoffs(table: ResultsTable, edits: Sequence[str]) -> list[Block]:
    """MSE over each measure of editability; leakage is omitted if excess leakage is known."""
    means = {name: row for name, row in table.means().items() if name not in table.kinds and row.get("mse") is not None}
    figures: dict[str, Block] = {}
    for key, axis in EDITABILITY.items():
        keys = [key] if key == "nscd" else [f"{key}/{edit}" for edit in edits]
        known = {name: [row[each] for each in keys if row.get(each) is not None] for name, row in means.items()}
        points = {name: (sum(each) / len(each), means[name]["mse"]) for name, each in known.items() if each}
        if points and not (key == "leakage" and "excess" in figures):
            text = "; ".join(f"{name}: {number(x)}, MSE {number(y)}" for name, (x, y) in points.items())
            chart = charts.scatter(points, axis, "MSE  (↓ truer to the image)")
            figures[key] = Figure(chart, f"MSE over {axis}. {text}.")
    return list(figures.values())


def _correlations(correlations: Sequence[Correlation], labels: Mapping[str, str]) -> list[Block]:
    """One table per target, predictors in rows, scopes in columns; nothing without correlations."""
    blocks: list[Block] = [Text(CORRELATION)] if correlations else []
    for target in dict.fromkeys(each.target for each in correlations):
        rows: dict[str, dict[str, str]] = {}
        of_target = [each for each in correlations if each.target == target]
        for each in of_target:
            text = f"{each.rho:.2f} [{each.low:.2f}, {each.high:.2f}]".replace("-", "−")
            rows.setdefault(each.predictor, {})[each.scope] = text
        scopes = [Measure(scope, scope) for scope in dict.fromkeys(each.scope for each in of_target)]
        entries = [Entry(labels.get(predictor, predictor), row) for predictor, row in rows.items()]
        caption = f"Rank correlation with {labels.get(target, target)}; n = {of_target[0].n} images."
        blocks.append(Table(scopes, entries, caption, "Predictor"))
    return blocks
