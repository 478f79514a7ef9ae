"""What lsap asks of a generator. `Generator` has it; another class that has it takes its place everywhere."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from lsap.stylegan2.layers import Noise, Tap
from lsap.stylegan2.networks import StyledLayer


class StyleGenerator(Protocol):
    """A frozen network that draws images in two halves: codes become styles, styles become an image.

    It is a `torch.nn.Module`; what is listed under "as a module" comes from there. `Generator` documents arguments,
    shapes and errors of the methods.

    Attributes:
        size: pixels of the image.
        style_dim: C, length of z and w.
        n_latent: L, rows of W+. Layer i of the convolutions reads row i.
        layers: every modulated layer, in the order in which they run. One that demodulates takes a noise map.
        latent_avg: mean of w [C], where codes start and what truncation moves them to.
    """

    size: int
    style_dim: int
    latent_avg: Tensor

    @property
    def n_latent(self) -> int: ...

    @property
    def layers(self) -> Sequence[StyledLayer]: ...

    @property
    def mapping(self) -> Callable[[Tensor], Tensor]:
        """z [N, C] → w [N, C]."""
        ...

    def sample_w(self, count: int, rng: torch.Generator | None = None, psi: float = 1.0) -> Tensor:
        """w [count, C] of random z."""
        ...

    def truncate(self, w: Tensor, psi: float, cutoff: int | None = None) -> Tensor:
        """Codes moved towards the mean."""
        ...

    def modulation(self, name: str) -> Tensor:
        """The matrix [width, C] that turns a code into the style of a layer, up to a factor that all layers share."""
        ...

    def styles(self, codes: Tensor, names: Collection[str] | None = None) -> dict[str, Tensor]:
        """Raw styles [N, width] by layer, of w [N, C] or w_plus [N, L, C]."""
        ...

    def synthesis(
        self,
        styles: Mapping[str, Tensor],
        *,
        noise: Noise | Sequence[Tensor] = "fixed",
        taps: Mapping[str, Tap] | None = None,
    ) -> Tensor:
        """The image [N, 3, size, size] of styles."""
        ...

    def __call__(
        self,
        codes: Tensor,
        *,
        noise: Noise | Sequence[Tensor] = "fixed",
        taps: Mapping[str, Tap] | None = None,
    ) -> Tensor:
        """The image [N, 3, size, size] of codes."""
        ...

    # ---- as a module

    def to(self, device: torch.device) -> Self: ...

    def eval(self) -> Self: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...

    def state_dict(self) -> dict[str, Any]: ...
