"""How directions are found: one class per method, all of them from a generator and samples of it."""

from lsap.editing.discovery.ganspace import GANSpace
from lsap.editing.discovery.interfacegan import InterFaceGAN
from lsap.editing.discovery.samples import Discovery, Samples, existing_labels, read_labels
from lsap.editing.discovery.sefa import SeFa
from lsap.editing.discovery.slope import Slope

__all__ = ["Discovery", "GANSpace", "InterFaceGAN", "Samples", "SeFa", "Slope", "existing_labels", "read_labels"]
