"""What an encoder makes of the same few images, after every validation, for loggers that show pictures."""

from __future__ import annotations

from typing import Protocol, cast

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from lsap.evaluation.pictures import reconstruction_grid
from lsap.generator import Generator, View

KEY = "val/reconstructions"


class Inverts(Protocol):
    """What a training needs to have for its inversions to be drawn; `lsap.embedding.EncoderTraining` has it."""

    encoder: nn.Module  # what trains
    generator: Generator
    view: View

    @property
    def inverter(self) -> nn.Module: ...  # what makes codes of images, the encoder within


class Panels(Callback):
    """Logs one picture after every validation: fixed images above, their inversions below.

    Goes to every logger of the Trainer with a `log_image` method; the others, such as a CSV file, are passed over. The
    encoder is in evaluation mode meanwhile and the noise maps are the fixed ones: nothing is drawn from a random state,
    so a training with panels takes the steps that it would have taken without.

    Args:
        images: [N, 3, H, W] in [-1, 1], the same at every validation; all of them are shown.
    """

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loggers = [logger for logger in trainer.loggers if hasattr(logger, "log_image")]
        if trainer.sanity_checking or not trainer.is_global_zero or not loggers:
            return
        panel = reconstruction_grid(self.images, {"inversion": self.invert(trainer, pl_module)}, count=len(self.images))
        step = max(trainer.global_step - 1, 0)  # where Lightning puts the scalars of this validation
        for logger in loggers:
            logger.log_image(key=KEY, images=[panel], step=step)

    @torch.no_grad()
    def invert(self, trainer: Trainer, module: LightningModule) -> Tensor:
        """The images as the encoder and its generator give them back, [N, 3, H, W], float32 on the CPU."""
        parts = cast(Inverts, module)
        training = parts.encoder.training
        parts.encoder.eval()
        try:
            with trainer.precision_plugin.forward_context():
                images = trainer.precision_plugin.convert_input(self.images.to(module.device))
                output = parts.view(parts.generator(parts.inverter(images)))
        finally:
            parts.encoder.train(training)
        return output.float().cpu()
