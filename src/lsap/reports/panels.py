"""What an encoder makes of the same few images, after every validation, for loggers that show pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol, cast

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from lsap.reports.pictures import reconstruction_grid
from lsap.stylegan2 import StyleGenerator, View

KEY = "val/panel"


class Inverts(Protocol):
    """What a training needs to have for its inversions to be drawn; `lsap.embedding.EncoderTraining` has it."""

    encoder: nn.Module  # what trains
    generator: StyleGenerator
    view: View

    @property
    def inverter(self) -> nn.Module: ...  # what makes codes of images, the encoder within


Moved = Callable[[Tensor], Tensor]  # codes [N, L, C] → the same under an edit
NOTHING: Mapping[str, Moved] = MappingProxyType({})


class Panels(Callback):
    """Logs one picture after every validation: fixed images above, their inversions and edits of these below.

    Goes to every logger of the Trainer with a `log_image` method; the others, such as a CSV file, are passed over. The
    encoder is in evaluation mode meanwhile and the noise maps are the fixed ones: nothing is drawn from a random state,
    so a training with panels takes the steps that it would have taken without.

    Args:
        images: [N, 3, H, W] in [-1, 1], the same at every validation; all of them are shown.
        edits: what the codes are moved by, by the name of its row.
    """

    def __init__(self, images: Tensor, edits: Mapping[str, Moved] = NOTHING) -> None:
        self.images, self.edits = images, edits

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loggers = [logger for logger in trainer.loggers if hasattr(logger, "log_image")]
        if trainer.sanity_checking or not trainer.is_global_zero or not loggers:
            return
        panel = reconstruction_grid(self.images, self.drawn(trainer, pl_module), count=len(self.images))
        step = max(trainer.global_step - 1, 0)  # where Lightning puts the scalars of this validation
        for logger in loggers:
            logger.log_image(key=KEY, images=[panel], step=step)

    @torch.no_grad()
    def drawn(self, trainer: Trainer, module: LightningModule) -> dict[str, Tensor]:
        """The images as encoder and generator give them back, and edited: name of the row → [N, 3, H, W] on the CPU."""
        parts = cast(Inverts, module)
        training = parts.encoder.training
        parts.encoder.eval()
        try:
            with trainer.precision_plugin.forward_context():
                images = trainer.precision_plugin.convert_input(self.images.to(module.device))
                codes = parts.inverter(images)
                moved = {"inversion": codes} | {name: edit(codes) for name, edit in self.edits.items()}
                return {name: parts.view(parts.generator(each)).float().cpu() for name, each in moved.items()}
        finally:
            parts.encoder.train(training)
