"""What `lsap.pretrained` offers; each name is imported when it is first asked for."""

from .curricular import CurricularFace as CurricularFace
from .frozen import Embedder as Embedder
from .frozen import FrozenNetwork as FrozenNetwork
from .frozen import load_weights as load_weights
from .identity import ArcFace as ArcFace
from .identity import Similarity as Similarity
from .irse import IRSE50 as IRSE50
from .irse import PlainUnit as PlainUnit
from .moco import MoCo as MoCo
from .parsing import FaceParser as FaceParser
from .perceptual import LPIPS as LPIPS
from .perceptual import PerceptualDistance as PerceptualDistance
from .perceptual import Trunk as Trunk
from .perceptual import TrunkDistance as TrunkDistance
