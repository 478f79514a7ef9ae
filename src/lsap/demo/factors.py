"""The true factors of the demo domain: what a portrait is made of, and how factors are drawn.

Every factor is a number in [0, 1], uniform and independent of all others, so that a factor can be changed alone and the
true effect of an edit is known. *Identity* factors belong to a person; *state* factors are what may change between two
photographs of that person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lsap.seeds import derive


@dataclass(frozen=True)
class Factor:
    """One axis of variation: its name, whether it belongs to the person, and what 0 and 1 look like."""

    name: str
    identity: bool
    low: str
    high: str


FACTORS: tuple[Factor, ...] = (
    Factor("face_width", True, "narrow", "wide"),
    Factor("jaw", True, "pointed chin", "square jaw"),
    Factor("skin", True, "dark", "light"),
    Factor("skin_warmth", True, "cool", "warm"),
    Factor("eye_size", True, "small", "large"),
    Factor("eye_spacing", True, "close", "wide apart"),
    Factor("eye_color", True, "brown", "blue"),
    Factor("brow_weight", True, "thin", "bushy"),
    Factor("brow_tilt", True, "falling outwards", "rising outwards"),
    Factor("nose_size", True, "small", "large"),
    Factor("mouth_width", True, "narrow", "wide"),
    Factor("lip_fullness", True, "thin and pale", "full and red"),
    Factor("hair_redness", True, "ash", "red"),
    Factor("hair_lightness", True, "black", "blond"),
    Factor("hair_length", True, "cropped", "below the shoulders"),
    Factor("hair_volume", True, "flat", "full"),
    Factor("fringe", True, "high forehead", "low fringe"),
    Factor("beard", True, "none", "full"),
    Factor("clothes", True, "red", "violet"),
    Factor("yaw", False, "turned left", "turned right"),
    Factor("pitch", False, "looking up", "looking down"),
    Factor("smile", False, "sad", "laughing"),
    Factor("age", False, "young", "old"),
    Factor("glasses", False, "none", "heavy frames"),
    Factor("light", False, "from the left", "from the right"),
    Factor("background_hue", False, "warm", "cold"),
    Factor("background_value", False, "dark", "bright"),
)
NAMES: tuple[str, ...] = tuple(f.name for f in FACTORS)
COUNT = len(FACTORS)
IDENTITY = torch.tensor([f.identity for f in FACTORS])

# A uniform factor on [0, 1] has this standard deviation; effects and leakage are measured in it.
STANDARD_DEVIATION = 12**-0.5


def index(name: str) -> int:
    """Position of a factor by name."""
    return NAMES.index(name)


def from_z(z: Tensor) -> Tensor:
    """Factors of latent codes: the normal distribution function of the first coordinates of the *normalised* z.

    The mapping network normalises z before anything else, so its length cannot be read; factors must not depend on it.

    Args:
        z: [N, C] with C at least the number of factors.

    Returns:
        [N, F] in (0, 1), uniform for Gaussian z up to the small effect of the normalisation.
    """
    unit = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
    return torch.special.ndtr(unit[:, :COUNT].float())


def draw(seed: int, split: str, indices: Sequence[int]) -> Tensor:
    """Factors of portraits by index: deterministic, and independent of which others are asked for.

    Splits have streams of their own, so the people of one split do not appear in another.

    Returns:
        [N, F] uniform on [0, 1].
    """
    return torch.stack([_stream(seed, "portrait", split, i) for i in indices])


def draw_person(seed: int, split: str, people: Sequence[int], pictures: Sequence[int]) -> Tensor:
    """Factors of picture `pictures[n]` of person `people[n]`: identity from the person, state from the picture.

    Returns:
        [N, F] uniform on [0, 1].
    """
    persons = torch.stack([_stream(seed, "person", split, p) for p in people])
    states = torch.stack(
        [_stream(seed, "picture", split, p, k) for p, k in zip(people, pictures, strict=True)],
    )
    return torch.where(IDENTITY, persons, states)


def _stream(seed: int, *parts: str | int) -> Tensor:
    generator = torch.Generator().manual_seed(derive(seed, *parts))
    return torch.rand(COUNT, generator=generator)
