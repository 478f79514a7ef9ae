"""What StyleGAN2's projector fixes besides its losses: how the noise on the codes goes over time (`learning_rate`, the
other half, is shared with SAM).

arXiv:1912.04958, appendix D. Time t runs from 0 to 1 and is the step divided by the number of steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lsap.stylegan2 import StyleGenerator

SAMPLES = 10_000  # codes that their spread is measured on


def noise_strength(t: float, strength: float = 0.05, ramp: float = 0.75) -> float:
    """Of the noise on the codes, as a share of their spread: falling to 0 over the first `ramp` of the time."""
    return strength * max(0.0, 1 - t / ramp) ** 2


def spread(w: Tensor) -> float:
    """How far codes w [N, C] lie from their mean: the root of the mean squared distance, one for all channels."""
    return (w - w.mean(0)).square().sum(1).mean().sqrt().item()


def spread_of(generator: StyleGenerator) -> float:
    """`spread` of the generator's own codes, on samples of a fixed seed."""
    with torch.no_grad():
        return spread(generator.sample_w(SAMPLES, torch.Generator().manual_seed(0)))
