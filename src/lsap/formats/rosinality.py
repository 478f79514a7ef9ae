"""Names of the rosinality lineage: `stylegan2-*.pt` with `g_ema`, and every decoder that descends from them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from lsap.errors import BadValue

_PATTERNS = [
    (r"style\.(\d+)\.(weight|bias)", lambda m: f"mapping.layers.{int(m[1]) - 1}.{m[2]}"),
    (r"input\.input", lambda m: "constant"),
    (r"noises\.noise_(\d+)", lambda m: f"blocks.{_convolution(int(m[1]) - 1)}.noise"),
    (r"conv1\.(.+)", lambda m: f"blocks.conv4.{_inner(m[1])}"),
    (r"convs\.(\d+)\.(.+)", lambda m: f"blocks.{_convolution(int(m[1]))}.{_inner(m[2])}"),
    (r"to_rgb1\.(.+)", lambda m: f"blocks.rgb4.{_inner(m[1])}"),
    (r"to_rgbs\.(\d+)\.(.+)", lambda m: f"blocks.rgb{8 << int(m[1])}.{_inner(m[2])}"),
]


def recognises(state: Mapping[str, object]) -> bool:
    """Whether these are the names of a rosinality generator."""
    return "input.input" in state and "style.1.weight" in state


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A rosinality generator's state under our names and in our shapes; values are untouched.

    Left out are the blur kernels, which are constants of the architecture.

    Raises:
        BadValue: a name that no such generator has.
    """
    renamed = {}
    for name, tensor in state.items():
        if name.endswith(".kernel"):
            continue
        ours = _rename(name)
        renamed[ours] = tensor.reshape(_shape(ours, tensor))
    return renamed


def _rename(name: str) -> str:
    for pattern, make in _PATTERNS:
        match = re.fullmatch(pattern, name)
        if match:
            return make(match)
    raise BadValue(f"{name!r} is no tensor of a rosinality StyleGAN2 generator")


def _convolution(index: int) -> str:
    """The name of `convs.<index>`; -1 stands for the first convolution, which is apart there."""
    if index < 0:
        return "conv4"
    return f"{'conv' if index % 2 else 'up'}{8 << index // 2}"


def _inner(name: str) -> str:
    """A tensor's name inside its layer."""
    name = name.removeprefix("conv.").replace("modulation.", "affine.").removeprefix("activate.")
    return "noise_strength" if name == "noise.weight" else name


def _shape(name: str, tensor: Tensor) -> tuple[int, ...]:
    """The shape without the axes of size one that only broadcasting needed."""
    if name.endswith("noise_strength"):
        return ()
    if name.endswith(".bias"):
        return (tensor.numel(),)
    if tensor.ndim == 5:
        return tuple(tensor.shape[1:])
    return tuple(tensor.shape)
