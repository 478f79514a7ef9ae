"""From a configuration to the parts of an edit: the stored run, directions by name, strengths, who reads attributes."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from hydra.errors import MissingConfigException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig
from torch import Tensor

from lsap import checkpoints as formats
from lsap import demo
from lsap.checkpoints import Direction
from lsap.config.checks import present
from lsap.config.compose import composed, searchpath
from lsap.config.containers import editable
from lsap.config.stored import adopt, choice, read_settings, stored_text
from lsap.editing.discovery import Samples, Slope
from lsap.editing.effects import FixedStrength, MatchedEach, MatchedOnAverage, Reader, Strengths, beyond
from lsap.editing.readers import LandmarkPose, Probe
from lsap.errors import BadValue, LsapError, MissingFile, nearest
from lsap.pipelines.build import Parts
from lsap.pipelines.images import Chosen, chosen_images
from lsap.pretrained import Embedder
from lsap.runs import Store, changed_images, image_digests
from lsap.values import COUNT, expanded

SHIPPED = {"demo": Path(demo.__file__).parent / "directions"}  # directions that travel with the project, by domain
OF_THE_RUN = ("generator", "view", "image_size", "data")  # what an edit takes over from the run that it edits
LISTED = 4  # runs that a message names
SAMPLES = 2048  # that directions are found on where there is no file of them
MATCHED: dict[str, type[MatchedOnAverage] | type[MatchedEach]] = {"run": MatchedOnAverage, "image": MatchedEach}
FILES = (".safetensors", ".pt", ".pth", ".npy", ".npz", ".pkl")  # of directions
STEPS = 7
WIDE = 3.0  # strength up to which a direction of unknown range is shown


# ---- the stored run


def stored_run(config: DictConfig) -> tuple[Store, DictConfig]:
    """The run that `inversions` names, and the configuration completed by its domain, generator and images.

    Of the run's own `config.yaml` only values are taken over; see `config.stored.adopt`.

    Raises:
        BadValue, MissingFile: no finished run there, one of another domain than was typed, or one whose `config.yaml`
            holds what is not taken from a run folder.
    """
    if config.inversions is None:
        raise BadValue("inversions is not set: name a folder that lsap.invert wrote")
    path = expanded(str(config.inversions))
    if not (path / "plan.json").is_file():
        raise MissingFile(f"inversions={path} {no_run(path, config.outputs)}")
    store = Store.read(path)
    if left := store.unfinished():
        raise BadValue(f"{store.path}: {len(left)} of its batches are not done; give the command that makes it again")
    name = choice("domain", store.plan.settings.get("domain"), store.path / "plan.json")
    file = store.path / "config.yaml"
    stored = read_settings(file) if file.is_file() else {}
    if "domain" in config:
        if config.domain.name != name:
            raise BadValue(f"domain={config.domain.name}, but {store.path} holds inversions of domain={name}")
        whole = editable(config)
    else:
        whole = composed_for(store.path / "plan.json", "edit", [f"domain={name}"])
        for key in config:
            whole[key] = config[key]
        adopt(whole, stored, file, OF_THE_RUN, hint=f"domain={name} ")
    adopt_images(whole, stored, file)
    return store, whole


def composed_for(source: Path, verb: str, choices: Sequence[str]) -> DictConfig:
    """The configuration of a command under the choices that a run's file names, which are plain names.

    Raises:
        BadValue: there is no YAML of such a choice.
    """
    try:
        return composed(verb, choices, searchpath())
    except MissingConfigException as error:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        raise BadValue(
            f"{source} names {group}={name}, and there is no such {group} here; if it is one of your own, add the "
            "folder that holds its YAML: --config-dir=FOLDER"
        ) from error


def adopt_images(config: DictConfig, stored: Mapping[str, Any], file: Path) -> None:
    """Take `images`, `split` and `count` of a run's `config.yaml` where they were not typed.

    Raises:
        BadValue: they are no text and no number of images, or hold an interpolation.
    """
    for key in ("images", "split"):
        if config[key] is None:
            config[key] = stored_text(stored, key, file)
    if config.count is None and stored.get("count") is not None:
        COUNT.require(f"{file}: count", stored["count"])
        config.count = stored["count"]


def no_run(path: Path, outputs: str) -> str:
    """Why a path is no run of inversions, and which runs there are in it, beside it or below `outputs`."""
    if path.is_dir() and (below := runs_in(path)):
        return f"is no run; it holds: {_some(below)}"
    mend = "make some with python -m lsap.invert"
    if path.is_dir():
        return f"holds no inversions (it has no plan.json); {mend}"
    above = next((each for each in path.parents if each.is_dir()), Path())
    near = runs_in(above) if above != Path(above.anchor) else []  # not all of a disk
    near = near or [run for each in Path(outputs).glob("*/inversions") for run in runs_in(each)]
    return f"is no folder; {f'there are: {_some(near)}' if near else mend}"


def runs_in(folder: Path) -> list[Path]:
    """Runs of inversions in a folder, up to three folders down; sorted."""
    plans = [plan for depth in ("*", "*/*", "*/*/*") for plan in folder.glob(f"{depth}/plan.json")]
    return sorted(plan.parent for plan in plans if not plan.with_name("directions.safetensors").exists())  # no edits


def _some(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths[:LISTED])) + (", …" if len(paths) > LISTED else "")


def inverted_images(config: DictConfig, parts: Parts, store: Store) -> Chosen | None:
    """The images that were inverted, to be shown beside their edits; None, and a line why, where they are not found."""
    try:
        chosen = chosen_images(config, parts.view_size)
        digests = image_digests(chosen.source, [name for name in store.plan.names if name in chosen.places])
    except LsapError as error:
        print(f"strips are drawn without the input: {error}")
        return None
    if changed := changed_images(store.plan.digests, digests or {}):
        print(f"strips are drawn without the input: {changed[0]} is not the image that was inverted any more")
        return None
    return chosen


# ---- directions


@dataclass(frozen=True)
class Wanted:
    """A direction, and the strength that it was published with, if it was."""

    direction: Direction
    strength: float | None = None


def directions(config: DictConfig, parts: Parts) -> list[Wanted]:
    """What `direction` names, in order.

    Raises:
        BadValue, MissingFile: there is no such direction, it belongs to another generator, or two have one name.
    """
    wanted = config.direction
    specs = [str(one) for one in wanted] if isinstance(wanted, ListConfig | list) else [str(wanted)]
    found = [_direction(spec, config, parts) for spec in specs]
    names = [one.direction.name for one in found]
    if not names or len(set(names)) < len(names):
        raise BadValue(f"direction={specs}: expected at least one direction, and each once")
    return found


def _direction(spec: str, config: DictConfig, parts: Parts) -> Wanted:
    """The direction that one word names."""
    file, rest = _split(spec)
    if Path(file).suffix in FILES or "/" in file:
        return Wanted(_of_file(expanded(file), rest, spec, parts))
    if rest:
        raise BadValue(f"direction={spec}: only a file is followed by ':'; it ends in {', '.join(FILES)}")
    domain = config.domain.name
    own = Path(config.outputs) / domain / "directions" / f"{spec}.safetensors"
    shipped = SHIPPED.get(domain, Path("none")) / f"{spec}.safetensors"
    for path in (own, shipped):
        if path.is_file():
            return Wanted(_fitted(formats.read_direction(path, parts.fingerprint), parts))
    published = config.published.get(domain) or {}
    if spec in published:
        return _published(spec, published[spec], config, parts)
    if "reader" in config.domain and spec in config.domain.get("edits", {}):
        return Wanted(_found_at_once(spec, config, parts))
    there = known(config)
    raise MissingFile(
        f"direction={spec}: there is no such direction of domain={domain}; "
        + (nearest(spec, there) if there else f"find some with python -m lsap.discover domain={domain}")
    )


def known(config: DictConfig) -> list[str]:
    """Names of directions that the domain has: its own, shipped and published ones, what its reader can find."""
    domain = config.domain.name
    folders = (Path(config.outputs) / domain / "directions", SHIPPED.get(domain, Path("none")))
    there = [path.stem for folder in folders for path in folder.glob("*.safetensors")]
    named = config.domain.get("edits", {}) if "reader" in config.domain else {}
    return sorted({*there, *map(str, config.published.get(domain) or {}), *map(str, named or {})})


def _split(spec: str) -> tuple[str, list[str]]:
    """What names a file, and the words that follow it after colons; a name of a file may hold colons too."""
    words = spec.split(":")
    ends = [end for end in range(len(words), 0, -1) if expanded(":".join(words[:end])).is_file()]
    end = ends[0] if ends else 1
    return ":".join(words[:end]), words[end:]


def _of_file(path: Path, rest: Sequence[str], spec: str, parts: Parts) -> Direction:
    """A direction of a file, alone or one of several: FILE, FILE:NAME, FILE:NUMBER or FILE:COMPONENT:FIRST:END."""
    if path.is_dir():
        files = ", ".join(sorted(file.name for file in path.iterdir() if file.suffix in FILES)) or "none here"
        raise BadValue(f"direction={spec}: {path} is a folder; name a file of directions in it: {files}")
    if not path.is_file():
        raise MissingFile(f"direction={spec}: {path} does not exist; name a file of directions, or one by its name")
    rows, width, fingerprint = parts.generator.n_latent, parts.generator.style_dim, parts.fingerprint
    if not formats.holds_directions(path) and formats.is_components(formats.read_tensors(path)):
        components = formats.read_components(path, fingerprint)
        numbers = [int(word) for word in rest if re.fullmatch(r"\d{1,9}", word)]
        if len(numbers) < len(rest) or len(rest) not in (1, 3):
            raise BadValue(
                f"direction={spec}: a file of components (here 0 to {len(components.stds) - 1}) takes FILE:COMPONENT, "
                f"or FILE:COMPONENT:FIRST:END with the first row that is moved and the one after the last, as in "
                f"{path.name}:{min(16, len(components.stds) - 1)}:3:6"
            )
        ends = None if len(numbers) == 1 else (numbers[1], numbers[2])
        last = len(components.stds) - 1
        if numbers[0] > last or (ends is not None and ends[1] > rows):
            raise BadValue(
                f"direction={spec}: {path.name} holds the components 0 to {last}, and this generator has {rows} rows"
            )
        name = f"{path.stem}_{'_'.join(rest)}"
        return components.direction(numbers[0], ends, name, origin=f"the file {path.name}").fitted(rows, width)
    which = ":".join(rest) if rest else None
    return _fitted(formats.read_direction(path, fingerprint, which, n_latent=rows, style_dim=width), parts)


def _fitted(direction: Direction, parts: Parts) -> Direction:
    """A direction that fits the generator; raises BadValue where it does not."""
    return direction.fitted(parts.generator.n_latent, parts.generator.style_dim)


def _published(name: str, entry: DictConfig, config: DictConfig, parts: Parts) -> Wanted:
    """An edit of the table of published ones, which were found for the domain's published generator."""
    path = Path(config.weights) / "directions" / entry.file
    if not path.is_file():
        raise MissingFile(
            f"direction={name}: {path} is not there; python -m lsap.assets domain={config.domain.name} method=editing "
            "fetch=true gets it"
        )
    usual = composed("edit", [f"domain={config.domain.name}"], searchpath()).generator.checkpoint
    if Path(config.generator.checkpoint).stem != Path(usual).stem:
        print(f"note: {name} was found for the published generator; with other weights it means nothing")
    if "component" not in entry:
        found = _fitted(formats.read_direction(path, parts.fingerprint), parts)
        return Wanted(replace(found, name=name, attribute=name, licence="MIT"))
    rows = (int(entry.rows[0]), int(entry.rows[1]))
    found = formats.read_components(path, parts.fingerprint).direction(
        entry.component, rows, name, attribute=name, origin=f"GANSpace, {path.name}", licence="MIT"
    )
    return Wanted(_fitted(found, parts), float(entry.strength))


def _found_at_once(name: str, config: DictConfig, parts: Parts) -> Direction:
    """The slope of the domain's reader on new samples, as in `lsap.compare`, where no file holds the direction."""
    attribute = str(config.domain.edits[name])
    print(f"{name}: no file; found now on {SAMPLES} samples. python -m lsap.discover keeps it")
    reader = domain_reader(config, parts)
    assert reader is not None
    w = parts.generator.sample_w(SAMPLES, torch.Generator().manual_seed(config.seed))
    values = read_samples(w, parts, reader)[:, list(reader.names).index(attribute)]
    samples = Samples(w, parts.fingerprint, {name: values}, {name: attribute}, "the domain's reader")
    return Slope().find(parts.generator, samples)[0]


@torch.no_grad()
def read_samples(codes: Tensor, parts: Parts, reader: Reader, chunk: int = 64) -> Tensor:
    """Attributes [N, A] of the images of codes [N, C] or [N, L, C], on the CPU."""
    return torch.cat([reader(parts.view(parts.generator(part))).float().cpu() for part in codes.split(chunk)])


# ---- readers


def domain_reader(config: DictConfig, parts: Parts) -> Reader | None:
    """The network that reads attributes off this domain's images, where it has one."""
    if "reader" not in config.domain:
        return None
    reader: Reader = instantiate(config.domain.reader)
    return reader.to(parts.device) if isinstance(reader, torch.nn.Module) else reader


def reader(config: DictConfig, parts: Parts) -> Reader | None:
    """Who reads attributes here, by `reader`; None where nobody can.

    Raises:
        BadValue, MissingFile: a reader that cannot be used.
    """
    if config.reader is None:
        return domain_reader(config, parts)
    if config.reader == "landmarks":
        try:
            return LandmarkPose()
        except BadValue as error:
            raise BadValue(f"reader=landmarks: {error}") from error
    path = Path(str(config.reader))
    if not path.is_file():
        raise MissingFile(
            f"reader={path}: there is no such file; give 'landmarks', or a file of lsap.discover probe=true"
        )
    return Probe.load(path, *embedder(config, parts))


def embedder(config: DictConfig, parts: Parts) -> tuple[Embedder, str]:
    """The judge through which probes look, and its fingerprint.

    Raises:
        MissingFile: its file is not there.
    """
    node = config.judges.embedder
    if "checkpoint" in node and not present(config, "judges.embedder.checkpoint"):
        raise MissingFile(f"probes look through the domain's judge, and {node.checkpoint} is not there")
    network = instantiate(node).to(parts.device)
    return network, formats.fingerprint(network)


def column(direction: Direction, found: Reader | None, config: DictConfig) -> int | None:
    """Which column of the reader is the attribute of a direction; None where it cannot read it."""
    if found is None:
        return None
    edits = config.domain.get("edits") or {}
    names = list(found.names)
    for word in (direction.attribute, edits.get(direction.name), direction.name):
        if word in names:
            return names.index(word)
    return None


# ---- strengths


def strength_rule(config: DictConfig, wanted: Wanted, readable: bool) -> Strengths:
    """How strongly one direction is applied: by `strength`, or by `effect` where its attribute can be read.

    Where it cannot, the numbers of `effect` are taken as strengths, and the rule is called so.

    Raises:
        BadValue: both are given, numbers that cannot be read, or an unknown rule of matching.
    """
    if config.matched not in MATCHED:
        raise BadValue(f"matched={config.matched}: {nearest(str(config.matched), MATCHED)}")
    if config.strength is not None and config.effect is not None:
        raise BadValue("strength and effect are both given: an edit is made by one of them")
    if config.effect is not None:
        steps = numbers("effect", config.effect)
        if readable:
            rule: Strengths = MATCHED[config.matched](steps)
            return rule
        print(f"{wanted.direction.name}: nobody here can read what it changes; the numbers are taken as strengths")
        return _typed(wanted, FixedStrength(steps, "fixed strength, as nobody can read the effect"))
    if config.strength is not None:
        return _typed(wanted, FixedStrength(numbers("strength", config.strength)))
    if wanted.strength is not None:
        return FixedStrength([wanted.strength])
    low, high = wanted.direction.usable or (-WIDE, WIDE)
    return FixedStrength([round(float(value), 6) for value in torch.linspace(low, high, STEPS, dtype=torch.float64)])


def _typed(wanted: Wanted, rule: FixedStrength) -> FixedStrength:
    """Strengths that somebody typed; a line on stderr where they leave the direction's usable range."""
    if (line := beyond(wanted.direction, rule.steps)) is not None:
        print(line, file=sys.stderr)
    return rule


def numbers(name: str, value: Any) -> list[float]:
    """Numbers as `from:to:how many`, one number, or a list.

    Raises:
        BadValue: anything else, two equal numbers, or values that are not finite.
    """
    message = f"{name}={value}: write from:to:how many, as in {name}=-3:3:7, one number, or a list [-2,0,2]"
    if isinstance(value, str) and ":" in value:
        parts = value.split(":")
        if len(parts) != 3 or not re.fullmatch(r"\d+", parts[2]):
            raise BadValue(message)
        first, last = (_finite(word, message) for word in parts[:2])
        count = int(parts[2])
        if count < 2 or first == last:
            raise BadValue(
                f"{name}={value}: at least two steps between two different numbers; for one, {name}={first:g}"
            )
        return [round(first + (last - first) * step / (count - 1), 6) + 0.0 for step in range(count)]
    found = [_finite(one, message) for one in (value if isinstance(value, ListConfig | list) else [value])]
    if not found or len({label(one) for one in found}) < len(found):
        raise BadValue(f"{name}={value}: expected at least one number, and each once")
    return found


def _finite(value: Any, message: str) -> float:
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise BadValue(message)
    return found


def label(step: float) -> str:
    """A step as folders and captions call it: `-1.5`, `0`, `+2`."""
    return f"{step:+g}" if step else "0"
