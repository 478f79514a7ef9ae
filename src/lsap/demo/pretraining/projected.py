"""A discriminator with trained eyes."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from lsap.demo import factors, portraits
from lsap.demo.networks import FactorTrunk
from lsap.demo.weights import load_trunk


class ProjectedDiscriminator(nn.Module):
    """Images [N, 3, 64, 64] in [-1, 1] → logits [N, K · 16]: how real a picture looks, to K heads in 4 × 4 places.

    After Projected GANs (arXiv:2111.01007): a frozen network that reads factors is the eye; one small head for each of
    its resolutions, and one for the pixels themselves, learns to tell. From nothing a discriminator cannot see, for a
    thousand steps, what warm-started samples lack; an eye that knows brows and beards can at once.

    Args:
        hidden: features of each head.
        eye: the frozen network; the trunk of the losses, so that the reader of measurements stays impartial.
    """

    places = 4

    def __init__(self, hidden: int = 48, eye: FactorTrunk | None = None) -> None:
        super().__init__()
        widths = (3, *(FactorTrunk if eye is None else eye).widths)
        # first, so that their beginning does not depend on whether the trunk was loaded before
        self.heads = nn.ModuleList(_head(width, hidden, stride=2 if n < 2 else 1) for n, width in enumerate(widths))
        self.eye = load_trunk() if eye is None else eye
        with torch.no_grad():
            seen = self._maps(portraits.render(factors.draw(0, "eye", range(256))))
        for number, features in enumerate(seen):
            self.register_buffer(f"centre{number}", features.mean((0, 2, 3), keepdim=True))
            self.register_buffer(f"spread{number}", features.std((0, 2, 3), keepdim=True).clamp(min=1e-3))

    def train(self, mode: bool = True) -> ProjectedDiscriminator:
        super().train(mode)
        self.eye.eval()
        return self

    def requires_grad_(self, requires_grad: bool = True) -> ProjectedDiscriminator:
        """Of the heads; the eye never learns."""
        self.heads.requires_grad_(requires_grad)
        return self

    def _maps(self, images: Tensor) -> list[Tensor]:
        return [images, *self.eye.features(images)]

    def forward(self, images: Tensor) -> Tensor:
        logits = []
        for number, (features, head) in enumerate(zip(self._maps(images), self.heads, strict=True)):
            centre, spread = (cast(Tensor, getattr(self, f"{name}{number}")) for name in ("centre", "spread"))
            logits.append(F.adaptive_avg_pool2d(head((features - centre) / spread), self.places).flatten(1))
        return torch.cat(logits, 1)


def _head(width: int, hidden: int, stride: int) -> nn.Sequential:
    """Three convolutions of bounded gain."""
    return nn.Sequential(
        spectral_norm(nn.Conv2d(width, hidden, 3, stride, padding=1)), nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(hidden, hidden, 3, padding=1)), nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(hidden, 1, 1)),
    )  # fmt: skip
