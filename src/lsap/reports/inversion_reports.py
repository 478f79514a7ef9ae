"""Pages about inversions: one run with its pictures, and all runs on the same images in one plot."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from lsap.evaluation.columns import number
from lsap.reports import charts
from lsap.reports.page import Block, Entry, Facts, Figure, Gallery, Section, Table, Text, write_report
from lsap.reports.pictures import Column, reconstruction_grid, save
from lsap.reports.run_reports import HOW_TO_READ, measures
from lsap.runs import Store, write_text

SHOWN = 8
Reads = Callable[[Sequence[str]], Tensor | None]


def inversion_report(store: Store, summary: Mapping[str, Any], read: Reads) -> Path:
    """Write `report.html` and `inversions.png` of a finished run.

    Args:
        store: its inversions.
        summary: what `summary.json` will hold.
        read: image names → the images [N, 3, H, W], for the pictures.
    """
    done = [row for row in store.rows() if row.get("mse") is not None]
    first = [row["name"] for row in done[:SHOWN]]
    worst = [row["name"] for row in sorted(done, key=lambda row: -row["mse"])[: SHOWN // 2]]
    inputs, outputs = _pairs(store, first, read)
    save(reconstruction_grid(inputs, {"inversion": outputs}), store.path / "inversions.png")
    rows = {method(summary): summary["row"], "synthetic": summary["synthetic"]}
    blocks: list[Block] = [_table(rows, summary["labels"], "All images that were inverted.")]
    lost = [f"{name}: {reason}" for name, reason in summary["failed"].items()]
    lost += [f"{name}: cannot be read" for name in summary["skipped"]]
    if lost:
        blocks.append(Text(f"Left out, {len(lost)} of {summary['count']['all']}: {'; '.join(lost[:20])}."))
    hard, found = _pairs(store, worst, read)
    first_pictures = [Column("input", inputs), Column("inversion", outputs)]
    worst_pictures = [Column("input", hard), Column("inversion", found)]
    sections = [
        Section("Pictures", [Gallery(first_pictures, "The first images.", first)]),
        Section("Numbers", [*blocks, HOW_TO_READ]),
        Section("The hardest", [Gallery(worst_pictures, "Largest MSE.", worst)]),
        Section("How it was made", [Facts(summary["settings"])]),
    ]  # fmt: skip
    title = f"{method(summary)} on {summary['images']}"
    row = summary["row"]
    lead = (
        f"{summary['count']['inverted']} images: MSE {number(row['mse'])}, NSCD {number(row['nscd'])} "
        f"(the generator’s own samples: {number(summary['synthetic']['nscd'])})."
    )
    return write_report(store.path / "report.html", title, sections, lead=lead)


def overview(folder: Path, summary: Mapping[str, Any]) -> Path | None:
    """Set all finished runs on the same images, by the same generator, into one plot and one table.

    Written anew by every run that finishes, so that a sweep ends with all of its members in it.

    Args:
        folder: the folder of all inversions of a domain.
        summary: of the run that has just finished.

    Returns:
        The page; None while there is only one run.
    """

    def alike(other: Mapping[str, Any]) -> bool:
        return other.get("same_images") == summary["same_images"] and all(
            other["settings"].get(key) == summary["settings"].get(key) for key in ("generator", "distance", "embedder")
        )

    found = []
    for file in sorted(folder.glob("*/*/summary.json")):
        try:
            other = json.loads(file.read_text(encoding="utf-8"))
            if alike(other):
                found.append(other)
        except (OSError, ValueError, KeyError):  # being written, or not ours
            continue
    if len(found) < 2:
        return None
    found.sort(
        key=lambda each: (
            each["embedding"],
            each["settings"].get("lambda_nscd", -1.0),
            each.get("refinement") or "",
            each["run"],
        )
    )
    titles = [title(each) for each in found]
    called_apart = [
        t if titles.count(t) == 1 else f"{t} ({each['run']})" for t, each in zip(titles, found, strict=True)
    ]
    rows = {name: each["row"] for name, each in zip(called_apart, found, strict=True)}
    rows["synthetic"] = found[0]["synthetic"]
    called = {"synthetic": "Generator’s own samples"}
    chart = charts.tradeoff(rows, names=called)
    path = folder / f"{summary['images']}-{summary['same_images']}.html"
    write_text(path.with_suffix(".svg"), chart)
    text = "; ".join(f"{name}: MSE {number(row['mse'])}, NSCD {number(row['nscd'])}" for name, row in rows.items())
    sections = [
        Section("Fidelity against NSCD", [Figure(chart, f"MSE over NSCD. {text}.", "One point per run.")]),
        Section("Numbers", [_table(rows, summary["labels"], "The same images under every run."), HOW_TO_READ]),
    ]
    return write_report(path, f"Inversions of {summary['images']}", sections)


def title(summary: Mapping[str, Any]) -> str:
    """What a run is called: its embedding, the weight of its alignment, and its refinement."""
    weight = summary["settings"].get("lambda_nscd")
    return method(summary, "" if weight is None else f" λ={weight:g}")


def method(summary: Mapping[str, Any], alignment: str = "") -> str:
    """The embedding of a run and, where it has one, its refinement: `lsap_e + pti`."""
    refinement = summary.get("refinement")
    return summary["embedding"] + alignment + ("" if refinement is None else f" + {refinement}")


def _table(rows: Mapping[str, Mapping[str, Any]], labels: Mapping[str, str], caption: str) -> Table:
    entries = [
        Entry("Generator’s own samples" if name == "synthetic" else name, row, _kind(name))
        for name, row in rows.items()
    ]
    return Table(measures(labels), entries, caption, "Codes")


def _kind(name: str) -> Any:
    return "reference" if name == "synthetic" else "method"


def _pairs(store: Store, names: Sequence[str], read: Reads) -> tuple[Tensor, Tensor]:
    """Images and the pictures of their inversions, at the size of the images."""
    images = read(names)
    assert images is not None, "they could be read before"
    pictures = []
    for name in names:
        with Image.open(store.picture(name)) as picture:
            pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)
        pictures.append(pixels[None].float() / 127.5 - 1)
    shown = [F.interpolate(picture, images.shape[-2:], mode="area") for picture in pictures]
    return images, torch.cat(shown)
