"""Weight files on the disk: where one may lie when it is not where it was looked for, and its digest."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

# In this order: what lsap wrote itself is the quickest to read and the surest.
SUFFIXES = (".safetensors", ".pt", ".pth", ".pkl")


def located(path: str | Path) -> Path | None:
    """The file or folder of that name; else a weight file of the same stem beside it; else torch hub's copy of it.

    So `stylegan2-car-config-f.pt` is found as `stylegan2-car-config-f.pkl`, as NVIDIA calls it, and
    `alexnet-owt-7be5be79.pth` where torchvision has downloaded it once. None where there is none of these.
    """
    return next((place for place in places(path) if place.exists()), None)


def places(path: str | Path) -> list[Path]:
    """Where `located` looks, in order; a name without the suffix of a weight file is looked for only as it is."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        return [path]
    beside = [path.with_suffix(suffix) for suffix in SUFFIXES if suffix != path.suffix]
    return [path, *beside, hub_folder() / path.name]


def hub_folder() -> Path:
    """Where torch hub keeps what it downloads: below TORCH_HOME, else below the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("TORCH_HOME") or Path(cache) / "torch") / "hub" / "checkpoints"


def file_digest(path: str | Path) -> str:
    """SHA-256 (64 hex digits) of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
