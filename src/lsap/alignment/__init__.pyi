"""What `lsap.alignment` offers; each name is imported when it is first asked for."""

from .functional import Anchor as Anchor
from .functional import Reduction as Reduction
from .functional import check_widths as check_widths
from .functional import nscd as nscd
from .metric import NSCD as NSCD
from .style_space import Layers as Layers
from .style_space import NormalizedStyleSpace as NormalizedStyleSpace
from .style_space import normalize as normalize
from .style_space import style_layers as style_layers
