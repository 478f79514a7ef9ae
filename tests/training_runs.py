"""What a run folder of `lsap.train` holds, and when two of them are equal."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import torch

from lsap.checkpoints import read_state

WHOLE = {
    "checkpoints/best.ckpt",
    "checkpoints/last.ckpt",
    "config.yaml",
    "encoder.safetensors",
    "metrics.csv",
    "metrics.json",
    "reconstructions.png",
    "report.html",
    "run.json",
}


def rows(folder: Path) -> list[dict[str, str]]:
    """metrics.csv, line by line."""
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def record(folder: Path) -> dict[str, Any]:
    """run.json."""
    found: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return found


def only_run(outputs: Path) -> Path:
    """The one run folder below a folder of runs."""
    (found,) = outputs.glob("*/*/*/run.json")
    return found.parent


def files(folder: Path) -> set[str]:
    """Names of everything in a run folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def assert_same_outcome(folder: Path, other: Path) -> None:
    """Weights, numbers and curves of two runs are equal, bit for bit."""
    ours, theirs = (read_state(f / "encoder.safetensors") for f in (folder, other))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (folder / "metrics.csv").read_text() == (other / "metrics.csv").read_text()
    first, second = (json.loads((f / "metrics.json").read_text()) for f in (folder, other))
    assert first["splits"] == second["splits"]
