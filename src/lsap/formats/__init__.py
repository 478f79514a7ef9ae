"""Files that other programs made, and our own: read safely, checked, named as the rest of lsap names things."""

from lsap.formats.fingerprint import file_digest, fingerprint
from lsap.formats.generators import average_latent, load_generator, save_generator
from lsap.formats.judges import load_arcface, load_lpips, load_moco
from lsap.formats.states import read_card, read_state, write_state

__all__ = [
    "average_latent",
    "file_digest",
    "fingerprint",
    "load_arcface",
    "load_generator",
    "load_lpips",
    "load_moco",
    "read_card",
    "read_state",
    "save_generator",
    "write_state",
]
