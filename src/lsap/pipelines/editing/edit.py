"""`python -m lsap.edit inversions=… direction=smile strength=-3:3:7`: edits of stored inversions.

The edited codes go through the inversion's own renderer, so it does not matter which method made it. The batches are
those of the stored run, each written whole or not at all, and a run that was stopped goes on.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor

from lsap import refinement
from lsap.checkpoints import save_directions, write_state
from lsap.editing.directions import Unreadable
from lsap.editing.effects import incremental
from lsap.errors import BadValue
from lsap.evaluation.rows import Row, seven_digits
from lsap.pipelines.build import Parts
from lsap.pipelines.devices import device_of
from lsap.pipelines.editing import setup as editors
from lsap.pipelines.editing.edits import Edit, Work, digest, finish, reader_label, searched, strengths_on
from lsap.pipelines.editing.setup import column, inverted_images, stored_run, strength_rule
from lsap.reports.pictures import Column, grid, save, save_image
from lsap.runs import Batch, Store, read_json, write_json
from lsap.runs.folder import folder_name
from lsap.runs.lock import Lock

SEARCH_AGAIN = "delete it, and the strengths are searched again"

assert refinement  # its renderers enter the registry when it is imported


def edit(config: DictConfig) -> Path:
    """Edit the inversions of a stored run, or pick up what an earlier start of the same left.

    Returns:
        The folder of the results.

    Raises:
        BadValue, MissingFile: the run, a direction or a strength cannot be used; nothing has been written.
        StoppedRun: the disk is full; what was done stays.
    """
    source, config = stored_run(config)
    parts = Parts(config, device_of(config.accelerator))
    _check_owner(source, parts)
    wanted = editors.directions(config, parts)
    reader = editors.reader(config, parts)
    edits = []
    for one in wanted:
        place = column(one.direction, reader, config)
        rule = strength_rule(config, one, place is not None)
        direction = incremental(one.direction) if config.effect is not None else one.direction
        edits.append(Edit(direction, rule, place))
    settings = {
        "inversions": source.plan.hash, "domain": config.domain.name, "generator": parts.fingerprint[:12],
        "directions": [f"{e.direction.name}-{digest(e.direction)}" for e in edits],
        "steps": [list(e.rule.steps) for e in edits], "ways": [e.rule.name for e in edits],
        "matched_on": config.matched_on if config.effect is not None and config.matched == "run" else None,
        "reader": None if config.effect is None or reader is None else reader_label(reader),
    }  # fmt: skip
    path = _folder(config, source, edits)
    store = Store.open(path, source.plan.names, source.plan.batch_size, settings)
    if (store.path / "summary.json").is_file() and not store.unfinished():
        print(f"finished before: {store.path} (delete the folder to edit again)")
        return store.path
    store.report_resumed()
    save_directions([e.direction for e in edits], store.path / "directions.safetensors")
    work = Work(parts, source, store, edits, reader, inverted_images(config, parts, store))
    if store.unfinished() and config.effect is not None and config.matched == "run":
        edits = _matched(work, config.matched_on)
        work = Work(parts, source, store, edits, reader, work.inputs)
    _do(work)
    if left := store.unfinished():
        print(f"{len(left)} batches are with other processes; the last one to finish writes the grids")
        return store.path
    lock = Lock(store.path / "finish.lock")
    try:
        lock.acquire()
    except BadValue:
        print(f"another process is writing the grids in {store.path}")
        return store.path
    try:
        return finish(work, config.shown)
    finally:
        lock.release()


def _check_owner(source: Store, parts: Parts) -> None:
    """Refuse another generator than that of the inversions before anything is looked for or written."""
    source.check_generator(parts.fingerprint)
    if not any(source.file(batch).is_file() for batch in source.batches):
        raise BadValue(f"{source.path} holds no inversion: none of its images could be inverted")


def _folder(config: DictConfig, source: Store, edits: Sequence[Edit]) -> Path:
    """Where the results of these settings go."""
    if config.save_to is not None:
        return Path(config.save_to)
    by = {"direction": "+".join(e.direction.name for e in edits)}
    if config.effect is not None:
        by |= {"effect": str(config.effect).replace(":", "_"), "matched": config.matched}
    elif config.strength is not None:
        by |= {"strength": str(config.strength).replace(":", "_")}
    run = source.path.resolve()
    return Path(config.outputs) / config.domain.name / "edits" / f"{run.parent.name}-{run.name}" / folder_name(by)


# ---- strengths of a run


def _matched(work: Work, count: int) -> list[Edit]:
    """The edits with the strengths at which they have the wanted effect on average over the first images of the run.

    They are kept in `matched.json`, so that every process and every restart takes the same.

    Raises:
        BadValue: an attribute cannot be read on any of these images, or the file is damaged.
    """
    file = work.store.path / "matched.json"
    known: dict[str, list[float]] = read_json(file, SEARCH_AGAIN, dict) if file.is_file() else {}
    edits = []
    for one in work.edits:
        name = one.direction.name
        if one.column is None:
            edits.append(one)
            continue
        if name not in known:
            print(f"{name}: searching the strength of {', '.join(one.labels)}", file=sys.stderr)
            try:
                known[name] = searched(work, one, count)
            except Unreadable as error:
                raise BadValue(f"direction={name}: {error}") from error
            write_json(file, known)
        if len(known[name]) != len(one.labels):
            raise BadValue(f"{file} cannot be read (it has not one strength for each step of {name}); {SEARCH_AGAIN}")
        edits.append(Edit(one.direction, one.rule, one.column, torch.tensor(known[name])))
    return edits


# ---- batches


def _do(work: Work) -> None:
    """Edit what is left of the plan."""
    printed = time.monotonic()
    try:
        for batch in work.store.pending():
            began = time.time()
            rows = _batch(work, batch)
            work.store.write(batch, rows, None, times={"seconds": round(time.time() - began, 3), "images": len(rows)})
            if time.monotonic() - printed > 15:
                printed = time.monotonic()
                left = len(work.store.unfinished())
                print(f"{len(work.store.batches) - left} of {len(work.store.batches)} batches", file=sys.stderr)
    finally:
        work.store.let_go()


@torch.no_grad()
def _batch(work: Work, batch: Batch) -> list[Row]:
    """Draw all edits of a batch, write their pictures, strips and codes; one row per image and edit."""
    inversion = work.source.load(work.source.batches[batch.number], work.parts.generator)
    lost = {row["name"]: row for row in work.source.rows(work.source.batches[batch.number])}
    if inversion is None:
        return [_without(lost[name]) for name in batch.names]
    shown = inversion.to(work.parts.device)
    inverted = work.view(shown.render())
    found: dict[str, list[Row]] = {name: [] for name in inversion.names}
    codes: dict[str, Tensor] = {}
    for one in work.edits:
        name = one.direction.name
        strengths = strengths_on(work, one, shown)
        before = work.reader(inverted).float() if one.column is not None and work.reader is not None else None
        drawn = []
        for step, text in enumerate(one.labels):
            strength = strengths[:, step].to(shown.codes)
            moved = one.direction.moved(shown.codes, strength)
            image = shown.render(moved)
            for picture, image_name in zip(work.parts.picture_rows(image), inversion.names, strict=True):
                save_image(picture, work.store.path / "images" / name / text / work.store.pictures[image_name])
            seen = work.view(image)
            drawn.append(seen.cpu())
            codes[f"{name}/{text}"] = moved.cpu()
            change = None if before is None or work.reader is None else work.reader(seen).float() - before
            for place, image_name in enumerate(inversion.names):
                row: Row = {"direction": name, "step": text, "strength": seven_digits(strength[place])}
                found[image_name].append(row | _measured(change, place, one.column))
        _strips(work, batch, inversion.names, inverted.cpu(), drawn, one)
    card = {"names": json.dumps(inversion.names, ensure_ascii=False), "generator": inversion.generator}
    write_state(work.store.path / "batches" / f"{batch.number:05d}.edits.safetensors", codes, card)
    return [{"name": n, "edits": found[n]} if n in found else _without(lost[n]) for n in batch.names]


def _measured(change: Tensor | None, place: int, own: int | None) -> Row:
    """What an edit did to one image, where somebody can read it: change of its attribute, leakage into the others."""
    if change is None or own is None:
        return {}
    mine = change[place]
    others = torch.cat([mine[:own], mine[own + 1 :]]).abs()
    values = {"change": mine[own], "leakage": others.nanmean() if len(others) else None}
    return {key: None if value is None or value.isnan() else seven_digits(value) for key, value in values.items()}


def _without(row: Row) -> Row:
    """The row of an image that has no inversion."""
    return {key: row[key] for key in ("name", "skipped", "failed") if key in row}


def _strips(
    work: Work, batch: Batch, names: Sequence[str], inverted: Tensor, drawn: Sequence[Tensor], one: Edit
) -> None:
    """One picture per image: input, inversion, and the edit at every step."""
    inputs: dict[str, Tensor] = {}
    if work.inputs is not None:
        try:
            known, images, _ = work.inputs.read([name for name in names if name in work.inputs.places])
            inputs = {} if images is None else dict(zip(known, images, strict=True))
        except OSError as error:
            print(f"strips are drawn without the input: {error}", file=sys.stderr)
    for place, name in enumerate(names):
        columns = [Column("input", [inputs[name]])] if name in inputs else []
        columns.append(Column("inversion", [inverted[place]]))
        columns += [Column(t, [d[place]], one.direction.name) for t, d in zip(one.labels, drawn, strict=True)]
        save(grid(columns), work.store.path / "strips" / one.direction.name / work.store.pictures[name])
