"""Files of tensors: read whatever is safe, refuse the rest in one line, write atomically."""

from __future__ import annotations

import argparse
import mmap
import os
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lsap.checkpoints.archives import read_archive
from lsap.checkpoints.arrays import NUMPY_GLOBALS
from lsap.checkpoints.foreign import check_known
from lsap.checkpoints.nvidia import is_module, nvidia_globals
from lsap.checkpoints.paths import located
from lsap.checkpoints.pickles import Record, read_pickle, refuse
from lsap.checkpoints.torchfiles import inspect, is_older, plain
from lsap.errors import BadValue, MissingFile
from lsap.runs import replacing, save_safetensors


def read_state(path: str | Path) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU: tensors by name, or a file's own nesting of dicts.

    Nothing in the file is executed. Torch files are read with `weights_only`; in other pickles, objects of foreign
    classes become inert `Record`s, and whoever asks for anything else is refused by name.

    Args:
        path: a safetensors or torch file (zip or the older layout) or one of NVIDIA's pickles; the content decides,
            not the name. A network of NVIDIA's that was saved alone comes as "G_ema". Where the file is missing,
            `located` says what is taken in its place.

    Raises:
        MissingFile: there is no such file.
        BadValue: truncated, hostile or another kind of file.
    """
    path = existing(path)
    if is_safetensors(path):
        try:
            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (SafetensorError, OSError, ValueError) as error:
            raise _broken(path, error) from error
    content = read_pickled(path)
    if isinstance(content, tuple) and len(content) == 3 and all(isinstance(part, Record) for part in content):
        content = dict(zip(("G", "D", "Gs"), content, strict=True))  # how NVIDIA's TensorFlow code saved its networks
    if isinstance(content, Record) and is_module(content):
        content = {"G_ema": content}  # a generator saved alone, as PTI saves its tuned ones
    if not isinstance(content, Mapping):
        raise BadValue(f"{path}: holds a {_kind(content)}, not a checkpoint (a dict of tensors)")
    return dict(content)


def read_pickled(path: str | Path) -> object:
    """The content of a torch file or of another pickle, whatever it is; see `read_state`.

    Raises:
        MissingFile, BadValue: as `read_state`.
    """
    path = existing(path)
    try:
        check_known(path)
        with path.open("rb") as file:
            if file.read(4) == b"PK\x03\x04" and not zipfile.is_zipfile(file):
                raise zipfile.BadZipFile("its end is missing")
            file.seek(0)
            is_torch = is_older(file) or zipfile.is_zipfile(file)
            file.seek(0)
            if is_torch:
                inspect(file, path.stat().st_size)
        return _torch_content(path) if is_torch else _other_content(path)
    except BadValue as error:
        raise BadValue(f"{path}: {error}") from error
    except (*CUT_SHORT, zipfile.BadZipFile) as error:
        raise _broken(path, error) from error


CUT_SHORT = (
    RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, MemoryError,
    OverflowError, struct.error, pickle.UnpicklingError,
)  # fmt: skip


def _torch_content(path: Path) -> object:
    known = [argparse.Namespace, *NUMPY_GLOBALS]  # plain data: options of a training, numbers of its records
    try:
        with torch.serialization.safe_globals(known), warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path):
            return plain(read_archive(path))
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found or "global" in str(error).lower():
            refuse(found[1] if found else "something that is no tensor")
        raise
    return plain(content)


def _other_content(path: Path) -> object:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return read_pickle(cast(IO[bytes], view), nvidia_globals)


def _kind(content: object) -> str:
    return content.name if isinstance(content, Record) else type(content).__name__


def check_finite(whose: str | Path, state: Mapping[str, Tensor]) -> None:
    """Refuse weights that are no numbers.

    Args:
        whose: what begins the message, a file or a part of one.
        state: the tensors by name.

    Raises:
        BadValue: some are NaN or infinite; the message names the first tensor.
    """
    bad = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if bad:
        raise BadValue(
            f"{whose}: {len(bad)} of its {len(state)} tensors hold NaN or infinite values (the first: {bad[0]}): the "
            "training diverged, or the file is damaged; take an earlier checkpoint"
        )


def read_card(path: str | Path) -> dict[str, str]:
    """The texts stored beside the tensors of a safetensors file; empty for every other file."""
    path = existing(path)
    if not is_safetensors(path):
        return {}
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise _broken(path, error) from error


def write_state(path: str | Path, state: Mapping[str, Tensor], card: Mapping[str, str]) -> Path:
    """Write tensors and texts as safetensors; a reader sees the old file or the whole new one, never a part.

    Raises:
        StoppedRun: the disk is full; nothing is left behind.
        BadValue: the folder cannot be written.
    """
    path = Path(path)
    try:
        save_safetensors(path, state, card)
    except OSError as error:
        raise BadValue(f"{path} could not be written: {error}") from error
    return path


def save_torch(path: str | Path, content: Mapping[str, Any]) -> Path:
    """Write tensors and plain values as a torch file, whole or not at all; for programs that read nothing else.

    Raises:
        StoppedRun: the disk is full; nothing is left behind.
        BadValue: the folder cannot be written.
    """
    path = Path(path)
    try:
        with replacing(path) as draft:
            torch.save(dict(content), draft)
    except OSError as error:
        raise BadValue(f"{path} could not be written: {error}") from error
    return path


def is_safetensors(path: Path) -> bool:
    """Whether a file looks like safetensors: eight bytes of header length, then JSON."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def existing(path: str | Path) -> Path:
    """The file of that name, or what `located` finds in its place.

    Raises:
        MissingFile, BadValue: there is nothing, or a folder.
    """
    path = located(path) or Path(path)
    if not path.exists():
        raise MissingFile(f"{path} does not exist; check the path, or download the file first")
    if not path.is_file():
        raise BadValue(f"{path} is a folder, not a checkpoint file")
    if not os.access(path, os.R_OK):
        raise BadValue(f"{path} may not be read by this user; change its permissions")
    return path


def _broken(path: Path, error: Exception | str) -> BadValue:
    size = path.stat().st_size
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0][:120]
    return BadValue(
        f"{path}: cannot be read as safetensors or torch file ({size:,} bytes; {reason}). "
        "Partial download or another kind of file? Delete it and download it again."
    )
