"""The loss of an embedding: one class per term of Eq. 16 and of the baselines, and their weighted sum.

A term maps `LossInputs` to one value per image; the objective takes weighted means.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsap import pretrained as features
from lsap.alignment import Anchor, nscd
from lsap.errors import BadValue
from lsap.values import WEIGHT


@dataclass(frozen=True)
class LossInputs:
    """N images and what an embedding made of them; what every term reads.

    images: [N, 3, H, W] in [-1, 1], the targets.
    output: [N, 3, H, W], the generator's images as losses see them; not clamped.
    w_plus: [N, L, C], the codes.
    styles: raw styles [N, C_l] of the style space's layers, in its order; None where no alignment is asked for.
    stage: rows 0..stage of the codes are trained so far.
    """

    images: Tensor
    output: Tensor
    w_plus: Tensor
    styles: Sequence[Tensor] | None
    stage: int


class Term(nn.Module, abc.ABC):
    """One term of the loss.

    Attributes:
        compares_images: whether it compares output and target. These terms make up `val/image_loss`, by which a
            training chooses its best checkpoint. Terms of the codes do not, so that runs with different weights of
            alignment are compared by the same quantity.
    """

    compares_images: ClassVar[bool] = False

    @abc.abstractmethod
    def forward(self, inputs: LossInputs) -> Tensor:
        """Values [N], one per image; lower is better."""


class L2(Term):
    """Mean squared difference of pixels, in units of the range [-1, 1]: four times the value in [0, 1]."""

    compares_images = True

    def forward(self, inputs: LossInputs) -> Tensor:
        return (inputs.output.float() - inputs.images.float()).square().mean((1, 2, 3))


class Perceptual(Term):
    """A perceptual distance to the target.

    Args:
        distance: images, images → [N], see `lsap.pretrained.LPIPS`.
    """

    compares_images = True

    def __init__(self, distance: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.distance = distance

    def forward(self, inputs: LossInputs) -> Tensor:
        return self.distance(inputs.output, inputs.images)


class Similarity(Term):
    """One minus the cosine between a judge's embeddings of image and target: ArcFace for faces, MoCo elsewhere.

    Args:
        embedder: the judge, see `lsap.pretrained.Embedder`.
    """

    compares_images = True

    def __init__(self, embedder: features.Embedder) -> None:
        super().__init__()
        self.distance = features.Similarity(embedder)

    def forward(self, inputs: LossInputs) -> Tensor:
        value: Tensor = self.distance(inputs.output, inputs.images)
        return value


class Delta(Term):
    """How far the rows of W+ lie from the first: the sum over rows 1..stage of ||w_i - w_0||_2, not squared (e4e)."""

    def forward(self, inputs: LossInputs) -> Tensor:
        differences = inputs.w_plus[:, 1 : inputs.stage + 1] - inputs.w_plus[:, :1]
        return torch.linalg.vector_norm(differences.float(), dim=2).sum(1)


class WNorm(Term):
    """How far codes lie from the mean latent: the length of w_plus - latent_avg over all rows together (pSp).

    Args:
        latent_avg: the generator's mean latent, [C] or [L, C].
    """

    def __init__(self, latent_avg: Tensor) -> None:
        super().__init__()
        self.register_buffer("latent_avg", latent_avg.detach().clone(), persistent=False)

    def forward(self, inputs: LossInputs) -> Tensor:
        offsets = inputs.w_plus.float() - self.get_buffer("latent_avg")
        return torch.linalg.vector_norm(offsets, dim=(1, 2))


class Adversarial(Term):
    """How well a discriminator tells codes from the generator's own w: softplus(-logit), mean over rows 0..stage (e4e).

    Args:
        discriminator: codes [..., C] → logits [...], above 0 where it takes them for the generator's own. It must not
            train on this term: its parameters take no gradients (`lsap.embedding.Adversary` sees to that).
    """

    def __init__(self, discriminator: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, inputs: LossInputs) -> Tensor:
        return F.softplus(-self.discriminator(inputs.w_plus[:, : inputs.stage + 1])).mean(1)


class StyleSpace(Protocol):
    """What the alignment term needs to know of a normalised style space: its layers' mean styles, [C_l] each."""

    @property
    def mean(self) -> Sequence[Tensor]: ...


class Alignment(Term):
    """NSCD of the layers trained so far, the loss of Eq. 15 (`lsap.alignment.nscd`).

    With the defaults the gradient is that of the released code, which minimises minus the sum of the dot products with
    the raw means: the value here is larger by the number of layers, and so not negative.

    Args:
        space: the generator's normalised style space; its layer i is steered by row i of W+.
        reduction: "sum" over layers, so that a weight means what it meant in Table 4, or "mean".
        anchor: "raw" mean as in the second line of Eq. 12, or scaled to "unit" length.
    """

    def __init__(
        self,
        space: StyleSpace,
        reduction: Literal["sum", "mean"] = "sum",
        anchor: Anchor = "raw",
    ) -> None:
        super().__init__()
        self.reduction, self.anchor = reduction, anchor
        self.layers = len(space.mean)
        for index, mean in enumerate(space.mean):
            self.register_buffer(f"mean_{index}", mean.detach().clone(), persistent=False)

    @property
    def mean(self) -> list[Tensor]:
        """Mean styles per layer, [C_l] each, on the module's device."""
        return [self.get_buffer(f"mean_{index}") for index in range(self.layers)]

    def forward(self, inputs: LossInputs) -> Tensor:
        assert inputs.styles is not None, "alignment needs the styles of its inputs"
        trained = inputs.stage + 1
        return nscd(inputs.styles[:trained], self.mean[:trained], reduction=self.reduction, anchor=self.anchor)


class Objective(nn.Module):
    """Weighted terms, each averaged over the batch; their sum is what is minimised (Eq. 16).

    Args:
        terms: name → (weight, term). Terms of weight 0 are dropped and cost nothing.

    Attributes:
        image_terms: names of the terms that compare images.

    Raises:
        BadValue: a weight is negative or not a finite number, or there is no term with a weight above 0.

    Example:
        >>> image = torch.zeros(2, 3, 8, 8)
        >>> inputs = LossInputs(images=image, output=image + 0.5, w_plus=torch.zeros(2, 4, 16), styles=None, stage=3)
        >>> Objective({"l2": (2.0, L2()), "delta": (0.0, Delta())})(inputs)
        {'l2': tensor(0.5000)}
    """

    def __init__(self, terms: Mapping[str, tuple[float, Term]]) -> None:
        super().__init__()
        for name, (weight, _) in terms.items():
            WEIGHT.require(f"lambda_{name}", weight)
        self.weights = {name: float(weight) for name, (weight, _) in terms.items() if weight > 0}
        if not self.weights:
            raise BadValue(
                "all weights (lambda_…) are 0, so there is nothing to minimise; give one of them a number above 0"
            )
        self.terms = nn.ModuleDict({name: terms[name][1] for name in self.weights})
        self.image_terms = tuple(name for name in self.weights if terms[name][1].compares_images)

    def forward(self, inputs: LossInputs) -> dict[str, Tensor]:
        """Weighted batch means by name, scalars; the caller adds them up."""
        return {name: weight * self.terms[name](inputs).mean() for name, weight in self.weights.items()}
