"""`python -m lsap.invert embedding=lsap_o_wplus images=photographs`: images in, codes and pictures out.

By any embedding, a trained encoder or optimisation, and any refinement of what it found (`refinement=pti`). Each of the
two is a stage with a plan of batches of its own (`lsap.runs.Store`): the work can be stopped and started again, and any
number of processes may share it. The results' folders follow from the settings.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pytorch_lightning import LightningModule, Trainer

from lsap.checkpoints import Codes, write_codes
from lsap.config.checks import alignment
from lsap.config.checks import check_inversion as check
from lsap.config.stored import as_stored
from lsap.errors import BadValue
from lsap.evaluation.metrics import image_metrics, labels
from lsap.evaluation.outside import outside, reference_errors
from lsap.evaluation.rows import MEASURES, Row, synthetic_row
from lsap.inversion import Embedded
from lsap.pipelines.build import Parts
from lsap.pipelines.devices import global_rank, own_device, refuse_nested_launch
from lsap.pipelines.fit import check_trainer
from lsap.pipelines.images import Chosen, chosen_images
from lsap.pipelines.measurement import (
    means,
    measure,
    rows_of,
    same_images,
    stored_bytes,
    working_times,
    write_table,
)
from lsap.pipelines.plan_work import Clock, work
from lsap.pipelines.stages import Stage, stages
from lsap.reports.inversion_reports import inversion_report, overview
from lsap.runs import Store, manifest, read_json, write_json, write_text
from lsap.runs.lock import Lock
from lsap.runs.store import AGAIN


@dataclass(frozen=True)
class Inverted:
    """What a run of inversions came to: its folder, its row of numbers, and whether all of it is there yet."""

    folder: Path
    row: Row
    finished: bool


def invert(config: DictConfig, chosen: Chosen | None = None) -> Inverted:
    """Invert images, or pick up what an earlier start of the same left.

    Args:
        config: of `lsap.invert`.
        chosen: the images; None: those that the configuration names.

    Raises:
        BadValue, MissingFile: the configuration cannot run; nothing has been written.
        StoppedRun: the disk or the memory is full; what was done stays.
    """
    check_trainer(config.trainer)
    check(config)
    refuse_nested_launch(config)
    parts = Parts(config, own_device(config.trainer))
    chosen = chosen_images(config, parts.view_size) if chosen is None else chosen
    *earlier, last = stages(parts, chosen)
    if earlier:
        last.module()  # refuses what is wrong with a refinement before hours go into the embedding
    store = last.open(chosen, config.images_per_batch)
    if finished(store):
        print(f"finished before: {store.path}/report.html (delete the folder to invert again)")
        found = stored(store.path)
    else:
        for stage in earlier:
            before = stage.open(chosen, config.images_per_batch)
            if not finished(before):
                run(config, parts, chosen, stage, before)
        found = run(config, parts, chosen, last, store)
    if found.finished and config.logger.name == "wandb" and global_rank() == 0:
        from lsap.pipelines.wandb_logging import log_inversions

        log_inversions(config, parts, chosen, store)
    return found


def finished(store: Store) -> bool:
    """Whether nothing is left to do in a folder, the page included."""
    return (store.path / "summary.json").is_file() and not store.unfinished()


def run(config: DictConfig, parts: Parts, chosen: Chosen, stage: Stage, store: Store) -> Inverted:
    """Work on one stage until nothing is left that no other process is working on; the last one writes the page."""
    path = store.path
    if global_rank() == 0:
        write_text(path / "config.yaml", as_stored(config))
    if store.unfinished():
        work(config, stage, chosen, store, Keeper(parts, store))
    if global_rank() != 0:
        return Inverted(path, {}, False)
    left = store.unfinished()
    if left:
        print(f"{len(left)} batches are with other processes; the last one to finish writes {path}/report.html")
        return Inverted(path, {}, False)
    lock = Lock(path / "finish.lock")
    try:
        lock.acquire()
    except BadValue:
        print(f"another process is writing {path}/report.html")
        return Inverted(path, {}, False)
    try:
        return finish(config, parts, chosen, stage, store)
    finally:
        lock.release()


class Keeper(Clock):
    """Measures every batch that a stage has worked on and writes it into the store."""

    def __init__(self, parts: Parts, store: Store) -> None:
        self.parts, self.store = parts, store

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, _: int = 0
    ) -> None:
        found: Embedded = outputs
        planned = self.store.batches[batch["number"]]
        measured: dict[str, Row] = {}
        drawn = None
        if found.inversion is not None:
            places = [batch["names"].index(name) for name in found.inversion.names]
            measured, drawn = measure(self.parts, found.inversion, batch["image"][places])
            for name, note in found.notes.items():
                measured[name] |= note
        for name, reason in found.failed.items():
            print(f"{name}: {reason}; it is left out, the others go on", file=sys.stderr)
        failed = {**batch.get("failed", {}), **found.failed}
        rows = rows_of(planned, measured, batch["skipped"], failed)
        self.store.write(planned, rows, found.inversion, drawn, self.times(batch))


# ---- results


def finish(config: DictConfig, parts: Parts, chosen: Chosen, stage: Stage, store: Store) -> Inverted:
    """Write what is known only at the end: codes and means of all images, the picture, the page."""
    path = store.path
    store.tidy()
    rows = store.rows()
    names, codes = store.codes()
    if not names:
        reason = next(row.get("skipped") or row.get("failed") for row in rows)
        raise BadValue(f"none of {len(rows)} images could be inverted; {rows[0]['name']}: {reason}")
    write_codes(path / "codes.safetensors", Codes(codes, tuple(names)), parts.fingerprint)
    write_table(path / "images.csv", rows)
    row = means(parts, rows, codes)
    named = labels(image_metrics(**parts.judges))
    summary = {
        "embedding": config.embedding.name,
        "refinement": None if stage.before is None else config.refinement.name,
        "lambda_nscd": alignment(config),
        "domain": config.domain.name,
        "images": chosen.label,
        "run": path.name,
        "row": row,
        "synthetic": synthetic_row(parts.space),
        "labels": named,
        "bytes_per_image": stored_bytes(store),
        "count": {"all": len(rows), "inverted": len(names)}
        | {kind: sum(kind in each for each in rows) for kind in ("skipped", "failed")},
        "skipped": [each["name"] for each in rows if "skipped" in each],
        "failed": {each["name"]: each["failed"] for each in rows if "failed" in each},
        "settings": store.plan.settings,
        "plan": store.plan.hash,
        "same_images": same_images(store),
    }
    write_json(path / "times.json", working_times(store) | manifest(parts.device))
    inversion_report(store, summary, lambda wanted: chosen.read(wanted)[1])
    write_json(path / "checksums.json", store.checksums())
    write_json(path / "summary.json", summary)  # last: it makes the run finished
    everything = overview(Path(config.outputs) / config.domain.name / "inversions", summary)
    _say(summary)
    reference = reference_errors(parts.generator, parts.view, parts.judges["distance"])
    inverted = {each["name"]: each for each in rows if each.get("mse") is not None}
    if (line := outside(inverted, reference, config.domain.name)) is not None:
        print(f"warning: {line}", file=sys.stderr)
    print(f"{path}/report.html" + (f"\nbeside others of these images: {everything}" if everything else ""))
    return Inverted(path, row, True)


def _say(summary: Mapping[str, Any]) -> None:
    count, row = summary["count"], summary["row"]
    numbers = "  ".join(f"{key} {row[key]:.4f}" for key in MEASURES[:4] if row[key] is not None)
    lost = "".join(f", {count[kind]} {kind}" for kind in ("skipped", "failed") if count[kind])
    print(
        f"{count['inverted']} of {count['all']} images{lost}: {numbers} (synthetic {summary['synthetic']['nscd']:.4f})"
    )


def stored(path: Path) -> Inverted:
    """The numbers of a finished run, from its folder."""
    summary = read_json(path / "summary.json", AGAIN, dict)
    return Inverted(path, summary["row"], True)
