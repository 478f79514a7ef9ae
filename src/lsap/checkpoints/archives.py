"""Torch's zip files read as data where torch's own safe reader stops: whole modules, pickles of protocol 4 and 5."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch

from lsap.checkpoints.arrays import Numbers
from lsap.checkpoints.nvidia import nvidia_globals
from lsap.checkpoints.pickles import Maker, inert, read_pickle
from lsap.checkpoints.torchfiles import is_content
from lsap.errors import BadValue

STORAGES = {
    "torch.DoubleStorage": torch.float64, "torch.FloatStorage": torch.float32, "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16, "torch.LongStorage": torch.int64, "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16, "torch.CharStorage": torch.int8, "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}  # fmt: skip


def read_archive(path: Path) -> object:
    """The content of a torch zip that `torchfiles.inspect` has accepted; foreign objects are inert records.

    Raises:
        BadValue: it asks for a name, a kind of numbers or a byte order that is not accepted.
        ValueError, IndexError, KeyError, TypeError: it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        content = next(filter(is_content, names))
        folder = content.removesuffix("data.pkl")
        if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
            raise BadValue("refused, because its numbers are big-endian; save it again on another machine")
        stored: dict[str, Numbers] = {}

        def numbers(reference: object) -> Numbers:
            """The numbers behind a reference ("storage", their kind, name of the part, device, count)."""
            if not (isinstance(reference, tuple) and len(reference) == 5 and isinstance(reference[2], str)):
                raise BadValue("refused, because a tensor refers to something else than numbers of the file")
            kind, name = getattr(reference[1], "name", ""), reference[2]
            if kind not in STORAGES:
                raise BadValue("refused, because a tensor has no numbers of a known type")
            if name not in stored:
                data = archive.read(f"{folder}data/{name}")
                flat = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0)
                stored[name] = Numbers(flat.untyped_storage(), STORAGES[kind])
            return stored[name]

        with archive.open(content) as file:
            return read_pickle(file, _globals, persistent=numbers)


def _globals(name: str) -> Maker:
    return inert(name) if name in STORAGES else nvidia_globals(name)
