"""What is minimised: terms over a `Fit`, and their weighted composition (Eq. 16)."""

from lsap.losses.running import Running, learning_rate
from lsap.losses.terms import (
    L2,
    Adversarial,
    Alignment,
    Delta,
    Fit,
    Objective,
    Perceptual,
    Similarity,
    StyleSpace,
    Term,
    WNorm,
)

__all__ = [
    "L2",
    "Adversarial",
    "Alignment",
    "Delta",
    "Fit",
    "Objective",
    "Perceptual",
    "Running",
    "Similarity",
    "StyleSpace",
    "Term",
    "WNorm",
    "learning_rate",
]
