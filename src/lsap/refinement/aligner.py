"""HFGI's aligner (Wang et al. 2022): moves what a reconstruction lost to where it belongs in an edited image.

It sees the residual, photograph minus reconstruction, beside the image that it is wanted for, and answers that image's
residual. Tensors of the published network keep their names.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsap.pretrained import PlainUnit


def units(*steps: tuple[int, int, int]) -> nn.Sequential:
    """Plain residual units, each (channels before, channels after, stride)."""
    return nn.Sequential(*(PlainUnit(*step) for step in steps))


def stem(before: int, after: int) -> nn.Sequential:
    """The first convolution of HFGI's networks, at full resolution."""
    return nn.Sequential(nn.Conv2d(before, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after), nn.PReLU(after))


class ResidualAligner(nn.Module):
    """The published aligner: down to an eighth of the image and back, with the finer maps beside the coarser ones."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_layer1 = stem(6, 16)
        self.conv_layer2 = units((16, 32, 2), (32, 32, 1), (32, 32, 1))
        self.conv_layer3 = units((32, 48, 2), (48, 48, 1), (48, 48, 1))
        self.conv_layer4 = units((48, 64, 2), (64, 64, 1), (64, 64, 1))
        self.dconv_layer1 = units((112, 64, 1), (64, 32, 1), (32, 32, 1))
        self.dconv_layer2 = units((64, 32, 1), (32, 16, 1), (16, 16, 1))
        self.dconv_layer3 = units((32, 16, 1), (16, 3, 1), (3, 3, 1))

    def forward(self, residual: Tensor, images: Tensor) -> Tensor:
        """Residuals [N, 3, H, W] as they belong to images [N, 3, H, W]; sides are multiples of 8."""
        fine = self.conv_layer1(torch.cat([residual, images], 1))
        middle = self.conv_layer2(fine)
        coarse = self.conv_layer3(middle)
        x = self.dconv_layer1(_beside(self.conv_layer4(coarse), coarse))
        x = self.dconv_layer2(_beside(x, middle))
        aligned: Tensor = self.dconv_layer3(_beside(x, fine))
        return aligned


class SmallAligner(nn.Module):
    """An aligner for small images, that learns in minutes: it begins as the residual unmoved and learns what to change.

    Normalised over groups of channels, so that an image does not depend on its batch mates.

    Args:
        width: channels at full resolution.
    """

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.fine = smooth(6, width)
        self.middle = nn.Sequential(smooth(width, 2 * width, 2), smooth(2 * width, 2 * width))
        self.coarse = nn.Sequential(smooth(2 * width, 2 * width, 2), smooth(2 * width, 2 * width))
        self.up_middle = smooth(4 * width, width)
        self.up_fine = smooth(2 * width, width)
        self.change = nn.Conv2d(width, 3, 3, padding=1)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)  # type: ignore[arg-type]

    def forward(self, residual: Tensor, images: Tensor) -> Tensor:
        """Residuals [N, 3, H, W] as they belong to images [N, 3, H, W]."""
        fine = self.fine(torch.cat([residual, images], 1))
        middle = self.middle(fine)
        x = self.up_middle(_beside(self.coarse(middle), middle))
        change: Tensor = self.change(self.up_fine(_beside(x, fine)))
        return residual + change


def smooth(before: int, after: int, stride: int = 1) -> nn.Sequential:
    """The convolution of the small networks; `after` is a multiple of 8."""
    conv = nn.Conv2d(before, after, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(8, after), nn.LeakyReLU(0.2))


def _beside(coarse: Tensor, fine: Tensor) -> Tensor:
    """The coarser map enlarged, the finer one behind it."""
    return torch.cat([F.interpolate(coarse, fine.shape[-2:], mode="bilinear"), fine], 1)
