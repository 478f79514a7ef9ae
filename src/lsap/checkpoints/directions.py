"""Directions in W: ours, vectors of InterFaceGAN and others, GANSpace's components, in one record.

In the W of another generator a direction means nothing. Ours carry the fingerprint of theirs; a foreign file does not
say which it was found for, so whoever reads it names the generator, and from then on the fingerprint goes with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from lsap.checkpoints.codes import check_owner, read_tensors
from lsap.checkpoints.states import read_card, read_state, write_state
from lsap.errors import BadValue, MissingFile, nearest

FORMAT = "lsap.directions/2"
COMPONENTS = "lsap components"
LENGTH = "length in W"
SPREAD = "standard deviation of the generator's samples along it"
COORDINATE = "coordinate to reach, in standard deviations of the generator's samples"
PARTS = (
    ("mean", "comp", "std"),
    ("lat_mean", "lat_comp", "lat_stdev"),
)  # of components, as e4e and as GANSpace call them
LISTED = 8  # names that a message holds
MEAN = "/mean"  # what follows a direction's name where the mean it is measured from stands in a file


@dataclass(frozen=True, kw_only=True)
class Direction:
    """One edit: where codes move, how far one unit of strength is, and what is known about its effect.

    Attributes:
        name: of the edit; letters, digits, `.`, `_`, `-`.
        vector: [C], the same on every row of W+ that it moves, or [L, C].
        generator: fingerprint of the generator whose codes it moves.
        step: a strength of 1 moves codes by `step * vector`.
        unit: what a strength of 1 is, in words.
        rows: of W+ that it moves; None for all.
        attribute: what a reader of attributes calls the thing that it changes, if it has a name.
        change: of that attribute per unit of length along the vector, by the fit on samples.
        usable: weakest and strongest strength at which edited samples still look like the generator's own.
        side_effects: what else changes at a strength of 1, by name.
        measured: how `usable` and `side_effects` were measured, and in which unit.
        origin: the method that found it, on what.
        licence: what binds its users.

    Raises:
        BadValue: a vector of another shape, with values that are not finite, or rows that it does not have.
    """

    name: str
    vector: Tensor = field(repr=False)
    generator: str
    step: float = 1.0
    unit: str = LENGTH
    rows: tuple[int, ...] | None = None
    attribute: str | None = None
    change: float | None = None
    usable: tuple[float, float] | None = None
    side_effects: Mapping[str, float] = field(default_factory=dict)
    measured: str = ""
    origin: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        shape = list(self.vector.shape)
        if not re.fullmatch(r"[\w.+-]+", self.name) or self.name.startswith("."):
            raise BadValue(f"direction {self.name!r}: its name may hold letters, digits, '.', '_', '+' and '-' only")
        if self.vector.ndim not in (1, 2) or not self.vector.isfinite().all() or not self.vector.any():
            raise BadValue(f"direction {self.name!r}: expected finite numbers [C] or [L, C], not all zero; got {shape}")
        if self.rows is not None:
            last = len(self.vector) if self.vector.ndim == 2 else None
            if not self.rows or min(self.rows) < 0 or (last is not None and max(self.rows) >= last):
                raise BadValue(f"direction {self.name!r}: rows {list(self.rows)} are not rows of a vector {shape}")

    def moved(self, codes: Tensor, strength: float | Tensor) -> Tensor:
        """Codes under this edit; the given ones are untouched.

        Args:
            codes: w [N, C], where the direction moves all rows alike, or w_plus [N, L, C].
            strength: in units of the direction: one number, or [N], one per code.

        Raises:
            BadValue: codes of another shape, or w where it moves some rows only.
        """
        self._check(codes)
        amount = self.distance(codes, torch.as_tensor(strength, dtype=codes.dtype, device=codes.device))
        shift = amount.reshape(-1, *[1] * (codes.ndim - 1)) * self.vector.to(codes)
        if self.rows is None:
            return codes + shift
        moved = codes.clone()
        rows = [row for row in self.rows if row < codes.shape[1]]
        moved[:, rows] += shift.expand(-1, codes.shape[1], -1)[:, rows]
        return moved

    def fitted(self, n_latent: int, style_dim: int) -> Direction:
        """The direction for codes of L rows and C numbers; a vector [L·C] becomes [L, C].

        Raises:
            BadValue: it has another shape, as when it belongs to another generator.
        """
        shape = list(self.vector.shape)
        if shape == [n_latent * style_dim]:
            return replace(self, vector=self.vector.reshape(n_latent, style_dim))
        if shape not in ([style_dim], [n_latent, style_dim]):
            raise BadValue(
                f"direction {self.name!r} is {shape}, but this generator takes [{style_dim}] in W, [{n_latent}, "
                f"{style_dim}] or [{n_latent * style_dim}] in W+; use a direction of its own (directions in S are not "
                "read)"
            )
        return self

    def distance(self, codes: Tensor, strength: Tensor) -> Tensor:
        """How far along the vector a strength [] or [N] moves codes: [] or [N]."""
        return strength * self.step

    def _check(self, codes: Tensor) -> None:
        width = self.vector.shape[-1]
        who = f"direction {self.name!r}"
        if codes.ndim not in (2, 3) or codes.shape[-1] != width:
            raise BadValue(
                f"{who} has {width} numbers and moves codes [N, {width}] or [N, L, {width}], but these have the shape "
                f"{list(codes.shape)}; use a direction of their own generator"
            )
        if codes.ndim == 2 and (self.rows is not None or self.vector.ndim == 2):
            raise BadValue(f"{who} moves rows of W+ by themselves; it needs codes [N, L, {width}], not w")
        if self.vector.ndim == 2 and codes.shape[1] != len(self.vector):
            raise BadValue(
                f"{who} is for codes of {len(self.vector)} rows, but these have {codes.shape[1]}; use a direction of "
                "their own generator"
            )
        if self.rows is not None and min(self.rows) >= codes.shape[1]:
            raise BadValue(f"{who} moves rows {list(self.rows)}, but these codes have {codes.shape[1]}")


@dataclass(frozen=True, kw_only=True)
class CoordinateDirection(Direction):
    """GANSpace's edit (Härkönen et al. 2020) as published: the strength is the coordinate that a code shall *reach*.

    The coordinate is read on row 0, whichever rows are moved: ((row 0 - mean) · vector) / step. So a strength of 0
    leads to the mean of the component, not to the code itself; `increment` is the same edit in steps from the code.

    Attributes:
        mean: [C], of the generator's samples.
    """

    mean: Tensor = field(repr=False)
    unit: str = COORDINATE

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vector.ndim != 1 or self.mean.shape != self.vector.shape:
            raise BadValue(
                f"direction {self.name!r}: a coordinate needs a vector [C] and a mean [C], not "
                f"{list(self.vector.shape)} and {list(self.mean.shape)}"
            )

    def coordinate(self, codes: Tensor) -> Tensor:
        """Where codes [N, C] or [N, L, C] are along the component, [N]."""
        first = codes if codes.ndim == 2 else codes[:, 0]
        return ((first - self.mean.to(codes)) * self.vector.to(codes)).sum(-1) / self.step

    def distance(self, codes: Tensor, strength: Tensor) -> Tensor:
        return (strength - self.coordinate(codes)) * self.step

    def increment(self) -> Direction:
        """The edit whose strength says how far codes move, not where to."""
        known = {f.name: getattr(self, f.name) for f in fields(Direction)}
        return Direction(**known | {"unit": SPREAD})


@dataclass(frozen=True)
class Components:
    """GANSpace's principal components of w.

    mean: [C] of the samples.
    vectors: [K, C], unit length.
    stds: [K], standard deviations of the samples along them.
    generator: fingerprint of the generator whose samples they were.
    """

    mean: Tensor
    vectors: Tensor
    stds: Tensor
    generator: str

    def direction(
        self, component: int, rows: tuple[int, int] | None = None, name: str | None = None, **known: Any
    ) -> CoordinateDirection:
        """The edit along one component.

        Args:
            component: its number, from 0.
            rows: the first row of W+ that is moved and the one after the last; None for all.
            name: of the edit.
            known: other fields of the direction.

        Raises:
            BadValue: there is no such component, or an empty range of rows.
        """
        if not 0 <= component < len(self.stds):
            raise BadValue(f"there is no component {component}; the file holds 0 to {len(self.stds) - 1}")
        if rows is not None and not 0 <= rows[0] < rows[1]:
            raise BadValue(f"rows {rows[0]}:{rows[1]}: the first row, and the one after the last, counted from 0")
        chosen = None if rows is None else tuple(range(*rows))
        return CoordinateDirection(
            name=name or f"component_{component:02d}", vector=self.vectors[component], mean=self.mean, rows=chosen,
            step=self.stds[component].item(), generator=self.generator, **known,
        )  # fmt: skip


# ---- files


def read_direction(
    path: str | Path,
    generator: str,
    which: str | None = None,
    *,
    n_latent: int | None = None,
    style_dim: int | None = None,
) -> Direction:
    """One direction of a file.

    Args:
        path, generator, n_latent, style_dim: as in `read_directions`.
        which: its name, or its number from 0, in a file of several.

    Raises:
        MissingFile, BadValue: as `read_directions`; there are several and `which` is None, or there is no such one.
    """
    path = Path(path)
    found: Mapping[str, Tensor | Direction] = (
        load_directions(path, generator) if _is_ours(path) else _vectors(path, generator, n_latent, style_dim, which)
    )
    names = list(found)
    if which is None:
        if len(found) > 1:
            raise BadValue(f"{path} holds {len(found)} directions ({_listed(names)}); say which: {path}:{names[0]}")
        which = names[0]
    number = int(which) if re.fullmatch(r"\d{1,9}", which) else len(names)
    name = which if which in found else names[number] if number < len(names) else None
    if name is None:
        known = nearest(which, names) if len(names) <= LISTED else f"it holds {_listed(names)}"
        raise BadValue(f"{path} holds no direction {which!r}; {known}")
    one = found[name]
    return one if isinstance(one, Direction) else _built(path, name, one, generator, n_latent, style_dim)


def read_directions(
    path: str | Path, generator: str, *, n_latent: int | None = None, style_dim: int | None = None
) -> dict[str, Direction]:
    """All directions of a file, by the names or numbers that they have there.

    Args:
        path: what `save_directions` wrote; InterFaceGAN's of [C], [1, C], [L, C], [1, L, C] or [1, L·C]; name → such a
            vector; [K, C], [K, 1, C] or [K, L, C] of K directions; or rosinality's `factor.pt`, whose `eigvec` [C, C]
            has them as columns. `.pt`, `.npy`, `.npz` or `.safetensors`.
        generator: fingerprint of the generator that they were found for; a file that carries one must carry this.
        n_latent, style_dim: L and C of the generator, where they are known: [K, C] is then one direction of W+ only
            where K is L, and directions that do not fit are refused.

    Raises:
        MissingFile: there is no such file.
        BadValue: no direction, numbers that are not finite, directions of another generator or of S.
    """
    path = Path(path)
    if _is_ours(path):
        return load_directions(path, generator)
    found = _vectors(path, generator, n_latent, style_dim, None)
    return {key: _built(path, key, vector, generator, n_latent, style_dim) for key, vector in found.items()}


def _vectors(
    path: Path, generator: str, n_latent: int | None, style_dim: int | None, which: str | None
) -> dict[str, Tensor]:
    """What may be the directions of a file, [C], [L, C] or [L·C] each; [L, C] are L of them where one is asked for."""
    tensors = {name: tensor for name, tensor in read_tensors(path).items() if tensor.ndim and not tensor.is_complex()}
    check_owner(path.name, read_card(path).get("generator"), generator)
    if "eigvec" in tensors and tensors["eigvec"].ndim == 2:
        return {str(number): column for number, column in enumerate(tensors["eigvec"].T)}
    if len(tensors) > 1:  # beside directions there may be intercepts, means, variances
        widths = None if style_dim is None else (style_dim, style_dim * (n_latent or 1))
        fitting = {n: t for n, t in tensors.items() if t.shape[-1] > 1 and (widths is None or t.shape[-1] in widths)}
        tensors = fitting or tensors
    found: dict[str, Tensor] = {}
    alone = len(tensors) == 1
    for name, tensor in tensors.items():
        vector = tensor.squeeze(1) if tensor.ndim == 3 and len(tensor) > 1 else tensor
        while vector.ndim > 1 and len(vector) == 1:
            vector = vector[0]
        of_rows = (n_latent is None or len(vector) == n_latent) and not (alone and which is not None)
        if vector.ndim == 3 or (vector.ndim == 2 and not of_rows):
            found |= {str(n) if alone else f"{name}/{n}": one for n, one in enumerate(vector)}
        else:
            found[name] = vector
    if not found:
        raise BadValue(f"{path} holds no direction: expected a tensor [C] or [L, C], or one for each name")
    return found


def _built(
    path: Path, key: str, vector: Tensor, generator: str, n_latent: int | None, style_dim: int | None
) -> Direction:
    """The direction of one vector of a file, named as there, or by the file where it is a number or the file's only."""
    if vector.ndim not in (1, 2) or vector.shape[-1] < 2 or not vector.isfinite().all() or not vector.any():
        raise BadValue(
            f"{path} holds no direction in {key!r}: expected finite numbers [C] or [L, C], not all zero; found "
            f"{list(vector.shape)}"
        )
    called = f"{path.stem}_{key}" if key.isdecimal() else key
    name = re.sub(r"[^\w.+-]+", "_", called).lstrip(".") or "direction"
    one = Direction(name=name, vector=vector.float(), generator=generator, origin=f"{key} of the file {path.name}")
    return one if style_dim is None or n_latent is None else one.fitted(n_latent, style_dim)


def _listed(names: Sequence[str]) -> str:
    """Names for a message."""
    if len(names) > LISTED and names == [str(number) for number in range(len(names))]:
        return f"0 to {len(names) - 1}"
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def read_components(path: str | Path, generator: str) -> Components:
    """GANSpace's components: `mean` [1, C], `comp` [K, 1, C] and `std` [K], or `lat_mean`, `lat_comp` and `lat_stdev`.

    Raises:
        MissingFile: there is no such file.
        BadValue: other content, or components of another generator.
    """
    path = Path(path)
    tensors = read_tensors(path)
    check_owner(path.name, read_card(path).get("generator"), generator)
    called = next((names for names in PARTS if set(names) <= set(tensors)), None)
    if called is None:
        raise BadValue(
            f"{path} holds no GANSpace components (mean, comp, std); it has {', '.join(tensors) or 'nothing'}"
        )
    mean, vectors, stds = (tensors[name].float() for name in called)
    mean, vectors, stds = mean.reshape(-1), vectors.flatten(1), stds.reshape(-1)
    if vectors.shape != (len(stds), len(mean)):
        raise BadValue(f"{path}: {list(vectors.shape)} components do not go with a mean {list(mean.shape)}")
    if not all(part.isfinite().all() for part in (mean, vectors, stds)):
        raise BadValue(f"{path}: the components hold values that are not finite; make them again")
    return Components(mean, vectors, stds, generator)


def holds_directions(path: str | Path) -> bool:
    """Whether a file is one that `save_directions` wrote, by its card."""
    return read_card(path).get("format") == FORMAT


def is_components(tensors: Mapping[str, Any]) -> bool:
    """Whether these are the parts of a GANSpace file."""
    return any(set(names) <= set(tensors) for names in PARTS)


def write_direction(direction: Direction | Components, path: str | Path) -> Path:
    """Write as safetensors with the fingerprint of the generator; atomic."""
    if isinstance(direction, Direction):
        return save_directions([direction], path)
    parts = {"mean": direction.mean, "comp": direction.vectors, "std": direction.stds}
    return write_state(path, parts, {"kind": COMPONENTS, "generator": direction.generator})


def save_directions(directions: Sequence[Direction], path: str | Path) -> Path:
    """Write directions of one generator as safetensors, whole or not at all.

    Raises:
        BadValue: none, two of one name, or of different generators.
    """
    path = Path(path)
    if not directions:
        raise BadValue(f"{path.name}: there is no direction to save")
    names = [direction.name for direction in directions]
    if len(set(names)) < len(names):
        raise BadValue(f"{path.name}: directions need names of their own, but got {', '.join(names)}")
    for direction in directions[1:]:
        same_generator(directions[0], direction)
    tensors: dict[str, Tensor] = {}
    card = {}
    for direction in directions:
        tensors[direction.name] = direction.vector.float()
        if isinstance(direction, CoordinateDirection):
            tensors[direction.name + MEAN] = direction.mean.float()
        known = {f.name: getattr(direction, f.name) for f in fields(Direction)}
        card[direction.name] = {
            key: value for key, value in known.items() if key not in ("name", "vector", "generator")
        }
    texts = {"format": FORMAT, "generator": directions[0].generator, "directions": json.dumps(card, default=dict)}
    return write_state(path, tensors, texts)


def load_directions(path: str | Path, generator: str | None = None) -> dict[str, Direction]:
    """Our directions by name, in the order in which they were saved.

    Args:
        path: a file of `save_directions`.
        generator: fingerprint that they must belong to; None skips the check.

    Raises:
        MissingFile: there is no such file.
        BadValue: the file is not one of ours, is cut short, or belongs to another generator.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile(
            f"{path} does not exist; find directions on the generator's own samples: python -m lsap.discover"
        )
    found: dict[str, Direction] = {}
    try:
        texts, tensors = read_card(path), read_state(path)
        owner = texts["generator"]
        for name, known in json.loads(texts["directions"]).items():
            for key in ("rows", "usable"):
                known[key] = None if known[key] is None else tuple(known[key])
            mean = {"mean": tensors[name + MEAN]} if name + MEAN in tensors else {}
            kind = CoordinateDirection if mean else Direction
            found[name] = kind(name=name, vector=tensors[name], generator=owner, **known, **mean)
    except (SafetensorError, BadValue, KeyError, TypeError, ValueError) as error:
        raise BadValue(
            f"{path} holds no directions ({error}); it may be cut short: delete it and find them again"
        ) from error
    if generator is not None and owner != generator:
        raise BadValue(
            f"{path.name} belongs to generator {owner[:12]}, but this run uses {generator[:12]}; directions work in "
            "the W of their own generator only: find them again for this one with python -m lsap.discover"
        )
    return found


def same_generator(one: Direction, other: Direction) -> None:
    """Refuse two directions of different generators; raises BadValue with both fingerprints."""
    if one.generator != other.generator:
        raise BadValue(
            f"directions {one.name!r} and {other.name!r} belong to different generators, {one.generator[:12]} and "
            f"{other.generator[:12]}; they cannot be used together"
        )


def _is_ours(path: Path) -> bool:
    return path.is_file() and path.suffix == ".safetensors" and read_card(path).get("format") == FORMAT
