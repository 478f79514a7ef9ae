"""The building blocks of generator and discriminator.

Weights are stored with unit variance and scaled when used ("equalized"), so that all learn at one pace. Scales and
activation gains are folded into the small per-channel vectors: no weight and no feature map is copied for their sake.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsap.stylegan2 import ops

Noise = Literal["fixed", "random", "none"]
Tap = Callable[[Tensor], Tensor]


class EqualLinear(nn.Module):
    """Fully connected layer with equalized weights: [N, inputs] -> [N, outputs].

    Args:
        inputs: columns of x.
        outputs: columns of the result.
        bias: value that the bias starts from.
        lr: learning-rate multiplier; weights and biases are stored divided by it.
        gain: constant factor of the result; sqrt(2) where a leaky ReLU follows.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: float = 0.0, lr: float = 1.0, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr)
        self.bias = nn.Parameter(torch.full((outputs,), bias / lr))
        self.scale, self.bias_scale = gain * lr / math.sqrt(inputs), gain * lr

    def forward(self, x: Tensor) -> Tensor:
        # Codes and styles are small and everything else hangs on them: never in half precision.
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.to(self.weight.dtype) * self.scale, self.weight, self.bias * self.bias_scale)


class Modulated(nn.Module):
    """What every modulated layer has: a weight, a bias and the affine map that turns a code into its style."""

    def __init__(self, inputs: int, outputs: int, kernel: int, style_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.affine = EqualLinear(style_dim, inputs, bias=1.0)
        self.scale = 1 / math.sqrt(inputs * kernel**2)


class StyledConv(Modulated):
    """Modulated and demodulated 3x3 convolution, noise, bias, leaky ReLU, at one resolution."""

    noise: Tensor

    def __init__(self, inputs: int, outputs: int, resolution: int, style_dim: int, *, clamp: float | None) -> None:
        super().__init__(inputs, outputs, 3, style_dim)
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise", torch.randn(1, 1, resolution, resolution))
        self.clamp = clamp
        self.form: ops.Form = ops.shared

    def convolve(self, x: Tensor, weight: Tensor, groups: int = 1) -> Tensor:
        return ops.correlate(x, weight, groups)

    def forward(self, x: Tensor, style: Tensor, noise: Tensor | Noise) -> Tensor:
        """Features [N, O, H, W] of x [N, I, H, W] under the raw style [N, I]."""
        with torch.autocast(x.device.type, enabled=False):
            style = style.to(self.weight.dtype) * self.scale
            gain = ops.demodulation(self.weight, style) * ops.GAIN
        features = self.form(x, self.weight, style, gain, self.bias * ops.GAIN, self.convolve)
        added = self.noise_map(noise, features)
        if added is not None:
            features = features.add_(added.to(features.dtype) * (self.noise_strength * ops.GAIN).to(features.dtype))
        features = ops.leaky(features)
        return features if self.clamp is None else features.clamp(-self.clamp, self.clamp)

    def noise_map(self, noise: Tensor | Noise, features: Tensor) -> Tensor | None:
        """The map that is added, [N or 1, 1, H, W], or none."""
        if isinstance(noise, Tensor):
            return noise
        if noise == "fixed":
            return self.noise
        if noise == "random":
            count, _, height, width = features.shape
            return torch.randn(count, 1, height, width, device=features.device, dtype=features.dtype)
        return None


class StyledUp(StyledConv):
    """The same with twice the resolution: transposed convolution, then a low-pass against its checkerboard."""

    kernel: Tensor

    def __init__(self, inputs: int, outputs: int, resolution: int, style_dim: int, *, clamp: float | None) -> None:
        super().__init__(inputs, outputs, resolution, style_dim, clamp=clamp)
        self.register_buffer("kernel", ops.blur_kernel(outputs, total=4.0), persistent=False)

    def convolve(self, x: Tensor, weight: Tensor, groups: int = 1) -> Tensor:
        features = ops.enlarge(x, weight, groups)
        features = features.view(-1, len(self.bias), *features.shape[2:]) if groups > 1 else features
        return ops.blur(features, self.kernel, padding=1)


class ToRGB(Modulated):
    """Modulated 1x1 convolution into colours, without demodulation: here, and only here, a style's length is seen."""

    kernel: Tensor

    def __init__(self, inputs: int, style_dim: int, *, clamp: float | None) -> None:
        super().__init__(inputs, 3, 1, style_dim)
        self.register_buffer("kernel", ops.blur_kernel(3, total=4.0), persistent=False)
        self.clamp = clamp

    def forward(self, x: Tensor, style: Tensor, skip: Tensor | None) -> Tensor:
        """The image so far [N, 3, H, W], float32, of features [N, I, H, W], style [N, I] and the image at half size."""
        # Three outputs: weights per image are smaller than any copy of the features.
        weights = self.weight[:, :, 0, 0] * (style * self.scale)[:, None, :]
        colours = torch.matmul(weights.to(x.dtype), x.flatten(2)).view(len(x), 3, *x.shape[2:])
        colours = colours.to(self.bias.dtype) + self.bias[:, None, None]
        if self.clamp is not None:
            colours = colours.clamp(-self.clamp, self.clamp)
        if skip is None:
            return colours
        with torch.autocast(x.device.type, enabled=False):  # rounding would add up from one resolution to the next
            return colours + ops.double(skip, self.kernel)


class EqualConv(nn.Module):
    """Plain convolution with equalized weights, blurred before it where it halves the resolution (discriminator).

    Args:
        inputs, outputs, kernel: shape of the weight.
        half: halve the resolution.
        activate: add a bias and apply the leaky ReLU with its gain; otherwise purely linear.
        gain: constant factor of the result.
    """

    blur: Tensor | None

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, half: bool = False, activate: bool = True, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if activate else None
        self.register_buffer("blur", ops.blur_kernel(inputs) if half else None, persistent=False)
        self.scale = gain / math.sqrt(inputs * kernel**2) * (ops.GAIN if activate else 1.0)
        self.bias_scale = gain * ops.GAIN
        self.padding = 0 if half else kernel // 2
        self.blur_padding = (kernel + 1) // 2
        self.stride = 2 if half else 1

    def forward(self, x: Tensor) -> Tensor:
        if self.blur is not None:
            x = ops.blur(x, self.blur, self.blur_padding)
        bias = None if self.bias is None else self.bias * self.bias_scale
        x = F.conv2d(x, self.weight * self.scale, bias, stride=self.stride, padding=self.padding)
        return x if self.bias is None else ops.leaky(x)
