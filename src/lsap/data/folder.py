"""A folder of photographs, nested as it may be."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lsap.data.storage import SUFFIXES, Photographs, are_images, found, image_size
from lsap.errors import BadValue, MissingFile
from lsap.values import expanded


class Folder:
    """Everything below a folder.

    Names are paths relative to the root with forward slashes, sorted; they are the same on every machine. Hidden files
    and folders (a leading dot) are left out, linked folders are followed once.

    Args:
        root: the folder.
        setting: the setting that named it, for messages.

    Raises:
        MissingFile: there is no such folder.
        BadValue: `root` is a file or may not be read.
    """

    def __init__(self, root: str | Path, setting: str = "data.root") -> None:
        self.root = existing(root, setting)
        if not self.root.is_dir():
            alone = f", or one image ({', '.join(SUFFIXES)})" if setting == "images" else ""
            raise BadValue(
                f"{setting}={root} is a file; give the folder that holds the images, or a zip archive of them{alone}"
            )
        self.files = listing(self.root)
        self.images = are_images(self.files)

    @staticmethod
    def claims(root: Path) -> bool:
        """Whether this is the storage for such a root."""
        return root.is_dir()

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        return (self.root / name).read_bytes()

    def stamp(self, name: str) -> tuple[int, int]:
        """Size and modification time of one file."""
        return file_stamp(self.root / name)


def file_stamp(path: Path) -> tuple[int, int]:
    """Size in bytes and modification time in nanoseconds of a file; raises OSError where it is gone."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


class ImageFolder(Photographs):
    """Every image below a folder, resized to one size; `Folder` says which, `Photographs` how they are read.

    Args:
        root: the folder.
        size: (height, width) in pixels of what `read` returns.
        strict: a broken image stops the run instead of being left out.

    Raises:
        MissingFile: there is no such folder.
        BadValue: `root` is a file, holds no image or may not be read; `size` is not two positive whole numbers.
    """

    def __init__(self, root: str | Path, size: Sequence[int], strict: bool = False) -> None:
        image_size(size)  # before a long listing
        folder = Folder(root)
        super().__init__(folder, found(folder, "data.root"), size, strict)


def existing(root: str | Path, setting: str = "data.root") -> Path:
    """The root of images as a path, or the one line that says why it cannot be used."""
    if not str(root).strip():
        raise BadValue(f"{setting} is empty; give the folder that holds the images")
    path = expanded(root)
    if not path.exists():
        raise MissingFile(f"{setting}={root}: no such folder; give the folder that holds the images")
    return path


def listing(root: Path) -> list[str]:
    """Sorted relative names of all files below `root`."""

    def refuse(error: OSError) -> None:
        raise BadValue(f"{error.filename} cannot be listed ({error.strerror}); check its permissions") from error

    names: list[str] = []
    visited: set[tuple[int, int]] = set()
    for folder, below, files in os.walk(root, onerror=refuse, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in visited:  # a link that leads back up
            below.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        below[:] = sorted(name for name in below if not name.startswith("."))
        shown = (file for file in files if not file.startswith("."))
        names += [Path(os.path.relpath(os.path.join(folder, file), root)).as_posix() for file in shown]
    return sorted(names)
