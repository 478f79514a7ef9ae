"""What every refinement looks like: a LightningModule whose `predict_step` makes an inversion a better one."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

from pytorch_lightning import LightningModule
from torch import Tensor, nn

from lsap.errors import BadValue
from lsap.inversion import Embedded, Inversion, Watch
from lsap.stylegan2 import StyleGenerator


class Refinement(LightningModule, abc.ABC):
    """An `Inversion` and its images to an `Inversion` that draws them better, whichever way.

    What it adds goes into the inversion's state and renderer, so that editing need not know of it. The inversion it is
    given stays as it is.

    Args:
        generator: what the codes are for, frozen.
        fingerprint: of the generator.
        name: of the refinement, for the inversion's history.

    Attributes:
        watch: called while a batch is worked on with the share of it that is done, in [0, 1], and mean losses by name.
    """

    def __init__(self, generator: StyleGenerator, fingerprint: str, name: str) -> None:
        super().__init__()
        self.generator = generator
        self.fingerprint = fingerprint
        self.name = name
        self.watch: Watch | None = None

    @abc.abstractmethod
    def refine(self, inversion: Inversion, images: Tensor) -> Embedded:
        """Refine an inversion of images [N, 3, H, W] in [-1, 1], at the size of the view, in its order.

        Raises:
            BadValue: an inversion that this refinement cannot start from.
        """

    def predict_step(self, batch: Mapping[str, Any], _: int = 0) -> Embedded:
        """`refine` of a batch {"image": [N, 3, H, W], "names": […], "inversion": `Inversion` of these names}.

        Lightning moves the images to its device; the inversion is moved after them, and what comes out is on the CPU.
        """
        images: Tensor = batch["image"]
        inversion: Inversion = batch["inversion"]
        inversion.check_generator(self.fingerprint)
        found = self.refine(inversion.to(images.device), images)
        if found.inversion is not None:
            found.inversion = found.inversion.to("cpu")
        return found


def checked(distance: nn.Module | None, weighs: bool) -> nn.Module:
    """The perceptual distance, or a stand-in that nobody calls; raises BadValue where one is needed."""
    if weighs and distance is None:
        raise BadValue("LPIPS has a weight here but there is no perceptual distance; give one, or set the weight to 0")
    return distance if distance is not None else nn.Identity()
