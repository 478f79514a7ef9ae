"""Image files in folders, archives and databases."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import lmdb
from PIL import Image

Pictures = Mapping[str, bytes]


def encoded(value: int, form: str = "PNG") -> bytes:
    """A picture whose left half is darker than its right."""
    picture = Image.new("RGB", (8, 6), (value, 0, 100))
    picture.paste((value, 50, 150), (4, 0, 8, 6))
    buffer = io.BytesIO()
    picture.save(buffer, form)
    return buffer.getvalue()


def in_folder(root: Path, files: Pictures) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def in_archive(root: Path, files: Pictures) -> Path:
    path = root.with_suffix(".zip")
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def in_database(root: Path, files: Pictures) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(root), map_size=2**24) as environment, environment.begin(write=True) as transaction:
        for name, data in files.items():
            transaction.put(name.encode(), data)
    return root


def stripes(path: Path) -> Path:
    """A picture that is no portrait."""
    picture = Image.new("RGB", (64, 64), "yellow")
    for left in range(0, 64, 8):
        picture.paste("blue", (left, 0, left + 4, 64))
    picture.save(path)
    return path


def blank_images(root: Path, names: Iterable[str]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(root / name)
    return root
