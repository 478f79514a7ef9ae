"""What SAM's predictor learns from: where each latent space alone fails to invert an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lsap.errors import BadValue
from lsap.inversion import Embedded, FixedNoise, Inversion, halved
from lsap.refinement.sam import SpatiallyAdaptive
from lsap.refinement.segments import PUBLISHED, W_PLUS, spaces_of
from lsap.refinement.stage import Refinement
from lsap.stylegan2 import StyleGenerator, View

ERRORS = "errors"  # the maps in the state of an inversion


class SpatialDistance(Protocol):
    """A perceptual distance that says where: images, images → [N, 1, H, W]."""

    def spatial(self, x: Tensor, y: Tensor) -> Tensor: ...


class Only(nn.Module):
    """In place of a predictor: one space inverts everything, the others nothing.

    Args:
        spaces: all of them, W+ first.
        space: the one.
    """

    def __init__(self, spaces: Sequence[str], space: str) -> None:
        super().__init__()
        self.spaces, self.space = tuple(spaces), space

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Errors [N, 1, H, W] of every space."""
        nothing = torch.zeros_like(images[:, :1])
        return {space: nothing if space == self.space else nothing + 1 for space in self.spaces}


class SpaceErrors(Refinement):
    """Invert images in every latent space by itself, and keep the perceptual error of each pixel.

    An inversion in one space is SAM's own, with a predictor that knows only that space. W+ starts at the mean latent,
    every other space at the codes that W+ found and at features of zero.

    Args:
        generator, fingerprint, name: as for `Refinement`.
        view: the generator's image → the image that is compared.
        distance: the perceptual one, minimised, and measured in every place.
        steps: of each inversion; 501 in SAM's own training.
        feature_steps: of those in other spaces than W+; None: as many.
        settings: of `SpatiallyAdaptive`, of every inversion.

    Raises:
        BadValue: a number that cannot work, or a distance that cannot say where.
    """

    def __init__(
        self,
        generator: StyleGenerator,
        fingerprint: str,
        name: str = "sam_errors",
        *,
        view: View,
        distance: nn.Module | None,
        steps: int = 501,
        feature_steps: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(generator, fingerprint, name)
        if distance is None or not hasattr(distance, "spatial"):
            raise BadValue("SAM's predictor learns where images differ: it needs a perceptual distance (lambda_lpips)")
        self.view, self.distance = view, distance
        self.spaces = spaces_of(generator, PUBLISHED)
        self.inverters = nn.ModuleDict(
            {
                space: SpatiallyAdaptive(
                    generator, fingerprint, view=view, distance=distance, predictor=Only(self.spaces, space),
                    segmenter=whole, tau=0.5, **settings,
                    steps=steps if space == W_PLUS or feature_steps is None else feature_steps,
                )
                for space in self.spaces
            }
        )  # fmt: skip

    def predict_step(self, batch: Mapping[str, Any], _: int = 0) -> Embedded:
        """`refine` from the mean latent, of a batch {"image": [N, 3, H, W], "names": […]}."""
        images: Tensor = batch["image"]
        mean = self.generator.latent_avg.expand(len(images), self.generator.n_latent, -1)
        start = Inversion(tuple(batch["names"]), mean, self.fingerprint, FixedNoise(self.generator))
        return super().predict_step({"image": images, "inversion": start})

    def refine(self, inversion: Inversion, images: Tensor) -> Embedded:
        """The inversion in W+, with `errors` [N, S, H, W] in its state: a map for each of `spaces`."""
        begun, failed = inversion, dict[str, str]()
        maps: dict[str, Tensor] = {}
        for number, space in enumerate(self.spaces):
            inverter: Any = self.inverters[space]
            inverter.watch = self.within(number)
            found = inverter.refine(begun, images)
            failed |= found.failed
            if found.inversion is None:
                return Embedded(None, failed=failed)
            left = [begun.names.index(name) for name in found.inversion.names]
            images, maps = images[left], {each: errors[left] for each, errors in maps.items()}
            if space == W_PLUS:
                begun = Inversion(
                    found.inversion.names, found.inversion.codes, self.fingerprint, FixedNoise(self.generator), {},
                    (self.name,),
                )  # fmt: skip
            begun = begun.select([begun.names.index(name) for name in found.inversion.names])
            with torch.no_grad():
                drawn = self.view(found.inversion.render()).clamp(-1, 1)
                maps[space] = self.distance.spatial(drawn, images)  # type: ignore[operator]
        errors = halved(torch.cat(list(maps.values()), 1))
        means = errors.float().mean((2, 3)).tolist()
        notes = {
            name: {"errors": {space: round(mean, 4) for space, mean in zip(self.spaces, row, strict=True)}}
            for name, row in zip(begun.names, means, strict=True)
        }
        kept = Inversion(begun.names, begun.codes, self.fingerprint, begun.renderer, {ERRORS: errors}, begun.history)
        return Embedded(kept, notes, failed)

    def within(self, number: int) -> Any:
        """`watch` for the inversions in one space, the number-th."""

        def watch(share: float, losses: Mapping[str, float]) -> None:
            if self.watch is not None:
                self.watch((number + share) / len(self.spaces), losses)

        return watch


def whole(images: Tensor, names: Sequence[str]) -> Tensor:
    """One segment: labels [N, H, W] of zero."""
    return torch.zeros(len(images), *images.shape[-2:], dtype=torch.long)
