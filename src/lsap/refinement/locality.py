"""PTI's locality regularisation: away from the pivot, the tuned generator is to draw what the original one draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from lsap.seeds import derive
from lsap.stylegan2 import Noise, StyleGenerator, View
from lsap.values import COUNT, POSITIVE, require

PSI = 0.5  # truncation of the samples


class Locality:
    """A penalty on what tuning does to images near the pivot, but off it (PTI, section 3.3).

    Codes are drawn by the original mapping network, truncated by 0.5 and pulled to a sphere around the pivot. Both
    generators draw them without noise; their distance is the penalty. Off in PTI's published settings.

    Args:
        alpha: radius of the sphere, in W+ as a whole.
        lambda_l2, lambda_lpips: weights of the two distances.
        samples: codes per image and step.
        every: steps from one penalty to the next.

    Raises:
        BadValue: a number that cannot work.
    """

    def __init__(
        self,
        alpha: float = 30.0,
        lambda_l2: float = 0.1,
        lambda_lpips: float = 0.1,
        samples: int = 1,
        every: int = 1,
    ) -> None:
        POSITIVE.require("refinement.locality.alpha", alpha)
        require(COUNT, {"samples": samples, "every": every}, "refinement.locality.")
        self.alpha, self.lambda_l2, self.lambda_lpips = alpha, lambda_l2, lambda_lpips
        self.samples, self.every = samples, every

    def codes(self, generator: StyleGenerator, pivots: Tensor, streams: Sequence[torch.Generator]) -> Tensor:
        """Codes [N, samples, L, C] around pivots [N, L, C]; every image draws from its own stream."""
        z = torch.stack([torch.randn(self.samples, generator.style_dim, generator=stream) for stream in streams])
        w = generator.truncate(generator.mapping(z.flatten(0, 1).to(pivots)), PSI).view(*z.shape)
        return around(pivots[:, None], w[:, :, None], self.alpha)

    def penalty(
        self,
        generator: StyleGenerator,
        tuned: Callable[[Tensor, Noise], Tensor],
        codes: Tensor,
        view: View,
        distance: Callable[[Tensor, Tensor], Tensor],
    ) -> Mapping[str, Tensor]:
        """Weighted penalties [N] by name.

        Args:
            generator: the original one.
            tuned: codes [N, L, C], noise → images, each by its own weights.
            codes: [N, samples, L, C].
            view: the generator's image → the image that losses see.
            distance: the perceptual one.
        """
        l2, lpips = [], []
        for some in codes.unbind(1):
            with torch.no_grad():
                old = view(generator(some, noise="none"))
            new = view(tuned(some, "none"))
            l2.append((new - old).square().mean((1, 2, 3)))
            if self.lambda_lpips > 0:
                lpips.append(distance(new, old))
        values = {"locality_l2": self.lambda_l2 * torch.stack(l2).mean(0)}
        if lpips:
            values["locality_lpips"] = self.lambda_lpips * torch.stack(lpips).mean(0)
        return values


def around(pivots: Tensor, codes: Tensor, alpha: float) -> Tensor:
    """Codes [..., L, C] pulled to a distance alpha of pivots [..., L, C], counted over rows and channels together."""
    offset = codes - pivots
    return pivots + alpha * offset / offset.flatten(-2).norm(dim=-1)[..., None, None]


def stream(seed: int, name: str) -> torch.Generator:
    """The random stream of one image."""
    return torch.Generator().manual_seed(derive(seed, "locality", name))
