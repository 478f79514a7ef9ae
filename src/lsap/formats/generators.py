"""Generators on disk: ours as safetensors, and the rosinality layout that most published weights have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lsap.errors import BadValue
from lsap.formats import rosinality
from lsap.formats.states import read_card, read_state, write_state
from lsap.generator import Generator, freeze

KIND = "lsap generator"
AVERAGE_SAMPLES = 10_000


def load_generator(checkpoint: str | Path, *, size: int | None = None) -> Generator:
    """The generator of a file, frozen, in float32; size, widths and depth are read off its tensors.

    Args:
        checkpoint: what `save_generator` wrote; or a rosinality file, with `g_ema` (and `latent_avg`) or bare. Where
            the mean latent is missing it is measured on 10 000 samples of a fixed seed.
        size: the resolution in pixels that the caller needs; None takes any.

    Raises:
        MissingFile: there is no such file.
        BadValue: no generator, an incomplete one, or one of another size.
    """
    path = Path(checkpoint)
    state, settings, latent_avg = _contents(path)
    generator = _build(path, state, settings)
    if size is not None and generator.size != size:
        raise BadValue(
            f"{path} holds a {generator.size}-px generator ({generator.n_latent} rows); this domain asks for {size}"
        )
    if latent_avg is None:
        generator.latent_avg.copy_(average_latent(generator))
    elif latent_avg.shape[-1:] != (generator.style_dim,):
        raise BadValue(f"{path}: latent_avg has shape {list(latent_avg.shape)}, expected [{generator.style_dim}]")
    else:
        generator.latent_avg.copy_(latent_avg.reshape(-1, generator.style_dim).mean(0))  # some files repeat it per row
    return freeze(generator)


def save_generator(
    generator: Generator, path: str | Path, *, dtype: torch.dtype = torch.float32, **card: object
) -> Path:
    """Write a generator with what is needed to build it again; atomic.

    Args:
        generator: the network.
        path: a `.safetensors` file; its folder is made if need be.
        dtype: type of the stored numbers; half precision halves the file.
        card: what a reader should know (command, steps, quality), kept as JSON in the file; `read_card` returns it.
    """
    state = {name: tensor.to(dtype) for name, tensor in generator.state_dict().items()}
    settings = {"mapping_lr": generator.mapping_lr, "clamp": generator.clamp}
    texts = {"kind": KIND, "settings": json.dumps(settings), "card": json.dumps(card, default=str)}
    return write_state(path, state, texts)


@torch.no_grad()
def average_latent(generator: Generator, samples: int = AVERAGE_SAMPLES, seed: int = 0) -> Tensor:
    """The mean of w [C] over random z."""
    rng = torch.Generator().manual_seed(seed)
    total = sum(generator.sample_w(500, rng).double().sum(0) for _ in range(samples // 500))
    assert isinstance(total, Tensor)
    return (total / (samples // 500 * 500)).float()


def _contents(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], Tensor | None]:
    """Tensors under our names, what to build them with, and the mean latent if the file has it."""
    content = read_state(path)
    card = read_card(path)
    if card.get("kind") == KIND:
        latent_avg = content.pop("latent_avg", None)
        return content, json.loads(card["settings"]), latent_avg
    state = content.get("g_ema", content)
    if not isinstance(state, Mapping) or not rosinality.recognises(state):
        found = ", ".join(sorted(map(str, content))[:4])
        raise BadValue(
            f"{path} holds no generator that is known here (it has {found}, ...). Accepted: a generator saved by lsap, "
            "a rosinality file with 'g_ema', or the bare state dict of a rosinality generator."
        )
    try:
        named = {name: tensor for name, tensor in state.items() if name != "latent_avg"}
        return rosinality.rename(named), {}, content.get("latent_avg")
    except BadValue as error:
        raise BadValue(f"{path}: {error}") from error


def _build(path: Path, state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Generator:
    try:
        channels = {4: state["constant"].shape[1]}
        while (up := f"blocks.up{2 * max(channels)}.weight") in state:
            channels[2 * max(channels)] = len(state[up])
        style_dim = state["blocks.conv4.affine.weight"].shape[1]
    except (KeyError, IndexError) as error:
        raise BadValue(f"{path} is no complete generator: {error}") from error
    depth = sum(name.startswith("mapping.layers.") and name.endswith(".weight") for name in state)
    with torch.random.fork_rng(
        devices=[]
    ):  # initial values are overwritten; the caller's random stream stays as it was
        generator = Generator(max(channels), style_dim, depth, channels, **settings)
    wanted = {name: tensor.shape for name, tensor in generator.state_dict().items() if name != "latent_avg"}
    wrong = [name for name in {**wanted, **state} if name not in state or state[name].shape != wanted.get(name)]
    if wrong:
        raise BadValue(
            f"{path} is no complete {generator.size}-px generator: {len(wrong)} of its {len(wanted)} tensors are "
            f"missing, unknown or of another shape ({', '.join(wrong[:3])}, ...)"
        )
    generator.load_state_dict(dict(state), strict=False)
    return generator
