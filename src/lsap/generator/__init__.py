"""StyleGAN2 in plain PyTorch: layers addressed by name, styles open to view, no compiled extension."""

from lsap.generator.discriminator import Discriminator
from lsap.generator.layers import Noise, Tap
from lsap.generator.networks import PUBLISHED_CHANNELS, Generator, StyledLayer, freeze, styled_layers
from lsap.generator.view import View

__all__ = [
    "PUBLISHED_CHANNELS",
    "Discriminator",
    "Generator",
    "Noise",
    "StyledLayer",
    "Tap",
    "View",
    "freeze",
    "styled_layers",
]
