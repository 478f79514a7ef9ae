"""Which part of a face is each pixel? BiSeNet over ResNet-18, the face parser of the published editing tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsap.pretrained.frozen import FrozenNetwork, load_weights

PARTS = 19  # of CelebAMask-HQ: background, skin, brows, eyes, glasses, ears, ear-rings, nose, mouth, lips, neck, …


class FaceParser(FrozenNetwork):
    """Labels the pixels of faces (BiSeNet, Yu et al. 2018, trained on CelebAMask-HQ: `79999_iter.pth`).

    Modules are named as in the published file. Its two auxiliary outputs, which training alone needs, are left out.
    There is no spatial path: the published network takes ResNet's own features at an eighth of the size in its place.
    """

    label = "BiSeNet face parser"
    image_size = 512
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, of images in [0, 1]

    def __init__(self) -> None:
        super().__init__()
        self.cp = _Context()
        self.ffm = _Fusion(256, 256)
        self.conv_out = nn.ModuleDict({"conv": _Unit(256, 256, 3), "conv_out": nn.Conv2d(256, PARTS, 1, bias=False)})
        self.freeze()

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Build from the tensors of `79999_iter.pth`.

        Raises:
            BadValue: they are not a BiSeNet's.
        """
        parser = cls()
        load_weights(parser, state, "a BiSeNet face parser (79999_iter.pth)")
        return parser

    def forward(self, images: Tensor) -> Tensor:
        """Scores [N, 19, 512, 512] of images [N, 3, H, W] in [-1, 1] of any size."""
        square = F.interpolate(images, size=(self.image_size,) * 2, mode="bilinear", antialias=True)
        mean, deviation = (torch.tensor(v).to(images)[:, None, None] for v in (self.mean, self.deviation))
        near, far = self.cp(((square + 1) / 2 - mean) / deviation)
        scores = self.conv_out["conv_out"](self.conv_out["conv"](self.ffm(near, far)))
        return F.interpolate(scores, size=square.shape[2:], mode="bilinear", align_corners=True)

    def parts(self, images: Tensor) -> Tensor:
        """The number of the part, 0 to 18, at every pixel of images [N, 3, H, W] in [-1, 1]: [N, H, W]."""
        labels = self(images).argmax(1, keepdim=True)
        return F.interpolate(labels.float(), size=images.shape[2:], mode="nearest")[:, 0].long()


class _Context(nn.Module):
    """ResNet-18 whose two deepest stages, each attended to by channel, come back up to an eighth of the size."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import resnet18  # a slow import

        self.resnet = resnet18(weights=None)
        del self.resnet.fc
        self.arm16, self.arm32 = _Attention(256, 128), _Attention(512, 128)
        self.conv_head16, self.conv_head32 = _Unit(128, 128, 3), _Unit(128, 128, 3)
        self.conv_avg = _Unit(512, 128, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        net = self.resnet
        x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
        eighth = net.layer2(net.layer1(x))
        sixteenth = net.layer3(eighth)
        last = net.layer4(sixteenth)
        deep = self.arm32(last) + self.conv_avg(last.mean((2, 3), keepdim=True))
        deep = self.conv_head32(F.interpolate(deep, size=sixteenth.shape[2:], mode="nearest"))
        deep = F.interpolate(self.arm16(sixteenth) + deep, size=eighth.shape[2:], mode="nearest")
        return eighth, self.conv_head16(deep)


class _Attention(nn.Module):
    """Features weighted by channel, by what the whole picture shows."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = _Unit(before, after, 3)
        self.conv_atten = nn.Conv2d(after, after, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        weight: Tensor = self.bn_atten(self.conv_atten(x.mean((2, 3), keepdim=True))).sigmoid()
        return x * weight


class _Fusion(nn.Module):
    """Near and far features in one, some channels of it twice."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.convblk = _Unit(before, after, 1)
        self.conv1 = nn.Conv2d(after, after // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(after // 4, after, 1, bias=False)

    def forward(self, near: Tensor, far: Tensor) -> Tensor:
        x = self.convblk(torch.cat([near, far], 1))
        weight: Tensor = self.conv2(self.conv1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return x * weight + x


class _Unit(nn.Module):
    """Convolution, batch norm, rectifier, as the published file names them."""

    def __init__(self, before: int, after: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.conv(x)).relu()
        return out
