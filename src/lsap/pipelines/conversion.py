"""`python -m lsap.convert source=… save_to=…`: published weights become safetensors, a generator rosinality's `.pt`.

What was written is read again and compared with what was meant, number by number, before the command says it is done.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from lsap import checkpoints as formats
from lsap.checkpoints import CoordinateDirection, encoders, read_tensors
from lsap.checkpoints.directions import MEAN
from lsap.checkpoints.foreign import known_network
from lsap.checkpoints.generators import PUBLISHED_LR
from lsap.checkpoints.lineages import holding
from lsap.errors import BadValue, nearest
from lsap.pretrained.moco import QUERY
from lsap.stylegan2 import PUBLISHED_CHANNELS, Generator

TARGETS = (".safetensors", ".pt")
BARE = ("codes", "direction")
METRIC_NETWORKS: Mapping[str, Callable[[str | Path], torch.nn.Module]] = {
    "arcface": formats.load_arcface,
    "curricularface": formats.load_curricularface,
    "moco": formats.load_moco,
    "alex": lambda path: formats.load_lpips("alex", path),
    "vgg": lambda path: formats.load_lpips("vgg", path),
    "bisenet": formats.load_bisenet,
}


def convert(config: DictConfig) -> list[Path]:
    """Read `source`, write `save_to` (and, of a whole checkpoint, its generator beside it), and compare.

    Returns:
        The files that were written.

    Raises:
        BadValue, MissingFile: a file or setting that cannot be used; nothing has been written.
    """
    source, target = _paths(config)
    held = _held(config, source)
    if target.suffix == ".pt" and held != "generator":
        raise BadValue(f"save_to={target}: only a generator is written as .pt, and this is '{held}'; use .safetensors")
    print(f"{source}: {held}")
    made = _write(config, held, source, target)
    for path in made:
        print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB), read again: equal to the bit")
    return made


def _paths(config: DictConfig) -> tuple[Path, Path]:
    for name in ("source", "save_to"):
        if config[name] is None:
            raise BadValue(f"{name} is not set: give source=FILE save_to=FILE, as in save_to=generator.safetensors")
    source, target = formats.located(config.source) or Path(config.source), Path(config.save_to)
    if target.suffix not in TARGETS:
        raise BadValue(f"save_to={target}: its name must end in {' or '.join(TARGETS)}")
    if source.resolve() == target.resolve():
        raise BadValue(f"save_to={target} is the source itself; name another file")
    if config.holds is not None and config.holds not in BARE:
        raise BadValue(f"holds={config.holds}: {nearest(str(config.holds), BARE)}")
    return source, target


def _held(config: DictConfig, source: Path) -> str:
    """What the source holds.

    Raises:
        BadValue: nothing that is known, or a bare array that may be two things.
    """
    if formats.read_card(source).get("format") == formats.directions.FORMAT:
        return "direction"
    if source.suffix in (".npy", ".npz"):
        held = "components" if formats.is_components(read_tensors(source)) else "codes"
    else:
        try:
            content = formats.read_state(source)
        except BadValue:
            read_tensors(source)  # a bare tensor or a list of them; anything else says what is wrong with it
            held = "codes"
        else:
            held = str(holding(content, formats.read_card(source)))
            if held == "none" and (known := known_network(content)) is not None:
                raise BadValue(f"{source} holds {known}, which is not read; docs/own-weights.md lists what is")
    if held == "none" and config.holds is None:
        raise BadValue(
            f"{source} holds nothing that lsap knows; docs/own-weights.md lists what is read. Where its tensors are "
            "codes or directions, say holds=codes or holds=direction"
        )
    if held == "codes" and config.holds is None:
        raise BadValue(f"{source} is a bare array: say holds=codes or holds=direction")
    held = "codes" if held == "none" else held
    return str(config.holds) if held == "codes" else held


def _write(config: DictConfig, held: str, source: Path, target: Path) -> list[Path]:
    if held == "generator":
        return [_generator(formats.load_generator(source), source, target)]
    if held == "encoder":
        return _encoder(config, source, target)
    if held in METRIC_NETWORKS:
        return [_metric_network(held, source, target)]
    owner = _owner(config)
    if held == "codes":
        codes = formats.read_codes(
            source, n_latent=owner.n_latent, style_dim=owner.style_dim, generator=formats.fingerprint(owner),
            codes_in=config.codes_in,
        )  # fmt: skip
        path = formats.write_codes(target, codes, formats.fingerprint(owner))
        return [_same(path, {"codes": codes.codes})]
    if held == "direction":
        found = formats.read_directions(
            source, formats.fingerprint(owner), n_latent=owner.n_latent, style_dim=owner.style_dim
        )
        path = formats.save_directions(list(found.values()), target)
        means = {one.name + MEAN: one.mean for one in found.values() if isinstance(one, CoordinateDirection)}
        return [_same(path, {one.name: one.vector for one in found.values()} | means)]
    parts = formats.read_components(source, formats.fingerprint(owner))
    path = formats.write_direction(parts, target)
    return [_same(path, {"mean": parts.mean, "comp": parts.vectors, "std": parts.stds})]


def _generator(generator: Generator, source: Path, target: Path) -> Path:
    if target.suffix == ".pt":
        path = formats.save_rosinality(generator, target)
        _tell_differences(generator, path)
    else:
        path = formats.save_generator(generator, target, source=source.name, sha256=formats.file_digest(source))
    if formats.fingerprint(formats.load_generator(path)) != formats.fingerprint(generator):
        raise RuntimeError(f"{path} does not read back as it was written")
    return path


def _tell_differences(generator: Generator, path: Path) -> None:
    """Say what rosinality's code will do otherwise than ours."""
    widths = {layer.resolution: layer.channels for layer in generator.layers if layer.demodulates}
    wanted = [{r: c if r < 64 else c * m // 2 for r, c in PUBLISHED_CHANNELS.items()} for m in (1, 2)]
    if not any(all(plan[r] == c for r, c in widths.items()) for plan in wanted) or generator.style_dim != 512:
        print(f"note: its widths {widths} are not those that the published repositories build; their code must be told")
    if generator.clamp is not None or generator.mapping_lr != PUBLISHED_LR:
        z = torch.randn(2, generator.style_dim, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            ours, theirs = (made(made.mapping(z)) for made in (generator, _as_they_read(path)))
        print(
            f"note: rosinality's code has no bound of activations (here {generator.clamp}) and another learning-rate "
            f"multiplier (0.01, here {generator.mapping_lr:g}); its images of two samples differ from ours by at most "
            f"{(ours - theirs).abs().max().item():.1g} of {ours.abs().max().item():.2g}"
        )


def _as_they_read(path: Path) -> Generator:
    """The generator that programs make of a rosinality file which know nothing of lsap."""
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.pt"
        torch.save({key: value for key, value in formats.read_state(path).items() if key != "lsap"}, bare)
        return formats.load_generator(bare)


def _encoder(config: DictConfig, source: Path, target: Path) -> list[Path]:
    found = formats.read_encoder(source, kind=config.encoder)
    card = {"kind": encoders.KIND, "opts": json.dumps(found.opts), "source": source.name}
    card |= encoders.encoder_card(found.kind, found.n_latent)
    made = []
    if found.generator_state is not None:
        generator = formats.load_generator(source)
        made.append(_generator(generator, source, target.with_name(f"{target.stem}-generator.safetensors")))
        card["generator"] = formats.fingerprint(generator)
    elif found.generator is not None:
        card["generator"] = found.generator
    tensors = found.state | found.extra
    if found.latent_avg is not None:
        tensors |= {"latent_avg": found.latent_avg}
    made.insert(0, _same(formats.write_state(target, tensors, card), tensors))
    again = formats.read_encoder(target)
    if (again.kind, again.opts, again.state.keys()) != (found.kind, json.loads(card["opts"]), found.state.keys()):
        raise RuntimeError(f"{target} does not read back as it was written")
    return made


def _metric_network(held: str, source: Path, target: Path) -> Path:
    network = METRIC_NETWORKS[held](source)
    content: Mapping[str, Any] = formats.read_state(source)
    state = content.get("state_dict", content)
    wanted = QUERY if held == "moco" and any(name.startswith(QUERY) for name in state) else ""
    tensors = {n.removeprefix(wanted): t for n, t in state.items() if n.startswith(wanted) and isinstance(t, Tensor)}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(("fc.", "classifier."))}
    card = {"kind": f"lsap judge {held}", "source": source.name, "sha256": formats.file_digest(source)}
    path = _same(formats.write_state(target, tensors, card), tensors)
    if formats.fingerprint(METRIC_NETWORKS[held](path)) != formats.fingerprint(network):
        raise RuntimeError(f"{path} does not read back as it was written")
    return path


def _owner(config: DictConfig) -> Generator:
    if config.generator is None:
        raise BadValue(
            "generator is not set: codes, directions and components mean something in the space of one generator only; "
            "name its file, as in generator=weights/stylegan2-ffhq-config-f.pt"
        )
    return formats.load_generator(config.generator)


def _same(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    """The path, once the file is known to hold just these tensors."""
    again = formats.read_state(path)
    if again.keys() != tensors.keys() or not all(torch.equal(again[name], tensors[name]) for name in again):
        raise RuntimeError(f"{path} does not read back as it was written")
    return path
