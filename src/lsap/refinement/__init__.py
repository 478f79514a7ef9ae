"""Stage 2: refinements of an inversion. What each adds is drawn by a renderer; editing never asks which it was."""

from lsap.refinement.consultation import (
    Consultation,
    PublishedConsultation,
    SmallConsultation,
    consulted_channels,
    load_consultation,
)
from lsap.refinement.examples import StoredExamples
from lsap.refinement.hfgi import Consulted, DistortionConsultation
from lsap.refinement.invertibility import InvertibilityTraining
from lsap.refinement.locality import Locality
from lsap.refinement.misalignment import ConsultationTraining
from lsap.refinement.predictor import Predictor, PublishedPredictor, SmallPredictor, load_predictor
from lsap.refinement.pti import PivotalTuning
from lsap.refinement.sam import LatentPrior, PastedFeatures, SpatiallyAdaptive
from lsap.refinement.segments import LabelMaps, Superpixels, segmenter
from lsap.refinement.space_errors import SpaceErrors
from lsap.refinement.stage import Refinement
from lsap.refinement.training import RefinementTraining
from lsap.refinement.tuned import TunedLowRank, TunedWhole

__all__ = [
    "Consultation",
    "ConsultationTraining",
    "Consulted",
    "DistortionConsultation",
    "InvertibilityTraining",
    "LabelMaps",
    "LatentPrior",
    "Locality",
    "PastedFeatures",
    "PivotalTuning",
    "Predictor",
    "PublishedConsultation",
    "PublishedPredictor",
    "Refinement",
    "RefinementTraining",
    "SmallConsultation",
    "SmallPredictor",
    "SpaceErrors",
    "SpatiallyAdaptive",
    "StoredExamples",
    "Superpixels",
    "TunedLowRank",
    "TunedWhole",
    "consulted_channels",
    "load_consultation",
    "load_predictor",
    "segmenter",
]
