"""What rich portraits have and the generator never saw: patterned backgrounds, hats, ear-rings, scarves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lsap.demo.drawing import Canvas, hue, per_image
from lsap.seeds import derive

if TYPE_CHECKING:
    from lsap.demo.portraits import Head

_COLUMNS = 24  # random numbers that describe the extras of one portrait


@dataclass(frozen=True)
class Accessories:
    """Extras of N portraits as raw random numbers [N, 24] in [0, 1]; slicing selects portraits."""

    numbers: Tensor

    @classmethod
    def draw(cls, seed: int, split: str, indices: Sequence[int]) -> Accessories:
        """Deterministic by seed, split and index, as the factors are."""
        rows = [
            torch.rand(_COLUMNS, generator=torch.Generator().manual_seed(derive(seed, "extras", split, i)))
            for i in indices
        ]
        return cls(torch.stack(rows))

    def __getitem__(self, index: slice) -> Accessories:
        return Accessories(self.numbers[index])

    def _share(self, column: int, share: float) -> Tensor:
        """1.0 for the given share of portraits, else 0.0; [N]."""
        return (self.numbers[:, column] < share).float()

    @property
    def hat(self) -> Tensor:
        """Whether a hat is worn; a portrait with neither scarf nor ear-rings always has one. [N] of 0 and 1."""
        bare = 1 - torch.maximum(self.scarf, self.earrings)
        return torch.maximum(self._share(0, 0.40), bare * self._share(0, 0.75))

    @property
    def scarf(self) -> Tensor:
        return self._share(1, 0.40)

    @property
    def earrings(self) -> Tensor:
        return self._share(2, 0.45)

    def behind(self, canvas: Canvas) -> None:
        """Stripes, checks, dots or waves over the background colour."""
        n = self.numbers
        kind = n[:, 3] * 5  # the last fifth keeps its plain background
        angle = n[:, 4] * 3.1416
        scale = 5 + 7 * n[:, 5]
        along = canvas.x * per_image(torch.cos(angle)) + canvas.y * per_image(torch.sin(angle))
        across = canvas.y * per_image(torch.cos(angle)) - canvas.x * per_image(torch.sin(angle))
        a, b = along * per_image(scale), across * per_image(scale)
        wave_a, wave_b = torch.sin(a), torch.sin(b)
        patterns = (wave_a, wave_a * wave_b * 2, wave_a + wave_b - 0.9, torch.sin(a + 1.4 * wave_b))
        colour = hue(n[:, 6], 0.5, 0.35 + 0.6 * n[:, 7])
        for number, pattern in enumerate(patterns):
            chosen = ((kind >= number) & (kind < number + 1)).float()
            canvas.paint((pattern * 2.2 + 0.5).clamp(0, 1), colour, 0.5 * chosen)

    def around_neck(self, canvas: Canvas, head: Head) -> None:
        n = self.numbers
        one = torch.ones_like(head.cx)
        colour = hue(n[:, 8], 0.75, 0.45 + 0.5 * n[:, 9])
        band = canvas.fill(canvas.ellipse(0.4 * head.cx, 0.60 * one, 0.36 * one, 0.16 * one))
        tail = canvas.fill(canvas.stroke(0.12 * one, 0.62 * one, 0.20 * one, 1.0 * one, 0.10 * one))
        stripes = 0.86 + 0.14 * torch.sin(canvas.y * 34 + canvas.x * 9)
        canvas.paint(torch.maximum(band, tail), colour[:, :, None, None] * stripes[:, None], self.scarf)

    def on_ears(self, canvas: Canvas, head: Head) -> None:
        n = self.numbers
        colour = hue(0.10 + 0.9 * (n[:, 10] > 0.5).float() * n[:, 11], 0.75, 0.95)
        size = 0.045 + 0.035 * n[:, 12]
        for side in (-1, 1):
            x, y, scale = head.ear(side)
            ring = canvas.fill(canvas.ellipse(x, y + 0.10 + size, size * scale.clamp(max=1), size * 1.2))
            canvas.paint(ring, colour, self.earrings)

    def on_head(self, canvas: Canvas, head: Head) -> None:
        """A woollen cap, or a hat with a brim."""
        n = self.numbers
        one = torch.ones_like(head.cx)
        colour = hue(n[:, 13], 0.25 + 0.6 * n[:, 14], 0.35 + 0.6 * n[:, 15])
        front_x, front_y, _, _ = head.place(0 * one, -0.27 * one)
        width = head.width + 0.09 + 0.04 * head.f["hair_volume"]
        brim_y = per_image(front_y) + 0.06 * ((canvas.x - per_image(front_x)) / 0.4).square()
        dome = canvas.fill(canvas.ellipse(head.cx, front_y + 0.02, width, 0.44 + 0.20 * n[:, 16]))
        crown = dome * canvas.fill(brim_y - canvas.y)
        knit = 0.90 + 0.10 * torch.sin(canvas.x * 60)
        canvas.paint(crown, colour[:, :, None, None] * knit[:, None], self.hat)
        brimmed = (n[:, 17] > 0.5).float()
        band = canvas.fill(0.045 - (canvas.y - brim_y + 0.03).abs()) * dome
        second = hue((n[:, 13] + 0.5) % 1, 0.5, 0.85)
        canvas.paint(band, second, self.hat * (1 - brimmed))
        half = width + 0.17
        brim = canvas.fill(canvas.ellipse(front_x, front_y, half, 0.075 * one))
        canvas.paint(brim, colour * 0.82, self.hat * brimmed)
