"""Codes of any tool: bare tensors and arrays, NVIDIA's `projected_w.npz`, and the inversions that lsap stores."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lsap.checkpoints.arrays import as_tensor
from lsap.checkpoints.states import existing, is_safetensors, read_card, read_pickled, read_state, write_state
from lsap.errors import BadValue

NAMES = ("codes", "w_plus", "w", "latents", "latent")  # what the tensor of codes is called, the surest first


@dataclass(frozen=True)
class Codes:
    """Codes that fit one generator.

    codes: w [N, C], or w_plus [N, L, C].
    names: of the images, or None where the file has none.
    """

    codes: Tensor
    names: tuple[str, ...] | None


def read_codes(path: str | Path, *, n_latent: int, style_dim: int, generator: str | None = None) -> Codes:
    """The codes of a file, checked against a generator.

    Args:
        path: `.npy`, `.npz`, `.pt` or `.safetensors` of [C], [L, C], [N, L, C], or [N, 1, C] for codes of W.
        n_latent, style_dim: L and C of the generator.
        generator: its fingerprint; a file that carries one must carry this.

    Raises:
        MissingFile: there is no such file.
        BadValue: no codes, codes of another shape, of another generator, or with values that are not finite.
    """
    path = Path(path)
    tensors, card = read_tensors(path), read_card(path)
    if generator is not None:
        check_owner(path.name, card.get("generator"), generator)
    known = [name for name in NAMES if name in tensors] or (list(tensors) if len(tensors) == 1 else [])
    if not known:
        raise BadValue(
            f"{path} holds no codes: expected one tensor, or one called {' or '.join(NAMES[:3])}; "
            f"it has {', '.join(sorted(tensors)[:4]) or 'nothing'}"
        )
    codes = _shaped(path, tensors[known[0]].float(), n_latent, style_dim)
    if not codes.isfinite().all():
        raise BadValue(f"{path}: the codes hold values that are not finite; make them again")
    try:
        listed = json.loads(card["names"]) if "names" in card else None
    except ValueError as error:
        raise BadValue(f"{path}: the names of its images cannot be read ({error})") from error
    if listed is not None and not (isinstance(listed, list) and len(listed) == len(codes)):
        raise BadValue(f"{path}: {len(codes)} codes come with another number of names; make them again")
    return Codes(codes, None if listed is None else tuple(map(str, listed)))


def write_codes(path: str | Path, codes: Codes, generator: str) -> Path:
    """Write codes as safetensors, with their names and the fingerprint of their generator; atomic."""
    card = {"generator": generator}
    if codes.names is not None:
        card["names"] = json.dumps(codes.names, ensure_ascii=False)
    return write_state(path, {"codes": codes.codes}, card)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of any kind of file, by name; a bare tensor or array gets the name of the file.

    Raises:
        MissingFile: there is no such file.
        BadValue: a damaged file, or one that holds objects instead of numbers.
    """
    path = existing(path)
    with path.open("rb") as file:
        head = file.read(6)
    if head == b"\x93NUMPY" or path.suffix == ".npz":
        return _numpy(path)
    content = read_state(path) if is_safetensors(path) else read_pickled(path)
    if (tensor := as_tensor(content)) is not None:
        return {path.stem: tensor}
    if not isinstance(content, dict):
        raise BadValue(f"{path}: holds a {type(content).__name__} instead of tensors")
    found = {str(name): as_tensor(value) for name, value in content.items()}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def check_owner(what: str, owner: str | None, generator: str) -> None:
    """Refuse what belongs to another generator; a file that does not say whose it is passes.

    Raises:
        BadValue: with both fingerprints.
    """
    if owner is not None and owner != generator:
        raise BadValue(
            f"{what} belongs to generator {owner[:12]}, but this one is {generator[:12]}; codes, style means and "
            "directions work in the space of their own generator only: make them again for this one"
        )


def _shaped(path: Path, codes: Tensor, n_latent: int, style_dim: int) -> Tensor:
    """[N, C] or [N, L, C] of what the file has."""
    shape = list(codes.shape)
    while codes.ndim > 3 and codes.shape[0] == 1:
        codes = codes[0]
    if codes.shape[-1:] == (style_dim,):
        if codes.ndim == 1:
            return codes[None]
        rows = codes.shape[-2]
        if codes.ndim == 2 and rows in (1, n_latent):
            return codes if rows == 1 else codes[None]
        if codes.ndim == 3 and rows in (1, n_latent):
            return codes[:, 0] if rows == 1 else codes
    raise BadValue(
        f"{path} holds codes of shape {shape}; this generator takes [{style_dim}], [{n_latent}, {style_dim}] or "
        f"[N, {n_latent}, {style_dim}], and codes of W as [N, 1, {style_dim}]"
    )


def _numpy(path: Path) -> dict[str, Tensor]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {path.stem: _numbers(loaded)}
        with loaded:
            return {name: _numbers(loaded[name]) for name in loaded.files}
    except (ValueError, OSError, EOFError, KeyError, MemoryError, TypeError, zipfile.BadZipFile) as error:
        if "allow_pickle" in str(error) or "Object arrays" in str(error):
            raise BadValue(
                f"{path}: refused, because it holds Python objects instead of numbers, and reading those can run code. "
                "Save the codes of each image as a plain array."
            ) from error
        raise BadValue(f"{path}: cannot be read as a NumPy file ({str(error).splitlines()[0][:120]})") from error


def _numbers(array: np.ndarray) -> Tensor:
    tensor = as_tensor(array) if array.dtype.kind in "biuf" else None
    if tensor is None:
        raise ValueError(f"an array of {array.dtype}")
    return tensor.float() if torch.is_floating_point(tensor) else tensor
