"""Training ReStyle's encoder: every pass has a loss of its own, and their gradients are added up for one step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lsap.embedding.adversarial import AdversarialTraining
from lsap.embedding.iterated import Iterated, first_image
from lsap.embedding.training import EncoderTraining
from lsap.losses import LossInputs
from lsap.stylegan2 import Noise
from lsap.values import COUNT


class RestyleTraining(EncoderTraining):
    """ReStyle (Alaluf et al. 2021): several passes per batch, each on the detached result of the one before.

    No gradient leads from a pass into an earlier one, so each is back-propagated as soon as it is made and only one is
    in memory at a time. The gradients add up; the optimiser takes one step per batch. The last pass is the one that
    Lightning sees: clipping, accumulation over batches, half precision, several devices and the count of steps are what
    they are for every encoder. Codes and image move from pass to pass; noise maps are drawn anew, except for the first
    image, that of the mean latent.

    Logged is the last pass, which is the result.

    Args:
        iterations: passes per batch; 5 as published.
        Others: see `EncoderTraining`; the encoder is one of `lsap.embedding.iterated`.
    """

    def __init__(self, *parts: Any, iterations: int = 5, **settings: Any) -> None:
        super().__init__(*parts, **settings)
        COUNT.require("iterations", iterations)
        self.iterations = iterations

    @property
    def inverter(self) -> Iterated:
        """All passes as one encoder."""
        return Iterated(self.encoder, self.generator, self.view, iterations=self.iterations)

    def passes(self, images: Tensor, *, stage: int, noise: Noise) -> Iterator[LossInputs]:
        """The loss inputs of each pass; gradients reach no further back than its own encoder call."""
        latent_avg = self.encoder.latent_avg
        codes = latent_avg.expand(len(images), -1, -1)
        output = first_image(latent_avg, self.generator, self.view).expand_as(images)
        for _ in range(self.iterations):
            steps = self.encoder.offsets(torch.cat([images, output], 1), stage).float()
            inputs = self.drawn(images, codes + steps, stage=stage, noise=noise)
            codes, output = inputs.w_plus.detach(), inputs.output.detach()
            yield inputs

    def reconstruct(self, images: Tensor, *, stage: int, noise: Noise) -> LossInputs:
        """What all passes come to."""
        *_, last = self.passes(images, stage=stage, noise=noise)
        return last

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        share = self.trainer.accumulate_grad_batches
        if batch_idx % share == 0:
            self.encoder.zero_grad(set_to_none=True)
        rows: list[Tensor] = []
        for inputs in self.passes(batch["image"], stage=self.stage, noise="random"):
            rows.append(inputs.w_plus.detach()[:, : inputs.stage + 1])
            if last := len(rows) == self.iterations:
                self.before_the_last(torch.cat(rows, 1))
            loss = self.loss(inputs)
            if not last:
                self.trainer.strategy.backward(loss / share, None)
        self.batches_seen += 1
        return loss

    def before_the_last(self, rows: Tensor) -> None:
        """Called when no graph of an earlier pass is left, with the trained rows [N, R, C] of all passes."""

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        """Nothing: Lightning would forget the earlier passes between the last one's loss and its gradient."""


class AdversarialRestyleTraining(RestyleTraining, AdversarialTraining):
    """ReStyle over e4e: the same with e4e's latent discriminator.

    The discriminator learns once per batch, from the codes of all passes alike (its pool draws a row of any), before
    the last pass is judged.

    Args:
        adversary: see `AdversarialTraining`.
        Others: see `RestyleTraining`.
    """

    def before_the_last(self, rows: Tensor) -> None:
        self.log("train/discriminator", self.teach(rows))
