"""A folder of inversions: long per-image work as a fixed plan of batches, each written whole or not at all.

What is resumed, shared between processes and handed from stage to stage is a batch of the plan, never a loose image: a
float result may depend on the make-up of its batch, so equal plans give equal files, however often the work was killed
and on however many processes it ran.

    plan.json                   names in order, digests of the images, batch size, settings and their hash
    batches/00000.json          one row per image: numbers, or why there are none; written last, it makes a batch done
    batches/00000.safetensors   the batch's `Inversion`
    images/<name>.png           what the inversion draws
    times/00000.json            seconds and whatever else cannot repeat; in no checksum
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lsap.data import SUFFIXES
from lsap.errors import BadValue, MissingFile, StoppedRun
from lsap.inversion import Inversion, restored
from lsap.runs.atomic import NO_ROOM, no_room, read_json, remove_drafts, replacing, save_safetensors, write_json
from lsap.runs.folder import difference, plain
from lsap.runs.lock import Lock
from lsap.stylegan2 import StyleGenerator

FORMAT = "lsap.store/1"
AGAIN = "delete it and give the command again"  # what mends a damaged file
Row = dict[str, Any]
VERSIONED = ("batches", "images")  # what checksums cover, beside the plan


@dataclass(frozen=True)
class Batch:
    """One batch of the plan: its number and the names of its images."""

    number: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What is to be done: fixed when a store is opened for the first time.

    Attributes:
        names: of the images, in order.
        batch_size: images per batch.
        settings: all that decides what comes out; with photographs, "images" is the digest of their content.
        digests: name → size and digest of the image's file (`runs.content`); empty where they were not recorded.

    Raises:
        BadValue: no name, a name that occurs twice, or a batch size below one.
    """

    names: tuple[str, ...]
    batch_size: int
    settings: dict[str, Any]
    digests: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) < len(self.names):
            raise BadValue(f"a plan needs images with names of their own, but got {len(self.names)} names")
        if self.batch_size < 1:
            raise BadValue(f"batch_size={self.batch_size}: a batch holds at least one image")

    @property
    def hash(self) -> str:
        """64 hex digits over all of it."""
        text = json.dumps([self.names, self.batch_size, self.settings], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def batches(self) -> list[Batch]:
        """In order; the last one may be smaller, and no image is left out."""
        firsts = range(0, len(self.names), self.batch_size)
        return [Batch(n, self.names[first : first + self.batch_size]) for n, first in enumerate(firsts)]

    @property
    def pictures(self) -> dict[str, str]:
        """Image name → file name of its picture; the suffix of a photograph is dropped where that leaves all apart."""
        short = {name: stem(name) for name in self.names}
        alone = len({each.lower() for each in short.values()}) == len(short)
        return {name: f"{short[name] if alone else name}.png" for name in self.names}


class Store:
    """The inversions of one stage with one set of settings.

    Args:
        path: its folder.
        plan: what it is to hold.

    Use `Store.open` to work in a folder and `Store.read` to look at one. Any number of processes may work in one folder
    at a time, started together or one by one, here or on other machines that share the disk: each batch is locked by
    the process that works on it, and the lock of a process that died is taken over.
    """

    def __init__(self, path: str | Path, plan: Plan) -> None:
        self.path = Path(path)
        self.plan = plan
        self.batches = plan.batches
        self.pictures = plan.pictures
        self.held: dict[int, Lock] = {}

    @classmethod
    def open(
        cls,
        path: str | Path,
        names: Sequence[str],
        batch_size: int,
        settings: Mapping[str, Any],
        digests: Mapping[str, str] | None = None,
    ) -> Store:
        """Begin in a folder, or go on with what an earlier start of the same work left there.

        Args:
            path: the folder; made if need be.
            names: of all images, in order; names of images that turn out unreadable included.
            batch_size: images per batch. It is part of the plan: results may depend on it by rounding.
            settings: all that decides what comes out, and nothing else; as for `RunFolder`.
            digests: of the images, as of `image_digests`.

        Raises:
            BadValue: the folder holds other work; the message shows the difference.
            StoppedRun: no room on the disk.
        """
        plan = Plan(tuple(names), batch_size, plain(settings), digests or {})
        store = cls(path, plan)
        found = store._stored_plan()
        if found is None:
            with _writable(store.path):
                store.path.mkdir(parents=True, exist_ok=True)
                write_json(store.path / "plan.json", store._described())
        elif found.hash != plan.hash:
            raise BadValue(
                f"{store.path} holds inversions of other settings: {_changes(found, plan)}. Choose another folder with "
                "save_to=, move that one away, or set those values to what they were"
            )
        return store

    @classmethod
    def read(cls, path: str | Path) -> Store:
        """A store that is there; raises MissingFile where there is none."""
        store = cls(path, Plan(("none",), 1, {}))
        found = store._stored_plan()
        if found is None:
            raise MissingFile(f"{path} holds no inversions (it has no plan.json); make some with python -m lsap.invert")
        return cls(path, found)

    # ---- work

    def pending(self) -> Iterator[Batch]:
        """Batches that are neither done nor being worked on, one after the other, each locked until it is written.

        When it ends, batches may be left with other living processes: see `unfinished`.
        """
        for batch in self.batches:
            if self.done(batch):
                continue
            lock = Lock(self._file("batches", batch, "lock"))
            with _writable(self.path):
                lock.path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    lock.acquire()
                except BadValue:
                    continue  # a living process is at it
            if self.done(batch):  # the other one had finished it in this moment
                lock.release()
                continue
            self.held[batch.number] = lock
            yield batch

    def write(
        self,
        batch: Batch,
        rows: Sequence[Row],
        inversion: Inversion | None,
        images: Tensor | None = None,
        times: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep a finished batch and give its lock back.

        Args:
            batch: from `pending`.
            rows: one per image of the batch, each with its "name": numbers, or "skipped" or "failed" with a reason.
            inversion: of the images that have one; None if none has.
            images: [N, 3, H, W] in [-1, 1], drawn by the inversion; kept as PNG.
            times: what cannot repeat.

        Raises:
            StoppedRun: no room on the disk; the batch is not done, and will be worked on again.
        """
        assert [row["name"] for row in rows] == list(batch.names), "one row per image of the batch, in order"
        if inversion is not None:
            assert set(inversion.names) <= set(batch.names), "only images of this batch"
            for name, image in zip(inversion.names, [] if images is None else images, strict=images is not None):
                self._draw(name, image)
            save_safetensors(self._file("batches", batch, "safetensors"), inversion.tensors(), inversion.card())
        write_json(self._file("times", batch, "json"), dict(times or {}))
        write_json(self._file("batches", batch, "json"), list(rows))
        self.let_go(batch)

    def let_go(self, batch: Batch | None = None) -> None:
        """Give the lock of a batch back, or all that this process still holds, as when it has to stop early."""
        for number in list(self.held) if batch is None else [batch.number]:
            if number in self.held:
                self.held.pop(number).release()

    def unfinished(self) -> list[Batch]:
        """Batches that are not done yet."""
        return [batch for batch in self.batches if not self.done(batch)]

    def done(self, batch: Batch) -> bool:
        """Whether a batch is written."""
        return self._file("batches", batch, "json").is_file()

    def report_resumed(self) -> None:
        """Print how much of the plan is done, where some of it is."""
        if done := sum(map(self.done, self.batches)):
            print(f"resuming {self.path}: {done} of {len(self.batches)} batches are done")

    def tidy(self) -> None:
        """Remove what killed processes had begun to write; only when no batch is left and nobody writes."""
        remove_drafts(self.path)

    # ---- results

    def rows(self, batch: Batch | None = None) -> list[Row]:
        """The rows of a batch, or of all that are done, in the order of the plan."""
        rows: list[Row] = []
        for each in self.batches if batch is None else [batch]:
            file = self._file("batches", each, "json")
            if file.is_file():
                rows += read_json(file, AGAIN, list)
        return rows

    def load(self, batch: Batch, generator: StyleGenerator) -> Inversion | None:
        """The inversion of a batch, on the CPU; None if none of its images has one.

        This is how a further stage goes on: batch by batch, by the same plan, so that only one batch is in memory.

        Raises:
            MissingFile: the batch is not done.
            BadValue: the file is damaged.
        """
        if not self.done(batch):
            raise MissingFile(f"{self.path}: batch {batch.number} is not done; give the command that made it again")
        file = self._file("batches", batch, "safetensors")
        if not file.is_file():
            return None
        try:
            with safe_open(file, "pt") as stored:
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a dict)
                return restored(tensors, stored.metadata() or {}, generator)
        except (SafetensorError, OSError) as error:
            raise BadValue(f"{file} cannot be read ({error}); delete it and its .json, and start again") from error

    def inversions(self, generator: StyleGenerator) -> Iterator[Inversion]:
        """All stored inversions, batch by batch; raises as `load`."""
        for batch in self.batches:
            inversion = self.load(batch, generator)
            if inversion is not None:
                yield inversion

    def codes(self) -> tuple[list[str], Tensor]:
        """Names and codes [N, L, C] of all images that have an inversion; the per-image state is left on the disk."""
        names: list[str] = []
        codes = []
        for batch in self.batches:
            file = self._file("batches", batch, "safetensors")
            if self.done(batch) and file.is_file():
                with safe_open(file, "pt") as stored:
                    names += json.loads((stored.metadata() or {})["names"])
                    codes.append(stored.get_tensor("codes"))
        return names, torch.cat(codes) if codes else torch.empty(0)

    def check_generator(self, fingerprint: str) -> None:
        """Refuse another generator than that of the stored codes, by the card of the first batch that has any.

        Raises:
            BadValue: another generator, or a damaged file.
        """
        for batch in self.batches:
            file = self._file("batches", batch, "safetensors")
            if not self.done(batch) or not file.is_file():
                continue
            try:
                with safe_open(file, "pt") as stored:
                    owner = stored.metadata()["generator"]
            except (SafetensorError, OSError, TypeError, KeyError) as error:
                raise BadValue(f"{file} cannot be read ({error}); delete it and its .json, and start again") from error
            if owner != fingerprint:
                raise BadValue(
                    f"{self.path}: these codes belong to generator {owner[:12]}, but this run uses {fingerprint[:12]}; "
                    "use the generator that they were made for, or embed again"
                )
            return

    def picture(self, name: str) -> Path:
        """Where the picture of an image lies, once its batch is done."""
        return self.path / "images" / self.pictures[name]

    def file(self, batch: Batch) -> Path:
        """Where the inversion of a batch lies, once it is done and if it has one."""
        return self._file("batches", batch, "safetensors")

    def times(self) -> list[dict[str, Any]]:
        """What was kept about the making of each batch that is done."""
        files = (self._file("times", batch, "json") for batch in self.batches)
        return [read_json(file, AGAIN, dict) for file in files if file.is_file()]

    def checksums(self) -> dict[str, str]:
        """File → SHA-256 of everything that equal plans make equal."""
        files = [self.path / "plan.json"]
        files += [file for part in VERSIONED for file in sorted((self.path / part).rglob("*")) if file.is_file()]
        kept = (f for f in files if f.suffix != ".lock" and f.is_file())
        return {f.relative_to(self.path).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in kept}

    # ---- files

    def _file(self, part: str, batch: Batch, suffix: str) -> Path:
        return self.path / part / f"{batch.number:05d}.{suffix}"

    def _draw(self, name: str, image: Tensor) -> None:
        pixels = ((image.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte()
        with replacing(self.picture(name)) as draft:
            Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(draft, "PNG")

    def _described(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "format": FORMAT,
            "hash": plan.hash,
            "batch_size": plan.batch_size,
            "settings": plan.settings,
            "names": list(plan.names),
            "digests": dict(plan.digests),
        }

    def _stored_plan(self) -> Plan | None:
        file = self.path / "plan.json"
        if not file.is_file():
            if self.path.is_file():
                raise BadValue(f"{self.path} is a file; name a folder for the inversions")
            return None
        found = read_json(file, AGAIN, dict)
        try:
            if found["format"] != FORMAT:
                raise ValueError(f"format {found['format']!r}")
            digests = dict(found.get("digests", {}))
            names = tuple(map(str, found["names"]))
            if outside := [name for name in names if Path(name).is_absolute() or ".." in Path(name).parts]:
                raise ValueError(f"the image name {outside[0]!r} leads out of the folder")
            return Plan(names, int(found["batch_size"]), dict(found["settings"]), digests)
        except (KeyError, TypeError, ValueError) as error:
            raise BadValue(f"{file} is no plan of lsap ({error}); move that folder away") from error


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    """Turn what the system says about a folder that cannot be written into one line."""
    try:
        yield
    except MissingFile:
        raise
    except OSError as error:
        if error.errno in NO_ROOM:
            raise StoppedRun(no_room(path / "plan.json")) from error
        raise BadValue(f"{path} cannot be written to ({error.strerror}); choose another folder") from error


def stem(name: str) -> str:
    """A name without the suffix of a photograph."""
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.lower().endswith(suffix)), name)


def _changes(old: Plan, new: Plan) -> str:
    """What differs between two plans, in words."""
    parts = []
    if old.batch_size != new.batch_size:
        parts.append(f"batch_size: {old.batch_size} → {new.batch_size}")
    if old.names != new.names:
        gone, come = len(set(old.names) - set(new.names)), len(set(new.names) - set(old.names))
        parts.append(f"images: {len(old.names)} → {len(new.names)} ({gone} gone, {come} new)")
    parts += filter(None, [difference(old.settings, new.settings)])
    return ", ".join(parts)
