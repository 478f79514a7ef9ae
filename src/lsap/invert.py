"""`python -m lsap.invert embedding=lsap_o_wplus images=photographs`: images in, codes and pictures out.

By any embedding: a trained encoder or optimisation. The work is a plan of batches (`lsap.runs.Store`): it can be
stopped and started again, and any number of processes may share it. The results' folder follows from the settings.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn import functional as F

from lsap.alignment import nscd
from lsap.assembly import device_of, global_rank, process_count, refuse_nested_launch
from lsap.cli import command
from lsap.embedders import Chosen, InversionParts, check, chosen_images, run_folder, view_size
from lsap.embedding import Embedded
from lsap.errors import BadValue, StoppedRun
from lsap.evaluation.fidelity import CodeDiversity, LayerNSCD, Row, labels, seven_digits, synthetic_row
from lsap.evaluation.inversions import inversion_report, overview
from lsap.formats import Codes, write_codes
from lsap.inversion import Inversion
from lsap.runs import Batch, PlanProgress, Store, manifest, peak_memory, quiet_lightning, write_json, write_text
from lsap.runs.lock import Lock

MEASURES = ("mse", "lpips", "identity", "nscd", "nscd_raw")
FULL = ("not enough memory", "out of memory", "can't allocate memory")  # what PyTorch says, by device


@dataclass(frozen=True)
class Inverted:
    """What a run of inversions came to: its folder, its row of numbers, and whether all of it is there yet."""

    folder: Path
    row: Row
    finished: bool


def invert(config: DictConfig) -> Inverted:
    """Invert the images of a configuration, or pick up what an earlier start of it left.

    Raises:
        BadValue, MissingFile: the configuration cannot run; nothing has been written.
        StoppedRun: the disk or the memory is full; what was done stays.
    """
    check(config)
    refuse_nested_launch(config)
    parts = InversionParts(config, device_of(config.trainer.accelerator))
    chosen = chosen_images(config, view_size(parts))
    folder = run_folder(parts, chosen)
    path = Path(config.save_to) if config.save_to is not None else folder.path
    settings = folder.settings | {"embedding": config.embedding.name, "domain": config.domain.name}
    store = Store.open(path, chosen.names, config.images_per_batch, settings)
    if (path / "summary.json").is_file() and not store.unfinished():
        print(f"finished before: {path}/report.html (delete the folder to invert again)")
        return stored(path)
    if global_rank() == 0:
        write_text(path / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
    if store.unfinished():
        _work(config, parts, chosen, store)
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
        return finish(config, parts, chosen, store)
    finally:
        lock.release()


def _work(config: DictConfig, parts: InversionParts, chosen: Chosen, store: Store) -> None:
    """Embed what is left of the plan."""
    module = parts.embedding()
    keeper = Keeper(parts, store)
    bar = PlanProgress(store, f"{config.embedding.name} on {chosen.label}")
    module.watch = bar.within
    settings = config.trainer
    with quiet_lightning():
        trainer = Trainer(
            accelerator=settings.accelerator, devices=settings.devices, num_nodes=settings.num_nodes,
            precision=settings.precision, logger=False, inference_mode=False, callbacks=[keeper, bar],
            strategy="ddp" if process_count(settings) > 1 else "auto", use_distributed_sampler=False,
            enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        )  # fmt: skip
        try:
            trainer.predict(module, Pending(store, chosen), return_predictions=False)
        except RuntimeError as error:
            if not any(word in str(error).lower() for word in FULL):
                raise
            raise StoppedRun(
                f"images_per_batch={config.images_per_batch}: so many at once do not fit into memory; take fewer in "
                "another folder (the batch size is part of the plan). What was done is kept"
            ) from error
        except SystemExit as stop:
            if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning leaves by sys.exit(1)
                raise KeyboardInterrupt from None
            raise
        finally:
            store.let_go()
            bar.stop()
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()


class Pending:
    """The batches that nobody is working on, read when their turn comes; for Lightning a loader without a length."""

    def __init__(self, store: Store, chosen: Chosen) -> None:
        self.store, self.chosen = store, chosen

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.store.pending():
            names, images, skipped = self.chosen.read(batch.names)
            for name, reason in skipped.items():
                print(f"{name} cannot be read ({reason}); skipped", file=sys.stderr)
            if images is None:
                self.store.write(batch, _rows(batch, {}, skipped, {}), None)
                continue
            yield {"image": images, "names": names, "number": batch.number, "skipped": skipped, "began": time.time()}


class Keeper(Callback):
    """Measures every batch that was embedded and writes it into the store."""

    def __init__(self, parts: InversionParts, store: Store) -> None:
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
        rows = _rows(planned, measured, batch["skipped"], found.failed)
        seconds = round(time.time() - batch["began"], 3)
        times = {"seconds": seconds, "images": len(batch["names"]), "peak_memory_mb": peak_memory()}
        self.store.write(planned, rows, found.inversion, drawn, times)


@torch.no_grad()
def measure(parts: InversionParts, inversion: Inversion, images: Tensor) -> tuple[dict[str, Row], Tensor]:
    """Draw an inversion and compare it with its images.

    Returns:
        Per image its mse, lpips, identity (None without a judge), nscd and nscd_raw; and the pictures [N, 3, H, W] at
        the generator's size.
    """
    device = parts.device
    shown = inversion.to(device)
    image = shown.render().float()
    output, images = parts.view(image), images.to(device).float()
    styles, mean = parts.space.styles(shown.codes.float()), parts.space.mean
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
    for place, name in enumerate(inversion.names):
        rows[name] = {key: seven_digits(values[key][place]) if key in values else None for key in MEASURES}
    return rows, parts.picture_rows(image).cpu()


def _rows(
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


# ---- results


def finish(config: DictConfig, parts: InversionParts, chosen: Chosen, store: Store) -> Inverted:
    """Write what is known only at the end: codes and means of all images, the picture, the page."""
    path = store.path
    store.tidy()
    rows = store.rows()
    names, codes = store.codes()
    if not names:
        reason = next(row.get("skipped") or row.get("failed") for row in rows)
        raise BadValue(f"none of {len(rows)} images could be inverted; {rows[0]['name']}: {reason}")
    write_codes(path / "codes.safetensors", Codes(codes, tuple(names)), parts.fingerprint)
    _table(path / "images.csv", rows)
    row = means(parts, rows, codes)
    named = labels(**parts.judges)
    summary = {
        "embedding": config.embedding.name,
        "domain": config.domain.name,
        "images": chosen.label,
        "run": path.name,
        "row": row,
        "synthetic": synthetic_row(parts.space),
        "labels": named,
        "count": {"all": len(rows), "inverted": len(names)}
        | {kind: sum(kind in each for each in rows) for kind in ("skipped", "failed")},
        "skipped": [each["name"] for each in rows if "skipped" in each],
        "failed": {each["name"]: each["failed"] for each in rows if "failed" in each},
        "settings": store.plan.settings,
        "plan": store.plan.hash,
        "same_images": _same_images(store),
    }
    write_json(path / "times.json", _times(store) | manifest(parts.device))
    inversion_report(store, summary, lambda wanted: chosen.read(wanted)[1])
    write_json(path / "checksums.json", store.checksums())
    write_json(path / "summary.json", summary)  # last: it makes the run finished
    everything = overview(Path(config.outputs) / config.domain.name / "inversions", summary)
    _say(summary)
    print(f"{path}/report.html" + (f"\nbeside others of these images: {everything}" if everything else ""))
    return Inverted(path, row, True)


def means(parts: InversionParts, rows: list[Row], codes: Tensor) -> Row:
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


def _same_images(store: Store) -> str:
    """A short mark of the images, by their names: what may stand in one table."""
    return hashlib.sha256("/".join(store.plan.names).encode()).hexdigest()[:8]


def _times(store: Store) -> dict[str, Any]:
    """Working time of all batches together, whichever process did them."""
    times = [time for time in store.times() if "seconds" in time]
    seconds, images = sum(t["seconds"] for t in times), sum(t["images"] for t in times)
    return {
        "seconds": round(seconds, 1),
        "images": images,
        "images_per_hour": round(3600 * images / seconds, 1) if seconds else None,
    }


def _table(path: Path, rows: list[Row]) -> None:
    """All rows as a CSV file."""
    columns = ["name", *MEASURES, "loss", "steps", "skipped", "failed"]
    used = [column for column in columns if any(column in row for row in rows)]
    text = io.StringIO()
    writer = csv.DictWriter(text, used, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _say(summary: Mapping[str, Any]) -> None:
    count, row = summary["count"], summary["row"]
    numbers = "  ".join(f"{key} {row[key]:.4f}" for key in MEASURES[:4] if row[key] is not None)
    lost = "".join(f", {count[kind]} {kind}" for kind in ("skipped", "failed") if count[kind])
    print(
        f"{count['inverted']} of {count['all']} images{lost}: {numbers} (synthetic {summary['synthetic']['nscd']:.4f})"
    )


def stored(path: Path) -> Inverted:
    """The numbers of a finished run, from its folder."""
    summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    return Inverted(path, summary["row"], True)


main = command("invert")(invert)

if __name__ == "__main__":
    main()
