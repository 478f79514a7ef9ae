"""StyleGAN2 in plain PyTorch: layers addressed by name, styles open to view, no compiled extension."""

from lsap.stylegan2.discriminator import Discriminator
from lsap.stylegan2.layers import Noise, Tap
from lsap.stylegan2.networks import PUBLISHED_CHANNELS, Generator, StyledLayer, freeze, styled_layers
from lsap.stylegan2.view import View

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
