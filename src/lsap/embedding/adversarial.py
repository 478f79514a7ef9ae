"""Training an encoder against a latent discriminator, as e4e does (Tov et al. 2021)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lsap.embedding.adversary import Adversary
from lsap.embedding.training import EncoderTraining
from lsap.seeds import derive


class AdversarialTraining(EncoderTraining):
    """e4e: in every step the discriminator learns first, then the encoder, by its terms of the same codes.

    Lightning sees one optimiser, the encoder's; the discriminator has its own and steps within the training step. So a
    step of the Trainer is a batch, and accumulation, clipping, half precision and logging are what they are for every
    encoder. Accumulated or not, the discriminator learns from every batch. On several devices each process trains the
    same small discriminator on the codes of all of them: nothing has to be averaged, and none differs.

    Args:
        adversary: the discriminator that the objective's adversarial term looks through, with its pools and optimiser.
        Others: see `EncoderTraining`.
    """

    def __init__(self, *parts: Any, adversary: Adversary, **settings: Any) -> None:
        super().__init__(*parts, **settings)
        self.adversary = adversary
        self.earlier: dict[str, Any] | None = None

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        inputs = self.reconstruct(batch["image"], stage=self.stage, noise="random")
        self.log("train/discriminator", self.teach(inputs.w_plus.detach()[:, : inputs.stage + 1]))
        loss = self.loss(inputs)  # by the discriminator as it is now
        self.batches_seen += 1
        return loss

    @torch.no_grad()
    def teach(self, rows: Tensor) -> Tensor:
        """Let the discriminator learn from this batch's trained rows [N, R, C]; returns its loss, a scalar."""
        gathered = self.all_gather(rows)
        assert isinstance(gathered, Tensor)
        everybody = gathered.reshape(-1, *rows.shape[1:])  # of all processes, where there are several
        rng = torch.Generator().manual_seed(derive(self.seed, "real", self.batches_seen))
        real = self.generator.sample_w(len(everybody), rng)
        return self.adversary.learn(real, everybody, batch=self.batches_seen, seed=self.seed)

    def on_fit_start(self) -> None:
        if self.earlier is not None:  # not when the checkpoint is read: an optimiser's state goes where its weights are
            self.adversary.resume(self.earlier)
            self.earlier = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["adversary"] = self.adversary.progress()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.earlier = checkpoint["adversary"]
