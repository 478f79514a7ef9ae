"""The arithmetic of StyleGAN2's layers: resampling and the modulated convolution in its two forms.

A modulated convolution multiplies its weight by one number per input channel (the style) and one per output channel
(the gain). Because convolution is linear, the same numbers may instead multiply what goes in and what comes out:

    shared       scales the activations; one weight serves the whole batch and no per-image weight is ever built
    per_sample   builds one weight per image and convolves in groups; needed where every image has weights of its own

Both take the same arguments and agree to rounding (StyleGAN2, arXiv:1912.04958, section 2.2 and Eqs. 1-3).
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

SLOPE = 0.2
GAIN = math.sqrt(2)  # keeps the variance that the leaky ReLU would lose
TINY = 1e-8


class Convolve(Protocol):
    """A convolution: (x [N, groups * I, H, W], weight [groups * O, I, k, k]) -> [N, groups * O, H', W']."""

    def __call__(self, x: Tensor, weight: Tensor, groups: int = 1) -> Tensor: ...


class Form(Protocol):
    """One of the two forms of the modulated convolution; see `shared` and `per_sample`."""

    def __call__(
        self, x: Tensor, weight: Tensor, style: Tensor, gain: Tensor, bias: Tensor, convolve: Convolve
    ) -> Tensor: ...


def shared(x: Tensor, weight: Tensor, style: Tensor, gain: Tensor, bias: Tensor, convolve: Convolve) -> Tensor:
    """Modulate activations around one convolution.

    Args:
        x: features [N, I, H, W].
        weight: [O, I, k, k], the same for every image.
        style: factor of every input channel [N, I].
        gain: factor of every output channel [N, O].
        bias: added to every output channel [O].
        convolve: the convolution itself.
    """
    features = convolve(x * style.to(x.dtype)[:, :, None, None], weight)
    kind = features.dtype
    return torch.addcmul(bias.to(kind)[:, None, None], features, gain.to(kind)[:, :, None, None])


def per_sample(x: Tensor, weight: Tensor, style: Tensor, gain: Tensor, bias: Tensor, convolve: Convolve) -> Tensor:
    """Modulate the weight of every image, then convolve in groups; arguments as for `shared`."""
    count, channels, height, width = x.shape
    weights = weight * (gain[:, :, None] * style[:, None, :])[..., None, None]
    features = convolve(x.reshape(1, count * channels, height, width), weights.flatten(0, 1), groups=count)
    features = features.view(count, len(bias), *features.shape[2:])
    return features + bias.to(features.dtype)[:, None, None]


def demodulation(weight: Tensor, style: Tensor) -> Tensor:
    """The factor of every output channel that restores unit variance (StyleGAN2, Eq. 3).

    Args:
        weight: [O, I, k, k].
        style: [N, I].

    Returns:
        [N, O]; inversely proportional to the style's length, which is why that length never reaches the image.
    """
    power = weight.square().sum((2, 3))
    return torch.rsqrt(style.square() @ power.T + TINY)


def full(x: Tensor) -> Tensor:
    """In float32, unless it is in float64 already."""
    return x if x.dtype == torch.float64 else x.float()


def leaky(x: Tensor) -> Tensor:
    """Leaky ReLU in place. Its gain is folded into the numbers before it, since it lets positive factors through."""
    return F.leaky_relu(x, SLOPE, inplace=True)


def pixel_norm(z: Tensor) -> Tensor:
    """Scale every row of z [N, C] to a mean square of 1, so that only its direction matters."""
    return z * torch.rsqrt(z.square().mean(1, keepdim=True) + TINY)


def correlate(x: Tensor, weight: Tensor, groups: int = 1) -> Tensor:
    """Convolution that keeps the resolution."""
    return F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=groups)


def enlarge(x: Tensor, weight: Tensor, groups: int = 1) -> Tensor:
    """Transposed convolution of stride 2: [N, groups * I, H, W] -> [N, groups * O, 2H + 1, 2W + 1], to be blurred."""
    outputs, inputs, *kernel = weight.shape
    turned = weight.view(groups, outputs // groups, inputs, *kernel).transpose(1, 2).flatten(0, 1)
    return F.conv_transpose2d(x, turned, stride=2, groups=groups)


def blur_kernel(channels: int, total: float = 1.0) -> Tensor:
    """The fixed low-pass filter of every resampling, [channels, 1, 4, 4]: binomial, summing to `total`."""
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    return (total * torch.outer(line, line)).expand(channels, 1, 4, 4).contiguous()


def blur(x: Tensor, kernel: Tensor, padding: int) -> Tensor:
    """Low-pass every channel of x [N, C, H, W] with zeros beyond the edge -> [N, C, H + 2 * padding - 3, ...]."""
    return F.conv2d(x, kernel, padding=padding, groups=len(kernel))


def double(image: Tensor, kernel: Tensor) -> Tensor:
    """Twice the resolution: zeros put between pixels, then the low-pass (its sum must be 4)."""
    return F.conv_transpose2d(image, kernel, stride=2, padding=1, groups=len(kernel))
