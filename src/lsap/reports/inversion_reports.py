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

from lsap.reports.page import Block, Facts, Gallery, Section, Text, write_report
from lsap.reports.pictures import Column, reconstruction_grid, save
from lsap.reports.run_reports import HOW_TO_READ, fidelity_line, fidelity_table, tradeoff_figure
from lsap.runs import Store, write_text

SHOWN = 8
Reads = Callable[[Sequence[str]], Tensor | None]


def inversion_report(store: Store, summary: Mapping[str, Any], read: Reads) -> Path:
    """Write `report.html` and `inversions.png` of a finished run.

    Args:
        store: its inversions.
        summary: the content of `summary.json`.
        read: image names → the images [N, 3, H, W], for the pictures.
    """
    done = [row for row in store.rows() if row.get("mse") is not None]
    first = [row["name"] for row in done[:SHOWN]]
    worst = [row["name"] for row in sorted(done, key=lambda row: -row["mse"])[: SHOWN // 2]]
    inputs, outputs = _pairs(store, first, read)
    save(reconstruction_grid(inputs, {"inversion": outputs}), store.path / "inversions.png")
    rows = {method(summary): summary["row"], "synthetic": summary["synthetic"]}
    numbers: list[Block] = [fidelity_table(rows, "All inverted images.", labels=summary["labels"])]
    excluded = [f"{name}: {reason}" for name, reason in summary["failed"].items()]
    excluded += [f"{name}: cannot be read" for name in summary["skipped"]]
    if excluded:
        listed = "; ".join(excluded[:20])
        numbers.append(Text(f"Excluded, {len(excluded)} of {summary['count']['all']} images: {listed}."))
    sections = [
        Section("Pictures", [Gallery(_columns(inputs, outputs), "The first images.", first)]),
        Section("Numbers", [*numbers, HOW_TO_READ]),
        Section("Largest errors", [Gallery(_columns(*_pairs(store, worst, read)), "Largest MSE.", worst)]),
        Section("How it was made", [Facts(summary["settings"])]),
    ]
    lead = f"{summary['count']['inverted']} images: {fidelity_line(rows)}."
    return write_report(store.path / "report.html", f"{method(summary)} on {summary['images']}", sections, lead=lead)


def overview(folder: Path, summary: Mapping[str, Any]) -> Path | None:
    """Plot and tabulate all finished runs on the same images with the same generator.

    Every run that finishes writes the page again, so after a sweep it contains all members.

    Args:
        folder: the folder of all inversions of a domain.
        summary: of the run that has just finished.

    Returns:
        The page; None if there is only one run.
    """
    found = []
    for file in folder.glob("*/*/summary.json"):
        try:
            other = json.loads(file.read_text(encoding="utf-8"))
            if _comparable(other, summary):
                weight, refinement = other["settings"].get("lambda_nscd", -1.0), other.get("refinement") or ""
                found.append(((other["embedding"], weight, refinement, other["run"]), other))
        except (OSError, ValueError, KeyError):  # incomplete, or not a summary of ours
            continue
    if len(found) < 2:
        return None
    runs = [run for _, run in sorted(found, key=lambda pair: pair[0])]
    titles = [title(run) for run in runs]
    rows = {
        name if titles.count(name) == 1 else f"{name} ({run['run']})": run["row"]
        for name, run in zip(titles, runs, strict=True)
    } | {"synthetic": runs[0]["synthetic"]}
    figure = tradeoff_figure(rows, "One point per run.")
    path = folder / f"{summary['images']}-{summary['same_images']}.html"
    write_text(path.with_suffix(".svg"), str(figure.image))
    table = fidelity_table(rows, "All runs on the same images.", labels=summary["labels"])
    sections = [Section("Fidelity against NSCD", [figure]), Section("Numbers", [table, HOW_TO_READ])]
    return write_report(path, f"Inversions of {summary['images']}", sections)


def title(summary: Mapping[str, Any]) -> str:
    """The title of a run: embedding, weight of the alignment loss, refinement."""
    weight = summary["settings"].get("lambda_nscd")
    return method(summary, "" if weight is None else f" λ={weight:g}")


def method(summary: Mapping[str, Any], alignment: str = "") -> str:
    """The embedding of a run and its refinement, if any: `lsap_e + pti`."""
    refinement = summary.get("refinement")
    return summary["embedding"] + alignment + ("" if refinement is None else f" + {refinement}")


def _comparable(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two runs have the same images, generator and metric networks."""
    settings, others = one["settings"], other["settings"]
    same = all(settings.get(key) == others.get(key) for key in ("generator", "distance", "embedder"))
    return same and one.get("same_images") == other["same_images"]


def _columns(inputs: Tensor, outputs: Tensor) -> list[Column]:
    return [Column("input", inputs), Column("inversion", outputs)]


def _pairs(store: Store, names: Sequence[str], read: Reads) -> tuple[Tensor, Tensor]:
    """Images and the pictures of their inversions, at the size of the images."""
    images = read(names)
    assert images is not None, "inverted images are readable"
    pictures = []
    for name in names:
        with Image.open(store.picture(name)) as picture:
            pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)
        pictures.append(F.interpolate(pixels[None].float() / 127.5 - 1, images.shape[-2:], mode="area"))
    return images, torch.cat(pictures)
