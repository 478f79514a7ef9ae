"""SAM's invertibility predictor: how badly would each latent space invert each pixel of an image?

A base network gives eight features per pixel, a small head per latent space turns them into an error. The published
base is a DeepLab v3+ over ResNet-101 (Chen et al. 2018); its tensors keep their published names.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet101

from lsap.checkpoints.sam import StoredPredictor, read_predictor
from lsap.errors import BadValue, nearest
from lsap.pretrained import load_weights
from lsap.refinement.segments import PUBLISHED

FEATURES = 8  # that base and heads agree on


class Head(nn.Module):
    """Features [N, 8, H, W] → errors [N, 1, H, W], not negative."""

    def __init__(self) -> None:
        super().__init__()
        self.m = nn.Sequential(
            nn.ConvTranspose2d(FEATURES, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(4, 1, 1),
            nn.ReLU(),
        )

    def forward(self, features: Tensor) -> Tensor:
        errors: Tensor = self.m(features)
        return errors


class Predictor(nn.Module, abc.ABC):
    """Images to a map of errors per latent space, in the units of the perceptual distance that it learned.

    Args:
        spaces: names of latent spaces, most editable first.

    Attributes:
        kind: what files call the network.
    """

    kind: str
    base: nn.Module

    def __init__(self, spaces: Sequence[str] = PUBLISHED) -> None:
        super().__init__()
        self.spaces = tuple(spaces)
        self.heads = nn.ModuleDict({space: Head() for space in self.spaces})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Errors [N, 1, H, W] of every space for images [N, 3, H, W] in [-1, 1]."""
        features = self.base(images)
        return {space: self.heads[space](features) for space in self.spaces}

    def new_parts(self) -> list[nn.Module]:
        """Those that learn faster in a training, on top of a backbone that was known before."""
        return []

    def stored(self, generator: str | None = None) -> StoredPredictor:
        """What a file holds of it; `generator`: fingerprint of the one that it was trained for."""
        return StoredPredictor(self.kind, self.spaces, self.state_dict(), generator)


class PublishedPredictor(Predictor):
    """SAM's own network."""

    kind = "deeplab"

    def __init__(self, spaces: Sequence[str] = PUBLISHED) -> None:
        super().__init__(spaces)
        self.base = DeepLab()

    def new_parts(self) -> list[nn.Module]:
        return [self.base.aspp, self.base.decoder]  # type: ignore[list-item]


class SmallPredictor(Predictor):
    """A network for small images: two resolutions below the image's own, each brought back and added."""

    kind = "small"

    def __init__(self, spaces: Sequence[str] = PUBLISHED, width: int = 24) -> None:
        super().__init__(spaces)
        self.base = SmallBase(width)


PREDICTORS: dict[str, type[Predictor]] = {kind.kind: kind for kind in (PublishedPredictor, SmallPredictor)}


def load_predictor(path: str | Path, generator: str | None = None) -> Predictor:
    """A predictor from a file, published or our own, frozen.

    Args:
        path: the file.
        generator: fingerprint of the generator in use, which a predictor of ours must have been trained for.

    Raises:
        MissingFile, BadValue: no such file, or no predictor for this generator.
    """
    found = read_predictor(path)
    if found.kind not in PREDICTORS:
        raise BadValue(f"{path}: there is no predictor {found.kind!r} here; {nearest(found.kind, PREDICTORS)}")
    if generator is not None and found.generator not in (None, generator):
        raise BadValue(
            f"{path}: this predictor belongs to generator {str(found.generator)[:12]}, but this run uses "
            f"{generator[:12]}; train one for it"
        )
    predictor = PREDICTORS[found.kind](found.spaces)
    try:
        load_weights(predictor, found.state, f"an invertibility predictor ({found.kind})")
    except BadValue as error:
        raise BadValue(f"{path}: {error}") from error
    return predictor.eval().requires_grad_(False)


class SmallBase(nn.Module):
    """Images [N, 3, H, W] → features [N, 8, H, W]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fine = nn.Sequential(_convolution(3, width), _convolution(width, width))
        self.middle = nn.Sequential(_convolution(width, 2 * width, 2), _convolution(2 * width, 2 * width))
        self.coarse = nn.Sequential(_convolution(2 * width, 2 * width, 2), _convolution(2 * width, 2 * width))
        self.up = _convolution(4 * width, width)
        self.last = nn.Conv2d(2 * width, FEATURES, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        fine = self.fine(images)
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        joined = self.up(torch.cat([middle, _resized(coarse, middle)], 1))
        features: Tensor = self.last(torch.cat([fine, _resized(joined, fine)], 1))
        return features


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2))


# ---- the published base


class DeepLab(nn.Module):
    """DeepLab v3+ with a ResNet-101 of output stride 16: images [N, 3, H, W] → features [N, 8, H, W]."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = dilated_resnet()
        self.aspp = SpatialPyramid(2048, 256)
        self.decoder = Decoder()

    def forward(self, images: Tensor) -> Tensor:
        net: Any = self.backbone
        fine = net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(images)))))
        coarse = self.aspp(net.layer4(net.layer3(net.layer2(fine))))
        return _resized(self.decoder(coarse, fine), images)


def dilated_resnet() -> nn.Module:
    """ResNet-101 whose last stage keeps its resolution and looks wider and wider instead: dilations 2, 4, 8."""
    net = resnet101(weights=None)
    net.fc = nn.Identity()
    for block, dilation in zip(net.layer4, (2, 4, 8), strict=True):
        block.conv2.stride, block.conv2.dilation, block.conv2.padding = (1, 1), (dilation,) * 2, (dilation,) * 2
        if block.downsample is not None:
            block.downsample[0].stride = (1, 1)
    return net


class Atrous(nn.Module):
    """A convolution with gaps, normalised and rectified."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        kernel, padding = (1, 0) if dilation == 1 else (3, dilation)
        self.atrous_conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.atrous_conv(x)).relu()


class SpatialPyramid(nn.Module):
    """ASPP: the same place seen at four scales, and the mean of the whole image beside them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.aspp1, self.aspp2, self.aspp3, self.aspp4 = (Atrous(inputs, outputs, rate) for rate in (1, 6, 12, 18))
        self.global_avg_pool = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )
        self.conv1 = nn.Conv2d(5 * outputs, outputs, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        seen = [self.aspp1(x), self.aspp2(x), self.aspp3(x), self.aspp4(x), _resized(self.global_avg_pool(x), x)]
        joined: Tensor = self.dropout(self.bn1(self.conv1(torch.cat(seen, 1))).relu())
        return joined


class Decoder(nn.Module):
    """Coarse features [N, 256, …] beside fine ones [N, 256, …], at the size of the fine ones → [N, 8, …]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(256, 48, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(48)
        self.last_conv = nn.Sequential(
            nn.Conv2d(304, 256, 3, padding=1, bias=False), nn.BatchNorm2d(256), nn.ReLU(), nn.Dropout(0.5),
            nn.Conv2d(256, 256, 3, padding=1, bias=False), nn.BatchNorm2d(256), nn.ReLU(), nn.Dropout(0.1),
            nn.Conv2d(256, FEATURES, 1),
        )  # fmt: skip

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        fine = self.bn1(self.conv1(fine)).relu()
        features: Tensor = self.last_conv(torch.cat([_resized(coarse, fine), fine], 1))
        return features


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=True)
