"""HFGI's networks (Wang et al. 2022): an aligner, and the consultation encoder that reads its answer.

The consultation encoder turns a residual image into what one layer of the generator takes: gates, which scale its
features, and additions. Tensors of the published networks keep their names, `grid_align.…` and `residue.…`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from lsap.checkpoints import fingerprint
from lsap.checkpoints.hfgi import read_consultation
from lsap.errors import BadValue, nearest
from lsap.pretrained import load_weights
from lsap.refinement.aligner import ResidualAligner, SmallAligner, smooth, stem, units
from lsap.stylegan2 import StyleGenerator, freeze

LARGE = 256  # pixels; generators from this size on are consulted at 64 x 64, smaller ones at a quarter of their size
AT = 64
Conditions = tuple[Tensor, Tensor]  # gates and additions


def consulted_layer(generator: StyleGenerator) -> str:
    """The layer behind which the generator is consulted: the up convolution of 64 x 64, or of a quarter of its size."""
    return f"up{AT if generator.size >= LARGE else max(generator.size // 4, 8)}"


class Equalized(nn.Conv2d):
    """A 3 x 3 convolution whose stored weights have unit variance and are scaled by 1/sqrt(fan in) when used."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after, 3, padding=1)
        nn.init.normal_(self.weight)
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]
        self.scale = 1 / math.sqrt(9 * before)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, padding=1)


class ScaledLeaky(nn.Module):
    """Leaky ReLU of slope 0.2, and the gain that keeps its variance."""

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, 0.2) * math.sqrt(2)


class ResidualEncoder(nn.Module):
    """The published consultation encoder: residuals to conditions at a quarter of their size.

    Args:
        channels: features of the layer that is consulted.
    """

    def __init__(self, channels: int = 512) -> None:
        super().__init__()
        self.conv_layer1 = stem(3, 32)
        self.conv_layer2 = units((32, 48, 2), (48, 48, 1), (48, 48, 1))
        self.conv_layer3 = units((48, 64, 2), (64, 64, 1), (64, 64, 1))
        self.condition_scale3, self.condition_shift3 = (
            nn.Sequential(Equalized(64, channels), ScaledLeaky(), Equalized(channels, channels)) for _ in range(2)
        )

    def forward(self, residual: Tensor) -> Conditions:
        """Gates and additions [N, C, H/4, W/4] of residuals [N, 3, H, W]."""
        x = self.conv_layer3(self.conv_layer2(self.conv_layer1(residual)))
        return self.condition_scale3(x), self.condition_shift3(x)


class SmallResidualEncoder(nn.Module):
    """A consultation encoder for small images; it begins by changing nothing.

    Args:
        channels: features of the layer that is consulted.
        width: channels at full resolution, a multiple of 8.
    """

    def __init__(self, channels: int, width: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(
            smooth(3, width), smooth(width, 2 * width, 2), smooth(2 * width, 2 * width),
            smooth(2 * width, 3 * width, 2), smooth(3 * width, 3 * width),
        )  # fmt: skip
        self.gates, self.additions = (nn.Conv2d(3 * width, channels, 3, padding=1) for _ in range(2))
        for head in (self.gates, self.additions):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]

    def forward(self, residual: Tensor) -> Conditions:
        """Gates and additions [N, C, H/4, W/4] of residuals [N, 3, H, W]."""
        x = self.body(residual)
        return self.gates(x), self.additions(x)


class Consultation(nn.Module):
    """Aligner and consultation encoder, for one layer of one generator.

    Args:
        channels: features of the layer that is consulted.

    Attributes:
        kind: what files call the pair.
        mark: fingerprint of the pair, where it came from a file.
    """

    kind: str
    mark: str = ""
    grid_align: nn.Module
    residue: nn.Module

    def align(self, residual: Tensor, images: Tensor) -> Tensor:
        """Residuals [N, 3, H, W] as they belong to images [N, 3, H, W] of other codes."""
        aligned: Tensor = self.grid_align(residual, images)
        return aligned

    def conditions(self, aligned: Tensor) -> Conditions:
        """Gates and additions [N, C, h, w] of aligned residuals [N, 3, H, W]."""
        found: Conditions = self.residue(aligned)
        return found


class PublishedConsultation(Consultation):
    """HFGI's own pair."""

    kind = "hfgi"

    def __init__(self, channels: int = 512) -> None:
        super().__init__()
        self.grid_align, self.residue = ResidualAligner(), ResidualEncoder(channels)


class SmallConsultation(Consultation):
    """The pair for images of 64 pixels, as large as a processor can train in minutes."""

    kind = "small"

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.grid_align, self.residue = SmallAligner(), SmallResidualEncoder(channels)


KINDS: dict[str, type[Consultation]] = {kind.kind: kind for kind in (PublishedConsultation, SmallConsultation)}


def consulted_channels(generator: StyleGenerator) -> int:
    """The number of features of the layer that is consulted.

    Raises:
        BadValue: the generator has no such layer, as one that is no StyleGAN2 may.
    """
    channels = {layer.name: layer.channels for layer in generator.layers}
    if (name := consulted_layer(generator)) not in channels:
        raise BadValue(f"HFGI changes the features of {name}; the layers of this generator are {', '.join(channels)}")
    return channels[name]


def load_consultation(path: str | Path, channels: int, owner: str | None = None) -> Consultation:
    """HFGI's networks from a file, frozen: of a published checkpoint, or of a run.

    They are read once as long as the file stays as it is; whoever asks again gets the same module.

    Args:
        path: the file.
        channels: features of the layer that they are for.
        owner: fingerprint of the generator, which networks of ours must have been trained for; None: not checked.

    Raises:
        MissingFile, BadValue: no such file, or no networks for this generator.
    """
    changed = Path(path).stat().st_mtime_ns if Path(path).is_file() else 0
    network, belongs = _read(str(path), channels, changed)
    if owner is not None and belongs not in (None, owner):
        raise BadValue(
            f"{path}: these networks of HFGI belong to generator {str(belongs)[:12]}, but this run uses {owner[:12]}; "
            "train some for it"
        )
    return network


@lru_cache(maxsize=2)
def _read(path: str, channels: int, changed: int) -> tuple[Consultation, str | None]:
    """The networks and the fingerprint of their generator, where the file says it."""
    found = read_consultation(path)
    if found.kind not in KINDS:
        raise BadValue(f"{path}: there are no networks {found.kind!r} of HFGI here; {nearest(found.kind, KINDS)}")
    network = KINDS[found.kind](channels)
    try:
        load_weights(network, found.state, f"HFGI for a layer of {channels} features ({found.kind})")
    except BadValue as error:
        raise BadValue(f"{path}: {error}") from error
    network.mark = fingerprint(network)
    return freeze(network), found.generator
