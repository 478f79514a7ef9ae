"""Images by generators of their own: how differently tuned weights are kept, per image, and how they are drawn.

Kept is only the difference to the generator, in half precision and rounded before the first render, whole or in a
smaller form. Mapping network, noise maps and the mean latent are everybody's.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lsap.errors import BadValue
from lsap.inversion import Inversion, halved, registered
from lsap.stylegan2 import Noise, StyleGenerator
from lsap.values import COUNT

TUNED = "tuned."  # what the names of differences begin with in a state
NOISE = "noise."  # what the names of noise maps begin with, as `lsap.inversion.OwnNoise` keeps them
LEFT, RIGHT = ".left", ".right"
DRAWN = {"generator": False, "own_noise": True}  # renderers of embeddings: whether images have noise maps of their own


def tunable(generator: StyleGenerator) -> dict[str, Tensor]:
    """The weights of the synthesis network by name: convolutions, affine maps, biases, noise strengths, constant."""
    named = generator.named_parameters()
    return {name: weight.detach() for name, weight in named if not name.startswith("mapping.")}


def own_noise(inversion: Inversion, method: str) -> bool:
    """Whether the images of an embedding have noise maps of their own.

    Raises:
        BadValue: the inversion is drawn in another way, so that it has been refined already.
    """
    if inversion.renderer.key not in DRAWN:
        raise BadValue(
            f"{method} refines what an embedding made, but these images are drawn by {inversion.renderer.key!r} "
            f"({' + '.join(inversion.history)}); start from the embedding"
        )
    return DRAWN[inversion.renderer.key]


def together(
    generator: StyleGenerator, weights: Mapping[str, Tensor], codes: Tensor, noise: Noise | Sequence[Tensor] = "fixed"
) -> Tensor:
    """Images [N, 3, size, size] of codes [N, L, C], each by weights of its own, in one pass.

    Args:
        generator: its structure, mapping network and buffers.
        weights: name → [N, …], as `tunable` names them.
        noise: as for `StyleGenerator.synthesis`; maps are [N, 1, r, r].
    """

    def draw(own: dict[str, Tensor], code: Tensor, maps: list[Tensor]) -> Tensor:
        return _drawn(generator, own, code[None], noise if isinstance(noise, str) else [m[None] for m in maps])[0]

    images: Tensor = vmap(draw)(dict(weights), codes, [] if isinstance(noise, str) else list(noise))
    return images


def _drawn(
    generator: StyleGenerator, weights: dict[str, Tensor], codes: Tensor, noise: Noise | Sequence[Tensor]
) -> Tensor:
    image: Tensor = functional_call(cast(nn.Module, generator), weights, (codes,), {"noise": noise})
    return image


class Tuned(abc.ABC):
    """Draws every image by the generator and its difference to it; images do not know of one another, to the bit.

    Args:
        generator: what was tuned.
        own_noise: whether the state holds noise maps.
    """

    key: str

    def __init__(self, generator: StyleGenerator, own_noise: bool = False) -> None:
        self.generator = generator
        self.own_noise = own_noise
        self.layers = [layer.name for layer in generator.layers if layer.demodulates]

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"own_noise": self.own_noise}

    @property
    def weights(self) -> dict[str, Tensor]:
        """What is added to, by name, wherever the generator is now."""
        return tunable(self.generator)

    @abc.abstractmethod
    def packed(self, differences: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Differences [N, …] by the names of weights, as the state of an inversion, rounded."""

    @abc.abstractmethod
    def difference(self, name: str, state: Mapping[str, Tensor], place: int) -> Tensor | None:
        """What is added to the weight of this name for the image at this place; None where nothing is."""

    def __call__(self, codes: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        images = []
        for place in range(len(codes)):
            weights = {}
            for name, weight in self.weights.items():
                added = self.difference(name, state, place)
                if added is not None:
                    weights[name] = weight + added.to(weight)
            maps: Noise | list[Tensor] = "fixed"
            if self.own_noise:
                maps = [state[NOISE + layer][place : place + 1].to(codes) for layer in self.layers]
            images.append(_drawn(self.generator, weights, codes[place : place + 1], maps))
        return torch.cat(images)


@registered("tuned")
class TunedWhole(Tuned):
    """Every difference as it is: `tuned.<weight>` [N, …] in the state."""

    def packed(self, differences: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {TUNED + name: halved(difference) for name, difference in differences.items()}

    def difference(self, name: str, state: Mapping[str, Tensor], place: int) -> Tensor | None:
        return state[TUNED + name][place]


@registered("tuned_low_rank")
class TunedLowRank(Tuned):
    """Differences of large weights as a product of two thin matrices, the nearest of this rank; small weights whole.

    A weight [O, I, k, k] counts as a matrix [O, I k k]. `tuned.<weight>.left` [N, O, rank], `.right` [N, rank, I k k].

    Args:
        generator, own_noise: as for `Tuned`.
        rank: of every difference.

    Raises:
        BadValue: a rank below 1.
    """

    def __init__(self, generator: StyleGenerator, own_noise: bool = False, rank: int = 8) -> None:
        super().__init__(generator, own_noise)
        COUNT.require("refinement.rank", rank)
        self.rank = rank

    @property
    def settings(self) -> Mapping[str, Any]:
        return {**super().settings, "rank": self.rank}

    def packed(self, differences: Mapping[str, Tensor]) -> dict[str, Tensor]:
        state = {}
        for name, difference in differences.items():
            if not self.thins(difference[0]):
                state[TUNED + name] = halved(difference)
                continue
            left, right = low_rank(difference.flatten(2), self.rank)
            state[TUNED + name + LEFT], state[TUNED + name + RIGHT] = halved(left), halved(right)
        return state

    def thins(self, weight: Tensor) -> bool:
        """Whether two thin matrices take less room than the weight itself."""
        if weight.ndim < 2 or len(weight) == 1:
            return False
        outputs, inputs = weight.flatten(1).shape
        return self.rank * (outputs + inputs) < outputs * inputs

    def difference(self, name: str, state: Mapping[str, Tensor], place: int) -> Tensor | None:
        weight = self.weights[name]
        if not self.thins(weight):
            return state[TUNED + name][place]
        left, right = (state[TUNED + name + side][place].to(weight) for side in (LEFT, RIGHT))
        return (left @ right).view_as(weight)


def low_rank(matrices: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The nearest matrices of a rank, in the sense of least squares, as products.

    Args:
        matrices: [N, A, B].
        rank: at most; a smaller side gives all that there is.

    Returns:
        left [N, A, rank], right [N, rank, B]. The columns of the shorter side's factor are orthonormal.
    """
    if matrices.shape[1] > matrices.shape[2]:
        right, left = low_rank(matrices.mT, rank)
        return left.mT.contiguous(), right.mT.contiguous()
    exact = matrices.double()
    _, vectors = torch.linalg.eigh(exact @ exact.mT)  # of the short side only; eigenvalues rise
    left = vectors[..., -rank:].flip(-1)
    return left.to(matrices).contiguous(), (left.mT @ exact).to(matrices)
