"""Codes of any tool: arrays, lists, name → code, a file per image, and the inversions that lsap stores."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsap.checkpoints.arrays import as_tensor
from lsap.checkpoints.states import existing, is_safetensors, read_card, read_pickled, read_state, write_state
from lsap.data import SUFFIXES as OF_IMAGES
from lsap.errors import BadValue, nearest

NAMES = ("codes", "w_plus", "w", "latents", "latent")  # what the tensor of codes is called, the surest first
SUFFIXES = (".safetensors", ".npy", ".npz", ".pt")
TEXTS = (".csv", ".tsv", ".txt", ".json")
SPACES = ("w", "w_plus")
DEEPEST = 3  # containers within containers that are looked into
LISTED = 4  # tensors that a message names


@dataclass(frozen=True)
class Codes:
    """Codes that fit one generator.

    codes: w [N, C], or w_plus [N, L, C].
    names: of the images, or None where the file has none.
    """

    codes: Tensor
    names: tuple[str, ...] | None

    def rows(self, n_latent: int) -> Tensor:
        """All of them in W+, [N, L, C]."""
        return self.codes if self.codes.ndim == 3 else self.codes[:, None].expand(-1, n_latent, -1)


def read_codes(
    path: str | Path, *, n_latent: int, style_dim: int, generator: str | None = None, codes_in: str | None = None
) -> Codes:
    """The codes of a file, checked against a generator.

    Args:
        path: `.npy`, `.npz`, `.pt` or `.safetensors` of [C], [L, C], [N, L, C], [N, L·C], or [N, 1, C] for codes of
            W; a list of single codes; a dict of name → code, or name → {"latent": code}; or a folder with a file per
            image.
        n_latent, style_dim: L and C of the generator.
        generator: its fingerprint; a file that carries one must carry this.
        codes_in: "w" or "w_plus", the space of the codes. None: as the shape says; [L, C] is one code of W+, and a
            line on stderr says so.

    Raises:
        MissingFile: there is no such file.
        BadValue: no codes, codes of another shape, of another generator, or with values that are not finite.
    """
    if codes_in is not None and codes_in not in SPACES:
        raise BadValue(f"codes_in={codes_in}: {nearest(codes_in, SPACES)}")
    path = Path(path)
    fits = Fits(n_latent, style_dim, codes_in)
    if path.is_dir():
        own = path / "codes.safetensors"
        return _of_file(own, fits, generator) if own.is_file() else of_files(code_files(path), path, fits, generator)
    return _of_file(path, fits, generator)


@dataclass(frozen=True)
class Fits:
    """Which codes are accepted: rows and width of the generator, and the space, if it is known."""

    n_latent: int
    style_dim: int
    codes_in: str | None = None

    def shaped(self, codes: Tensor) -> Tensor | None:
        """w [N, C] or w_plus [N, L, C] of what a file holds; None where it does not fit."""
        while codes.ndim > 3 and codes.shape[0] == 1:
            codes = codes[0]
        if codes.ndim in (1, 2) and codes.shape[-1] == self.n_latent * self.style_dim:
            codes = codes.reshape(-1, self.n_latent, self.style_dim)
        if codes.ndim not in (1, 2, 3) or codes.shape[-1] != self.style_dim or not codes.numel():
            return None
        if codes.ndim == 1:
            return codes[None]
        rows = codes.shape[-2]
        if codes.ndim == 2 and self.codes_in == "w":
            return codes
        if rows == 1:
            return codes if codes.ndim == 2 else codes[:, 0]
        if rows != self.n_latent or self.codes_in == "w":
            return None
        return codes[None] if codes.ndim == 2 else codes

    def __str__(self) -> str:
        width, rows = self.style_dim, self.n_latent
        if self.codes_in == "w":
            return f"[{width}], [N, {width}] or [N, 1, {width}] with codes_in=w"
        return (
            f"[{width}], [{rows}, {width}] or [N, {rows}, {width}], and codes of W as [N, 1, {width}], or as "
            f"[N, {width}] with codes_in=w"
        )


def code_files(folder: Path) -> dict[str, Path]:
    """Name → file of every file of codes in a folder, sorted."""
    there = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
    return {file.stem: file for file in there if not file.name.startswith(".")}


def of_files(files: Mapping[str, Path], folder: Path, fits: Fits, generator: str | None) -> Codes:
    """Codes of which each has a file of its own.

    Args:
        files: name of an image → file of its code.
        folder: that holds them, for messages.
        fits, generator: as in `read_codes`.

    Raises:
        BadValue: there is none, a file that holds no code or several, or codes of W beside codes of W+.
    """
    if not files:
        raise BadValue(f"{folder} holds no file of codes ({' '.join(SUFFIXES)})")
    single = Fits(fits.n_latent, fits.style_dim, fits.codes_in or "w_plus")  # [L, C] is one code here
    found = {name: _of_file(file, single, generator).codes for name, file in files.items()}
    return Codes(_joined(folder, found), tuple(found))


def _of_file(path: Path, fits: Fits, generator: str | None) -> Codes:
    content, card = read_content(path), read_card(path)
    if generator is not None:
        check_owner(path.name, card.get("generator"), generator)
    found = _found(content)
    if found is None:
        raise _no_codes(path, content, fits)
    held, names = found
    names = _listed(path, card) if "names" in card else names
    if isinstance(held, Tensor):
        shaped = _shaped(path, held, names, fits)
    else:
        called = _checked(path, names, len(held)) or tuple(map(str, range(len(held))))
        each = {name: fits.shaped(one) for name, one in zip(called, held, strict=True)}
        single = {name: one for name, one in each.items() if one is not None and len(one) == 1}
        if len(single) < len(held):
            raise _no_codes(path, content, fits)
        shaped = _joined(path, single)
    shaped = shaped.float()
    if not shaped.isfinite().all():
        raise BadValue(f"{path}: the codes hold values that are not finite; make them again")
    return Codes(shaped, _checked(path, names, len(shaped)))


def _shaped(path: Path, held: Tensor, names: Sequence[str] | None, fits: Fits) -> Tensor:
    """The codes of one tensor; where [L, C] may be L codes of W, it is one of W+, and a line says so."""
    if names and held.ndim == 2 and len(held) == len(names) > 1:
        fits = Fits(fits.n_latent, fits.style_dim, "w")
    shaped = fits.shaped(held)
    if shaped is None:
        raise BadValue(f"{path} holds codes of shape {list(held.shape)}; this generator takes {fits}")
    if held.ndim == 2 and len(held) == fits.n_latent > 1 and fits.codes_in is None:
        print(
            f"{path}: {list(held.shape)} is read as one code of W+; if it holds {len(held)} codes of W, give "
            "codes_in=w; codes_in=w_plus leaves this line out",
            file=sys.stderr,
        )
    return shaped


def _joined(path: Path, each: Mapping[str, Tensor]) -> Tensor:
    """Single codes as one tensor; raises BadValue where one is of W and another of W+, or one is none."""
    shapes = {name: list(code.shape) for name, code in each.items()}
    first = next(iter(shapes))
    for name, shape in shapes.items():
        if shape[0] != 1:
            raise BadValue(f"{path}: {name} holds {shape[0]} codes; expected one")
        if shape != shapes[first]:
            raise BadValue(f"{path}: codes of W and W+ lie together ({first} {shapes[first]}, {name} {shape})")
    return torch.cat([code.float() for code in each.values()])


Found = tuple[Tensor | list[Tensor], list[str] | None]  # one tensor, or single codes; and their names


def _found(content: object, seen: dict[int, Found | None] | None = None, depth: int = 0) -> Found | None:
    """What may be codes in the content of a file; a container that occurs more than once is looked into once."""
    if (tensor := as_tensor(content)) is not None:
        return (tensor, None) if tensor.ndim and not tensor.is_complex() else None
    if not isinstance(content, Mapping | list | tuple) or depth >= DEEPEST:
        return None
    seen = {} if seen is None else seen
    if id(content) not in seen:
        seen[id(content)] = None  # while it is being looked into, for one that holds itself
        seen[id(content)] = (_of_dict if isinstance(content, Mapping) else _of_list)(content, seen, depth + 1)
    return seen[id(content)]


def _of_list(content: Any, seen: dict[int, Found | None], depth: int) -> Found | None:
    """Single codes, or records that hold one each."""
    each = [_found(item, seen, depth) for item in content]
    codes = [one[0] for one in each if one is not None and isinstance(one[0], Tensor)]
    return (codes, None) if codes and len(codes) == len(content) else None


def _of_dict(content: Any, seen: dict[int, Found | None], depth: int) -> Found | None:
    """Codes under a name that is known, or name → code."""
    for name in NAMES:
        if name in content and (inner := _found(content[name], seen, depth)) is not None:
            return inner[0], inner[1] or _texts(content.get("names"))
    held = {str(name): inner for name, value in content.items() if (inner := _found(value, seen, depth)) is not None}
    if len(held) == 1 and not next(iter(held)).lower().endswith(OF_IMAGES):
        (inner,) = held.values()
        return inner[0], inner[1] or _texts(content.get("names"))
    named = {name: inner[0] for name, inner in held.items() if isinstance(inner[0], Tensor)}
    return (list(named.values()), list(named)) if named and len(named) == len(held) else None


def _texts(value: object) -> list[str] | None:
    texts = value if isinstance(value, list | tuple) else ()
    return [str(text) for text in texts] or None


def _listed(path: Path, card: Mapping[str, str]) -> list[str]:
    """The names on the card of a file of ours."""
    try:
        listed = json.loads(card["names"])
    except ValueError as error:
        raise BadValue(f"{path}: the names of its images cannot be read ({error})") from error
    return [str(name) for name in listed] if isinstance(listed, list) else []


def _checked(path: Path, names: Sequence[str] | None, count: int) -> tuple[str, ...] | None:
    """Names, one for each code and each once."""
    if names is None:
        return None
    if len(names) != count:
        raise BadValue(f"{path}: {count} codes come with another number of names; make them again")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadValue(f"{path}: the name {twice[0]!r} occurs twice; every code needs a name of its own")
    return tuple(names)


def _no_codes(path: Path, content: object, fits: Fits) -> BadValue:
    found = [f"{name} {list(tensor.shape)}" for name, tensor in sorted(_tensors(content, path.stem))]
    more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return BadValue(
        f"{path} holds no codes: expected one tensor, or one called {' or '.join(NAMES[:3])}, or one code for each "
        f"name, [{fits.style_dim}] or [{fits.n_latent}, {fits.style_dim}]; it has "
        f"{', '.join(found[:LISTED]) or 'nothing'}{more}"
    )


def write_codes(path: str | Path, codes: Codes, generator: str) -> Path:
    """Write codes as safetensors, with their names and the fingerprint of their generator; atomic."""
    card = {"generator": generator}
    if codes.names is not None:
        card["names"] = json.dumps(codes.names, ensure_ascii=False)
    return write_state(path, {"codes": codes.codes}, card)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of any kind of file, by name.

    A bare tensor or array gets the name of the file, those of a list their numbers, nested ones `outer/inner`.

    Raises:
        MissingFile: there is no such file.
        BadValue: a damaged file, or one that holds objects instead of numbers.
    """
    content = read_content(path)
    if as_tensor(content) is None and not isinstance(content, Mapping | list | tuple):
        raise BadValue(f"{path}: holds a {type(content).__name__} instead of tensors")
    return dict(_tensors(content, Path(path).stem))


def read_content(path: str | Path) -> object:
    """What a file holds: a tensor, or dicts and lists of tensors and texts.

    Raises:
        MissingFile: there is no such file.
        BadValue: a damaged file, or one that holds objects instead of numbers.
    """
    path = existing(path)
    with path.open("rb") as file:
        head = file.read(6)
    if head == b"\x93NUMPY" or path.suffix == ".npz":
        return _numpy(path)
    if path.suffix.lower() in TEXTS:
        raise BadValue(
            f"{path} is a text file; numbers are read from {' '.join(SUFFIXES)}: numpy.save(…, numpy.loadtxt(…)) makes "
            "a .npy of them"
        )
    return read_state(path) if is_safetensors(path) else read_pickled(path)


def _tensors(content: object, name: str, depth: int = 0, seen: set[int] | None = None) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested dicts and lists with its name; a container is visited once."""
    seen = set() if seen is None else seen
    if (tensor := as_tensor(content)) is not None:
        yield name, tensor
    elif depth < DEEPEST and isinstance(content, Mapping | list | tuple) and id(content) not in seen:
        seen.add(id(content))
        items = content.items() if isinstance(content, Mapping) else enumerate(content)
        for key, value in items:
            yield from _tensors(value, f"{name}/{key}" if depth else str(key), depth + 1, seen)


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


def _numpy(path: Path) -> object:
    """A tensor, or the arrays of an archive by name; raises BadValue where they hold objects."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return _numbers(loaded)
        with loaded:
            return {name: _numbers(loaded[name]) for name in loaded.files}
    except (ValueError, OSError, EOFError, KeyError, MemoryError, TypeError, zipfile.BadZipFile) as error:
        if "allow_pickle" in str(error) or "Object arrays" in str(error):
            raise BadValue(
                f"{path}: refused, because it holds Python objects instead of numbers, and reading those can run code. "
                "Save the codes of each image as a plain array."
            ) from error
        raise BadValue(f"{path}: cannot be read as a NumPy file ({str(error).splitlines()[0][:120]})") from error


def _numbers(array: np.ndarray[Any, Any]) -> Tensor | list[str]:
    """A tensor, or the texts of an array of texts."""
    if array.dtype.kind == "U":
        return [str(text) for text in array.reshape(-1)]
    tensor = as_tensor(array) if array.dtype.kind in "biuf" else None
    if tensor is None:
        raise ValueError(f"an array of {array.dtype}")
    return tensor.float() if torch.is_floating_point(tensor) else tensor
