"""How HFGI's networks learn: a residual that was moved on purpose is moved back, and then completes its image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import RandomPerspective

from lsap.checkpoints.hfgi import card
from lsap.errors import BadValue
from lsap.losses import L2, LossInputs, Objective, Perceptual, Similarity
from lsap.pretrained import Embedder
from lsap.refinement.consultation import Consultation, consulted_channels
from lsap.refinement.hfgi import aligned, consulted, seen
from lsap.refinement.stage import checked
from lsap.refinement.training import MakeOptimizer, RefinementTraining
from lsap.stylegan2 import Noise, StyleGenerator, View
from lsap.values import SHARE, WEIGHT, require


class ConsultationTraining(RefinementTraining):
    """Self-supervised misalignment: no edited photographs are needed, as random perspective takes the edit's place.

    Encoder and generator are frozen. Both images of a step have random noise maps, as published. The encoder is as it
    will be in use; HFGI's own code leaves it in training mode, so that its batch statistics drift.

    Args:
        generator: frozen; codes → images.
        view: the generator's image → the image that losses see.
        encoder: frozen; images [N, 3, H, W] → codes [N, L, C].
        network: number of features → new networks.
        distance: the perceptual one, images, images → [N]; None where nothing weighs it.
        embedder: judge of identity; None where nothing weighs it.
        optimizer, seed: as for `RefinementTraining`.
        lambda_l2, lambda_lpips, lambda_id: weights of the image terms; 0 leaves one out.
        lambda_residual: weight of the mean absolute difference of the aligned residual to the true one.
        distortion: of the random perspective, at most, as a share of half the image.
        share: of batches that are moved at all; all images of a batch alike.

    Raises:
        BadValue: a weight that is no number from 0 upwards, a judge that is asked for and not there, or a share or
            distortion outside [0, 1].
    """

    file = "consultation.safetensors"
    network: Consultation

    def __init__(
        self,
        generator: StyleGenerator,
        view: View,
        encoder: nn.Module,
        network: Callable[[int], Consultation],
        distance: nn.Module | None = None,
        embedder: Embedder | None = None,
        *,
        optimizer: MakeOptimizer,
        seed: int = 0,
        lambda_l2: float = 1.0,
        lambda_lpips: float = 0.8,
        lambda_id: float = 0.1,
        lambda_residual: float = 0.1,
        distortion: float = 0.15,
        share: float = 0.9,
    ) -> None:
        require(SHARE, {"distortion": distortion, "share": share}, "refinement.training.")
        WEIGHT.require("refinement.training.lambda_residual", lambda_residual)
        if lambda_id > 0 and embedder is None:
            raise BadValue("refinement.training.lambda_id weighs identity but there is no judge of it; set it to 0")
        objective = Objective(
            {"l2": (lambda_l2, L2()), "lpips": (lambda_lpips, Perceptual(checked(distance, lambda_lpips > 0)))}
            | ({} if embedder is None else {"id": (lambda_id, Similarity(embedder))})
        )
        parts = (cast(nn.Module, generator), encoder, objective)
        super().__init__(network(consulted_channels(generator)), optimizer=optimizer, seed=seed, frozen=parts)
        self.generator, self.view, self.encoder, self.objective = generator, view, encoder, objective
        self.lambda_residual = lambda_residual
        self.move = RandomPerspective(distortion, share)

    def terms(self, batch: Mapping[str, Any], training: bool) -> dict[str, Tensor]:
        images: Tensor = batch["image"]
        noise: Noise = "random" if training else "fixed"
        with torch.no_grad():
            codes = self.encoder(images)
            first = seen(self.generator(codes, noise=noise), self.view)
            residual = images - first
            moved = self.move(residual)
        found = aligned(self.network, moved, first, self.view)
        image = consulted(self.generator, self.network, found, codes, self.view, noise)
        inputs = LossInputs(images, self.view(image), codes, None, self.generator.n_latent - 1)
        terms: dict[str, Tensor] = self.objective(inputs)
        if self.lambda_residual > 0:
            terms["residual"] = self.lambda_residual * F.l1_loss(found, residual)
        return terms

    def product(self) -> tuple[Mapping[str, Tensor], Mapping[str, str]]:
        return self.network.state_dict(), card(self.network.kind)
