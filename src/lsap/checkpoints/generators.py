"""Generators on disk: ours as safetensors, rosinality's and NVIDIA's layouts, and the decoders of whole checkpoints."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsap.checkpoints import nvidia, rosinality, tensorflow
from lsap.checkpoints.encoders import mean_latent
from lsap.checkpoints.foreign import known_network
from lsap.checkpoints.nvidia import Network
from lsap.checkpoints.pickles import Record
from lsap.checkpoints.states import check_finite, read_card, read_state, save_torch, write_state
from lsap.checkpoints.wrappers import wrapped_generator, wrapped_generators
from lsap.errors import BadValue
from lsap.seeds import derive
from lsap.stylegan2 import Generator, freeze

KIND = "lsap generator"
AVERAGE_SAMPLES = 10_000
PUBLISHED_LR = 0.01  # learning-rate multiplier of the mapping network in the published code


def load_generator(checkpoint: str | Path, *, size: int | None = None) -> Generator:
    """The generator of a file, frozen, in float32; size, widths and depth are read off its tensors.

    Args:
        checkpoint: what `save_generator` wrote; a rosinality file, with `g_ema` (and `latent_avg`) or bare; one of
            NVIDIA's pickles, PyTorch's or TensorFlow's; or a checkpoint of pSp, e4e, ReStyle, HFGI or the LSAP toolbox,
            of which the decoder is taken. Prefixes and outer keys of other tools are taken off. Where the mean latent
            is missing it is measured on 10 000 samples of a fixed seed; where all noise maps are missing they are drawn
            from a fixed seed.
        size: the resolution in pixels that the caller needs; None takes any.

    Raises:
        MissingFile: there is no such file.
        BadValue: no generator, an incomplete one, one of another size, or of a kind that is not supported: with class
            labels, other channels than RGB, or without skip connections.
    """
    path = Path(checkpoint)
    network = _contents(path)
    generator = _build(path, network)
    if size is not None and generator.size != size:
        raise BadValue(
            f"{path} holds a {generator.size}-px generator ({generator.n_latent} rows); this domain asks for {size}"
        )
    latent_avg = network.latent_avg
    if latent_avg is None:
        generator.latent_avg.copy_(average_latent(generator))
    elif latent_avg.shape[-1:] != (generator.style_dim,):
        raise BadValue(f"{path}: latent_avg has shape {list(latent_avg.shape)}, expected [{generator.style_dim}]")
    else:
        rows = latent_avg.reshape(-1, generator.style_dim)  # some files repeat it per row
        generator.latent_avg.copy_(rows[0] if (rows == rows[0]).all() else rows.mean(0))
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


def save_rosinality(generator: Generator, path: str | Path) -> Path:
    """Write a generator as the published repositories read it: a torch file with `g_ema` and `latent_avg` [C]; atomic.

    They fix the mapping network's learning-rate multiplier at 0.01, so weights of another one are rescaled to it, which
    rounds. What they have no place for, and the weights as they were, lies beside in `lsap`: they leave it aside, and
    reading the file here gives the same generator to the bit.
    """
    state = {name: tensor.detach().cpu().clone() for name, tensor in rosinality.publish(generator).items()}
    content: dict[str, Any] = {"g_ema": state, "latent_avg": generator.latent_avg.detach().cpu().clone()}
    own: dict[str, Any] = {"mapping_lr": generator.mapping_lr, "clamp": generator.clamp, "mapping": {}}
    if generator.mapping_lr != PUBLISHED_LR:
        for name in [name for name in state if name.startswith("style.")]:
            own["mapping"][name] = state[name]
            state[name] = (state[name].double() * (generator.mapping_lr / PUBLISHED_LR)).float()
    if own["mapping"] or generator.clamp is not None:
        content["lsap"] = own
    return save_torch(path, content)


def _contents(path: Path) -> Network:
    """The file's generator under our names, whatever lineage it is of."""
    content = read_state(path)
    card = read_card(path)
    try:
        if card.get("kind") == KIND:
            return _own(content, card)
        if name := _object(content):
            _tell_trained(path, name, name == "G")
            record = content[name]
            return (tensorflow if record.name == nvidia.TENSORFLOW else nvidia).read_network(record)
        if (found := wrapped_generator(content)) is not None:
            _tell_trained(path, found.name, found.is_trained)
            if nvidia.recognises(found.state):
                network = nvidia.rename(found.state)
                return network if network.latent_avg is not None else network._replace(latent_avg=found.latent_avg)
            mean = mean_latent(content) if found.latent_avg is None else found.latent_avg
            return _with_own(found.state, content.get("lsap"), mean)
    except BadValue as error:
        raise BadValue(f"{path}: {error}") from error
    if (known := known_network(content)) is not None:
        raise BadValue(f"{path} holds {known}; lsap reads StyleGAN2 generators in the names of rosinality and NVIDIA")
    held = ", ".join([*sorted(map(str, content))[:4], "..."]) if content else "no tensors"
    raise BadValue(
        f"{path} holds no generator that is known here (it has {held}). Accepted: a generator saved by lsap, "
        "a rosinality file with 'g_ema' or its bare state dict, NVIDIA's .pkl of a StyleGAN2, or a checkpoint of pSp, "
        "e4e, ReStyle or HFGI with its decoder."
    )


def holds_generator(content: Mapping[str, Any]) -> bool:
    """Whether a checkpoint holds a generator that is known here, alone or with an encoder."""
    return _object(content) is not None or bool(wrapped_generators(content))


def _object(content: Mapping[str, Any]) -> str | None:
    """The key of NVIDIA's generator object: of the running mean where there is one."""
    return next((name for name in ("G_ema", "Gs", "G") if isinstance(content.get(name), Record)), None)


def _tell_trained(path: Path, name: str, is_trained: bool) -> None:
    if is_trained:
        note = "the generator in training: the file holds no average of it, whose images are usually better"
        print(f"{path}: takes {name!r}, {note}", file=sys.stderr)


def _with_own(state: dict[str, Tensor], own: object, latent_avg: Tensor | None) -> Network:
    """A rosinality generator, and what `save_rosinality` put beside it."""
    if not isinstance(own, Mapping):
        return Network(rosinality.rename(state), latent_avg)
    try:
        state, clamp = state | dict(own["mapping"]), own["clamp"]
        bound = None if clamp is None else float(clamp)
        return Network(rosinality.rename(state), latent_avg, float(own["mapping_lr"]), bound)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadValue(f"what lsap wrote beside its generator cannot be read ({error!r}); write it again") from error


def _own(content: dict[str, Any], card: Mapping[str, str]) -> Network:
    latent_avg = content.pop("latent_avg", None)
    try:
        settings = json.loads(card["settings"])
        clamp = settings["clamp"]
        return Network(content, latent_avg, float(settings["mapping_lr"]), None if clamp is None else float(clamp))
    except (KeyError, TypeError, ValueError) as error:
        raise BadValue(f"its card does not say how to build it ({error!r}); save it again") from error


def _build(path: Path, network: Network) -> Generator:
    state = network.state
    try:
        channels = {4: state["constant"].shape[1]}
        while (up := f"blocks.up{2 * max(channels)}.weight") in state:
            channels[2 * max(channels)] = len(state[up])
        style_dim = state["blocks.conv4.affine.weight"].shape[1]
        _check_supported(path, state, max(channels), style_dim)
    except KeyError as error:
        raise BadValue(f"{path} is no complete generator: {error} is missing") from error
    except (IndexError, TypeError) as error:
        raise BadValue(f"{path} is no complete generator: its tensors have other shapes than a generator's") from error
    state = _with_noise(state)
    depth = sum(name.startswith("mapping.layers.") and name.endswith(".weight") for name in state)
    # initial values are overwritten; the caller's random stream stays as it was
    try:
        with torch.random.fork_rng(devices=[]):
            generator = Generator(
                max(channels), style_dim, depth, channels, mapping_lr=network.mapping_lr, clamp=network.clamp
            )
    except BadValue as error:
        raise BadValue(f"{path}: {error}") from error
    wanted = {name: tensor.shape for name, tensor in generator.state_dict().items() if name != "latent_avg"}
    wrong = [
        name
        for name in {**wanted, **state}
        if name not in state or state[name].shape != wanted.get(name) or not state[name].is_floating_point()
    ]
    if wrong:
        raise BadValue(
            f"{path} is no complete {generator.size}-px generator: {len(wrong)} of its {len(wanted)} tensors are "
            f"missing, unknown or of another shape or type ({', '.join(wrong[:3])}, ...)"
        )
    mean = {} if network.latent_avg is None else {"latent_avg": network.latent_avg}
    check_finite(path, state | mean)
    generator.load_state_dict(dict(state), strict=False)
    return generator


def _check_supported(path: Path, state: Mapping[str, Tensor], size: int, style_dim: int) -> None:
    """Refuse generators of other kinds by what they are, before their tensors are compared with ours."""
    first, rgb = state.get("mapping.layers.0.weight"), state.get(f"blocks.rgb{size}.weight")
    if first is not None and first.shape != (style_dim, style_dim):
        raise BadValue(
            f"{path}: its mapping network takes {first.shape[-1]} numbers and w has {style_dim}: it takes class "
            "labels, or a z of another length; lsap supports unconditional generators whose z is as long as w"
        )
    if rgb is not None and len(rgb) != 3:
        found = f"{len(rgb)} channel{'s' * (len(rgb) > 1)}"
        raise BadValue(f"{path}: its images have {found}; lsap supports RGB images (3)")
    if rgb is not None and not any(f"blocks.rgb{side}.weight" in state for side in (4, size // 2)):
        raise BadValue(
            f"{path}: its synthesis has the architecture 'orig' or 'resnet', without a ToRGB at every resolution; lsap "
            "supports 'skip' only"
        )


def _with_noise(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with a noise map for every layer that adds noise, where the file has none at all.

    Maps are standard normal, as the published code draws them, from a seed per layer and by NumPy's frozen generator,
    so that they are the same in every process, on every machine and in every version.
    """
    if any(name.endswith(".noise") for name in state):
        return dict(state)
    drawn = {}
    for name in state:
        if found := re.fullmatch(r"(blocks\.\D+(\d+)\.noise)_strength", name):
            side = int(found[2])
            rng = np.random.RandomState(derive(0, found[1]) % 2**32)
            drawn[found[1]] = torch.from_numpy(rng.standard_normal((1, 1, side, side)).astype(np.float32))
    return {**state, **drawn}
