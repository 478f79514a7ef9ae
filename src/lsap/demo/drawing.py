"""A small batch rasteriser: soft-edged shapes by signed distance, painted over one another.

All images of a batch are drawn at once; every parameter of a shape is a tensor [N], every mask [N, H, W] in [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor


def smoothstep(low: float, high: float, value: Tensor) -> Tensor:
    """0 below `low`, 1 above `high`, smooth between."""
    t = ((value - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def mix(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Colours [N, 3] between `a` and `b`; weight [N] in [0, 1]."""
    return a + (b - a) * weight[:, None]


def hue(angle: Tensor, saturation: Tensor | float, value: Tensor | float) -> Tensor:
    """Colours [N, 3] in [0, 1] from hue (turns), saturation and value."""
    offsets = torch.tensor([0.0, 2 / 3, 1 / 3], device=angle.device)
    ramp = ((angle[:, None] + offsets) % 1 * 6 - 3).abs().sub(1).clamp(0, 1)
    saturation = torch.as_tensor(saturation, device=angle.device).expand_as(angle)[:, None]
    value = torch.as_tensor(value, device=angle.device).expand_as(angle)[:, None]
    return value * (1 - saturation * (1 - ramp))


class Canvas:
    """N square pictures in the making; x runs right and y down, both from -`extent` to `extent`."""

    def __init__(self, count: int, size: int, device: torch.device, extent: float = 0.85, edge: float = 1.6) -> None:
        """`edge`: width of a soft outline in pixels of a 64-pixel picture."""
        axis = ((torch.arange(size, device=device) + 0.5) * (2 / size) - 1) * extent
        self.x = axis[None, None, :]
        self.y = axis[None, :, None]
        self.size = size
        self.soft = edge * extent * 2 / 64
        self.pixels = torch.zeros(count, 3, size, size, device=device)

    def fill(self, distance: Tensor, soft: float = 1.0) -> Tensor:
        """Mask of a shape from its signed distance (positive inside)."""
        return (distance / (self.soft * soft) + 0.5).clamp(0, 1)

    def ellipse(self, cx: Tensor, cy: Tensor, rx: Tensor, ry: Tensor) -> Tensor:
        """Signed distance, positive inside, first order near the outline."""
        u = (self.x - per_image(cx)) / per_image(rx)
        v = (self.y - per_image(cy)) / per_image(ry)
        radius = (u * u + v * v).add_(1e-6).sqrt_()
        # |gradient| of the radius: u/rx and v/ry over the radius
        slope = ((u / per_image(rx)).square() + (v / per_image(ry)).square()).add_(1e-6).sqrt_() / radius
        return (1 - radius) / slope

    def stroke(self, ax: Tensor, ay: Tensor, bx: Tensor, by: Tensor, width: Tensor) -> Tensor:
        """Signed distance to a round-ended segment of half width `width`."""
        dx, dy = per_image(bx - ax), per_image(by - ay)
        px, py = self.x - per_image(ax), self.y - per_image(ay)
        along = ((px * dx + py * dy) / (dx * dx + dy * dy + 1e-8)).clamp(0, 1)
        return per_image(width) - ((px - along * dx).square() + (py - along * dy).square()).add_(1e-8).sqrt_()

    def arc(self, cx: Tensor, cy: Tensor, half: Tensor, bend: Tensor, width: Tensor) -> Tensor:
        """Signed distance (vertical) to a parabolic stroke: ends `bend` above its middle; negative bend: below."""
        u = (self.x - per_image(cx)) / per_image(half)
        reach = u.abs().clamp(max=1)
        off = (self.y - per_image(cy) + per_image(bend) * reach * reach).abs()
        beyond = per_image(half) * (u.abs() - reach)
        return per_image(width) * (1 - reach * reach).sqrt() - off - beyond

    def paint(self, mask: Tensor, colour: Tensor, opacity: Tensor | float = 1.0) -> None:
        """Lay a colour, [N, 3] or [N, 3, H, W], over the picture where `mask` is."""
        if isinstance(opacity, Tensor):
            mask = mask * per_image(opacity)
        elif opacity != 1.0:
            mask = mask * opacity
        if colour.ndim == 2:
            colour = colour[:, :, None, None]
        self.pixels += mask[:, None] * (colour - self.pixels)

    def shade(self, mask: Tensor, amount: Tensor | float) -> None:
        """Darken (negative: lighten) by a fraction where `mask` is."""
        amount = per_image(amount) if isinstance(amount, Tensor) else amount
        self.pixels *= 1 - (mask * amount)[:, None]


def per_image(value: Tensor) -> Tensor:
    """[N] → [N, 1, 1], to meet masks."""
    return value[:, None, None]
