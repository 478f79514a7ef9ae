"""Frozen judges: how alike two images look, and whether they show the same person or thing.

Every judge takes images [N, 3, H, W] in [-1, 1], has a `label` for tables, and never trains.
"""

from lsap.features.curricular import CurricularFace
from lsap.features.identity import ArcFace, Similarity
from lsap.features.irse import IRSE50, PlainUnit
from lsap.features.judge import Embedder, Judge, load_weights
from lsap.features.moco import MoCo
from lsap.features.parsing import FaceParser
from lsap.features.perceptual import LPIPS, PerceptualDistance, Trunk, TrunkDistance

__all__ = [
    "IRSE50",
    "LPIPS",
    "ArcFace",
    "CurricularFace",
    "Embedder",
    "FaceParser",
    "Judge",
    "MoCo",
    "PerceptualDistance",
    "PlainUnit",
    "Similarity",
    "Trunk",
    "TrunkDistance",
    "load_weights",
]
