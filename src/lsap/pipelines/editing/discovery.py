"""`python -m lsap.discover method=slope`: directions of a generator, found on its own samples, looked at and kept.

Where a domain has a network that reads attributes, that labels the samples. Elsewhere `draw=500` makes samples to be
labelled by hand or by any other tool, and `labels=` goes on from there.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from lsap.alignment import nscd
from lsap.checkpoints import Codes, Direction, read_codes, save_directions, write_codes
from lsap.config.checks import refuse_missing
from lsap.editing.discovery import Discovery, Samples, existing_labels, read_labels
from lsap.editing.effects import Reader, side_effects, usable_range
from lsap.editing.readers import Probe
from lsap.errors import BadValue, nearest
from lsap.pipelines.build import Parts
from lsap.pipelines.devices import device_of
from lsap.pipelines.editing.edits import reader_label
from lsap.pipelines.editing.setup import domain_reader, embedder, label, read_samples
from lsap.reports.pictures import Column, grid, save, save_image
from lsap.runs import write_json, write_text
from lsap.seeds import derive

METHODS = ("slope", "interfacegan", "ganspace", "sefa")  # ours; each has its settings under its name
CHUNK = 64  # samples drawn at once


def discover(config: DictConfig) -> list[Path]:
    """Find directions and write each with its preview and its card; or draw samples to be labelled.

    Returns:
        The files of the directions; of `draw`, the table to fill in.

    Raises:
        BadValue, MissingFile: settings, labels or weights that cannot be used; nothing has been written.
    """
    if config.labels is not None:
        existing_labels(config.labels)
    method = _method(config)
    needs = [need for need in config.domain.needs if need.key == "generator.checkpoint"]
    refuse_missing(f"domain={config.domain.name}", config, needs)
    parts = Parts(config, device_of(config.accelerator))
    folder = Path(config.save_to or Path(config.outputs) / config.domain.name / "directions")
    if config.draw is not None:
        return [_draw(config, parts, folder / "samples")]
    reader = domain_reader(config, parts)
    samples = _samples(config, parts, reader, method.supervised)
    found = method.find(parts.generator, samples)
    if config.name is not None:
        if len(found) > 1:
            raise BadValue(f"name={config.name}, but {len(found)} directions were found; leave name out")
        found = [replace(found[0], name=str(config.name))]
    if config.probe:
        _probe(config, parts, samples, folder)
    return _kept(config, parts, reader, found, folder)


def _method(config: DictConfig) -> Discovery:
    """The method that is asked for, one of ours or of a YAML of the user's, built from the settings under its name.

    Raises:
        BadValue: there is none of this name.
    """
    node = config.get(str(config.method))
    found: Any = instantiate(node, _convert_="all") if OmegaConf.is_dict(node) and "_target_" in node else None
    if not hasattr(found, "find"):
        raise BadValue(f"method={config.method}: {nearest(str(config.method), METHODS)}")
    method: Discovery = found
    return method


# ---- samples


def _draw(config: DictConfig, parts: Parts, folder: Path) -> Path:
    """Images of new samples, their codes, and a table to fill in."""
    w = _drawn(config, parts, config.draw, "draw")
    names = [f"{number:05d}.png" for number in range(len(w))]
    with torch.no_grad():
        for first in range(0, len(w), CHUNK):
            images = parts.picture_rows(parts.generator(w[first : first + CHUNK]))
            for name, image in zip(names[first:], images, strict=False):
                save_image(image, folder / name)
    write_codes(folder / "codes.safetensors", Codes(w[:, None].cpu(), tuple(names)), parts.fingerprint)
    table = folder / "labels.csv"
    if table.exists():
        print(f"{table} is there already and stays as it is")
    else:
        write_text(table, "name,smile\n" + "".join(f"{name},\n" for name in names))
    print(
        f"{len(names)} samples in {folder}. Write 0, 1 or a score beside each in {table}, in as many columns "
        f"as you like, then: python -m lsap.discover domain={config.domain.name} method={config.method} "
        f"labels={table}"
    )
    return table


def _drawn(config: DictConfig, parts: Parts, count: int, purpose: str) -> Tensor:
    """w [count, C] of samples for one purpose."""
    rng = torch.Generator().manual_seed(derive(config.seed, "discover", purpose))
    with torch.no_grad():
        return parts.generator.sample_w(count, rng, psi=config.psi)


def _samples(config: DictConfig, parts: Parts, reader: Reader | None, supervised: bool) -> Samples:
    """The samples that directions are found on, labelled where the method needs labels."""
    if config.labels is not None:
        return _labelled(config, parts)
    w = _drawn(config, parts, config.samples, "samples")
    if not supervised:
        return Samples(w, parts.fingerprint)
    if reader is None:
        domain = config.domain.name
        raise BadValue(
            f"method={config.method} needs labels, and domain={domain} has no network that reads attributes: draw "
            f"samples with python -m lsap.discover domain={domain} draw=500, label them, and give labels=…; "
            "method=ganspace and method=sefa need none"
        )
    wanted = _attributes(config, list(reader.names))
    values = read_samples(w, parts, reader)
    labels = {name: values[:, list(reader.names).index(attribute)] for name, attribute in wanted.items()}
    return Samples(w, parts.fingerprint, labels, wanted, reader_label(reader))


def _labelled(config: DictConfig, parts: Parts) -> Samples:
    """Stored codes and the labels that a table gives them."""
    path = existing_labels(config.labels)
    codes = path.parent / "codes.safetensors" if config.codes is None else Path(config.codes)
    generator = parts.generator
    found = read_codes(codes, n_latent=generator.n_latent, style_dim=generator.style_dim, generator=parts.fingerprint)
    if found.names is None:
        raise BadValue(f"codes={codes}: the codes have no names, so nobody can tell whose a label is")
    if found.codes.ndim == 3 and not torch.equal(found.codes, found.codes[:, :1].expand_as(found.codes)):
        raise BadValue(f"codes={codes} are codes of W+; directions are found in W, on samples of the generator")
    w = found.codes if found.codes.ndim == 2 else found.codes[:, 0]
    table = read_labels(path, found.names)
    wanted = _attributes(config, list(table), edits=False)
    labels = {name: table[attribute] for name, attribute in wanted.items()}
    return Samples(w.to(parts.device), parts.fingerprint, labels, wanted, path.name)


def _attributes(config: DictConfig, known: list[str], edits: bool = True) -> dict[str, str]:
    """Name of a direction → attribute, as `attributes` says, else the domain's edits, else all that are known."""
    given: Any = config.attributes
    if given is None:
        given = config.domain.get("edits") if edits else None
    if given is None:
        given = known
    plain: Any = OmegaConf.to_container(given) if OmegaConf.is_config(given) else given
    wanted = (
        {str(k): str(v) for k, v in plain.items()} if isinstance(plain, Mapping) else {str(a): str(a) for a in plain}
    )
    for attribute in wanted.values():
        if attribute not in known:
            raise BadValue(f"attributes={config.attributes}: nobody labels {attribute!r}; {nearest(attribute, known)}")
    return wanted


def _probe(config: DictConfig, parts: Parts, samples: Samples, folder: Path) -> None:
    """Fit a linear reader to the labels and keep it."""
    if not samples.labels:
        raise BadValue("probe=true needs labels; give labels=…")
    network, owner = embedder(config, parts)
    with torch.no_grad():
        seen = [network.embed(parts.view(parts.generator(part))).float().cpu() for part in samples.w.split(CHUNK)]
    probe = Probe.fit(network, torch.cat(seen), {samples.attributes[n]: v for n, v in samples.labels.items()})
    path = probe.save(folder / "probe.safetensors", owner)
    quality = ", ".join(f"{name} {share:.2f}" for name, share in probe.quality.items())
    print(f"{path}: a reader of {quality} (share of the labels' variance that it explains)")


# ---- what is known of them, and files


def _kept(config: DictConfig, parts: Parts, reader: Reader | None, found: list[Direction], folder: Path) -> list[Path]:
    """Measure, save and show every direction."""
    tried = _drawn(config, parts, config.measured_on, "measured")
    typed = shlex.join(["python", "-m", "lsap.discover", *sys.argv[1:]])

    @torch.no_grad()
    def distance(codes: Tensor) -> Tensor:
        return nscd(parts.space.styles(codes), parts.space.mean).cpu()

    paths = []
    for one in found:
        known = _seen(one, found, tried, parts, reader)
        read = _attribute(one, parts, reader)
        direction = replace(one, usable=usable_range(_rows(tried, parts), one, distance, read), **known)
        path = folder / f"{direction.name}.safetensors"
        save_directions([direction], path)
        card = {f.name: getattr(direction, f.name) for f in fields(Direction) if f.name != "vector"}
        card["side_effects"] = dict(direction.side_effects)
        write_json(folder / f"{direction.name}.json", card | {"command": typed, "seed": config.seed})
        save(_preview(config, parts, direction, tried[: config.shown]), folder / f"{direction.name}.png")
        _say(direction)
        paths.append(path)
    print(folder)
    return paths


def _rows(w: Tensor, parts: Parts) -> Tensor:
    """w [N, C] as w_plus [N, L, C]."""
    return w[:, None].expand(-1, parts.generator.n_latent, -1)


def _attribute(one: Direction, parts: Parts, reader: Reader | None) -> Callable[[Tensor], Tensor] | None:
    """Codes → the attribute that a direction moves, where the reader knows it."""
    if reader is None or one.attribute not in reader.names:
        return None
    place = list(reader.names).index(str(one.attribute))
    return lambda codes: read_samples(codes, parts, reader)[:, place]


def _seen(one: Direction, found: list[Direction], tried: Tensor, parts: Parts, reader: Reader | None) -> dict[str, Any]:
    """Side effects: what a reader sees change, else how much other directions have in common with this one."""
    if reader is not None:
        read = reader
        effects = side_effects(
            _rows(tried, parts), one, lambda codes: read_samples(codes, parts, read), list(read.names)
        )
        return {
            "side_effects": effects,
            "measured": f"changes at strength 1, {reader_label(reader)}, {len(tried)} samples",
        }
    cosines = {}
    for other in found:
        if other.name != one.name and other.vector.shape == one.vector.shape:
            cosine = torch.cosine_similarity(one.vector.flatten(), other.vector.flatten(), dim=0).item()
            if abs(cosine) >= 0.05:
                cosines[other.name] = round(cosine, 3)
    return {"side_effects": cosines, "measured": "cosines to the other directions"}


@torch.no_grad()
def _preview(config: DictConfig, parts: Parts, direction: Direction, w: Tensor) -> Any:
    """A sheet: samples down, strengths over the usable range across."""
    low, high = direction.usable or (-1.0, 1.0)
    low, high = (-1.0, 1.0) if low == high else (low, high)
    columns = []
    for strength in torch.linspace(low, high, config.steps).tolist():
        moved = direction.moved(_rows(w, parts), strength)
        columns.append(Column(label(round(strength, 2)), parts.view(parts.generator(moved)), direction.name))
    return grid(columns)


def _say(direction: Direction) -> None:
    low, high = direction.usable or (0.0, 0.0)
    effects = "  ".join(f"{name} {value:+.2f}" for name, value in list(direction.side_effects.items())[:5])
    print(f"{direction.name:16} usable {low:g} to {high:g}  {effects}")
