"""How different do two images look? LPIPS on published trunks, and the same distance on any other trunk.

LPIPS (Zhang et al. 2018) compares feature maps: at every position the feature vectors of both images are scaled to unit
length, their squared difference is summed over channels, with learned weights or without, averaged over positions and
summed over layers.
"""

from __future__ import annotations

import abc
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from lsap.errors import BadValue, nearest
from lsap.pretrained.frozen import FrozenNetwork, load_weights

TRUNKS = {"alex": "AlexNet", "vgg": "VGG-16"}
EPSILON = 1e-10  # keeps the length of an all-zero feature vector from dividing by nothing


class PerceptualDistance(FrozenNetwork, abc.ABC):
    """The distance over feature maps; subclasses say which maps, and may weigh their channels."""

    @abc.abstractmethod
    def features(self, images: Tensor) -> Sequence[Tensor]:
        """Feature maps [N, C_l, H_l, W_l] of images [N, 3, H, W] in [-1, 1]."""

    def weights(self) -> Sequence[Tensor] | None:
        """Channel weights [C_l] of each map; None where every channel counts the same."""
        return None

    def layers(self, x: Tensor, y: Tensor) -> Tensor:
        """Each layer's share of the distance, [N, layers], in the order of `features`."""
        return torch.stack([found.mean((1, 2, 3)) for found in self.maps(x, y)], dim=1)

    def maps(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """Each layer's differences where they are, [N, 1, H_l, W_l]; their means are what `layers` gives."""
        pairs = list(zip(self.features(x), self.features(y), strict=True))
        weights: Sequence[Tensor | None] = self.weights() or [None] * len(pairs)
        return [_differences(a, b, weight) for (a, b), weight in zip(pairs, weights, strict=True)]

    def spatial(self, x: Tensor, y: Tensor) -> Tensor:
        """The distance as a map [N, 1, H, W] at the images' size: layers brought there bilinearly, then joined."""
        size = x.shape[-2:]
        maps = [F.interpolate(found, size, mode="bilinear", align_corners=False) for found in self.maps(x, y)]
        return self.joined(torch.cat(maps, 1)).unsqueeze(1)

    def joined(self, layers: Tensor) -> Tensor:
        """One value [N, …] of those of all layers [N, layers, …]: their sum."""
        return layers.sum(1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Distances [N] of images [N, 3, H, W] in [-1, 1]; 0 for equal images, differentiable in both."""
        return self.joined(self.layers(x, y))


class LPIPS(PerceptualDistance):
    """LPIPS version 0.1 from the `lpips` package: its trunk layout, input scaling and learned channel weights.

    The package would download the trunk; here it starts random and `from_state` fills it from a local file.

    Args:
        net: "alex" (training losses and the usual tables) or "vgg" (optimisation).

    Raises:
        BadValue: another trunk.
    """

    def __init__(self, net: str) -> None:
        super().__init__()
        if net not in TRUNKS:
            raise BadValue(f"there is no LPIPS trunk '{net}'; {nearest(net, TRUNKS)}")
        import lpips  # imports torchvision, which other networks of this package do without

        self.label = f"LPIPS ({TRUNKS[net]})"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the package uses torchvision's old spelling of `weights`
            self.package = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
        self.freeze()

    @classmethod
    def from_state(cls, net: str, state: Mapping[str, Tensor], heads: Mapping[str, Tensor] | None = None) -> Self:
        """Build from torchvision's ImageNet weights.

        Args:
            net: "alex" or "vgg".
            state: state dict of torchvision's AlexNet or VGG-16, whole or only its `features.*`.
            heads: channel weights under the names of the published v0.1 files (`lin0.model.1.weight`, …); those inside
                the package where not given.

        Raises:
            BadValue: the state belongs to another network.
        """
        judge = cls(net)
        load_weights(judge.package.net, state, f"torchvision's {TRUNKS[net]}", filed_as=_published_name)
        if heads is not None:
            beside = ("net.", "scaling_layer.", "lins.")  # `lins` names the same tensors a second time
            load_weights(judge.package, heads, f"the LPIPS heads of {TRUNKS[net]}", optional=beside)
        return judge

    def features(self, images: Tensor) -> Sequence[Tensor]:
        maps: Sequence[Tensor] = self.package.net(self.package.scaling_layer(images))
        return maps

    def weights(self) -> Sequence[Tensor]:
        return [head.model[-1].weight.flatten() for head in self.package.lins]


class Trunk(Protocol):
    """A network whose feature maps can be compared: `features` maps images [N, 3, H, W] to [N, C_l, H_l, W_l] each."""

    def features(self, images: Tensor) -> Sequence[Tensor]: ...


class TrunkDistance(PerceptualDistance):
    """The same distance on another trunk, every channel counting the same (the package's `lpips=False`).

    Layers are averaged where the package adds them up: two unrelated images are then about 1 apart, as by a published
    LPIPS with its learned weights, and a loss weight such as λ1 keeps its meaning. Values still cannot stand beside
    those of a published LPIPS, so the label says which trunk it was.

    Args:
        trunk: a network with `features`.
        name: what to call the trunk, for the label.
    """

    def __init__(self, trunk: Trunk, name: str = "demo trunk") -> None:
        super().__init__()
        self.label = f"LPIPS ({name})"
        self.trunk: Any = trunk
        self.freeze()

    def features(self, images: Tensor) -> Sequence[Tensor]:
        maps: Sequence[Tensor] = self.trunk.features(images)
        return maps

    def joined(self, layers: Tensor) -> Tensor:
        """The mean over layers, in [0, 4]."""
        return layers.mean(1)


def _differences(a: Tensor, b: Tensor, weight: Tensor | None) -> Tensor:
    """Where two maps [N, C, H, W] differ, [N, 1, H, W], in float32 whatever the trunk computed in."""
    squared = (_unit(a.float()) - _unit(b.float())).square()
    if weight is not None:
        squared = squared * weight.view(1, -1, 1, 1)
    return squared.sum(1, keepdim=True)


def _unit(features: Tensor) -> Tensor:
    """Unit length along channels. The square is kept off zero, where the root's slope is infinite."""
    length = features.square().sum(1, keepdim=True).clamp_min(EPSILON**2).sqrt()
    return features / (length + EPSILON)


def _published_name(name: str) -> str:
    """torchvision's name of a tensor of the package's trunk: the package cuts `features` into slices, numbers kept."""
    return "features." + name.partition(".")[2]
