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
    head = file.read(32)
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


def plain(content: object) -> object:
    """The content of a torch file with plain tensors: no parameters, no gradients, no more memory than the file gives.

    Containers and records keep their identity and are visited once.

    Raises:
        BadValue: a tensor that is larger than its numbers, or of no ordinary kind.
    """
    top = [content]
    seen: set[int] = set()
    waiting: list[object] = [top]
    while waiting:
        box = waiting.pop()
        if id(box) in seen:
            continue
        seen.add(id(box))
        if isinstance(box, Record):
            waiting += [box.arguments, box.state, box.items]
        elif isinstance(box, dict | list):
            for key, value in list(box.items() if isinstance(box, dict) else enumerate(box)):
                if isinstance(value, Tensor):
                    box[key] = _checked(value).detach()
                else:
                    waiting.append(value)
        elif isinstance(box, tuple | set):
            waiting.extend(box)
        elif isinstance(box, Tensor):  # in a container that cannot be changed
            _checked(box).requires_grad_(False)
    return top[0]


def _checked(tensor: Tensor) -> Tensor:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise BadValue("refused, because it holds a tensor that is not a plain block of numbers")
    there = tensor.untyped_storage().nbytes()
    if tensor.numel() * tensor.element_size() > max(there, REPEATED):
        raise BadValue(f"refused, because a tensor of shape {list(tensor.shape)} is said to lie in {there} bytes")
    return tensor


def _inspect_zip(file: IO[bytes], size: int) -> None:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        for name in (member.filename for member in members):
            if ".." in PurePosixPath(name).parts or name.startswith(("/", "\\")) or "\\" in name or ":" in name[:3]:
                raise BadValue(f"refused, because its part {name!r} would lie outside of it")
        _check_kind([member.filename for member in members])
        repeated = [name for name, count in Counter(m.filename for m in members).items() if count > 1]
        if repeated:
            raise BadValue(f"refused, because it holds the part {repeated[0]!r} twice")
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise BadValue("refused, because it is compressed, which torch never does; it may unfold to any size")
        if sum(member.file_size for member in members) > size:
            raise BadValue("refused, because its parts are said to be larger than the file")
        for member in members:
            if is_content(member.filename):
                with archive.open(member) as content:
                    _skim(content)


def is_content(name: str) -> bool:
    """Whether a part of an archive is the pickle that torch begins with: `data.pkl` in the one folder of all parts."""
    return name.count("/") == 1 and name.endswith("/data.pkl")


def _check_kind(names: list[str]) -> None:
    """Refuse archives that hold programs, or no torch file."""
    if any(name.endswith("/constants.pkl") or name.split("/")[1:2] == ["code"] for name in names):
        raise BadValue(
            "refused, because it is a TorchScript program (torch.jit.save), which is code; where you trust it, save "
            "its weights alone: torch.save(torch.jit.load(FILE).state_dict(), 'weights.pt')"
        )
    if any(name.endswith("/archive_format") for name in names):
        raise BadValue(
            "refused, because it is an exported program (torch.export.save); where you trust it, save its weights "
            "alone: torch.save(dict(torch.export.load(FILE).state_dict), 'weights.pt')"
        )
    if not any(map(is_content, names)):
        held = ", ".join(names[:3]) or "nothing"
        raise BadValue(f"is a zip archive (of {held}) and no torch file; unpack it and name the file of weights inside")


def _skim(file: IO[bytes]) -> Any:
    """One pickle, every object in it inert: bounds the work that a reader will have with it."""
    return read_pickle(file, inert, persistent=lambda key: Record("storage", (key,)))
