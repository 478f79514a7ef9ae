"""Stage 1, from images to codes: encoders, their training, and its schedule and optimiser."""

from lsap.embedding.encoders import PyramidEncoder, RowEncoder, SmallPyramidEncoder
from lsap.embedding.ranger import Ranger
from lsap.embedding.stages import ProgressiveStages
from lsap.embedding.training import EncoderTraining

__all__ = ["EncoderTraining", "ProgressiveStages", "PyramidEncoder", "Ranger", "RowEncoder", "SmallPyramidEncoder"]
