"""The numbers of inversions: of every image, of all of them together, and of the work that they took."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lsap.evaluation.metrics import code_values, image_metrics, image_values
from lsap.evaluation.rows import MEASURES, Row, by_name, seven_digits
from lsap.evaluation.set_metrics import SetMetrics
from lsap.inversion import Inversion
from lsap.pipelines.build import Parts
from lsap.pipelines.run_identity.images import names_digest
from lsap.runs import Batch, Store, content_digest, write_text


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
    """Per image its mse, lpips, identity (None without the network), nscd and nscd_raw.

    Args:
        parts: view, style space and metric networks.
        names: of the images.
        codes: [N, L, C], of the inversions.
        output: [N, 3, H, W], what they draw, as the view shows it.
        images: [N, 3, H, W], on any device.
    """
    values = image_values(image_metrics(**parts.judges), output, images.to(output.device).float())
    values |= code_values(parts.space.styles(codes.float()), parts.space.mean)
    return by_name(names, values, MEASURES)


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


@torch.no_grad()
def means(parts: Parts, rows: list[Row], codes: Tensor) -> Row:
    """One row of a table over all images that have an inversion; every image counts once."""
    found = SetMetrics(parts.space, MEASURES)
    columns = {key: [math.nan if row.get(key) is None else row[key] for row in rows] for key in MEASURES}
    found.update({key: torch.tensor(column, dtype=torch.float64) for key, column in columns.items()})
    for part in codes.float().split(64):
        found.update(styles=parts.space.styles(part.to(parts.device)))
    return found.compute()


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
