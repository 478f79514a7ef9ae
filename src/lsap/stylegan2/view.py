"""How losses, encoder and metrics see an image of the generator."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lsap.errors import BadValue


class View(nn.Module):
    """Pools a generator's image to `size` pixels and keeps a band of rows: [N, 3, S, S] -> [N, 3, height, size].

    Args:
        size: pixels of the pooled square; the generator's size must be a multiple of it, as nothing is blown up.
        rows: first row of the band and the one after its last; None keeps all. Car generators are square with the
            picture in the middle: `View(256, (32, 224))`.

    Raises:
        BadValue: a band outside the image or, when called, an image that cannot be pooled to `size`.
    """

    def __init__(self, size: int, rows: tuple[int, int] | None = None) -> None:
        super().__init__()
        first, end = rows or (0, size)
        if not 0 <= first < end <= size:
            raise BadValue(f"rows {first}..{end} lie outside an image of {size} rows")
        self.size, self.first, self.height = size, first, end - first

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if height != width or width % self.size:
            raise BadValue(
                f"an image of {height}x{width} px cannot be pooled to {self.size} px; use a multiple of that"
            )
        if width > self.size:
            images = F.avg_pool2d(images, width // self.size)
        return images.narrow(-2, self.first, self.height)
