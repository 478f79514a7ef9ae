"""Readers of attributes for tests, named by configurations: what they read can be worked out by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Colours:
    """Mean brightness, and how much redder than blue, in tenths."""

    names = ("brightness", "redness")
    label = "means of pixels"

    def __call__(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] → [N, 2]."""
        red, _, blue = images.mean((2, 3)).unbind(1)
        return 10 * torch.stack([images.mean((1, 2, 3)), red - blue], 1)


class Bright(Colours):
    """The same on images of a brightness of at least `least`; on others nobody can read it."""

    def __init__(self, least: float) -> None:
        self.least, self.label = least, f"means of pixels from {least} upwards"

    def __call__(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] → [N, 2]; NaN where they are too dark."""
        found = super().__call__(images)
        return found.masked_fill(found[:, :1] < self.least, torch.nan)


class Averages(nn.Module):
    """A judge whose embedding is the mean colour."""

    label = "mean colour"

    def embed(self, images: Tensor) -> Tensor:
        """[N, 3], not of unit length."""
        return images.mean((2, 3))


class Absolute:
    """A distance that is the mean absolute difference."""

    label = "LPIPS (mean difference)"

    def to(self, _: object) -> Absolute:
        """Itself; it lives nowhere."""
        return self

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """[N, 3, H, W] twice → [N]."""
        return (x - y).abs().mean((1, 2, 3))
