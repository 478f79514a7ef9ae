"""Encoders: from an image to its codes in W+, row by row, starting from the generator's mean latent.

Two rules make codes of what an encoder's heads answer. Progressive (e4e, Tov et al. 2021, which LSAP_E keeps): row 0
is the base, row i the base plus a difference of its own for the rows trained so far (0..stage), and the base alone for
the rest. Independent (pSp, Richardson et al. 2021): every head answers its own row.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsap.errors import BadValue
from lsap.pretrained import IRSE50, load_weights

COARSE, MIDDLE = 3, 7  # rows 0-2 read the coarse map, rows 3-6 the middle one, the rest the fine one


class RowEncoder(nn.Module, abc.ABC):
    """What all encoders share: heads for the rows of W+, the progressive rule and the mean latent.

    Subclasses call `set_rows` in their constructor and say in `rows` what each head answers.

    Attributes:
        kind: how heads and rows go together: "e4e", "psp", "w", "restyle_e4e", or a word of one's own. It is written
            into the encoder's file and compared with that of the class that is to be filled: weights of one kind mean
            something else under the rule of another, though names and shapes be the same.
    """

    kind: ClassVar[str] = "e4e"
    latent_avg: Tensor

    def set_rows(self, n_latent: int, style_dim: int, latent_avg: Tensor | None) -> None:
        """Keep the shape of the codes and the mean latent, [C], [1, C] or [L, C], as a buffer [L, C]; zero if None.

        Raises:
            BadValue: the mean latent has another width or number of rows.
        """
        self.n_latent, self.style_dim = n_latent, style_dim
        mean = torch.zeros(style_dim) if latent_avg is None else latent_avg.detach().float()
        if mean.shape not in ((style_dim,), (1, style_dim), (n_latent, style_dim)):
            raise BadValue(
                f"latent_avg is {list(mean.shape)}; this encoder takes [{style_dim}] or [{n_latent}, {style_dim}]. "
                "It belongs to another generator: name the one that the encoder is trained for"
            )
        self.register_buffer("latent_avg", mean.expand(n_latent, style_dim).clone())

    def start_backbone(self, state: Mapping[str, Tensor]) -> None:
        """Start the feature extractor from pretrained weights, where there are any for it.

        Raises:
            BadValue: there are none.
        """
        raise BadValue("this encoder has no pretrained start; use backbone.checkpoint=random")

    @abc.abstractmethod
    def rows(self, images: Tensor, last: int) -> list[Tensor]:
        """What heads 0..last answer for images [N, 3, H, W]: [N, C] each."""

    def offsets(self, images: Tensor, stage: int | None = None) -> Tensor:
        """Codes [N, L, C] relative to the mean latent; see `forward`."""
        last = self.n_latent - 1 if stage is None else min(stage, self.n_latent - 1)
        base, *deltas = self.rows(images, last)
        untouched = [base] * (self.n_latent - 1 - last)
        return torch.stack([base, *(base + delta for delta in deltas), *untouched], dim=1)

    def forward(self, images: Tensor, stage: int | None = None) -> Tensor:
        """Codes of images.

        Args:
            images: [N, 3, H, W] in [-1, 1].
            stage: rows 0..stage have differences of their own, later rows are the base; None: all rows have.

        Returns:
            w_plus [N, L, C], the mean latent included.
        """
        return self.offsets(images, stage).float() + self.latent_avg


class IndependentRows(RowEncoder):
    """The rule of pSp, to be put before an encoder's own class: every head answers its own row, whatever the stage."""

    kind: ClassVar[str] = "psp"

    def offsets(self, images: Tensor, stage: int | None = None) -> Tensor:
        """Codes [N, L, C] relative to the mean latent."""
        return torch.stack(self.rows(images, self.n_latent - 1), dim=1)


class EqualizedLinear(nn.Module):
    """A linear layer whose stored weights have unit variance and are scaled by 1/sqrt(inputs) when used."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before))
        self.bias = nn.Parameter(torch.zeros(after))
        self.scale = 1 / math.sqrt(before)

    def forward(self, x: Tensor) -> Tensor:
        """[N, before] → [N, after]."""
        return F.linear(x, self.weight * self.scale, self.bias)


class StyleHead(nn.Module):
    """Halve a feature map by strided convolutions until one pixel is left, which becomes one row.

    Args:
        channels: channels of the map.
        style_dim: width of the row.
        halvings: how often to halve; 4, 5 and 6 for maps of up to 16, 32 and 64 pixels.
    """

    def __init__(self, channels: int, style_dim: int, halvings: int) -> None:
        super().__init__()
        self.convs = nn.Sequential()
        for index in range(halvings):
            self.convs.append(nn.Conv2d(channels if index == 0 else style_dim, style_dim, 3, 2, 1))
            self.convs.append(nn.LeakyReLU(0.01))
        self.linear = EqualizedLinear(style_dim, style_dim)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] → [N, style_dim]."""
        out: Tensor = self.linear(self.convs(x).flatten(1))
        return out


class PyramidEncoder(IRSE50, RowEncoder):
    """The full-size encoder of e4e and LSAP_E: IR-SE-50 body, feature pyramid, one convolutional head per row.

    Parameter names are the published ones, so the encoder part of a published checkpoint loads by name. Takes images of
    256 x 256 or 192 x 256 (cars); no side may be longer than 256.

    Args:
        n_latent: rows of W+: 14, 16 or 18 for generators of 256, 512 or 1024 pixels.
        style_dim: width of a row.
        latent_avg: the generator's mean latent, [C] or [L, C]; zero where None, as before a checkpoint is loaded.
    """

    def __init__(self, n_latent: int, *, style_dim: int = 512, latent_avg: Tensor | None = None) -> None:
        super().__init__()
        self.set_rows(n_latent, style_dim, latent_avg)
        halvings = [4 if row < COARSE else 5 if row < MIDDLE else 6 for row in range(n_latent)]
        self.styles = nn.ModuleList(StyleHead(512, style_dim, count) for count in halvings)
        self.latlayer1 = nn.Conv2d(256, 512, 1)
        self.latlayer2 = nn.Conv2d(128, 512, 1)

    def start_backbone(self, state: Mapping[str, Tensor]) -> None:
        """Start the body from ArcFace's (`model_ir_se50.pth`, a bare state dict); its output layer is left aside.

        Raises:
            BadValue: the state is not that of an IR-SE-50.
        """
        _start_body(self, state, own=("styles.", "latlayer", "latent_avg"))

    def rows(self, images: Tensor, last: int) -> list[Tensor]:
        if max(images.shape[-2:]) > 256:
            height, width = images.shape[-2:]
            raise BadValue(
                f"the pyramid encoder takes images of up to 256 x 256 pixels, got {height} x {width}; resize them"
            )
        maps = self.maps(images)
        coarse = middle = fine = maps.coarse
        if last >= COARSE:  # the pyramid is climbed only as far as somebody reads it
            middle = _climb(coarse, self.latlayer1(maps.middle))
        if last >= MIDDLE:
            fine = _climb(middle, self.latlayer2(maps.fine))
        return [self.styles[row](_level(row, coarse, middle, fine)) for row in range(last + 1)]


class PSPEncoder(IndependentRows, PyramidEncoder):
    """The full-size encoder of pSp: the same network and parameter names, read by the independent rule."""


class WEncoder(IndependentRows, IRSE50):
    """One w for all rows: IR-SE-50 body, mean over the coarse map, one equalised linear layer. Codes stay within W.

    Parameter names are the published ones. Takes images of any size.

    Args:
        n_latent: rows of W+, all of which get the same code.
        style_dim: width of a row.
        latent_avg: the generator's mean latent, [C] or [L, C]; zero where None.
    """

    kind = "w"

    def __init__(self, n_latent: int, *, style_dim: int = 512, latent_avg: Tensor | None = None) -> None:
        super().__init__()
        self.set_rows(n_latent, style_dim, latent_avg)
        self.linear = EqualizedLinear(512, style_dim)

    def start_backbone(self, state: Mapping[str, Tensor]) -> None:
        """Start the body from ArcFace's; see `PyramidEncoder.start_backbone`."""
        _start_body(self, state, own=("linear.", "latent_avg"))

    def rows(self, images: Tensor, last: int) -> list[Tensor]:
        w: Tensor = self.linear(self.maps(images).coarse.mean((2, 3)))
        return [w] * (last + 1)


class SmallPyramidEncoder(RowEncoder):
    """The same idea with a hundredth of the weights, for 64-pixel domains that train on a CPU in minutes.

    Three levels of a feature pyramid at a quarter, an eighth and a sixteenth of the image, and one small head per row.
    Normalised over groups of channels, not over the batch: a code does not depend on the other images of its batch, and
    training and evaluation see the same network.

    Args:
        n_latent: rows of W+; 10 for a generator of 64 pixels.
        style_dim: width of a row.
        latent_avg: the generator's mean latent, [C] or [L, C]; zero where None.
    """

    widths = (32, 64, 96, 128)
    pyramid = 128  # channels of every level

    def __init__(self, n_latent: int, *, style_dim: int = 128, latent_avg: Tensor | None = None) -> None:
        super().__init__()
        self.set_rows(n_latent, style_dim, latent_avg)
        stem, fine, middle, coarse = self.widths
        self.stem = _halve(3, stem)
        self.fine = nn.Sequential(_halve(stem, fine), Residual(fine))
        self.middle = nn.Sequential(_halve(fine, middle), Residual(middle))
        self.coarse = nn.Sequential(_halve(middle, coarse), Residual(coarse))
        self.lateral_fine = nn.Conv2d(fine, self.pyramid, 1)
        self.lateral_middle = nn.Conv2d(middle, self.pyramid, 1)
        self.lateral_coarse = nn.Conv2d(coarse, self.pyramid, 1)
        self.heads = nn.ModuleList(SmallHead(self.pyramid, style_dim) for _ in range(n_latent))

    def rows(self, images: Tensor, last: int) -> list[Tensor]:
        images = images.contiguous(memory_format=torch.channels_last)  # a quarter faster on a CPU
        fine = self.fine(self.stem(images))
        middle = self.middle(fine)
        coarse = self.lateral_coarse(self.coarse(middle))
        middle = _climb(coarse, self.lateral_middle(middle))
        fine = _climb(middle, self.lateral_fine(fine))
        return [self.heads[row](_level(row, coarse, middle, fine)) for row in range(last + 1)]


class SmallPSPEncoder(IndependentRows, SmallPyramidEncoder):
    """The small encoder read by the rule of pSp."""


class Residual(nn.Module):
    """Two convolutions beside a shortcut, each normalised over groups of 8 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.GroupNorm(8, channels),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.GroupNorm(8, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as the input [N, C, H, W]."""
        return F.leaky_relu(x + self.convs(x), 0.2)


class SmallHead(nn.Module):
    """Squeeze a level of the pyramid to 4 x 4 places of 32 channels and read a row off them."""

    def __init__(self, channels: int, style_dim: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, 32, 1)
        self.linear = nn.Linear(32 * 16, style_dim)
        nn.init.normal_(self.linear.weight, std=0.1 / math.sqrt(32 * 16))  # first codes: near the mean latent
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] → [N, style_dim]."""
        places = F.adaptive_avg_pool2d(F.leaky_relu(self.squeeze(x), 0.2), 4)
        out: Tensor = self.linear(places.flatten(1))
        return out


def _halve(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.GroupNorm(8, after), nn.LeakyReLU(0.2))


def _start_body(encoder: nn.Module, state: Mapping[str, Tensor], own: tuple[str, ...]) -> None:
    """Fill the IR-SE-50 body of an encoder; `own` are the beginnings of the names that are not of the body."""
    load_weights(encoder, state, "an IR-SE-50 body (model_ir_se50.pth)", optional=own)


def _level(row: int, coarse: Tensor, middle: Tensor, fine: Tensor) -> Tensor:
    """The level of the pyramid that a row's head reads."""
    return coarse if row < COARSE else middle if row < MIDDLE else fine


def _climb(coarse: Tensor, lateral: Tensor) -> Tensor:
    """The next finer level of a feature pyramid (Lin et al. 2017): the coarser one enlarged, plus its own."""
    return F.interpolate(coarse, size=lateral.shape[-2:], mode="bilinear", align_corners=True) + lateral
