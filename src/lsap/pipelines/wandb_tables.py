"""Tables of single images for W&B."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import wandb
from PIL import Image
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor

from lsap.evaluation.rows import Row
from lsap.reports.pictures import tile


def log_images_table(
    logger: WandbLogger,
    key: str,
    columns: Sequence[str],
    rows: Sequence[Row],
    pictures: Mapping[str, tuple[Tensor, Tensor | Image.Image]],
    step: int | None = None,
) -> None:
    """Log a table of one row per image, input and inversion behind its name where they are among `pictures`."""
    first, *others = columns
    lines = [
        [row["name"], *picture_cells(pictures.get(row["name"])), *(row.get(column) for column in others)]
        for row in rows
    ]
    logger.log_table(key, [first, "input", "inversion", *others], lines, step=step)


def picture_cells(pair: Sequence[Tensor | Image.Image] | None) -> list[wandb.Image | None]:
    """Cells for the input and the inversion of an image; two empty ones without pictures."""
    return [None, None] if pair is None else [picture_cell(each) for each in pair]


def picture_cell(picture: Tensor | Image.Image) -> wandb.Image:
    """A picture as the cell of a table, small."""
    if isinstance(picture, Tensor):
        return wandb.Image(tile(picture))
    small = picture.convert("RGB")
    small.thumbnail((128, 128), Image.Resampling.LANCZOS)
    return wandb.Image(small)


def has_values(rows: Sequence[Row], key: str) -> bool:
    """Whether any row has a value under a key."""
    return any(row.get(key) is not None for row in rows)


def without_none(numbers: Mapping[str, float | None]) -> dict[str, float]:
    """The numbers that were measured."""
    return {key: value for key, value in numbers.items() if value is not None}
