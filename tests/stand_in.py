"""A generator that is no StyleGAN2: three layers, as many rows of W+, names and order of rows of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsap.stylegan2 import Noise, StyledLayer, Tap

WIDTH = 6


class ThreeLayers(nn.Module):
    """Two modulated 1x1 convolutions and a mixture of their features, 8 pixels; row 2 is read first, row 0 last."""

    latent_avg: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.size, self.style_dim, self.n_latent = 8, 4, 3
        self.layers = (
            StyledLayer("coarse", "conv", 8, 2, WIDTH, WIDTH, True),
            StyledLayer("fine", "conv", 8, 1, WIDTH, WIDTH, True),
            StyledLayer("paint", "rgb", 8, 0, WIDTH, 3, False),
        )
        self.mapping = nn.Linear(4, 4)
        self.affine = nn.ModuleDict({layer.name: nn.Linear(4, WIDTH) for layer in self.layers})
        self.constant = nn.Parameter(torch.zeros(1, WIDTH, 8, 8))
        self.mixture = nn.Parameter(torch.zeros(3, WIDTH))
        self.register_buffer("latent_avg", torch.zeros(4))
        rng = torch.Generator().manual_seed(3)
        for weight in self.parameters():
            weight.data.copy_(torch.randn(weight.shape, generator=rng))

    def sample_w(self, count: int, rng: torch.Generator | None = None, psi: float = 1.0) -> Tensor:
        return self.truncate(self.mapping(torch.randn(count, 4, generator=rng)), psi)

    def truncate(self, w: Tensor, psi: float, cutoff: int | None = None) -> Tensor:
        return self.latent_avg.lerp(w, psi)

    def modulation(self, name: str) -> Tensor:
        return self.affine[name].get_parameter("weight")

    def styles(self, codes: Tensor, names: Collection[str] | None = None) -> dict[str, Tensor]:
        rows = codes.unbind(1) if codes.ndim == 3 else [codes] * 3
        wanted = [layer for layer in self.layers if names is None or layer.name in names]
        return {layer.name: self.affine[layer.name](rows[layer.row]) for layer in wanted}

    def synthesis(
        self,
        styles: Mapping[str, Tensor],
        *,
        noise: Noise | Sequence[Tensor] = "fixed",
        taps: Mapping[str, Tap] | None = None,
    ) -> Tensor:
        maps = [torch.zeros(1, 1, 8, 8)] * 2 if isinstance(noise, str) else list(noise)
        features: Tensor = self.constant
        for name, own in zip(("coarse", "fine"), maps, strict=True):
            features = torch.tanh(features * F.normalize(styles[name], dim=1)[:, :, None, None] + 0.1 * own)
        return torch.einsum("nchw,nc,rc->nrhw", features, styles["paint"], self.mixture)

    def forward(
        self,
        codes: Tensor,
        *,
        noise: Noise | Sequence[Tensor] = "fixed",
        taps: Mapping[str, Tap] | None = None,
    ) -> Tensor:
        return self.synthesis(self.styles(codes), noise=noise, taps=taps)
