"""Files that other programs made, and our own: read safely, checked, named as the rest of lsap names things."""

from lsap.formats.codes import Codes, check_owner, read_codes, write_codes
from lsap.formats.directions import (
    Components,
    CoordinateDirection,
    Direction,
    load_directions,
    read_components,
    read_direction,
    save_directions,
    write_direction,
)
from lsap.formats.encoders import PublishedEncoder, read_encoder
from lsap.formats.fingerprint import file_digest, fingerprint
from lsap.formats.generators import average_latent, load_generator, save_generator, save_rosinality
from lsap.formats.judges import load_arcface, load_bisenet, load_curricularface, load_lpips, load_moco
from lsap.formats.places import located
from lsap.formats.states import read_card, read_state, write_state

__all__ = [
    "Codes",
    "Components",
    "CoordinateDirection",
    "Direction",
    "PublishedEncoder",
    "average_latent",
    "check_owner",
    "file_digest",
    "fingerprint",
    "load_arcface",
    "load_bisenet",
    "load_curricularface",
    "load_directions",
    "load_generator",
    "load_lpips",
    "load_moco",
    "located",
    "read_card",
    "read_codes",
    "read_components",
    "read_direction",
    "read_encoder",
    "read_state",
    "save_directions",
    "save_generator",
    "save_rosinality",
    "write_codes",
    "write_direction",
    "write_state",
]
