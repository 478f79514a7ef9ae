"""An LMDB of encoded images, as LSUN distributes it: read where it lies, opened by each process for itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lsap.data.folder import existing
from lsap.errors import BadValue

DATA = "data.mdb"

# One environment per database and process, by its path: (process, state of the file, environment). lmdb refuses to open
# a database twice in one process, and one that was opened before a fork must not be used after it.
_OPENED: dict[str, tuple[int, tuple[int, int], Any]] = {}


class LmdbDatabase:
    """The values of an LMDB, each an encoded image (JPEG, WebP, PNG …), by their keys in the database's order.

    It is opened read-only and without a lock file, so it may lie on a read-only disk and be read by any number of
    processes. Keys that are no UTF-8 text are named by escapes.

    Args:
        root: the folder that holds `data.mdb`, or the file itself.
        setting: the setting that named it, for messages.

    Raises:
        MissingFile: there is no such folder.
        BadValue: it is no LMDB, is cut short, has no entry, or the package `lmdb` is not installed.
    """

    def __init__(self, root: str | Path, setting: str = "data.root") -> None:
        self.root = existing(root, setting)
        self._file = self.root / DATA if self.root.is_dir() else self.root
        self._refuse_truncated(setting)
        with self._environment().begin() as transaction:
            keys = list(transaction.cursor().iternext(keys=True, values=False))
        self._keys = {key.decode("utf-8", "backslashreplace"): key for key in keys}
        if not keys:
            raise BadValue(f"{setting}={root} is an LMDB without entries")
        self.images = self.files = list(self._keys)

    @staticmethod
    def claims(root: Path) -> bool:
        """Whether this is the storage for such a root."""
        return (root / DATA).is_file() if root.is_dir() else root.suffix == ".mdb"

    def read(self, name: str) -> bytes:
        """The bytes of one value."""
        with self._environment().begin() as transaction:
            value: bytes | None = transaction.get(self._keys[name])
        if value is None:
            raise OSError("the key has gone from the database")
        return value

    def stamp(self, name: str) -> tuple[int, int]:
        """Size of one value, and modification time of the database."""
        with self._environment().begin(buffers=True) as transaction:
            value = transaction.get(self._keys[name])
            return 0 if value is None else len(value), self._file.stat().st_mtime_ns

    def _environment(self) -> Any:
        """The database as this process has it open."""
        status, path = self._file.stat(), str(self._file.resolve())
        state = status.st_size, status.st_mtime_ns
        if path in _OPENED:
            owner, seen, environment = _OPENED[path]
            if (owner, seen) == (os.getpid(), state):
                return environment
            environment.close()  # of another process, which keeps its own, or of a file that was replaced
        environment = opened(self._file)
        _OPENED[path] = os.getpid(), state, environment
        return environment

    def _refuse_truncated(self, setting: str) -> None:
        """A page beyond the end of the file would end the process without a word when it is touched.

        Raises:
            BadValue: the file is shorter than its own header says, or has none.
        """
        try:
            environment = self._environment()
        except BadValue as error:
            raise BadValue(f"{setting}={self.root}: {error}") from error
        needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        if (size := self._file.stat().st_size) < needed:
            raise BadValue(
                f"{setting}={self.root}: {self._file.name} is cut short: it has {size} of {needed} bytes; "
                "download or unpack it again"
            )


def opened(file: Path) -> Any:
    """A fresh environment; raises BadValue where the file is no LMDB or the package is missing."""
    try:
        import lmdb
    except ImportError as error:
        raise BadValue("reading an LMDB needs the package lmdb: pip install lmdb") from error
    try:
        return lmdb.open(str(file), subdir=False, readonly=True, lock=False, readahead=False, meminit=False)
    except (lmdb.Error, OSError) as error:
        raise BadValue(
            f"{file.name} cannot be opened as an LMDB ({error}); it has {file.stat().st_size} bytes: "
            "download or unpack it again"
        ) from error
