"""The weights that the project makes and ships, each beside the card of its making: the generator, the judges of losses
(trunk, identity) and those of measurements (reader, identity_reader).

Saved in half precision: rounding changes images by less than a grey level and halves the download.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from lsap import checkpoints as formats
from lsap.demo.networks import AttributeReader, FactorReader, FactorTrunk, IdentityNet, IdentityReader
from lsap.errors import MissingFile
from lsap.pretrained import TrunkDistance
from lsap.stylegan2 import Generator

FOLDER = Path(__file__).parent
Network = TypeVar("Network", bound=nn.Module)


def save(name: str, module: nn.Module, card: dict[str, object], folder: Path) -> Path:
    """Write `<name>.safetensors` (half precision) and `<name>.card.json`; returns the former."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    if isinstance(module, Generator):
        module.latent_avg.copy_(formats.average_latent(module))
        formats.save_generator(module, path, dtype=torch.half, **card)
    else:
        state = {k: v.half() if v.is_floating_point() else v for k, v in module.state_dict().items()}
        formats.write_state(path, state, {"card": json.dumps(card)})
    (folder / f"{name}.card.json").write_text(json.dumps(card, indent=2) + "\n")
    return path


def load_generator(checkpoint: str | Path | None = None, size: int = 64) -> Generator:
    """The shipped generator, or another one of this size, frozen."""
    return formats.load_generator(_shipped("generator") if checkpoint is None else checkpoint, size=size)


def load_perceptual() -> TrunkDistance:
    """LPIPS over the shipped trunk, frozen."""
    return TrunkDistance(load_trunk(), "demo trunk")


def load_trunk() -> FactorTrunk:
    """The shipped factor regressor, frozen."""
    return _load("trunk", FactorTrunk())


def load_factor_reader() -> FactorReader:
    """The shipped factor regressor of measurements, frozen."""
    return _load("reader", FactorReader())


def load_reader() -> AttributeReader:
    """The regressor of measurements as a reader of named attributes."""
    return AttributeReader(load_factor_reader())


def load_perceptual_judge() -> TrunkDistance:
    """LPIPS over the regressor of measurements, frozen."""
    return TrunkDistance(load_factor_reader(), "demo evaluation trunk")


def load_identity_judge() -> IdentityReader:
    """The identity network of measurements, frozen."""
    return _load("identity_reader", IdentityReader())


def load_identity() -> IdentityNet:
    """The shipped identity network, frozen."""
    return _load("identity", IdentityNet())


def _load(name: str, module: Network) -> Network:
    path = _shipped(name)
    module.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in formats.read_state(path).items()})
    return module.eval().requires_grad_(False)


def _shipped(name: str) -> Path:
    path = FOLDER / f"{name}.safetensors"
    if not path.is_file():
        raise MissingFile(
            f"{path} is missing from this installation; install lsap again, or make it: python -m lsap.pretrain "
            f"target={name} save_to={FOLDER}"
        )
    return path
