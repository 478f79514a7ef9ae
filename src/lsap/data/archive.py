"""A zip archive of photographs, read without unpacking it."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from lsap.data.folder import existing
from lsap.data.storage import are_images
from lsap.errors import BadValue


class ZipArchive:
    """Everything in a zip archive, by the names that it gives; hidden files and those of macOS are left out.

    Args:
        root: the archive.
        setting: the setting that named it, for messages.

    Raises:
        MissingFile: there is no such file.
        BadValue: it is no zip archive, or cut short, or holds an LMDB, which cannot be read inside one.
    """

    def __init__(self, root: str | Path, setting: str = "data.root") -> None:
        self.root = existing(root, setting)
        try:
            with zipfile.ZipFile(self.root) as archive:
                names = {info.filename for info in archive.infolist() if not info.is_dir()}
        except (zipfile.BadZipFile, OSError, UnicodeDecodeError) as error:
            raise BadValue(
                f"{setting}={root} cannot be read as a zip archive ({error}); it may have been cut short: "
                f"it has {self.root.stat().st_size} bytes, compare with its source"
            ) from error
        self.files = sorted(name for name in names if not hidden(name))
        self.images = are_images(self.files)
        if not self.images and any(name.endswith("data.mdb") for name in self.files):
            raise BadValue(f"{setting}={root} holds an LMDB, which cannot be read inside a zip archive: unpack it")
        self._mine: tuple[int, zipfile.ZipFile] | None = None

    @staticmethod
    def claims(root: Path) -> bool:
        """Whether this is the storage for such a root."""
        return root.is_file() and (root.suffix.lower() == ".zip" or zipfile.is_zipfile(root))

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        return self._archive().read(name)

    def stamp(self, name: str) -> tuple[int, int]:
        """Size of one file, and modification time of the archive."""
        return self._archive().getinfo(name).file_size, self.root.stat().st_mtime_ns

    def _archive(self) -> zipfile.ZipFile:
        """The archive as this process has it open: processes that share a file share its position."""
        if self._mine is None or self._mine[0] != os.getpid():
            self._mine = os.getpid(), zipfile.ZipFile(self.root)
        return self._mine[1]

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_mine": None}


def hidden(name: str) -> bool:
    """Whether a file of an archive is not meant to be seen."""
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
