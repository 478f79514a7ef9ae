"""Names of the rosinality lineage: `stylegan2-*.pt` with `g_ema`, and every decoder that descends from them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from lsap.errors import BadValue
from lsap.stylegan2 import Generator, StyledLayer
from lsap.stylegan2.ops import blur_kernel

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


def publish(generator: Generator) -> dict[str, Tensor]:
    """A generator's state under rosinality's names and in its shapes, constants included; the reverse of `rename`.

    What the layout has no place for is left out: the mean latent, which lies beside it in a file, and a bound of
    activations (`clamp`), which matters only where an activation reaches it.
    """
    ours = generator.state_dict()
    published = {}
    for depth in range(sum(name.startswith("mapping.") for name in ours) // 2):
        for kind in ("weight", "bias"):
            published[f"style.{depth + 1}.{kind}"] = ours[f"mapping.layers.{depth}.{kind}"]
    published["input.input"] = ours["constant"]
    kernel = blur_kernel(1, total=4.0)[0, 0]
    convolutions = [layer for layer in generator.layers if layer.demodulates]
    for layer in generator.layers:
        theirs, ours_at = _published_layer(layer), f"blocks.{layer.name}"
        published[f"{theirs}.conv.weight"] = ours[f"{ours_at}.weight"][None]
        for kind in ("weight", "bias"):
            published[f"{theirs}.conv.modulation.{kind}"] = ours[f"{ours_at}.affine.{kind}"]
        if layer.demodulates:
            published[f"{theirs}.noise.weight"] = ours[f"{ours_at}.noise_strength"].reshape(1)
            published[f"{theirs}.activate.bias"] = ours[f"{ours_at}.bias"]
        else:
            published[f"{theirs}.bias"] = ours[f"{ours_at}.bias"].reshape(1, 3, 1, 1)
        if layer.kind == "up":
            published[f"{theirs}.conv.blur.kernel"] = kernel.clone()
        elif layer.kind == "rgb" and layer.resolution > 4:
            published[f"{theirs}.upsample.kernel"] = kernel.clone()
    for index, layer in enumerate(convolutions):
        published[f"noises.noise_{index}"] = ours[f"blocks.{layer.name}.noise"]
    return published


def _published_layer(layer: StyledLayer) -> str:
    """The name of a layer there: the first ones stand apart, the others are counted."""
    block = layer.resolution.bit_length() - 4  # 8 px: 0
    if layer.resolution == 4:
        return {"conv": "conv1", "rgb": "to_rgb1"}[layer.kind]
    return {"up": f"convs.{2 * block}", "conv": f"convs.{2 * block + 1}", "rgb": f"to_rgbs.{block}"}[layer.kind]


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
