"""Who is it? ArcFace, the judge of faces, and the distance that every embedding judge defines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsap.errors import BadValue
from lsap.pretrained.frozen import Embedder, FrozenNetwork, load_weights
from lsap.pretrained.irse import IRSE50

ROWS, COLUMNS = slice(35, 223), slice(32, 220)  # where an aligned face sits in a picture of 256 pixels


def crop_faces(images: Tensor) -> Tensor:
    """Faces [N, 3, 112, 112] cut from images [N, 3, 256, 256] and averaged down; values keep their range [-1, 1].

    Raises:
        BadValue: the images have another size; the place of the face would be wrong.
    """
    if images.shape[-2:] != (256, 256):
        height, width = images.shape[-2:]
        raise BadValue(
            "the identity judge 'arcface' needs aligned faces of 256 x 256 pixels, "
            f"but the images are {height} x {width}. Use identity=moco for domains other than faces."
        )
    return F.adaptive_avg_pool2d(images[..., ROWS, COLUMNS], 112)


class ArcFace(FrozenNetwork, IRSE50):
    """Embeds aligned faces of 256 x 256 pixels (ArcFace with an IR-SE-50 body, Deng et al. 2019).

    Takes the published weights by name; `from_state` builds it from them. The weights themselves are licensed for
    non-commercial research.
    """

    label = "identity (ArcFace IR-SE-50)"
    size = 512
    image_size = 256

    def __init__(self) -> None:
        super().__init__()
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(0.6),  # inactive here; it keeps the published numbering
            nn.Flatten(),
            nn.Linear(512 * 7 * 7, self.size),
            nn.BatchNorm1d(self.size),
        )
        self.freeze()

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Build from the content of `model_ir_se50.pth`, a bare state dict.

        Raises:
            BadValue: the state is not that of an IR-SE-50 with its output layer.
        """
        judge = cls()
        load_weights(judge, state, "an ArcFace IR-SE-50 (model_ir_se50.pth)")
        return judge

    def crop(self, images: Tensor) -> Tensor:
        """Faces [N, 3, 112, 112] cut from images [N, 3, 256, 256] and averaged down; values keep their range [-1, 1].

        Raises:
            BadValue: the images have another size; the place of the face would be wrong.
        """
        return crop_faces(images)

    def embed_faces(self, faces: Tensor) -> Tensor:
        """Unit vectors [N, 512] of faces that are already cropped, [N, 3, 112, 112] in [-1, 1]."""
        return F.normalize(self.output_layer(self.maps(faces).coarse).float(), dim=1)

    def embed(self, images: Tensor) -> Tensor:
        """Unit vectors [N, 512] of images [N, 3, 256, 256] in [-1, 1]."""
        return self.embed_faces(self.crop(images))

    forward = embed


class Similarity(nn.Module):
    """One minus the cosine between the embeddings of two images: 0 for the same direction, 2 for opposite ones.

    The similarity loss of Eq. 16, with ArcFace on faces and MoCo elsewhere (section 5.1).

    Args:
        embedder: a judge with `embed`, see `Embedder`.
    """

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.embedder = embedder

    @property
    def label(self) -> str:
        """The judge's own name."""
        return self.embedder.label

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Distances [N] in [0, 2] of images [N, 3, H, W] in [-1, 1]; the target takes no gradient."""
        with torch.no_grad():
            wanted = self.embedder.embed(target)
        return 1 - (self.embedder.embed(output) * wanted).sum(1)
