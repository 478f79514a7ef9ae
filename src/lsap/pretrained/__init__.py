"""Frozen judges: how alike two images look, and whether they show the same person or thing.

Every judge takes images [N, 3, H, W] in [-1, 1], has a `label` for tables, and never trains.
"""

from lsap.pretrained.curricular import CurricularFace
from lsap.pretrained.identity import ArcFace, Similarity
from lsap.pretrained.irse import IRSE50, PlainUnit
from lsap.pretrained.judge import Embedder, Judge, load_weights
from lsap.pretrained.moco import MoCo
from lsap.pretrained.parsing import FaceParser
from lsap.pretrained.perceptual import LPIPS, PerceptualDistance, Trunk, TrunkDistance

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
