"""How SAM's invertibility predictor learns: it regresses the perceptual errors that inversions in each space left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lsap.checkpoints.sam import card
from lsap.refinement.predictor import Predictor
from lsap.refinement.segments import PUBLISHED, spaces_of
from lsap.refinement.space_errors import ERRORS
from lsap.refinement.training import MakeOptimizer, RefinementTraining
from lsap.stylegan2 import StyleGenerator

FASTER = 10.0  # of the published rates: what is new on top of the backbone to the backbone itself


class InvertibilityTraining(RefinementTraining):
    """Mean squared error between predicted and found maps of errors, added over spaces; the rate falls as a power.

    Images come with their maps as further channels, in the order of the predictor's spaces (`StoredExamples`).

    Args:
        generator: whose latent spaces are predicted; not run.
        network: spaces → a new predictor.
        optimizer, seed: as for `RefinementTraining`.
        power: of the share of steps that is left, by which the rate falls (DeepLab's schedule).
        start: error that every head predicts at first; their last layer has no slope below zero.
    """

    file = "predictor.safetensors"
    learns = ERRORS
    network: Predictor

    def __init__(
        self,
        generator: StyleGenerator,
        network: Callable[[Sequence[str]], Predictor],
        *,
        optimizer: MakeOptimizer,
        seed: int = 0,
        power: float = 0.9,
        start: float = 0.2,
    ) -> None:
        predictor = network(spaces_of(generator, PUBLISHED))
        with torch.no_grad():
            for head in predictor.heads.values():
                last: Any = head.m[-2]  # type: ignore[index]
                last.bias.fill_(start)
        super().__init__(predictor, optimizer=optimizer, seed=seed)
        self.power = power

    def terms(self, batch: Mapping[str, Any], training: bool) -> dict[str, Tensor]:
        images, errors = batch["image"][:, :3], batch["image"][:, 3:]
        predicted = self.network(images)
        return {
            space: F.mse_loss(predicted[space], errors[:, place : place + 1])
            for place, space in enumerate(self.network.spaces)
        }

    def product(self) -> tuple[Mapping[str, Tensor], Mapping[str, str]]:
        return self.network.state_dict(), card(self.network.kind, self.network.spaces)

    def configure_optimizers(self) -> Any:
        """The optimiser over what is new and what is not, and its falling rate."""
        new = [parameter for part in self.network.new_parts() for parameter in part.parameters()]
        known = {id(parameter) for parameter in new}
        old = [parameter for parameter in self.network.parameters() if id(parameter) not in known]
        groups = [(parameters, factor) for parameters, factor in ((old, 1.0), (new, FASTER)) if parameters]
        optimizer = self.make_optimizer([{"params": parameters} for parameters, _ in groups])

        def falling(factor: float) -> Callable[[int], float]:
            return lambda step: factor * max(0.0, 1 - step / self.trainer.max_steps) ** self.power

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, [falling(factor) for _, factor in groups])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
