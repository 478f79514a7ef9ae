"""Images, styles and their space, whose metrics are compared over batches and processes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import torch
from torch import Tensor, nn

from lsap.alignment import NormalizedStyleSpace
from lsap.evaluation.metrics import code_values, image_metrics, image_values, psnr
from lsap.evaluation.set_metrics import SetMetrics


class Corner:
    """Embeds an image as the direction of its top left pixel's first two channels."""

    label = "identity (corner)"

    def embed(self, images: Tensor) -> Tensor:
        return nn.functional.normalize(images[:, :2, 0, 0], dim=1)


def absolute(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).abs().flatten(1).mean(1)


def styles_and_space(n: int) -> tuple[list[Tensor], NormalizedStyleSpace]:
    """Styles of two layers and all that is asked of their space."""
    rng = torch.Generator().manual_seed(4)
    mean = [torch.randn(4, generator=rng), torch.randn(3, generator=rng)]
    return [torch.randn(n, len(m), generator=rng) for m in mean], cast(
        NormalizedStyleSpace, SimpleNamespace(mean=mean, names=("conv4", "rgb4"))
    )


def share(rows: slice) -> SetMetrics:
    """The metrics of some of seven images with codes."""
    rng = torch.Generator().manual_seed(5)
    output, images = torch.rand(2, 7, 3, 5, 8, generator=rng)
    styles, space = styles_and_space(7)
    every = image_metrics(absolute, Corner()) | {"psnr": psnr}
    found = SetMetrics(space, (*every, "nscd", "nscd_raw"))
    some = [style[rows] for style in styles]
    if len(output[rows]):
        found.update(image_values(every, output[rows], images[rows]) | code_values(some, space.mean), some)
    return found
