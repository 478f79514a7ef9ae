"""ReStyle's encoders (Alaluf et al. 2021): they see an image beside its reconstruction and answer how to move codes.

One pass of such a network is a step; `Iterated` takes several of them, from the mean latent on. Parameter names are the
published ones. Rows follow e4e's rule (`RowEncoder.offsets`), but a row is a step, not a place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from lsap.embedding.encoders import RowEncoder, SmallPyramidEncoder, StyleHead, _halve
from lsap.errors import BadValue
from lsap.pretrained import IRSE50, load_weights
from lsap.stylegan2 import Noise, StyleGenerator, View
from lsap.values import COUNT

COARSEST = 16  # pixels of the map that all heads read, at most
RESNET34 = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # (channels, blocks, stride of the first)


class StepEncoder(RowEncoder):
    """What the encoders of ReStyle share: one head per row, all of them on the map at a sixteenth of the image."""

    kind: ClassVar[str] = "restyle_e4e"
    styles: nn.ModuleList

    def coarse(self, images: Tensor) -> Tensor:
        """The map [N, 512, H/16, W/16] of images [N, 6, H, W]: a target and its reconstruction."""
        raise TypeError(f"{type(self).__name__} has no map")

    def rows(self, images: Tensor, last: int) -> list[Tensor]:
        if max(images.shape[-2:]) > 16 * COARSEST:
            height, width = images.shape[-2:]
            raise BadValue(f"ReStyle's encoder takes images of up to 256 x 256 pixels, got {height} x {width}")
        coarse = self.coarse(images)
        return [self.styles[row](coarse) for row in range(last + 1)]


class IterativeEncoder(IRSE50, StepEncoder):
    """ReStyle's encoder for faces: an IR-SE-50 body that takes six channels, and no pyramid.

    Args:
        n_latent: rows of W+.
        style_dim: width of a row.
        latent_avg: where the codes start, [C] or [L, C]; zero where None, as before a checkpoint is loaded.
    """

    def __init__(self, n_latent: int, *, style_dim: int = 512, latent_avg: Tensor | None = None) -> None:
        super().__init__(6)
        self.set_rows(n_latent, style_dim, latent_avg)
        self.styles = nn.ModuleList(StyleHead(512, style_dim, 4) for _ in range(n_latent))

    def start_backbone(self, state: Mapping[str, Tensor]) -> None:
        """Start the body from ArcFace's; the channels of the reconstruction keep their random start.

        Raises:
            BadValue: the state is not that of an IR-SE-50.
        """
        first = "input_layer.0.weight"
        own = self.state_dict()[first]
        widened = {**state, first: beside(state[first], own)} if first in state else state
        load_weights(self, widened, "an IR-SE-50 body (model_ir_se50.pth)", optional=("styles.", "latent_avg"))

    def coarse(self, images: Tensor) -> Tensor:
        return self.maps(images).coarse


class IterativeResNetEncoder(StepEncoder):
    """ReStyle's encoder for everything but faces: a ResNet-34 that takes six channels and has no max-pool.

    Args:
        Those of `IterativeEncoder`.
    """

    def __init__(self, n_latent: int, *, style_dim: int = 512, latent_avg: Tensor | None = None) -> None:
        super().__init__()
        self.set_rows(n_latent, style_dim, latent_avg)
        self.conv1 = nn.Conv2d(6, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.PReLU(64)
        self.body = nn.Sequential(*_basic_blocks())
        self.styles = nn.ModuleList(StyleHead(512, style_dim, 4) for _ in range(n_latent))

    def start_backbone(self, state: Mapping[str, Tensor]) -> None:
        """Start the body from torchvision's ResNet-34 (`resnet34-b627a593.pth`); its classifier is left aside.

        The channels of the reconstruction and the PReLU keep their own start.

        Raises:
            BadValue: the state is not that of a ResNet-34.
        """
        counts = [count for _, count, _ in RESNET34]
        stages = [f"layer{stage}.{index}." for stage, count in enumerate(counts, 1) for index in range(count)]

        def filed_as(name: str) -> str:
            place, _, rest = name.removeprefix("body.").partition(".")
            return stages[int(place)] + rest if name.startswith("body.") else name

        first = "conv1.weight"
        own = self.state_dict()[first]
        widened = {**state, first: beside(state[first], own)} if first in state else state
        what = "a ResNet-34 (resnet34-b627a593.pth of torchvision)"
        load_weights(self, widened, what, filed_as=filed_as, optional=("relu.", "styles.", "latent_avg"))

    def coarse(self, images: Tensor) -> Tensor:
        coarse: Tensor = self.body(self.relu(self.bn1(self.conv1(images))))
        return coarse


class SmallIterativeEncoder(SmallPyramidEncoder):
    """The small encoder of 64-pixel domains with six channels, its pyramid and heads as they are.

    Args:
        Those of `SmallPyramidEncoder`.
    """

    kind: ClassVar[str] = "restyle_e4e"

    def __init__(self, n_latent: int, *, style_dim: int = 128, latent_avg: Tensor | None = None) -> None:
        super().__init__(n_latent, style_dim=style_dim, latent_avg=latent_avg)
        self.stem = _halve(6, self.widths[0])


def beside(found: Tensor, own: Tensor) -> Tensor:
    """A first convolution for three channels [O, 3, k, k] widened to an encoder's own six, whose other three stay."""
    if found.shape != (len(own), 3, *own.shape[2:]):
        return found  # of another network, which whoever loads it will say
    return torch.cat([found.to(own.dtype), own.detach()[:, 3:].cpu()], 1)


def _basic_blocks() -> Iterator[BasicBlock]:
    before = 64
    for channels, count, stride in RESNET34:
        for index in range(count):
            step, narrow = (stride if index == 0 else 1), None
            if index == 0 and before != channels:
                narrow = nn.Sequential(nn.Conv2d(before, channels, 1, step, bias=False), nn.BatchNorm2d(channels))
            yield BasicBlock(before, channels, step, narrow)
            before = channels


def first_image(latent_avg: Tensor, generator: StyleGenerator, view: View) -> Tensor:
    """What passes begin with: the image [1, 3, h, w] of the mean latent [L, C], with fixed noise, as losses see it."""
    with torch.no_grad():
        image: Tensor = view(generator(latent_avg[None]))
    return image


class Iterated(nn.Module):
    """A `StepEncoder` as an encoder like any other: images in, codes out, by several passes from the mean latent on.

    Each pass sees the image beside the reconstruction so far (pooled to the view's size, not clamped, fixed noise) and
    adds its answer to the codes.

    Args:
        encoder: [N, 6, H, W], stage → steps [N, L, C], by `offsets`.
        generator: draws the reconstruction.
        view: the generator's image → the image that the encoder sees.
        iterations: passes; 5 as published.

    Raises:
        BadValue: fewer than one pass.
    """

    def __init__(self, encoder: RowEncoder, generator: StyleGenerator, view: View, *, iterations: int = 5) -> None:
        super().__init__()
        self.encoder, self.generator, self.view = encoder, generator, view
        COUNT.require("iterations", iterations)
        self.iterations = iterations
        self.training = encoder.training  # as its parts are; a new module would say otherwise

    @property
    def latent_avg(self) -> Tensor:
        """Where the codes start, [L, C]."""
        return self.encoder.latent_avg

    def forward(self, images: Tensor, stage: int | None = None) -> Tensor:
        """w_plus [N, L, C] of images [N, 3, H, W] in [-1, 1]; `stage` as for every encoder."""
        return self.passes(images, stage)[-1]

    def passes(self, images: Tensor, stage: int | None = None, noise: Noise = "fixed") -> Sequence[Tensor]:
        """The codes [N, L, C] after each pass."""
        codes = self.latent_avg.expand(len(images), -1, -1)
        output = first_image(self.latent_avg, self.generator, self.view).expand_as(images)
        found: list[Tensor] = []
        for number in range(self.iterations):
            codes = codes + self.encoder.offsets(torch.cat([images, output], 1), stage).float()
            found.append(codes)
            if number + 1 < self.iterations:
                output = self.view(self.generator(codes, noise=noise))
        return found
