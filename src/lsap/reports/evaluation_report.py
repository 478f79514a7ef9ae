"""The page of an evaluation: table, pictures of all methods, fidelity against editability, best and worst images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lsap.evaluation.columns import NOTHING, Measure, number
from lsap.evaluation.ranks import EVERY, IMAGES, Correlation
from lsap.evaluation.tables import Standings
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
from lsap.reports.run_reports import HOW_TO_READ

SYNTHETIC, THEMSELVES = "Generator’s own samples", "The images themselves"
ALONG = {  # what may stand for editability, mean over edits: key → title of the axis
    "excess": "leakage that is the edit’s fault  (← cleaner)",
    "leakage": "leakage of edits  (← cleaner)",
    "lec_mean": "LEC, plain mean  (← more consistent)",
    "identity": "identity under edit  (more like the image →)",
    "nscd": "NSCD  (← nearer to the generator’s mean style)",
}
EQUAL = ("Equal effect", "Every method is edited so strongly that the attribute changes alike (section 5.1).")
READ = [
    (
        "Leakage",
        "How much all other attributes changed meanwhile. Where the images’ factors are known, `excess` is the "
        "part that is the edit’s fault: what the true picture with one factor moved shows is taken off.",
    ),
    (
        "LEC",
        "Distance in W+ after an edit was drawn, embedded again and taken back; first as published, with its rule "
        "about batches, then the plain mean. Only encoders can embed again; elsewhere it is blank.",
    ),
]


@dataclass(frozen=True)
class Shown:
    """Pictures of one method for its part of the page.

    Attributes:
        pictures: [N, 3, H, W] of the first images.
        edits: name of the edit → [N, 3, H, W] of the same.
        best, worst: (names, images, pictures) of those with the lowest and highest error.
    """

    pictures: Tensor
    edits: Mapping[str, Tensor] = field(default_factory=dict)
    best: tuple[Sequence[str], Tensor, Tensor] | None = None
    worst: tuple[Sequence[str], Tensor, Tensor] | None = None


def side_by_side(inputs: Tensor, shown: Mapping[str, Shown]) -> list[Column]:
    """The picture of an evaluation: the images [N, 3, H, W], then inversion and edits of every method."""
    found = [Column("input", inputs)]
    for method, one in shown.items():
        found.append(Column("inversion", one.pictures, method))
        found += [Column(edit, drawn, method) for edit, drawn in one.edits.items()]
    return found


def measures(labels: Mapping[str, str], edits: Sequence[str]) -> list[Measure]:
    """The columns of the table.

    Args:
        labels: what judges are called, by the key of their column.
        edits: names of the edits.
    """
    called = {key: _upper(label) for key, label in labels.items()}
    columns = [
        Measure("mse", "MSE", "on [−1, 1]", "lower"),
        Measure("psnr", "PSNR", "dB, peak² 4", "higher"),
        Measure("lpips", called.get("lpips", "LPIPS"), "distance", "lower"),
        Measure("identity", called.get("identity", "Identity"), "cosine", "higher"),
        Measure("fid", called.get("fid", "FID"), "distance", "lower"),
        Measure("nscd", "NSCD", "1 − cosine", "lower"),
        Measure("nscd_raw", "Raw NSCD", "Eq. 12", "lower"),
        Measure("diversity", "Code diversity", "1 − ‖mean‖²"),
        Measure("factor_error", "Factor error", "σ of factors", "lower"),
        Measure("seconds", "Time", "s per image, as run", "lower"),
    ]
    for edit in edits:
        columns += [
            Measure(f"strength/{edit}", f"{edit}: strength", "of the direction"),
            Measure(f"effect/{edit}", f"{edit}: effect", "of the reader"),
            Measure(f"leakage/{edit}", f"{edit}: leakage", "of the reader", "lower"),
            Measure(f"excess/{edit}", f"{edit}: excess", "σ of factors", "lower"),
            Measure(f"distance/{edit}", f"{edit}: error", "MSE to the true edit", "lower"),
            Measure(f"identity/{edit}", f"{edit}: identity", "cosine to the image", "higher"),
            Measure(f"lec/{edit}", f"{edit}: LEC (published rule)", "in W+", "lower"),
            Measure(f"lec_mean/{edit}", f"{edit}: LEC (plain mean)", "in W+", "lower"),
        ]
    return columns


def evaluation_report(
    path: Path,
    standings: Standings,
    edits: Sequence[str],
    images: tuple[Sequence[str], Tensor],
    shown: Mapping[str, Shown],
    correlations: Sequence[Correlation],
    facts: Mapping[str, Any],
    notes: Sequence[str],
    called: Mapping[str, str],
) -> Path:
    """Write the page.

    Args:
        path: of the file.
        standings: the table.
        edits: names of the edits.
        images: names and images [N, 3, H, W] of the picture.
        shown: method → its pictures.
        correlations: of predictors with what edits did.
        facts: how it was made.
        notes: what was not measured, and why.
        called: key of a predictor or target → what to call it.
    """
    sections = [Section("Numbers", _numbers(standings, facts.get("edits", {}), edits, notes))]
    names, inputs = images
    sections.append(
        Section("Pictures", [Gallery(side_by_side(inputs, shown), "The first images, every method.", names)])
    )
    if figures := _tradeoffs(standings, edits):
        sections.append(Section("Fidelity against editability", [SideBySide(figures, least="24rem")]))
    if correlations:
        sections.append(Section("What predicts editability", _ranks(correlations, called)))
    extremes: list[Block] = []
    for method, found in shown.items():
        for title, part in (("best", found.best), ("worst", found.worst)):
            if part is not None:
                pair = [Column("input", part[1], method), Column(title, part[2], method)]
                extremes.append(Gallery(pair, f"{method}: {title} by MSE.", part[0]))
    if extremes:
        sections.append(Section("Best and worst", [SideBySide(extremes, least="16rem")]))
    sections.append(Section("How it was made", [Facts(facts)]))
    methods = [name for name in standings.rows if name not in standings.kinds]
    lead = (
        f"{len(methods)} {'method' if len(methods) == 1 else 'methods'} on the same {facts['images compared']} images."
    )
    return write_report(path, f"Evaluation under {facts['protocol']}", sections, lead=lead)


def _numbers(standings: Standings, ways: Mapping[str, str], edits: Sequence[str], notes: Sequence[str]) -> list[Block]:
    """The tables; `ways`: edit → how strongly it is made, up to a semicolon."""
    means = standings.means()
    entries = [Entry(name, means[name], standings.kinds.get(name, "method")) for name in standings.rows]
    of_edits = [m for m in standings.shown if "/" in m.key]
    first = [m for m in standings.shown if "/" not in m.key]
    blocks: list[Block] = [Table(first, entries, "Means over images; the best method is bold.", "Method"), HOW_TO_READ]
    rivals = [entry for entry in entries if entry.kind == "method"]
    for edit in edits:
        columns = [m for m in of_edits if m.key.split("/", 1)[1] == edit]
        if columns:  # the edit stands above its columns once, not in each
            named = [replace(m, label=_upper(m.label.removeprefix(f"{edit}: "))) for m in columns]
            edited = [entry for entry in rivals if any(entry.values.get(m.key) is not None for m in columns)]
            blocks.append(Table(named, edited, f"{edit}: {ways.get(edit, NOTHING).partition(';')[0]}.", _upper(edit)))
    if of_edits:
        equal = any(", effect, " in way for way in ways.values())
        blocks.append(Points([EQUAL, *READ] if equal else READ))
    if notes:
        blocks.append(Text(f"Not measured: {'; '.join(notes)}."))
    blocks.append(Source("Standard deviations and 95 % intervals", standings.markdown()))
    return blocks


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _tradeoffs(standings: Standings, edits: Sequence[str]) -> list[Block]:
    """MSE over whatever was measured of editability."""
    means = {n: row for n, row in standings.means().items() if n not in standings.kinds}
    figures: list[Block] = []
    for key, axis in ALONG.items():
        points: dict[str, tuple[float, float]] = {}
        for name, row in means.items():
            keys = [key] if key == "nscd" else [f"{key}/{edit}" for edit in edits]
            values = [row[k] for k in keys if row.get(k) is not None]
            if values and row.get("mse") is not None:
                points[name] = (sum(values) / len(values), row["mse"])
        if key == "leakage" and figures:
            continue  # what edits leak by fault is shown already
        if points:
            told = "; ".join(f"{name}: {number(x)}, MSE {number(y)}" for name, (x, y) in points.items())
            chart = charts.scatter(points, axis, "MSE  (↓ truer to the image)")
            figures.append(Figure(chart, f"MSE over {axis}. {told}."))
    return figures


def _ranks(correlations: Sequence[Correlation], called: Mapping[str, str]) -> list[Block]:
    """Spearman's correlations: one table per target, predictors in rows, scopes in columns."""
    blocks: list[Block] = [
        Text(
            "Spearman’s rank correlation of what is known of a code before any edit with what the edit then did, image "
            "by image. A good predictor is near 1 in every column. In brackets the 95 % bootstrap interval; images are "
            f"drawn. `{EVERY}`: all images of all methods as one set; `{IMAGES}`: the order of the methods on each."
        )
    ]
    for target in dict.fromkeys(one.target for one in correlations):
        mine = [one for one in correlations if one.target == target]
        scopes = list(dict.fromkeys(one.scope for one in mine))
        entries = []
        for predictor in dict.fromkeys(one.predictor for one in mine):
            told = {
                c.scope: f"{c.rho:.2f} [{c.low:.2f}, {c.high:.2f}]".replace("-", "−")
                for c in mine
                if c.predictor == predictor
            }
            entries.append(Entry(called.get(predictor, predictor), told))
        caption = f"Rank correlation with {called.get(target, target)}; n = {mine[0].n} images."
        blocks.append(Table([Measure(scope, scope) for scope in scopes], entries, caption, "Predictor"))
    return blocks
