"""Files of tensors: read whatever is safe, refuse the rest in one line, write atomically."""

from __future__ import annotations

import argparse
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lsap.errors import BadValue, MissingFile
from lsap.runs.atomic import save_safetensors


def read_state(path: str | Path) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU: tensors by name, or a torch file's own nesting of dicts.

    Nothing in the file is executed: torch files are read with `weights_only`, so one that needs code is refused.

    Args:
        path: a safetensors or torch file (zip or the older layout); the content decides, not the name.

    Raises:
        MissingFile: there is no such file.
        BadValue: truncated, hostile or another kind of file.
    """
    path = _existing(path)
    if is_safetensors(path):
        try:
            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (SafetensorError, OSError, ValueError) as error:
            raise _broken(path, error) from error
    try:
        # Training checkpoints often carry their options as a Namespace, which is plain data.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path) or "global" in str(error).lower():
            raise BadValue(
                f"{path}: refused, because the file wants to run code when it is opened. Extract its state dict with a "
                "tool that you trust and save that as safetensors."
            ) from error
        raise _broken(path, "its bytes are no list of tensors") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise _broken(path, error) from error
    if not isinstance(content, Mapping):
        raise BadValue(f"{path}: holds a {type(content).__name__}, not a checkpoint (a dict of tensors)")
    return dict(content)


def read_card(path: str | Path) -> dict[str, str]:
    """The texts stored beside the tensors of a safetensors file; empty for every other file."""
    path = _existing(path)
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


def is_safetensors(path: Path) -> bool:
    """Whether a file looks like safetensors: eight bytes of header length, then JSON."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise MissingFile(f"{path} does not exist; check the path, or download the file first")
    if not path.is_file():
        raise BadValue(f"{path} is a folder, not a checkpoint file")
    return path


def _broken(path: Path, error: Exception | str) -> BadValue:
    size = path.stat().st_size
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0][:120]
    return BadValue(
        f"{path}: cannot be read as safetensors or torch file ({size:,} bytes; {reason}). "
        "Partial download or another kind of file? Delete it and download it again."
    )
