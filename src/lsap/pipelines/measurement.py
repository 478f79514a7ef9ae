"""The numbers of inversions: of every image, of all of them together, and of the work that they took."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lsap.alignment import nscd
from lsap.evaluation.codes import CodeDiversity, LayerNSCD
from lsap.evaluation.rows import Row, seven_digits
from lsap.inversion import Inversion
from lsap.pipelines.build import Parts
from lsap.pipelines.run_identity.images import names_digest
from lsap.runs import Batch, Store, content_digest, write_text

MEASURES = ("mse", "lpips", "identity", "nscd", "nscd_raw")


@torch.no_grad()
def measure(parts: Parts, inversion: Inversion, images: Tensor) -> tuple[dict[str, Row], Tensor]:
    """Draw an inversion and compare it with its images.

    Returns:
        Per image its numbers, as `compared`; and the pictures [N, 3, H, W] at the generator's size.
    """
    shown = inversion.to(parts.device)
    image = shown.render().float()
    return compared(parts, shown.names, shown.codes, parts.view(image), images), parts.picture_rows(image).cpu()


@torch.no_grad()
def compared(parts: Parts, names: Sequence[str], codes: Tensor, output: Tensor, images: Tensor) -> dict[str, Row]:
    """Per image its mse, lpips, identity (None without a judge), nscd and nscd_raw.

    Args:
        parts: view, style space and judges.
        names: of the images.
        codes: [N, L, C], of the inversions.
        output: [N, 3, H, W], what they draw, as the view shows it.
        images: [N, 3, H, W], on any device.
    """
    images = images.to(output.device).float()
    styles, mean = parts.space.styles(codes.float()), parts.space.mean
    values: dict[str, Tensor] = {
        "mse": (output.double() - images.double()).square().mean((1, 2, 3)),
        "nscd": nscd(styles, mean),
        "nscd_raw": nscd(styles, mean, anchor="raw"),
    }
    if (distance := parts.judges["distance"]) is not None:
        values["lpips"] = distance(output, images)
    if (embedder := parts.judges["embedder"]) is not None:
        values["identity"] = F.cosine_similarity(embedder.embed(output).double(), embedder.embed(images).double())
    rows: dict[str, Row] = {}
    for place, name in enumerate(names):
        rows[name] = {key: seven_digits(values[key][place]) if key in values else None for key in MEASURES}
    return rows


def rows_of(
    batch: Batch, measured: Mapping[str, Row], skipped: Mapping[str, str], failed: Mapping[str, str]
) -> list[Row]:
    """One row per image of a batch: its numbers, or why it has none."""
    rows: list[Row] = []
    for name in batch.names:
        if name in skipped:
            rows.append({"name": name, "skipped": skipped[name]})
        elif name in failed:
            rows.append({"name": name, "failed": failed[name]})
        else:
            rows.append({"name": name, **measured[name]})
    return rows


def means(parts: Parts, rows: list[Row], codes: Tensor) -> Row:
    """One row of a table over all images that have an inversion; every image counts once."""
    row: Row = {}
    for key in MEASURES:
        values = [each[key] for each in rows if each.get(key) is not None]
        row[key] = seven_digits(sum(values) / len(values)) if values else None
    mean = parts.space.mean
    spread, layers = CodeDiversity([len(m) for m in mean]), LayerNSCD([m.cpu() for m in mean])
    with torch.no_grad():
        for part in codes.float().split(64):
            styles = [style.cpu() for style in parts.space.styles(part.to(parts.device))]
            spread.update(styles)
            layers.update(styles)
    row["diversity"] = seven_digits(spread.compute())
    row["n"] = len(codes)
    row["nscd_layers"] = {n: seven_digits(v) for n, v in zip(parts.space.names, layers.compute().tolist(), strict=True)}
    return row


def same_images(store: Store) -> str:
    """8 hex digits over names and content of the images: what may stand in one table."""
    digests = store.plan.digests
    return (content_digest(digests) if digests else names_digest(store.plan.names))[:8]


def working_times(store: Store) -> dict[str, Any]:
    """Working time of all batches together, whichever process did them."""
    times = [time for time in store.times() if "seconds" in time]
    seconds, images = sum(t["seconds"] for t in times), sum(t["images"] for t in times)
    return {
        "seconds": round(seconds, 1),
        "images": images,
        "images_per_hour": round(3600 * images / seconds, 1) if seconds else None,
        "seconds_per_image": seven_digits(seconds / images) if images else None,
        "bytes_per_image": stored_bytes(store),
    }


def stored_bytes(store: Store) -> int | None:
    """What an inversion takes on the disk, per image: the files of all batches together; None where there is none."""
    images = len(store.codes()[0])
    whole = sum(path.stat().st_size for path in (store.path / "batches").glob("*.safetensors"))
    return round(whole / images) if images else None


def write_table(path: Path, rows: list[Row]) -> None:
    """All rows as a CSV file."""
    columns = ["name", *MEASURES, "loss", "steps", "skipped", "failed"]
    used = [column for column in columns if any(column in row for row in rows)]
    text = io.StringIO()
    writer = csv.DictWriter(text, used, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
