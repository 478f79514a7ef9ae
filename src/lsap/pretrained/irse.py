"""The IR-SE-50 body: the residual network with squeeze-and-excitation that reads faces and carries the encoders.

Parameter names are those of the published ArcFace weights, so a bare state dict loads into everything built on the
body without renaming (ArcFace, Deng et al. 2019; squeeze-and-excitation, Hu et al. 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STAGES = ((64, 3), (128, 4), (256, 14), (512, 3))  # (channels, units); the first unit of a stage halves the map
TAPS = (6, 20, 23)  # units after which the map is kept: the last ones with 128, 256 and 512 channels


class Maps(NamedTuple):
    """Feature maps of an image [N, 3, H, W], from fine to coarse."""

    fine: Tensor  # [N, 128, H/4, W/4]
    middle: Tensor  # [N, 256, H/8, W/8]
    coarse: Tensor  # [N, 512, H/16, W/16]


class SqueezeExcitation(nn.Module):
    """Scale each channel by a gate in (0, 1) that is computed from the means of all channels."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as the input [N, C, H, W]."""
        mean = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(mean))))


class PlainUnit(nn.Module):
    """A residual unit: normalise, convolve, PReLU, convolve with the stride, normalise; no activation after."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        # A pool with a window of one pixel only drops pixels, and has no parameters: the published names need none.
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if before != after:
            shortcut = nn.Conv2d(before, after, 1, stride, bias=False)
            self.shortcut_layer = nn.Sequential(shortcut, nn.BatchNorm2d(after))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Conv2d(before, after, 3, 1, 1, bias=False),
            nn.PReLU(after),
            nn.Conv2d(after, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, before, H, W] → [N, after, H/stride, W/stride]."""
        out: Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return out


class Unit(PlainUnit):
    """The same with a gate at the end."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__(before, after, stride)
        self.res_layer.append(SqueezeExcitation(after))


def residual_body(unit: type[PlainUnit], stages: Sequence[tuple[int, int]]) -> nn.Sequential:
    """Residual units from 64 channels on, by stages of (channels, units); the first unit of each halves the map."""
    units, before = [], 64
    for channels, count in stages:
        for index in range(count):
            units.append(unit(before, channels, 2 if index == 0 else 1))
            before = channels
    return nn.Sequential(*units)


class IRSE50(nn.Module):
    """Stem at full resolution and 24 residual units in four stages; the base of ArcFace and of the pyramid encoder.

    Args:
        input_channels: 3 for an image; 6 for an image and its reconstruction.
    """

    def __init__(self, input_channels: int = 3) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(input_channels, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)
        )
        self.body = residual_body(Unit, STAGES)

    def maps(self, images: Tensor) -> Maps:
        """Feature maps at 1/4, 1/8 and 1/16 of the images [N, C, H, W] in [-1, 1]."""
        x = self.input_layer(images)
        kept = []
        for index, unit in enumerate(self.body):
            x = unit(x)
            if index in TAPS:
                kept.append(x)
        return Maps(*kept)
