"""The demo domain's frozen judges: a network that reads the factors, whose features also carry the perceptual distance,
and a network that tells people apart.
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


class AttributeReader(nn.Module):
    """Reads every factor of a portrait by name, in standard deviations of the factor.

    Args:
        trunk: the factor regressor.
    """

    names = factors.NAMES

    def __init__(self, trunk: FactorTrunk) -> None:
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
