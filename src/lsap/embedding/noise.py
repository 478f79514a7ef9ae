"""The noise maps that are optimised beside a code: how they are drawn, kept plain, and brought back to unit variance.

As in StyleGAN2's projector (arXiv:1912.04958, appendix D), but image by image. The published code treats the maps of a
batch as one tensor, so that an image's result depends on its neighbours; for a batch of one image both are the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

SMALLEST = 8  # pixels of the coarsest level that is looked at


def draw(resolutions: Sequence[int], streams: Sequence[torch.Generator]) -> list[Tensor]:
    """Normal noise maps [N, 1, r, r], one per resolution; each image draws all of its own from its stream."""
    images = [[torch.randn(1, r, r, generator=stream) for r in resolutions] for stream in streams]
    return [torch.stack(maps) for maps in zip(*images, strict=True)]


def regularity(maps: Sequence[Tensor]) -> Tensor:
    """How far maps [N, 1, r, r] are from white noise, [N]: 0 where neighbours have nothing to do with one another.

    Per map and level of its pyramid: the mean product of neighbours in a row, squared, and the same in a column (edges
    wrap around). From level to level four pixels are averaged into one, down to 8 pixels.
    """
    total = torch.zeros(len(maps[0]), dtype=maps[0].dtype, device=maps[0].device)
    for level in maps:
        while True:
            for axis in (2, 3):
                total = total + (level * level.roll(1, axis)).mean((1, 2, 3)).square()
            if level.shape[-1] <= SMALLEST:
                break
            level = F.avg_pool2d(level, 2)
    return total


@torch.no_grad()
def normalise(maps: Sequence[Tensor]) -> None:
    """Give every image's every map zero mean and unit (unbiased) variance, in place."""
    for noise in maps:
        spread, mean = torch.std_mean(noise, dim=(1, 2, 3), keepdim=True)
        noise.sub_(mean).div_(spread)
