"""What `lsap.losses` offers; each name is imported when it is first asked for."""

from .running import Running as Running
from .running import learning_rate as learning_rate
from .terms import L2 as L2
from .terms import Adversarial as Adversarial
from .terms import Alignment as Alignment
from .terms import Delta as Delta
from .terms import LossInputs as LossInputs
from .terms import Objective as Objective
from .terms import Perceptual as Perceptual
from .terms import Similarity as Similarity
from .terms import StyleSpace as StyleSpace
from .terms import Term as Term
from .terms import WNorm as WNorm
