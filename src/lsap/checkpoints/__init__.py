"""Files that other programs made, and our own: read safely, checked, named as the rest of lsap names things."""

from lsap.checkpoints.codes import Codes, check_owner, read_codes, write_codes
from lsap.checkpoints.directions import (
    Components,
    CoordinateDirection,
    Direction,
    load_directions,
    read_components,
    read_direction,
    save_directions,
    write_direction,
)
from lsap.checkpoints.encoders import PublishedEncoder, read_encoder
from lsap.checkpoints.fingerprint import file_digest, fingerprint
from lsap.checkpoints.generators import average_latent, load_generator, save_generator, save_rosinality
from lsap.checkpoints.metric_networks import load_arcface, load_bisenet, load_curricularface, load_lpips, load_moco
from lsap.checkpoints.paths import located
from lsap.checkpoints.states import read_card, read_state, write_state

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
