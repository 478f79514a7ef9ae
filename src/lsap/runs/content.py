"""Digests of image files: they tell apart folders with equal file names, and pictures that were replaced."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from lsap.data import Photographs, Source
from lsap.data.storage import Storage
from lsap.errors import LsapError
from lsap.runs.atomic import write_json

ALL = 10_000  # images up to which every file is read
SAMPLE = 1_000  # files that are read of more images; sizes are compared of all
UNSETTLED = 2_000_000_000  # nanoseconds in which a file may change again without a new modification time
UNREADABLE = "unreadable"


def cache_folder() -> Path:
    """The folder of what can be computed again: `LSAP_CACHE`, else `lsap` in the user's cache folder."""
    return Path(
        os.environ.get("LSAP_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lsap"
    )


def image_digests(source: Source, names: Sequence[str]) -> dict[str, str] | None:
    """Size and SHA-256 of every image file, as `{name: "size:digest"}`; None for a source that renders its images.

    Of more than `ALL` images only `SAMPLE` are read, always the same by their names; the others have `"size"`. So
    a picture outside of the sample that was replaced by one of equal size is not noticed. Digests are cached by path,
    size and modification time (`LSAP_CACHE`); the time itself is part of no digest.

    Args:
        source: of the images.
        names: of those that are used.
    """
    if not isinstance(source, Photographs):
        return None
    storage = source.storage
    read = set(names)
    if len(names) > ALL:
        read = set(sorted(names, key=lambda name: hashlib.sha256(os.fsencode(name)).digest())[:SAMPLE])
    cache = _Cache(storage)
    digests = {name: _digest(storage, name, cache, name in read) for name in names}
    cache.write()
    return digests


def content_digest(digests: Mapping[str, str]) -> str:
    """12 hex digits over names and digests of images, in their order."""
    return hashlib.sha256(json.dumps(list(digests.items())).encode()).hexdigest()[:12]


def changed_images(first: Mapping[str, str], second: Mapping[str, str]) -> list[str]:
    """Names that both have with another content; where one knows only the size, sizes are compared."""
    return [name for name in first if name in second and not _same(first[name], second[name])]


def files_digest(files: Sequence[Path]) -> str:
    """SHA-256 over names and bytes of files, in their order."""
    whole = hashlib.sha256()
    for file in files:
        whole.update(json.dumps([file.name, hashlib.sha256(file.read_bytes()).hexdigest()]).encode())
    return whole.hexdigest()


def unchanged_since(source: Source, names: Sequence[str], moment: float) -> bool:
    """Whether no image was modified after a moment, in seconds since 1970."""
    return not isinstance(source, Photographs) or all(source.storage.stamp(name)[1] <= moment * 1e9 for name in names)


def _same(first: str, second: str) -> bool:
    if ":" in first and ":" in second:
        return first == second
    return first.partition(":")[0] == second.partition(":")[0]


def _digest(storage: Storage, name: str, cache: _Cache, read: bool) -> str:
    try:
        size, modified = storage.stamp(name)
    except (OSError, LsapError, KeyError):
        return UNREADABLE
    if not read:
        return str(size)
    known = cache.find(name, size, modified)
    if known is None:
        try:
            known = hashlib.sha256(storage.read(name)).hexdigest()[:16]
        except Exception:  # an archive raises almost anything on a broken part
            return f"{size}:{UNREADABLE}"
        cache.keep(name, size, modified, known)
    return f"{size}:{known}"


class _Cache:
    """Digests of the files of a storage by name, size and modification time, in one JSON file per root."""

    def __init__(self, storage: Storage) -> None:
        root = hashlib.sha256(os.fsencode(storage.root.resolve())).hexdigest()[:16]
        self.path = cache_folder() / "image-digests" / f"{root}.json"
        self.new: dict[str, list[int | str]] = {}
        self.settled = time.time_ns() - UNSETTLED
        try:
            self.known: dict[str, list[int | str]] = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self.known = {}

    def find(self, name: str, size: int, modified: int) -> str | None:
        match self.known.get(name):
            case [found_size, found_time, str(digest)] if (found_size, found_time) == (size, modified):
                return digest
        return None

    def keep(self, name: str, size: int, modified: int, digest: str) -> None:
        if modified < self.settled:
            self.new[name] = [size, modified, digest]

    def write(self) -> None:
        """Keep what is new; a cache that cannot be written costs time only."""
        if self.new:
            with contextlib.suppress(OSError, LsapError):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                write_json(self.path, self.known | self.new)
