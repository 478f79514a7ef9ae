"""Who is it, asked by another network: CurricularFace, the judge of the published tables.

Encoders are trained against ArcFace; an evaluation by the same network would reward what the training has learned of
its weaknesses, so identity in tables is measured by this one (Huang et al. 2020; pSp's evaluation).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsap.pretrained.frozen import FrozenNetwork, load_weights
from lsap.pretrained.identity import crop_faces
from lsap.pretrained.irse import PlainUnit, residual_body

STAGES = ((64, 3), (128, 13), (256, 30), (512, 3))  # (channels, units); the first unit of a stage halves the map


class CurricularFace(FrozenNetwork):
    """Embeds aligned faces of 256 x 256 pixels by an IR-101 body: 49 plain residual units.

    Takes the published weights by name; `from_state` builds it from them.
    """

    label = "identity (CurricularFace IR-101)"
    size = 512
    image_size = 256

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        self.body = residual_body(PlainUnit, STAGES)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(0.4),  # inactive here; it keeps the published numbering
            nn.Flatten(),
            nn.Linear(512 * 7 * 7, self.size),
            nn.BatchNorm1d(self.size, affine=False),
        )
        self.freeze()

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Build from the content of `CurricularFace_Backbone.pth`, a bare state dict.

        Raises:
            BadValue: the state is not that of this IR-101.
        """
        with torch.device("meta"):  # 65 million numbers that need no start
            judge = cls()
        judge.to_empty(device="cpu")
        load_weights(judge, state, "a CurricularFace IR-101 (CurricularFace_Backbone.pth)")
        return judge

    def embed_faces(self, faces: Tensor) -> Tensor:
        """Unit vectors [N, 512] of faces that are already cropped, [N, 3, 112, 112] in [-1, 1]."""
        return F.normalize(self.output_layer(self.body(self.input_layer(faces))).float(), dim=1)

    def embed(self, images: Tensor) -> Tensor:
        """Unit vectors [N, 512] of aligned faces [N, 3, 256, 256] in [-1, 1], cropped as for ArcFace."""
        return self.embed_faces(crop_faces(images))

    forward = embed
