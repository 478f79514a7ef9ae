"""The paper's own part: the normalised style space, the mean of the generator's own codes in it, and NSCD."""

from lsap.alignment.nscd import NSCD, Anchor, Reduction, check_widths, nscd
from lsap.alignment.style_space import Layers, NormalizedStyleSpace, normalize, style_layers

__all__ = [
    "NSCD",
    "Anchor",
    "Layers",
    "NormalizedStyleSpace",
    "Reduction",
    "check_widths",
    "normalize",
    "nscd",
    "style_layers",
]
