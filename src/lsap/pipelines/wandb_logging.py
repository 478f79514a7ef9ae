"""What Weights & Biases is shown of a run: which run it is, a panel of fixed images, a table of single images.

Keys begin with what they are of: `train/` and `val/` while an encoder learns, `test/` when it has learned, `invert/`,
`evaluate/`. The panels of `lsap.dashboard` refer to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor

from lsap.config.compose import composed, searchpath
from lsap.config.containers import editable
from lsap.data import ImageDataModule
from lsap.editing.effects import incremental
from lsap.errors import LsapError
from lsap.evaluation.rows import MEASURES, Row
from lsap.pipelines.build import Parts
from lsap.pipelines.editing import setup as editors
from lsap.pipelines.images import Chosen
from lsap.pipelines.measurement import compared, working_times
from lsap.pipelines.wandb_run import opened
from lsap.pipelines.wandb_tables import has_values, log_images_table, without_none
from lsap.reports.inversion_reports import method
from lsap.reports.panels import Moved
from lsap.reports.pictures import reconstruction_grid
from lsap.runs import Store, read_json
from lsap.runs.dashboard import note_logged, noted, own_run
from lsap.runs.store import AGAIN

SHOWN = 8  # images of a panel
PICTURED = 32  # rows of a table that show their images too
ROW = (*MEASURES, "diversity", "n")  # what is logged of the row of a whole set


# ---- which run it is


# ---- edits of a panel


def panel_edits(config: DictConfig, parts: Parts) -> dict[str, Moved]:
    """The edits that the domain names, each at its published strength or the upper end of its usable range.

    None, and a line why, where their directions are not found: a panel then shows inversions alone.
    """
    names = [str(name) for name in config.domain.get("edits") or {}]
    if not names:
        return {}
    asked = editable(config)
    published = composed("edit", [f"domain={config.domain.name}"], searchpath()).published
    more = {"direction": names, "strength": None, "effect": None, "matched": "run", "published": published}
    for key, value in more.items():
        OmegaConf.update(asked, key, value, force_add=True)
    own = Parts(asked, parts.device)
    own.generator = parts.generator
    try:
        found = editors.directions(asked, own)
    except (LsapError, HydraException) as error:
        print(f"panels show no edits: {' '.join(str(error).split())}")
        return {}
    return {one.direction.name: _moved(one, asked) for one in found}


def _moved(wanted: editors.Wanted, config: DictConfig) -> Moved:
    steps = editors.strength_rule(config, wanted, False).steps
    strength = steps[-1] or steps[0]  # the upper end, unless there is none
    published = wanted.strength is not None
    direction = wanted.direction if published else incremental(wanted.direction)
    return lambda codes: direction.moved(codes, strength)


# ---- what a verb logs


def log_training(
    logger: WandbLogger,
    step: int,
    splits: Mapping[str, Row],
    parts: Parts,
    inverter: Callable[[Tensor], Tensor],
    data: ImageDataModule,
) -> None:
    """Log what a finished encoder came to: `test/…` of the first split, `test/<split>/…` of all, the table of images.

    Args:
        logger: of the run.
        step: the last one.
        splits: its row of every test split, the first one first.
        parts, inverter: images → codes, and what draws and measures them.
        data: its images.
    """
    first = next(iter(splits))
    numbers = {f"test/{key}": splits[first].get(key) for key in ROW}
    numbers |= {f"test/{split}/{key}": row.get(key) for split, row in splits.items() for key in ROW}
    logger.log_metrics(without_none(numbers), step)
    source = data.tests.get(first, data.train)
    places = range(len(source)) if first in data.tests else data.val_indices or data.train_indices
    names, images, _ = Chosen(source, (), first).read([source.names[place] for place in places[:PICTURED]])
    if images is None:
        return
    with torch.no_grad():
        codes = inverter(images.to(parts.device))
        output = parts.view(parts.generator(codes)).float()
    rows = compared(parts, names, codes, output, images)
    pictures = {name: (images[place], output[place]) for place, name in enumerate(names)}
    log_images_table(logger, "test/images", ("name", *MEASURES), [{"name": n} | rows[n] for n in names], pictures, step)


def log_inversions(config: DictConfig, parts: Parts, chosen: Chosen, store: Store) -> None:
    """Log a finished run of inversions, once: means, the panel of the first images, the table of all."""
    path = store.path
    known = noted(path)
    if known["logged"] == store.plan.hash:
        return
    summary = read_json(path / "summary.json", AGAIN, dict)
    rows = store.rows()
    with own_run():
        name = f"{method(summary)}/{path.name}"
        logger = opened(config, path, name=name, run_id=known["id"], verb="invert")
        numbers = {key: summary["row"].get(key) for key in ROW}
        numbers["seconds_per_image"] = working_times(store)["seconds_per_image"]
        logger.log_metrics(without_none({f"invert/{key}": value for key, value in numbers.items()}))
        names = [row["name"] for row in rows if row.get("mse") is not None]
        logger.log_image("invert/panel", [_panel(config, parts, chosen, store, names[:SHOWN])])
        first, images, _ = chosen.read(names[:PICTURED])
        seen = {} if images is None else dict(zip(first, images, strict=True))
        pictures = {name: (image, Image.open(store.picture(name))) for name, image in seen.items()}
        columns = [key for key in ("name", *MEASURES, "loss", "steps", "skipped", "failed") if has_values(rows, key)]
        log_images_table(logger, "invert/images", columns, rows, pictures)
    note_logged(path, store.plan.hash)


@torch.no_grad()
def _panel(config: DictConfig, parts: Parts, chosen: Chosen, store: Store, names: Sequence[str]) -> Image.Image:
    """Images, their inversions as the store draws them, and edits through the inversions' own renderer."""
    edits = panel_edits(config, parts)
    _, images, _ = chosen.read(names)
    assert images is not None, "they could be read before"
    drawn: dict[str, dict[str, Tensor]] = {row: {} for row in ("inversion", *edits)}
    for batch in store.batches:
        wanted = [name for name in batch.names if name in names]
        inversion = store.load(batch, parts.generator) if wanted else None
        if inversion is None:
            continue
        shown = inversion.select([inversion.names.index(name) for name in wanted]).to(parts.device)
        moved = {"inversion": shown.codes} | {name: edit(shown.codes) for name, edit in edits.items()}
        for row, codes in moved.items():
            drawn[row] |= dict(zip(wanted, parts.view(shown.render(codes)).float().cpu(), strict=True))
    rows = {row: torch.stack([each[name] for name in names]) for row, each in drawn.items()}
    return reconstruction_grid(images, rows, count=len(names))


# ---- tables
