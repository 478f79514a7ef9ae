"""What Weights & Biases is shown of a run: which run it is, a panel of fixed images, a table of single images.

Keys begin with what they are of: `train/` and `val/` while an encoder learns, `test/` when it has learned, `invert/`,
`evaluate/`. The panels of `lsap.dashboard` refer to them.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import wandb
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor

from lsap.config.checks import alignment
from lsap.config.compose import composed, plain, searchpath
from lsap.data import ImageDataModule
from lsap.editing.effects import incremental
from lsap.errors import LsapError
from lsap.evaluation.cache import Rows
from lsap.evaluation.rows import Row
from lsap.evaluation.tables import Standings
from lsap.pipelines.build import Parts
from lsap.pipelines.editing import setup as editors
from lsap.pipelines.evaluation.evaluator import Contest
from lsap.pipelines.images import Chosen
from lsap.pipelines.measurement import MEASURES, compared, working_times
from lsap.reports.evaluation_report import Shown, side_by_side
from lsap.reports.inversion_reports import method
from lsap.reports.panels import Moved
from lsap.reports.pictures import grid, reconstruction_grid, tile
from lsap.runs import Store, read_json
from lsap.runs.dashboard import note_logged, noted, own_run, wandb_logger
from lsap.runs.store import AGAIN

SHOWN = 8  # images of a panel
PICTURED = 32  # rows of a table that show their images too
ROW = (*MEASURES, "diversity", "n")  # what is logged of the row of a whole set
KNOWN = ("embedding", "refinement", "lambda_nscd")  # what an evaluation's table says of runs that we made
LONGEST_GROUP = 100  # characters; Weights & Biases takes no more than 128
# Settings that say how and where a sweep runs, not what it sweeps.
ASIDE = ("hydra", "logger", "trainer", "outputs", "weights", "debug")


# ---- which run it is


def opened(config: DictConfig, folder: Path, *, name: str, run_id: str, verb: str) -> WandbLogger:
    """The logger of the run that a configuration describes.

    Args:
        config: its group `logger` says where to.
        folder: of the results.
        name: of the run, for people.
        run_id: its id.
        verb: what made the results.
    """
    where = config.logger
    return wandb_logger(
        folder, name=name, project=where.project, entity=where.entity, group=where.group or sweep(verb),
        tags=where.tags, run_id=run_id, offline=where.offline, job=verb, settings=described(config, verb),
    )  # fmt: skip


def described(config: DictConfig, verb: str) -> dict[str, Any]:
    """What runs are chosen and sorted by, flat, and below `settings` everything else."""
    found: dict[str, Any] = {"verb": verb, "domain": config.domain.name, "seed": config.seed}
    if "embedding" in config:
        refinement = None if config.refinement.name == "none" else config.refinement.name
        named = {"embedding": config.embedding.name, "refinement": refinement}
        found |= named | {"method": method(named), "lambda_nscd": alignment(config)}
    return found | {"settings": plain(config)}


def sweep(verb: str) -> str | None:
    """What the members of a sweep are grouped by: the verb and what the user typed; None outside of a sweep.

    The same sweep, started again, is the same group. Under a launcher that starts members with command lines of their
    own (submitit) nothing is left of what was typed; `logger.group` names the group there.
    """
    typed = sys.argv[1:]
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    if not {"-m", "--multirun"} & set(typed):
        return None
    words = [word for word in typed if "=" in word and re.split("[=./@]", word.lstrip("+~"))[0] not in ASIDE]
    group = " ".join([verb, *words])
    if len(group) > LONGEST_GROUP:
        group = f"{group[: LONGEST_GROUP - 10]}… {hashlib.sha256(group.encode()).hexdigest()[:8]}"
    return group


# ---- edits of a panel


def panel_edits(config: DictConfig, parts: Parts) -> dict[str, Moved]:
    """The edits that the domain names, each at its published strength or the upper end of its usable range.

    None, and a line why, where their directions are not found: a panel then shows inversions alone.
    """
    names = [str(name) for name in config.domain.get("edits") or {}]
    if not names:
        return {}
    asked = config.copy()
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
    steps = editors.ways(config, wanted, False).steps
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
    logger.log_metrics(_known(numbers), step)
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
    _table(logger, "test/images", ("name", *MEASURES), [{"name": n} | rows[n] for n in names], pictures, step)


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
        logger.log_metrics(_known({f"invert/{key}": value for key, value in numbers.items()}))
        names = [row["name"] for row in rows if row.get("mse") is not None]
        logger.log_image("invert/panel", [_panel(config, parts, chosen, store, names[:SHOWN])])
        first, images, _ = chosen.read(names[:PICTURED])
        seen = {} if images is None else dict(zip(first, images, strict=True))
        pictures = {name: (image, Image.open(store.picture(name))) for name, image in seen.items()}
        columns = [key for key in ("name", *MEASURES, "loss", "steps", "skipped", "failed") if _used(rows, key)]
        _table(logger, "invert/images", columns, rows, pictures)
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


def log_evaluation(
    contest: Contest,
    rows: Mapping[str, Rows],
    standings: Standings,
    images: tuple[Sequence[str], Tensor],
    shown: Mapping[str, Shown],
) -> None:
    """Log an evaluation: means by `evaluate/<method>/<measure>`, the panel, tables of methods and of single images.

    Args:
        contest: methods and settings.
        rows: method → image → numbers.
        standings: the table.
        images: names and images [N, 3, H, W] of the panel.
        shown: method → its pictures of these.
    """
    path, (names, inputs) = contest.path, images
    means = {name: row for name, row in standings.means().items() if name not in standings.kinds}
    with own_run():
        logger = opened(contest.config, path, name=path.name, run_id=noted(path)["id"], verb="evaluate")
        logger.log_metrics(_known({f"evaluate/{n}/{key}": v for n, row in means.items() for key, v in row.items()}))
        logger.log_image("evaluate/panel", [grid(side_by_side(inputs, shown))])
        keys = [measure.key for measure in standings.shown]
        known = {one.name: {key: one.summary.get(key) for key in KNOWN} for one in contest.entrants}
        table = [[n, *known[n].values(), *(row[key] for key in keys)] for n, row in means.items()]
        logger.log_table("evaluate/table", ["method", *KNOWN, *keys], table)
        keys = list(dict.fromkeys(key for found in rows.values() for row in found.values() for key in row))
        lines = []
        for name, mine in rows.items():
            pairs = dict(zip(names, zip(inputs, shown[name].pictures, strict=True), strict=True))
            lines += [[name, n, *_cells(pairs.get(n)), *(mine[n].get(key) for key in keys)] for n in contest.names]
        logger.log_table("evaluate/images", ["method", "name", "input", "inversion", *keys], lines)


# ---- tables


def _table(
    logger: WandbLogger,
    key: str,
    columns: Sequence[str],
    rows: Sequence[Row],
    pictures: Mapping[str, tuple[Tensor, Tensor | Image.Image]],
    step: int | None = None,
) -> None:
    """Log a table of one row per image, input and inversion behind its name where they are among `pictures`."""
    first, *others = columns
    lines = [[row["name"], *_cells(pictures.get(row["name"])), *(row.get(column) for column in others)] for row in rows]
    logger.log_table(key, [first, "input", "inversion", *others], lines, step=step)


def _cells(pair: Sequence[Tensor | Image.Image] | None) -> list[wandb.Image | None]:
    return [None, None] if pair is None else [picture_cell(each) for each in pair]


def picture_cell(picture: Tensor | Image.Image) -> wandb.Image:
    """A picture as the cell of a table, small."""
    if isinstance(picture, Tensor):
        return wandb.Image(tile(picture))
    small = picture.convert("RGB")
    small.thumbnail((128, 128), Image.Resampling.LANCZOS)
    return wandb.Image(small)


def _used(rows: Sequence[Row], key: str) -> bool:
    return any(row.get(key) is not None for row in rows)


def _known(numbers: Mapping[str, float | None]) -> dict[str, float]:
    return {key: value for key, value in numbers.items() if value is not None}
