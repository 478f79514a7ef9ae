"""Tensors and arrays inside pickles, rebuilt by functions of our own; each checks that the numbers are really there."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.storage import TypedStorage, UntypedStorage

from lsap.checkpoints.pickles import Maker, inert
from lsap.checkpoints.torchfiles import inspect
from lsap.errors import BadValue

DTYPES = ("float16", "float32", "float64", "bfloat16", "uint8", "int8", "int16", "int32", "int64", "bool")


class Numbers(NamedTuple):
    """What lies behind tensors: bytes and their type."""

    storage: UntypedStorage
    dtype: torch.dtype


def numbers(data: bytes) -> Numbers:
    """The numbers behind a tensor, from the bytes of a torch file of its own.

    Raises:
        BadValue: the bytes hold something else.
    """
    inspect(io.BytesIO(data), len(data))
    with warnings.catch_warnings(action="ignore"):  # torch means to drop typed storages, files will go on having them
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        if not isinstance(found, TypedStorage):
            raise BadValue("refused, because what should be the numbers of a tensor is something else")
        return Numbers(found.untyped(), found.dtype)


def tensor(behind: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    """A tensor over such numbers.

    Raises:
        BadValue: its shape asks for numbers that are not there.
    """
    if not isinstance(behind, Numbers):
        raise BadValue("refused, because a tensor has no numbers of a known type")
    count = behind.storage.nbytes() // behind.dtype.itemsize
    end = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1 if math.prod(size) else 0
    if min((0, offset, *size, *stride)) < 0 or max(math.prod(size), end) > count:
        raise BadValue(f"refused, because a tensor of shape {list(size)} is said to lie in {count} numbers")
    return torch.empty(0, dtype=behind.dtype).set_(behind.storage, offset, tuple(size), tuple(stride)).clone()


def parameter(data: Tensor, *_: object) -> Tensor:
    """A parameter is its tensor; nothing here trains."""
    if not isinstance(data, Tensor):
        raise BadValue("refused, because a parameter is no tensor")
    return data


class Array:
    """A NumPy array in the making: shape, type and bytes come after it, and `value` is the array."""

    def __init__(self, *_: object) -> None:
        self.value: np.ndarray[Any, Any] | None = None

    def restore(self, state: object) -> None:
        """Take (version, shape, type, whether in Fortran order, bytes)."""
        if not (isinstance(state, tuple) and len(state) == 5 and isinstance(state[2], DType)):
            raise BadValue("refused, because an array comes without shape, type and bytes")
        _, shape, kind, fortran, data = state
        if not isinstance(data, bytes | bytearray):
            raise BadValue("refused, because an array holds objects instead of numbers")
        count = math.prod(shape)
        if min((0, *shape)) < 0 or count * kind.plain.itemsize != len(data):
            raise BadValue(f"refused, because an array of shape {list(shape)} comes with {len(data)} bytes")
        flat = np.frombuffer(bytearray(data), kind.plain)
        self.value = flat.reshape(shape, order="F" if fortran else "C")

    __setstate__ = restore  # the name that torch's reader knows


def array_of(data: object, kind: object, shape: object, order: object = "C") -> Array:
    """A NumPy array as pickles of protocol 5 hold it: bytes, type, shape, "C" or "F"."""
    made = Array()
    made.restore((1, shape, kind, order == "F", data))
    return made


class DType:
    """A NumPy type in the making; only numbers are accepted."""

    def __init__(self, text: str, *_: object) -> None:
        plain = np.dtype(text) if isinstance(text, str) and text[:1] in tuple("biufc") and text[1:].isdigit() else None
        if plain is None:
            raise BadValue(f"refused, because an array holds {text!r} instead of numbers")
        self.plain = plain

    def restore(self, state: object) -> None:
        """Take (version, byte order, …)."""
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self.plain = self.plain.newbyteorder(state[1])

    __setstate__ = restore


def scalar(kind: DType, data: bytes) -> float | int | bool:
    """One NumPy number."""
    if not isinstance(kind, DType) or len(data) != kind.plain.itemsize:
        raise BadValue("refused, because a number comes with bytes of another length")
    value: float | int | bool = np.frombuffer(data, kind.plain)[0].item()
    return value


def text_to_bytes(text: str, encoding: str) -> bytes:
    """How Python 3 wrote bytes for Python 2."""
    if encoding != "latin1":
        raise BadValue(f"refused, because it asks for the codec {encoding!r}")
    return text.encode("latin1")


def as_tensor(value: object) -> Tensor | None:
    """A tensor of a tensor or array, float32 where it holds other floats of NumPy; None of anything else."""
    if isinstance(value, Array):
        value = value.value
    if isinstance(value, np.ndarray):
        native = value.astype(np.float32) if value.dtype.kind == "f" else value.astype(value.dtype.newbyteorder("="))
        return torch.from_numpy(np.ascontiguousarray(native).reshape(value.shape))
    return value if isinstance(value, Tensor) else None


def mapping(pairs: Any = (), *_: object) -> dict[object, object]:
    """A dict of whatever kind; older pickles hand the pairs to the constructor."""
    listed = list(pairs.items()) if isinstance(pairs, dict) else [tuple(pair) for pair in pairs]
    if not all(isinstance(key, str | int) for key, _ in listed):
        raise BadValue("refused, because it uses something else than numbers and texts as a key")
    return dict(listed)


def distinct(values: Any = (), *_: object) -> set[object]:
    """A set of numbers and texts."""
    listed = list(values)
    if not all(isinstance(value, str | int) for value in listed):
        raise BadValue("refused, because a set holds something else than numbers and texts")
    return set(listed)


MAKERS: Mapping[str, Maker] = {
    "collections.OrderedDict": mapping,
    "dnnlib.util.EasyDict": mapping,
    "builtins.set": distinct,
    "__builtin__.set": distinct,
    "_codecs.encode": text_to_bytes,
    "torch._utils._rebuild_tensor_v2": tensor,
    "torch._utils._rebuild_tensor": tensor,
    "torch._utils._rebuild_parameter": parameter,
    "torch.nn.parameter.Parameter": parameter,
    "torch.storage._load_from_bytes": numbers,
    "torch.Size": lambda sizes=(): tuple(sizes),
    "torch.device": inert("torch.device"),
    "argparse.Namespace": inert("argparse.Namespace"),
    **{f"{core}.multiarray._reconstruct": Array for core in ("numpy.core", "numpy._core")},
    **{f"{core}.multiarray.scalar": scalar for core in ("numpy.core", "numpy._core")},
    **{f"{core}.numeric._frombuffer": array_of for core in ("numpy.core", "numpy._core")},
    "numpy.ndarray": Array,
    "numpy.dtype": DType,
    **{f"torch.{name}": inert(f"torch.{name}") for name in DTYPES},
}

# NumPy's numbers also lie in torch checkpoints; for torch's own reader, which asks for these by name.
NUMPY_GLOBALS: list[Any] = [(MAKERS[name], name) for name in MAKERS if name.startswith("numpy")]
