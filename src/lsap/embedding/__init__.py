"""Stage 1, from images to codes: encoders, their training, and its schedule and optimiser."""

from lsap.embedding.adversarial import AdversarialTraining
from lsap.embedding.adversary import Adversary, CodePool, LatentDiscriminator
from lsap.embedding.encoders import (
    IndependentRows,
    PSPEncoder,
    PyramidEncoder,
    RowEncoder,
    SmallPSPEncoder,
    SmallPyramidEncoder,
    WEncoder,
)
from lsap.embedding.inference import Embedded, Embedding, EncoderEmbedding
from lsap.embedding.iterated import (
    Iterated,
    IterativeEncoder,
    IterativeResNetEncoder,
    SmallIterativeEncoder,
    StepEncoder,
)
from lsap.embedding.optimisation import Optimisation, OptimisationInW, OptimisationInWPlus
from lsap.embedding.ranger import Ranger
from lsap.embedding.restyle import AdversarialRestyleTraining, RestyleTraining
from lsap.embedding.stages import AllRows, ProgressiveStages, Stages
from lsap.embedding.training import EncoderTraining

__all__ = [
    "AdversarialRestyleTraining",
    "AdversarialTraining",
    "Adversary",
    "AllRows",
    "CodePool",
    "Embedded",
    "Embedding",
    "EncoderEmbedding",
    "EncoderTraining",
    "IndependentRows",
    "Iterated",
    "IterativeEncoder",
    "IterativeResNetEncoder",
    "LatentDiscriminator",
    "Optimisation",
    "OptimisationInW",
    "OptimisationInWPlus",
    "PSPEncoder",
    "ProgressiveStages",
    "PyramidEncoder",
    "Ranger",
    "RestyleTraining",
    "RowEncoder",
    "SmallIterativeEncoder",
    "SmallPSPEncoder",
    "SmallPyramidEncoder",
    "Stages",
    "StepEncoder",
    "WEncoder",
]
