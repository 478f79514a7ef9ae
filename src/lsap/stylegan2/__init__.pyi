"""What `lsap.stylegan2` offers; each name is imported when it is first asked for."""

from .discriminator import Discriminator as Discriminator
from .layers import Noise as Noise
from .layers import Tap as Tap
from .networks import PUBLISHED_CHANNELS as PUBLISHED_CHANNELS
from .networks import Generator as Generator
from .networks import StyledLayer as StyledLayer
from .networks import freeze as freeze
from .networks import latent_rows as latent_rows
from .networks import styled_layers as styled_layers
from .protocol import StyleGenerator as StyleGenerator
from .view import View as View
