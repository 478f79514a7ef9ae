"""Do the pictures of a method, as a set, look like photographs? Fréchet Inception distance, from a file of weights."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from lsap.checkpoints import file_digest, read_state
from lsap.errors import BadValue, MissingFile

FEATURES = 2048


class Inception(nn.Module):
    """torch-fidelity's Inception v3 up to its last pooling, frozen: the network that FID is defined by.

    Args:
        path: `weights-inception-2015-12-05-6726825d.pth`; read as tensors only.

    Raises:
        MissingFile: there is no such file.
        BadValue: other weights, or torch-fidelity is not installed.
    """

    label = "FID (Inception v3, torch-fidelity)"
    num_features = FEATURES

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        if not Path(path).is_file():
            raise MissingFile(f"inception={path}: there is no such file; FID is measured where it is")
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise BadValue("FID needs torch-fidelity: pip install torch-fidelity") from error
        self.digest = file_digest(path)[:12]
        state = read_state(path)
        with tempfile.TemporaryDirectory() as folder:  # it unpickles its file; this one holds tensors and nothing else
            safe = Path(folder) / "weights.pth"
            torch.save(dict(state), safe)
            try:
                self.network = FeatureExtractorInceptionV3("inception-v3-compat", [str(FEATURES)], str(safe))
            except (RuntimeError, KeyError) as error:
                raise BadValue(f"inception={path} holds other weights than those of FID's Inception v3") from error
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Features [N, 2048] of images [N, 3, H, W] in [-1, 1], which become eight bits first."""
        pixels = ((images.float().clamp(-1, 1) + 1) * 127.5).round().byte()
        features: Tensor = self.network(pixels)[0]
        return features


def frechet_distance(features: nn.Module) -> FrechetInceptionDistance:
    """FID as a metric of torchmetrics; sums in double precision, so that batches and processes do not matter.

    Args:
        features: images → [N, num_features], e.g. `Inception`.

    update(images, real): images [N, 3, H, W] in [-1, 1], photographs or pictures; `reset` keeps the photographs.
    compute(): scalar, at least 0, lower is better. Values depend on file format, size and number of the images: compare
    within one protocol and image set only.
    """
    return FrechetInceptionDistance(feature=features, reset_real_features=False)
