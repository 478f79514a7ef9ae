"""Training an encoder to land inside the synthetic distribution (section 4.3, Eq. 16)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from lsap.alignment import NormalizedStyleSpace
from lsap.embedding.encoders import RowEncoder
from lsap.embedding.stages import Stages
from lsap.errors import StoppedRun
from lsap.losses import LossInputs, Objective
from lsap.seeds import derive
from lsap.stylegan2 import Noise, StyleGenerator, View


class EncoderTraining(LightningModule):
    """LSAP_E (and, without alignment, its ablation) and pSp: one encoder, one optimiser, a frozen generator.

    Owns the step, the progressive schedule, the seeds of a step and what a checkpoint holds; borrows encoder,
    generator, objective and style space. All randomness of a step comes from (seed, batch counter): a run that was
    killed and resumed takes the very steps that it would have taken.

    Args:
        encoder: images [N, 3, H, W] in [-1, 1], stage → w_plus [N, L, C].
        generator: frozen; codes → images.
        view: the generator's image → the image that losses and encoder see.
        objective: weighted terms of a `LossInputs`.
        space: the style space that the alignment term measures in.
        stages: how many rows of W+ are trained at a step.
        optimizer: parameters → optimiser.
        seed: of noise maps and any other randomness within a step.
    """

    def __init__(
        self,
        encoder: RowEncoder,
        generator: StyleGenerator,
        view: View,
        objective: Objective,
        space: NormalizedStyleSpace,
        stages: Stages,
        *,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.generator = generator
        self.view = view
        self.objective = objective
        self.space = space
        self.stages = stages
        self.make_optimizer = optimizer
        self.seed = seed
        self.batches_seen = 0
        self.batches_per_step = 1
        self.strict_loading = False  # checkpoints hold the encoder only; everything frozen comes from its own file

    @property
    def stage(self) -> int:
        """The last row of W+ that is trained in the coming batch; batches that are accumulated are one step."""
        return self.stages.stage(self.batches_seen // self.batches_per_step)

    @property
    def inverter(self) -> nn.Module:
        """What inverts images when the encoder is used: images [N, 3, H, W] → codes [N, L, C]."""
        return self.encoder

    def reconstruct(self, images: Tensor, *, stage: int, noise: Noise) -> LossInputs:
        """Embed and render a batch once, and keep what the terms need of it."""
        return self.drawn(images, self.encoder(images, stage), stage=stage, noise=noise)

    def drawn(self, images: Tensor, w_plus: Tensor, *, stage: int, noise: Noise) -> LossInputs:
        """Render the codes [N, L, C] of images."""
        styles = self.generator.styles(w_plus)
        output = self.view(self.generator.synthesis(styles, noise=noise))
        chosen = [styles[name] for name in self.space.names]
        return LossInputs(images=images, output=output, w_plus=w_plus, styles=chosen, stage=stage)

    def setup(self, stage: str) -> None:
        self.batches_per_step = self.trainer.accumulate_grad_batches

    def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
        torch.manual_seed(derive(self.seed, "step", self.batches_seen, self.global_rank))

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        loss = self.loss(self.reconstruct(batch["image"], stage=self.stage, noise="random"))
        self.batches_seen += 1  # here, not in a later hook: callbacks that save come before a module's own hooks
        return loss

    def loss(self, inputs: LossInputs) -> Tensor:
        """The weighted sum of the terms, a scalar, logged with all that it is made of.

        Raises:
            StoppedRun: it is not finite.
        """
        terms = self.objective(inputs)
        loss = torch.stack(list(terms.values())).sum()
        values = {name: value.detach() for name, value in terms.items()}
        if not torch.isfinite(loss):
            bad = [name for name, value in values.items() if not torch.isfinite(value)] or ["total"]
            raise StoppedRun(
                f"the loss became {loss.item()} in step {self.batches_seen} (term {', '.join(bad)}); the last good "
                "checkpoint is kept. Lower lr, or look at the images of that step"
            )
        self.log_dict({f"train/{name}": value for name, value in values.items()} | {"train/loss": loss.detach()})
        self.log("train/stage", float(inputs.stage))
        return loss

    def validation_step(self, batch: dict[str, Tensor], _: int) -> None:
        images = batch["image"]
        inputs = self.reconstruct(images, stage=self.generator.n_latent - 1, noise="fixed")
        terms = self.objective(inputs)
        image_loss = sum(terms[name] for name in self.objective.image_terms)
        logged = {f"val/{name}": value for name, value in terms.items()} | {"val/image_loss": image_loss}
        self.log_dict(logged, batch_size=len(images), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.make_optimizer(p for p in self.encoder.parameters() if p.requires_grad)

    def train(self, mode: bool = True) -> EncoderTraining:
        """Only the encoder ever trains; the frozen parts keep their evaluation behaviour."""
        super().train(mode)
        for part in (self.generator, self.objective):
            part.eval()
        return self

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["state_dict"]
        kept = {k: v for k, v in state.items() if k.startswith("encoder.")}
        if not all(tensor.isfinite().all() for tensor in kept.values()):
            raise StoppedRun(
                f"the encoder's weights are not finite after {self.batches_seen} batches; the last good checkpoint is "
                "kept. Lower lr, or set trainer.gradient_clip_val"
            )
        checkpoint["state_dict"] = kept
        checkpoint["batches_seen"] = self.batches_seen

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.batches_seen = int(checkpoint["batches_seen"])
