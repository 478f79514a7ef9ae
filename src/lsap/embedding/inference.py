"""What every embedding looks like when it inverts: a LightningModule whose `predict_step` embeds one batch."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from lsap.inversion import Embedded, FixedNoise, Inversion, Renderer, Watch
from lsap.stylegan2 import StyleGenerator


class Embedding(LightningModule, abc.ABC):
    """Images to an `Inversion`, whichever way.

    Args:
        generator: what the codes are for, frozen.
        fingerprint: of the generator.
        name: of the embedding, for the inversion's history.

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
    def embed(self, images: Tensor, names: Sequence[str]) -> Embedded:
        """Embed images [N, 3, H, W] in [-1, 1] with these names."""

    def predict_step(self, batch: Mapping[str, Any], _: int = 0) -> Embedded:
        """`embed` of a batch {"image": [N, 3, H, W], "names": […]}."""
        return self.embed(batch["image"], batch["names"])

    def inversion(
        self, names: Sequence[str], codes: Tensor, renderer: Renderer, state: Mapping[str, Tensor] | None = None
    ) -> Inversion | None:
        """The record of these images, on the CPU; None where there is no image."""
        if not names:
            return None
        made = Inversion(tuple(names), codes.detach(), self.fingerprint, renderer, state or {}, (self.name,))
        return made.to("cpu")


class EncoderEmbedding(Embedding):
    """Images through a trained encoder, once.

    Args:
        encoder: images → w_plus [N, L, C].
        generator, fingerprint, name: as for `Embedding`.
    """

    def __init__(self, encoder: nn.Module, generator: StyleGenerator, fingerprint: str, name: str) -> None:
        super().__init__(generator, fingerprint, name)
        self.encoder = encoder.eval().requires_grad_(False)

    def embed(self, images: Tensor, names: Sequence[str]) -> Embedded:
        with torch.no_grad():
            codes = self.encoder(images).float()
        finite = codes.isfinite().flatten(1).all(1).tolist()
        good = [place for place, fine in enumerate(finite) if fine]
        failed = {
            name: "the encoder's codes are not finite" for name, fine in zip(names, finite, strict=True) if not fine
        }
        kept = self.inversion([names[i] for i in good], codes[good], FixedNoise(self.generator))
        return Embedded(kept, failed=failed)
