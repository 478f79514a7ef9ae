"""A run of edits: what its batches have in common, and what it leaves when all of them are done."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from lsap.checkpoints import Codes, Direction, read_card, write_codes
from lsap.editing.effects import Attributes, MatchedEach, MatchedOnAverage, Reader, Strengths
from lsap.evaluation.rows import Row, seven_digits
from lsap.inversion import Inversion
from lsap.pipelines.build import Parts
from lsap.pipelines.editing.setup import label
from lsap.pipelines.images import Chosen
from lsap.reports.pictures import Column, grid, save, save_animation, sheet
from lsap.runs import Store, manifest, write_json, write_text

SEEN = 256  # pixels of the longer side of an animation


@dataclass(frozen=True)
class Edit:
    """One direction and how strongly it is applied.

    Attributes:
        direction: what is applied.
        rule: how its strengths are found.
        column: of its attribute among those that are read here, or None.
        fixed: strengths [S] that hold for every image, or None where each has its own.
    """

    direction: Direction
    rule: Strengths
    column: int | None
    fixed: Tensor | None = None

    @property
    def labels(self) -> list[str]:
        """The steps as folders and captions call them."""
        return [label(step) for step in self.rule.steps]


@dataclass(frozen=True)
class Work:
    """What all batches of a run of edits have in common."""

    parts: Parts
    source: Store
    store: Store
    edits: Sequence[Edit]
    reader: Reader | None
    inputs: Chosen | None

    def view(self, images: Tensor) -> Tensor:
        """Images as readers and strips see them."""
        return self.parts.view(images).float()

    def attributes(self, inversion: Inversion) -> Attributes:
        """What the reader makes of an inversion's images under moved codes."""
        assert self.reader is not None
        read = self.reader
        return lambda codes: read(self.view(inversion.render(codes))).float()


def finish(work: Work, shown: int) -> Path:
    """Write what takes all batches: grids and animations of the first images, codes, the table, the summary."""
    path = work.store.path
    work.store.tidy()
    rows = work.store.rows()
    edited = [row["name"] for row in rows if "edits" in row]
    _codes(work)
    _table(path / "edits.csv", rows)
    for one in work.edits:
        _pictures(work, one, edited[:shown])
    means = {one.direction.name: _summed(one, rows) for one in work.edits}
    summary = {
        "inversions": str(work.source.path),
        "images": len(edited),
        "lost": len(rows) - len(edited),
        "settings": work.store.plan.settings,
        "reader": None if work.reader is None else reader_label(work.reader),
        "edits": means,
    }
    write_json(path / "times.json", manifest(work.parts.device))
    write_json(path / "checksums.json", work.store.checksums())
    write_json(path / "summary.json", summary)  # last: it makes the run finished
    for one in work.edits:
        for text, target in zip(one.labels, one.rule.steps, strict=True):
            found = [(row["strength"], row.get("change")) for row in _of_step(one, text, rows)]
            if (line := out_of_reach(one, target, found)) is not None:
                print(line, file=sys.stderr)
    for name, summed in means.items():
        print(f"{name}  [{summed['way']}; {summed['unit']}]")
        for step, row in summed["steps"].items():
            numbers = "".join(f"  {key} {value:.4g}" for key, value in row.items() if value is not None)
            print(f"  {step:>6}{numbers}")
    print(path)
    return path


def reader_label(reader: Reader) -> str:
    """What to call who reads attributes."""
    return str(getattr(reader, "label", type(reader).__name__))


def _summed(one: Edit, rows: Sequence[Row]) -> dict[str, Any]:
    """Means over images of every step of one edit."""
    steps: dict[str, Row] = {}
    for text, target in zip(one.labels, one.rule.steps, strict=True):
        found = _of_step(one, text, rows)
        steps[text] = {}
        if isinstance(one.rule, MatchedEach):
            steps[text]["short"] = sum(not _reached(r.get("change"), target) for r in found)
        for key in ("strength", "change", "leakage"):
            values = [r[key] for r in found if r.get(key) is not None]
            steps[text][key] = seven_digits(sum(values) / len(values)) if values else None
    return {"way": one.rule.name, "unit": one.direction.unit, "origin": one.direction.origin, "steps": steps}


def out_of_reach(one: Edit, target: float, edited: Sequence[tuple[float | None, float | None]]) -> str | None:
    """One line where no strength within the limit brings an effect about, with what was reached; None elsewhere.

    Args:
        one: the edit.
        target: the wanted effect.
        edited: (strength, change) of every image; None where the attribute cannot be read.
    """
    if not isinstance(one.rule, MatchedOnAverage | MatchedEach):
        return None
    limit = one.rule.limit
    changes = [change for _, change in edited if change is not None]
    mean = sum(changes) / max(len(changes), 1)
    short = [s for s, change in edited if s is not None and abs(s) >= limit and not _reached(change, target)]
    if not short or not changes or (isinstance(one.rule, MatchedOnAverage) and _reached(mean, target)):
        return None
    where = f" on {len(short)} of {len(edited)} images" if isinstance(one.rule, MatchedEach) else ""
    return (
        f"direction={one.direction.name}: effect {target:g} is out of reach{where}; {mean:.3g} was reached on average, "
        f"with strengths of {-limit:g} to {limit:g} tried"
    )


def _of_step(one: Edit, text: str, rows: Sequence[Row]) -> list[Row]:
    """What was measured on every image at one step of one edit."""
    called = (one.direction.name, text)
    return [r for row in rows for r in row.get("edits", ()) if (r["direction"], r["step"]) == called]


def _reached(change: float | None, target: float) -> bool:
    """Whether an image changed by what it should have, within a twentieth."""
    return change is not None and abs(change - target) <= 0.05 * abs(target) + 1e-3


def _pictures(work: Work, one: Edit, names: Sequence[str]) -> None:
    """A grid of the first images at every step, an animation of all of them together and one of each."""
    if not names:
        return
    name, path = one.direction.name, work.store.path
    frames = [
        torch.stack([_picture(path / "images" / name / text / work.store.pictures[image]) for image in names])
        for text in one.labels
    ]
    inverted = [_picture(work.source.picture(image)) for image in names]
    columns = [Column("inversion", inverted)]
    columns += [Column(text, images, name) for text, images in zip(one.labels, frames, strict=True)]
    save(grid(columns), path / f"{name}.png")
    save_animation([sheet(images, columns=4) for images in frames], path / f"{name}.gif")
    for place, image in enumerate(names):
        file = path / "animations" / name / Path(work.store.pictures[image]).with_suffix(".gif")
        save_animation([sheet(images[place : place + 1], longest=SEEN) for images in frames], file)


def _picture(path: Path) -> Tensor:
    """An image [3, H, W] in [-1, 1] of a file, reduced where it is larger than anybody will see it here."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((SEEN, SEEN), Image.Resampling.LANCZOS)
    found: Tensor = to_tensor(picture) * 2 - 1
    return found


def _codes(work: Work) -> None:
    """All codes of every edit and step in a file of their own."""
    batches = [work.store.path / "batches" / f"{batch.number:05d}.edits.safetensors" for batch in work.store.batches]
    files = [file for file in batches if file.is_file()]
    names = tuple(name for file in files for name in json.loads(read_card(file)["names"]))
    for one in work.edits:
        for text in one.labels:
            codes = torch.cat([_tensor(file, f"{one.direction.name}/{text}") for file in files])
            target = work.store.path / "codes" / one.direction.name / f"{text}.safetensors"
            write_codes(target, Codes(codes, names), work.parts.fingerprint)


def _tensor(file: Path, name: str) -> Tensor:
    """One tensor of a file, without reading the others."""
    with safe_open(file, "pt") as stored:
        found: Tensor = stored.get_tensor(name)
    return found


def _table(path: Path, rows: Sequence[Row]) -> None:
    """A line per image, edit and step."""
    keys = ["name", "direction", "step", "strength", "change", "leakage", "skipped", "failed"]
    text = io.StringIO()
    writer = csv.DictWriter(text, keys, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        writer.writerows([{"name": row["name"], **one} for one in row["edits"]] if "edits" in row else [row])
    write_text(path, text.getvalue())


def digest(direction: Direction) -> str:
    """A short mark of all numbers that decide what a direction does."""
    text = f"{type(direction).__name__} {direction.step!r} {direction.rows} {direction.vector.double().tolist()}"
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@torch.no_grad()
def searched(work: Work, one: Edit, count: int) -> list[float]:
    """Strengths [S] of one direction for the whole run; its inversions are read batch by batch, each time anew.

    Raises:
        Unreadable: its attribute cannot be read on any of them.
    """
    parts = [inversion.codes for inversion in _first(work, count)]
    codes, sizes = torch.cat(parts), [len(part) for part in parts]

    def attributes(moved: Tensor) -> Tensor:
        pieces = zip(_first(work, count), moved.split(sizes), strict=True)
        return torch.cat([work.attributes(inversion)(piece).cpu() for inversion, piece in pieces])

    found: list[float] = one.rule.strengths(codes, one.direction, one.column, attributes)[0].tolist()
    return found


def _first(work: Work, count: int) -> Iterator[Inversion]:
    """The first `count` inversions of the run, batch by batch."""
    for inversion in work.source.inversions(work.parts.generator):
        if count <= 0:
            return
        kept = inversion.select(range(min(count, len(inversion)))).to(work.parts.device)
        count -= len(kept)
        yield kept


def strengths_on(work: Work, one: Edit, inversion: Inversion) -> Tensor:
    """Strengths [N, S] of an edit on a batch."""
    if one.fixed is not None:
        return one.fixed.expand(len(inversion), -1)
    attributes = work.attributes(inversion) if one.column is not None else None
    return one.rule.strengths(inversion.codes, one.direction, one.column, attributes)
