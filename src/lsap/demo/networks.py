"""The demo domain's frozen judges: networks that read the factors, whose features also carry the perceptual distance,
and networks that tell people apart.

There are two of each. `FactorTrunk` and `IdentityNet` sit in losses; `FactorReader` and `IdentityReader`, of other
architectures and seeds, measure, so that no method is scored by the eyes that it was trained to please.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsap.demo import factors


class FactorTrunk(nn.Module):
    """Reads a portrait's factors; its feature maps are the trunk of the demo's perceptual distance.

    Trained on plain and rich portraits to predict every factor, so its features answer to what portraits differ in.
    """

    widths = (24, 48, 96, 128)

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            _block(before, after) for before, after in zip((3, *self.widths[:-1]), self.widths, strict=True)
        )
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(self.widths[-1] * 16, 192), nn.ReLU(), nn.Linear(192, factors.COUNT)
        )

    def features(self, images: Tensor) -> list[Tensor]:
        """Feature maps [N, C, H, W] at 32, 16, 8 and 4 pixels, of images [N, 3, 64, 64] in [-1, 1]."""
        maps = []
        for block in self.blocks:
            images = block(images)
            maps.append(images)
        return maps

    def forward(self, images: Tensor) -> Tensor:
        """Estimated factors [N, F], about in [0, 1]."""
        out: Tensor = self.head(self.features(images)[-1])
        return out


class FactorReader(nn.Module):
    """Reads a portrait's factors for measurements; no training of anything else ever sees it.

    It looks at full resolution before it halves the picture, so that eyes and noses are not lost at once.
    """

    widths = (20, 40, 72, 112, 128)

    def __init__(self) -> None:
        super().__init__()
        pairs = zip((3, *self.widths[:-1]), self.widths, strict=True)
        self.blocks = nn.ModuleList(_residual(before, after, stride=1 if before == 3 else 2) for before, after in pairs)
        self.look = nn.Sequential(nn.Flatten(), nn.Linear(self.widths[-1] * 16, 256), nn.SiLU())
        self.head = nn.Linear(256, factors.COUNT)

    def features(self, images: Tensor) -> list[Tensor]:
        """Feature maps [N, C, H, W] at 32, 16, 8 and 4 pixels, of images [N, 3, 64, 64] in [-1, 1]."""
        maps = []
        for block in self.blocks:
            images = block(images)
            maps.append(images)
        return maps[1:]

    def describe(self, images: Tensor) -> Tensor:
        """What the factors are read from, [N, 256]: the space of Fréchet distance, precision and recall."""
        out: Tensor = self.look(self.features(images)[-1])
        return out

    def forward(self, images: Tensor) -> Tensor:
        """Estimated factors [N, F], about in [0, 1]."""
        out: Tensor = self.head(self.describe(images))
        return out


class AttributeReader(nn.Module):
    """Reads every factor of a portrait by name, in standard deviations of the factor.

    Args:
        trunk: a factor regressor.
    """

    names = factors.NAMES

    def __init__(self, trunk: FactorTrunk | FactorReader) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, 64, 64] in [-1, 1] → [N, F]; differences are in standard deviations."""
        return self.trunk(images).float() / factors.STANDARD_DEVIATION


class IdentityNet(nn.Module):
    """Embeds a portrait so that pictures of one person point the same way (trained with ArcFace's margin).

    `embed` has the interface of every identity judge: images [N, 3, 64, 64] in [-1, 1] → unit vectors [N, 96].
    """

    label = "identity (demo network)"
    size = 96

    def __init__(self) -> None:
        super().__init__()
        widths = (32, 64, 96, 128)
        self.blocks = nn.Sequential(*(_block(a, b) for a, b in zip((3, *widths[:-1]), widths, strict=True)))
        self.project = nn.Linear(widths[-1] * 16, self.size)

    def embed(self, images: Tensor) -> Tensor:
        features = self.blocks(images).flatten(1)
        return F.normalize(self.project(features).float(), dim=1)

    forward = embed


class IdentityReader(nn.Module):
    """The identity network of measurements, deeper than the loss's; `embed` gives unit vectors [N, 128]."""

    label = "identity (demo evaluation network)"
    size = 128

    def __init__(self) -> None:
        super().__init__()
        widths = (24, 48, 96, 144, 192)
        pairs = zip((3, *widths[:-1]), widths, strict=True)
        self.blocks = nn.Sequential(*(_residual(a, b, stride=1 if a == 3 else 2) for a, b in pairs))
        self.project = nn.Linear(widths[-1] * 4, self.size)

    def embed(self, images: Tensor) -> Tensor:
        features = F.adaptive_avg_pool2d(self.blocks(images), 2).flatten(1)
        return F.normalize(self.project(features).float(), dim=1)

    forward = embed


class ArcFaceHead(nn.Module):
    """ArcFace's loss: cross-entropy over cosines to one centre per person, the true one handicapped by an angle."""

    def __init__(self, size: int, people: int, margin: float = 0.3, scale: float = 20.0) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randn(people, size))
        self.margin, self.scale = margin, scale

    def forward(self, embedding: Tensor, person: Tensor) -> Tensor:
        """Scalar loss of unit embeddings [N, D] of people [N]."""
        cosine = embedding @ F.normalize(self.centres.float(), dim=1).T
        angle = torch.acos(cosine.clamp(-1 + 1e-6, 1 - 1e-6))
        target = F.one_hot(person, cosine.shape[1]).bool()
        harder = torch.cos((angle + self.margin).clamp(max=torch.pi))
        return F.cross_entropy(self.scale * torch.where(target, harder, cosine), person)


def _block(before: int, after: int) -> nn.Sequential:
    """Halve the picture, look once more: the smallest unit that still sees details."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU(),
        nn.Conv2d(after, after, 3, 1, 1), nn.BatchNorm2d(after), nn.ReLU(),
    )  # fmt: skip


class _Residual(nn.Module):
    """Two convolutions beside a linear shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.shortcut = nn.Conv2d(before, after, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        deep = self.norm2(self.second(F.silu(self.norm1(self.first(x)))))
        return F.silu(deep + self.shortcut(x))


def _residual(before: int, after: int, stride: int) -> nn.Module:
    """The first block only lifts colours; a residual one at full resolution would cost as much as all others."""
    if stride == 1:
        return nn.Sequential(nn.Conv2d(before, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after), nn.SiLU())
    return _Residual(before, after, stride)
