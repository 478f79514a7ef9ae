"""The two pages that people read: what one training run came to, and what alignment changes.

Both are composed of the parts in `page`. Rows of numbers are those of `fidelity.evaluate`, by name: `mean_latent`,
`synthetic`, and one per encoder, `lambda_0`, `lambda_0.5`, ….
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lsap.errors import BadValue, MissingFile
from lsap.evaluation.columns import Measure, column, number
from lsap.reports import charts
from lsap.reports.page import (
    Block,
    Entry,
    Facts,
    Figure,
    Gallery,
    Numbers,
    Points,
    Section,
    SideBySide,
    Source,
    Table,
    Text,
    write_report,
)
from lsap.reports.pictures import Column
from lsap.runs import read_json

__all__ = ["comparison_report", "duration", "fidelity_table", "training_report", "write_report"]

Row = Mapping[str, Any]
TERMS = {
    "l2": "L2",
    "lpips": "LPIPS",
    "id": "identity loss",
    "identity": "identity loss",
    "delta": "delta size",
    "nscd": "alignment (NSCD)",
    "mse": "MSE",
    "loss": "sum of all terms",
    "total": "sum of all terms",
}
HOW_TO_READ = Points(
    [
        (
            "NSCD",
            "The cosine distance between a code’s normalised styles and their mean over the generator’s own samples "
            "(LSAP, Eq. 12). It is 0 along the mean; the samples’ own value is the reference.",
        ),
        (
            "Below the samples",
            "There a code is nearer to the mean than a typical sample, as truncation brings it. It is a collapse only "
            "if code diversity (the spread of unit styles) has fallen and the error has risen with it.",
        ),
        (
            "Raw NSCD",
            "The same with the mean’s length kept, as Eq. 12 prints it. Only this column may stand beside published "
            "values.",
        ),
    ]
)


def measures(labels: Mapping[str, str] | None = None) -> list[Measure]:
    """The columns of a table of inversions; `labels` renames the judges' ones, as `fidelity.labels` gives them."""
    called = {key: label[:1].upper() + label[1:] for key, label in (labels or {}).items()}
    return [
        Measure("mse", "MSE", "on [−1, 1]", "lower"),
        Measure("lpips", called.get("lpips", "LPIPS"), "distance", "lower"),
        Measure("identity", called.get("identity", "Identity"), "cosine", "higher"),
        Measure("nscd", "NSCD", "1 − cosine", "lower"),
        Measure("nscd_raw", "Raw NSCD", "Eq. 12", "lower"),
        Measure("diversity", "Code diversity", "1 − ‖mean‖²"),
        Measure("n", "Number", "images or samples"),
    ]


def fidelity_table(rows: Mapping[str, Row], caption: str, *, labels: Mapping[str, str] | None = None) -> Table:
    """Rows of `fidelity.evaluate` as a table; `mean_latent` does not compete, `synthetic` is the reference."""
    entries = [Entry(row_title(name), row, _kind(name)) for name, row in rows.items()]
    rivals = sum(entry.kind == "method" for entry in entries)
    legend = "Arrows point to the better direction" + ("; the best encoder is bold." if rivals > 1 else ".")
    return Table(measures(labels), entries, f"{caption} {legend}", "Codes")


def row_title(name: str) -> str:
    """What a reader calls a row: "lambda_0.5" → "λ = 0.5"."""
    if name.startswith("lambda_"):
        return f"λ = {name.removeprefix('lambda_')}"
    return {"mean_latent": "Mean latent", "synthetic": "Generator’s own samples"}.get(name, name)


def comparison_report(
    path: Path,
    rows: Mapping[str, Row],
    columns: Sequence[Column],
    *,
    logs: Mapping[str, Path] | None = None,
    labels: Mapping[str, str] | None = None,
    seconds: float | None = None,
    edits: Sequence[str] = ("pose", "smile"),
    provenance: Mapping[str, Any] | None = None,
    extra: Sequence[Section] = (),
) -> Path:
    """Write the page that sets encoders trained without and with alignment side by side.

    Args:
        path: of the page, `outputs/demo/report.html` in the demo.
        rows: `mean_latent`, `synthetic` and one `lambda_…` per encoder, the unaligned one first, the most aligned last.
        columns: the pictures: the inputs, and per encoder (its group, "λ = 0") the reconstruction and each edit.
        logs: label of the encoder → its `metrics.csv`.
        labels: names of the judges' columns, from `fidelity.labels`.
        seconds: what the whole demo took.
        edits: the edits that the columns show, for the text.
        provenance: commands, versions, seeds, fingerprints: whatever lets another person repeat it.
        extra: further sections, put before the provenance.

    Raises:
        BadValue: fewer than two encoders.
    """
    encoders = [name for name in rows if name.startswith("lambda_")]
    if len(encoders) < 2:
        raise BadValue(
            f"a comparison needs two encoders, rows named lambda_0, lambda_0.5, …; got {', '.join(rows) or 'none'}"
        )
    without, aligned = encoders[0], encoders[-1]
    titles = f"{row_title(without)} and {row_title(aligned)}"
    sections = [
        Section("", [_headline(rows, without, aligned, seconds)]),
        Section("Look", [Gallery(columns, _gallery_caption(edits)), Points(_what_to_see(edits))]),
        Section("Numbers", [
            fidelity_table(rows, "Held-out images.", labels=labels),
            Text(_in_words(rows, without, aligned)),
            HOW_TO_READ,
        ]),
        Section("Charts", _comparison_charts(rows, encoders, logs)),
        *extra,
    ]  # fmt: skip
    if provenance:
        sections.append(Section("How it was made", [Facts(provenance)]))
    lead = (
        f"Two encoders, {titles}, learned to find the latent codes of images. They differ in one number: λ, the weight "
        "of the alignment loss, which draws codes towards those that the generator itself would make."
    )
    return write_report(path, "What alignment does to an inversion", sections, lead=lead, footer=_footer())


def training_report(folder: Path, metrics: Mapping[str, Any] | None = None, *, title: str = "Training run") -> Path:
    """Write `report.html` of a run folder, from the files in it alone.

    Read where they exist: `config.yaml`, `metrics.csv`, `reconstructions.png`; a page without one of them lacks that
    section and nothing else.

    Args:
        folder: the run folder.
        metrics: the content of `metrics.json`, read from the folder by default. "splits" (name → rows) makes the
            tables, "labels" names the judges' columns; every other entry is listed as it is.
        title: of the page.

    Raises:
        MissingFile: `metrics` is not given and there is no `metrics.json`.
    """
    if metrics is None:
        metrics = _read_json(folder / "metrics.json")
    splits: Mapping[str, Mapping[str, Row]] = metrics.get("splits", {})
    facts = {name: value for name, value in metrics.items() if name not in ("splits", "labels")}
    sections = []
    picture = folder / "reconstructions.png"
    if picture.is_file():
        alt = "Held-out images beside what the encoder and the generator make of them."
        sections.append(
            Section(
                "Reconstructions",
                [Figure(picture.read_bytes(), alt, "Held-out images above, their reconstructions below.")],
            )
        )
    if splits:
        tables: list[Block] = [
            fidelity_table(rows, f"Split: {split}.", labels=metrics.get("labels")) for split, rows in splits.items()
        ]
        sections.append(Section("Numbers", [*tables, HOW_TO_READ]))
    blocks = [*_loss_blocks({"training": folder / "metrics.csv"}), *_layer_blocks(splits)]
    if blocks:
        sections.append(Section("Charts", blocks))
    origin: list[Block] = [Facts({_spelt(name): value for name, value in facts.items()})] if facts else []
    if (folder / "config.yaml").is_file():
        origin.append(Source("config.yaml, as it was resolved", (folder / "config.yaml").read_text(encoding="utf-8")))
    if origin:
        sections.append(Section("How it was made", origin))
    return write_report(folder / "report.html", title, sections, lead=_run_lead(splits), footer=_footer())


def duration(seconds: float) -> str:
    """A length of time as people say it.

    >>> duration(42), duration(521), duration(7384)
    ('42 s', '8 min 41 s', '2 h 3 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _headline(rows: Mapping[str, Row], without: str, aligned: str, seconds: float | None) -> Numbers:
    """What changed from the unaligned to the aligned encoder, and what it cost."""
    items = []
    for key, label in (
        ("nscd", "distance from the generator’s mean style (NSCD)"),
        ("mse", "reconstruction error (MSE)"),
    ):
        before, after = rows[without].get(key), rows[aligned].get(key)
        if before and after is not None:
            first, last = column([before, after])
            items.append(
                (_relative(after / before), label, f"{first} at {row_title(without)}, {last} at {row_title(aligned)}")
            )
    samples = rows.get("synthetic", {}).get("diversity")
    diversity = rows[aligned].get("diversity")
    if samples and diversity is not None:
        items.append(
            (f"{100 * diversity / samples:.0f} %", "of the samples’ code diversity", f"at {row_title(aligned)}")
        )
    if seconds is not None:
        items.append((duration(seconds), "for everything on this page", "training of both encoders included"))
    return Numbers(items)


def _in_words(rows: Mapping[str, Row], without: str, aligned: str) -> str:
    """The ratios that the table leaves to the reader, as far as its values give them."""
    sentences = []
    for key, name, against in (
        ("mse", "MSE", (("mean_latent", "the mean latent’s"), (without, f"that of {row_title(without)}"))),
        ("nscd", "NSCD", ((without, f"that of {row_title(without)}"), ("synthetic", "the samples’"))),
        ("diversity", "Code diversity", ((without, f"that of {row_title(without)}"), ("synthetic", "the samples’"))),
    ):
        value = rows[aligned].get(key)
        ratios = [
            f"{number(value / rows[other][key])} times {text}"
            for other, text in against
            if value is not None and rows.get(other, {}).get(key)
        ]
        if ratios:
            sentences.append(f"{name} at {row_title(aligned)} is {' and '.join(ratios)}.")
    return " ".join(sentences)


def _what_to_see(edits: Sequence[str]) -> list[tuple[str, str]]:
    named = " and ".join(edits) or "edited"
    return [
        (
            "First the likeness",
            "Under each λ the first column is the plain reconstruction. Is it the same person? What the generator has "
            "never seen, a hat or a patterned wall, cannot come back; see how each encoder fails there.",
        ),
        (
            f"Then the edits: {named}",
            "The same codes, moved along one direction that was found on the generator’s own samples. A good edit "
            "changes what it names and leaves hair, skin, clothes and background alone.",
        ),
        (
            "Then compare the two",
            "An encoder without alignment may buy likeness with codes that the generator would never make. That shows "
            "when they are moved: stains, broken outlines, another face.",
        ),
    ]


def _gallery_caption(edits: Sequence[str]) -> str:
    shown = f" and its edits ({', '.join(edits)})" if edits else ""
    return f"One person per row. From the left: the input, then for each encoder the reconstruction{shown}."


def _comparison_charts(
    rows: Mapping[str, Row], encoders: Sequence[str], logs: Mapping[str, Path] | None
) -> list[Block]:
    names = {name: row_title(name) for name in rows}
    text = "; ".join(
        f"{row_title(n)}: MSE {number(rows[n].get('mse'))}, NSCD {number(rows[n].get('nscd'))}" for n in rows
    )
    first: list[Block] = [
        Figure(
            charts.tradeoff(rows, names=names),
            f"Scatter of MSE over NSCD. {text}.",
            "**Fidelity against alignment.** Down is truer to the image, left is nearer to the generator’s mean style.",
        ),
        *_layer_figure({n: rows[n] for n in encoders}, rows.get("synthetic", {})),
    ]
    return [SideBySide(first, least="24rem"), *_loss_blocks(logs or {})]


def _layer_blocks(splits: Mapping[str, Mapping[str, Row]]) -> list[Block]:
    """The layers of a run's first split, which is the one that the run is about."""
    rows = next(iter(splits.values()), {})
    return _layer_figure({n: r for n, r in rows.items() if _kind(n) == "method"}, rows.get("synthetic", {}))


def _layer_figure(rows: Mapping[str, Row], synthetic: Row) -> list[Block]:
    layers = {row_title(name): row["nscd_layers"] for name, row in rows.items() if row.get("nscd_layers")}
    if not layers:
        return []
    samples = synthetic.get("nscd_layers")
    widest = {label: max(values, key=lambda n: values[n]) for label, values in layers.items()}
    alt = "NSCD of each layer. " + "; ".join(f"{label}: largest at {layer}" for label, layer in widest.items()) + "."
    caption = (
        "**NSCD layer by layer.** Coarse layers at the left; the marks across the bars are the generator’s own samples."
    )
    return [Figure(charts.layer_bars(layers, reference=samples), alt, caption)]


def _loss_blocks(logs: Mapping[str, Path]) -> list[Block]:
    read = {label: charts.read_log(path) for label, path in logs.items() if path.is_file()}
    figures: list[Block] = [
        Figure(svg, f"{TERMS.get(term, term)} over training steps, {', '.join(read)}.")
        for term, svg in charts.loss_curves(read, titles=TERMS).items()
    ]
    return (
        [SideBySide(figures, least="15rem"), Text("Loss terms while training; pale lines are single steps.")]
        if figures
        else []
    )


def _run_lead(splits: Mapping[str, Mapping[str, Row]]) -> str:
    """The result of the first split in a sentence."""
    for split, rows in splits.items():
        for name, row in rows.items():
            if _kind(name) == "method" and row.get("mse") is not None:
                base = rows.get("mean_latent", {}).get("mse")
                share = f", {number(row['mse'] / base)} times the mean latent’s" if base else ""
                samples = rows.get("synthetic", {}).get("nscd")
                beside = f" (the generator’s own samples: {number(samples)})" if samples is not None else ""
                return f"On {split}: MSE {number(row['mse'])}{share}; NSCD {number(row.get('nscd'))}{beside}."
    return ""


def _relative(ratio: float) -> str:
    """A change that is easily said: "÷ 6.9" for large falls, else in percent."""
    if 0 < ratio <= 0.5:
        return f"÷ {number(1 / ratio, 2)}"
    if ratio >= 2:
        return f"× {number(ratio, 2)}"
    percent = round(100 * (ratio - 1))
    return f"{'+' if percent > 0 else '−' if percent < 0 else '±'}{abs(percent)} %"


def _kind(name: str) -> Literal["method", "baseline", "reference"]:
    kinds: dict[str, Literal["baseline", "reference"]] = {"mean_latent": "baseline", "synthetic": "reference"}
    return kinds.get(name, "method")


def _spelt(name: str) -> str:
    return name.replace("_", " ")


def _footer() -> str:
    return "Written by lsap. This file is complete in itself: it loads nothing and can be sent on as it is."


def _read_json(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise MissingFile(f"{path} does not exist; it is written when training ends")
    return read_json(path, "delete it and start the run again", dict)
