"""Torch files looked at before torch opens them: what its own reader, which runs no code, would still stumble over.

A small file can ask for endless work or for more memory than there is. What torch writes itself never does, so anything
of the kind is refused.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import PurePosixPath
from typing import IO, Any

import torch
from torch import Tensor

from lsap.checkpoints.pickles import Record, inert, read_pickle
from lsap.errors import BadValue

MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # the number with which torch's older layout begins
REPEATED = 64 * 2**20  # bytes that a tensor may take by repeating fewer numbers, as expanded ones do
OLDER_PARTS = 5  # its pickles: magic number, version, machine, content, names of the storages


def is_older(file: IO[bytes]) -> bool:
    """Whether a file has torch's older layout; the position is kept."""
    here = file.tell()
    head = file.read(16)
    file.seek(here)
    return MAGIC in head


def inspect(file: IO[bytes], size: int) -> None:
    """Look through a torch file, zip or older, of so many bytes.

    Raises:
        BadValue: it is no such file, or one that would take endless work or memory, or leave its place.
        ValueError, IndexError, KeyError, TypeError, OSError, zipfile.BadZipFile: it is cut short.
    """
    if is_older(file):
        for _ in range(OLDER_PARTS):
            _skim(file)
    elif zipfile.is_zipfile(file):
        _inspect_zip(file, size)
    else:
        raise BadValue("refused, because it is no torch file")


def check_tensors(content: object) -> None:
    """Refuse tensors that take more memory than the file has given them; visits every container once.

    Raises:
        BadValue: a tensor that is larger than its numbers, or of no ordinary kind.
    """
    seen: set[int] = set()
    waiting: list[object] = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
                raise BadValue("refused, because it holds a tensor that is not a plain block of numbers")
            there = value.untyped_storage().nbytes()
            if value.numel() * value.element_size() > max(there, REPEATED):
                raise BadValue(
                    f"refused, because a tensor of shape {list(value.shape)} is said to lie in {there} bytes"
                )
        elif isinstance(value, dict | list | tuple | set) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, dict) else value)


def _inspect_zip(file: IO[bytes], size: int) -> None:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        for name in (member.filename for member in members):
            if ".." in PurePosixPath(name).parts or name.startswith(("/", "\\")) or "\\" in name or ":" in name[:3]:
                raise BadValue(f"refused, because its part {name!r} would lie outside of it")
        repeated = [name for name, count in Counter(m.filename for m in members).items() if count > 1]
        if repeated:
            raise BadValue(f"refused, because it holds the part {repeated[0]!r} twice")
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise BadValue("refused, because it is compressed, which torch never does; it may unfold to any size")
        if sum(member.file_size for member in members) > size:
            raise BadValue("refused, because its parts are said to be larger than the file")
        for member in members:
            if member.filename.count("/") == 1 and member.filename.endswith("/data.pkl"):
                with archive.open(member) as content:
                    _skim(content)


def _skim(file: IO[bytes]) -> Any:
    """One pickle, every object in it inert: bounds the work that a reader will have with it."""
    return read_pickle(file, inert, persistent=lambda key: Record("storage", (key,)))
