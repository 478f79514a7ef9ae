"""What takes part in an evaluation: stored runs and folders of any tool's pictures, paired with images by name."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig
from torch import Tensor

from lsap.checkpoints import code_files, file_digest, read_codes
from lsap.checkpoints.codes import SUFFIXES as SUFFIXES_OF_CODES
from lsap.config.checks import optimises
from lsap.config.compose import composed, searchpath
from lsap.config.containers import as_written, editable
from lsap.config.stored import NOT_OF_AN_ENCODER, adopt, choice, component, read_settings, stored_text
from lsap.data.folder import listing
from lsap.data.storage import are_images
from lsap.errors import BadValue, MissingFile, nearest
from lsap.inversion import FixedNoise, Inversion
from lsap.pipelines.build import Parts
from lsap.pipelines.editing.setup import OF_THE_RUN, adopt_images, composed_for, no_run, runs_in
from lsap.pipelines.images import Chosen
from lsap.reports.inversion_reports import title
from lsap.runs import Batch, Plan, Store, changed_images, files_digest, image_digests, read_json
from lsap.runs.store import stem
from lsap.stylegan2 import StyleGenerator
from lsap.values import expanded

CODES = ("codes", "w_plus", "latents", "latent", "w")  # what a file of codes beside a tool's pictures may be called
AGAIN = "and give the command that made the run again"
LISTED = 3  # images that a message names


class Bare:
    """Codes without a store, as another tool leaves them, drawn by the generator as it is.

    Args:
        names, codes: of the images, [N, L, C].
        fingerprint: of the generator.
    """

    def __init__(self, names: Sequence[str], codes: Tensor, fingerprint: str) -> None:
        self.codes, self.fingerprint = dict(zip(names, codes, strict=True)), fingerprint
        self.batches = Plan(tuple(names), 32, {}).batches

    def load(self, batch: Batch, generator: StyleGenerator) -> Inversion:
        """The inversion of a batch."""
        codes = torch.stack([self.codes[name] for name in batch.names])
        return Inversion(batch.names, codes, self.fingerprint, FixedNoise(generator), history=("codes of a file",))

    def inversions(self, generator: StyleGenerator) -> Iterator[Inversion]:
        """All of them, batch by batch."""
        for batch in self.batches:
            yield self.load(batch, generator)


@dataclass(frozen=True)
class MethodOutputs:
    """One method: its pictures, and what else is known of its inversions.

    Attributes:
        name: in tables.
        path: its folder.
        pictures: image name → file.
        source: the inversions themselves; None where there are only pictures.
        codes: image name → [L, C].
        summary: what its own `summary.json` says; empty for folders of other tools.
        lost: image name → why it has no picture.
        digest: changes when any of this does.
    """

    name: str
    path: Path
    pictures: Mapping[str, Path]
    source: Store | Bare | None = None
    codes: Mapping[str, Tensor] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    lost: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""

    @property
    def seconds(self) -> float | None:
        """Working time per image of its last stage, batched as it ran, by its `times.json`."""
        file = self.path / "times.json"
        found = read_json(file, f"delete it and summary.json, {AGAIN}", dict) if file.is_file() else {}
        value = found.get("seconds_per_image")
        return None if value is None else float(value)


# ---- configuration


def completed(config: DictConfig) -> DictConfig:
    """The configuration with its domain, generator, images and protocol, from the first stored run where not typed.

    Of a run's own `config.yaml` only values are taken over; see `config.stored.adopt`.

    Raises:
        BadValue, MissingFile: no runs, folders that are not there, an unknown domain, or a `config.yaml` that holds
            what is not taken from a run folder.
    """
    paths = [path for _, path in named_runs(config)]
    stores = [Store.read(path) for path in paths if (path / "plan.json").is_file()]
    first = stores[0] if stores else None
    typed = config.domain.name if "domain" in config else None
    name = typed
    if name is None:
        if first is None or first.plan.settings.get("domain") is None:
            raise BadValue("none of these runs says which domain it is of; give domain=, as in domain=face")
        name = _choice("domain", first)
    for store in stores:
        if store.plan.settings.get("domain") != name:
            raise BadValue(f"{store.path} holds inversions of domain={store.plan.settings.get('domain')}, not {name}")
    file, stored = _kept(first)
    if typed is None or "protocol" not in config:
        usual = composed_for(file.parent / "plan.json", "evaluate", [f"domain={name}"]).domain
        chosen = config.protocol.name if "protocol" in config else usual.get("protocol", "psp256")
        whole = composed("evaluate", [f"domain={name}", f"protocol={chosen}"], searchpath())
        for key, value in as_written(config).items():
            whole[key] = value
        if typed is None:
            adopt(whole, stored, file, OF_THE_RUN, hint=f"domain={name} ")
    else:
        whole = editable(config)
    adopt_images(whole, stored, file)
    return whole


def _kept(store: Store | None) -> tuple[Path, dict[str, Any]]:
    """A stored run's `config.yaml`, and the settings in it; none where there is none."""
    file = Path() if store is None else store.path / "config.yaml"
    return file, read_settings(file) if file.is_file() else {}


def _choice(group: str, store: Store) -> str:
    """The choice of a config group that a stored run names; raises BadValue where it is no plain name."""
    return choice(group, store.plan.settings.get(group), store.path / "plan.json")


def embedding_config(store: Store) -> DictConfig:
    """The configuration that a stored run embedded with, its classes those of our own YAML, `checkpoint` its encoder.

    Of an optimisation it is the usual one: nothing of it is taken from the run.

    Raises:
        BadValue: there is no YAML of its embedding, another encoder lies where its own was, or its `config.yaml` holds
            what is not taken from a run folder.
        MissingFile: its encoder's file is gone.
    """
    file, stored = _kept(store)
    groups = [f"{group}={_choice(group, store)}" for group in ("domain", "embedding")]
    whole = composed_for(store.path / "plan.json", "invert", groups)
    if optimises(whole):
        return whole
    adopt(whole, stored, file, skip=NOT_OF_AN_ENCODER)
    if (digest := store.plan.settings.get("encoder")) is not None:
        whole.checkpoint = str(_encoder_file(store, str(digest)))
    return whole


def _encoder_file(store: Store, digest: str) -> Path:
    """The file of the encoder that a run embedded with."""
    source, stored = _kept(store)
    if (given := stored_text(stored, "checkpoint", source)) is not None:
        file = expanded(given)
    else:
        run = component("run", store.plan.settings.get("run"), store.path / "plan.json")
        outputs = Path(stored_text(stored, "outputs", source) or "outputs")
        file = outputs / _choice("domain", store) / _choice("embedding", store) / run / "encoder.safetensors"
    if not file.is_file():
        raise MissingFile(f"{file}, the encoder of this run, is not there any more")
    if file_digest(file)[: len(digest)] != digest:
        raise BadValue(f"{file} is not the encoder of this run any more")
    return file


def named_runs(config: DictConfig) -> list[tuple[str | None, Path]]:
    """(name or None, folder) of every run that `runs` names.

    Raises:
        BadValue: none is named, or one twice.
        MissingFile: a folder is not there.
    """
    runs = config.runs
    if isinstance(runs, DictConfig):
        found: list[tuple[str | None, Path]] = [(str(name), Path(str(path))) for name, path in runs.items()]
    else:
        found = [(None, Path(str(path))) for path in (runs if isinstance(runs, ListConfig) else [runs] if runs else [])]
    if not found:
        raise BadValue("runs is not set: name folders, as in runs=[outputs/face/inversions/e4e/default,other/pictures]")
    found = [(name, expanded(path)) for name, path in found]
    places = [path.resolve() for _, path in found]
    for (_, path), place in zip(found, places, strict=True):
        if places.count(place) > 1:
            raise BadValue(f"runs names {path} twice")
        if not path.is_dir():
            commas = "; a path with a comma in it needs quotes, as in runs=['a,b']" if len(found) > 1 else ""
            raise MissingFile(f"runs: {path} {no_run(path, config.outputs)}; or name a folder of pictures{commas}")
        if not (path / "plan.json").is_file() and runs_in(path):
            raise BadValue(f"runs: {path} {no_run(path, config.outputs)}")
    return found


# ---- runs


def methods(config: DictConfig, parts: Parts, chosen: Chosen) -> tuple[list[MethodOutputs], list[str]]:
    """All methods and the names of the images that they are compared on, in the order of the images.

    Raises:
        BadValue: runs of different images, or of another generator, or a run that is not finished.
    """
    pairs = named_runs(config)
    found = [
        stored_method(path, parts) if (path / "plan.json").is_file() else _folder(path, parts, chosen)
        for _, path in pairs
    ]
    titles = [name or one.name for (name, _), one in zip(pairs, found, strict=True)]
    called = [t if titles.count(t) == 1 else f"{t} ({one.path.name})" for t, one in zip(titles, found, strict=True)]
    if len(set(called)) < len(called):
        raise BadValue(f"runs are called alike: {', '.join(called)}; give them names, as in runs={{a: …, b: …}}")
    found = [replace(one, name=name) for one, name in zip(found, called, strict=True)]
    names = shared(found, common=bool(config.common))
    unknown = sorted(names - set(chosen.places))
    if unknown:
        raise BadValue(
            f"{len(unknown)} images of the runs are not among the images of {chosen.label} ({_listed(unknown)}); name "
            "those that were inverted with images=, or the split with split="
        )
    ordered = [name for name in chosen.source.names if name in names]
    refuse_other_images([one.source for one in found if isinstance(one.source, Store)], chosen, ordered)
    return found, ordered


def refuse_other_images(stores: Sequence[Store], chosen: Chosen, names: Sequence[str]) -> None:
    """Refuse runs that were made of other images than the given ones, where names are equal but contents are not.

    Raises:
        BadValue: the size or the digest of an image differs from what a run recorded.
    """
    digests = image_digests(chosen.source, names)
    for store in stores if digests is not None else ():
        if changed := changed_images(store.plan.digests, digests or {}):
            raise BadValue(
                f"{store.path} was made of other images than those of {chosen.label}, although their names are equal: "
                f"{len(changed)} of {len(names)} differ ({_listed(changed)}); name the images that were inverted with "
                "images=, or invert these anew"
            )
        if not store.plan.digests:
            print(f"{store.path} recorded only the names of its images: not compared by content", file=sys.stderr)


def shared(found: Sequence[MethodOutputs], common: bool) -> set[str]:
    """The images that all methods have.

    Raises:
        BadValue: they differ, unless `common` asks for those that all have; or there is none.
    """
    names = set(found[0].pictures).intersection(*(one.pictures for one in found[1:]))
    for one in found[1:] if not common else ():
        first = found[0]
        parts = []
        for a, b in ((first, one), (one, first)):
            if lacking := sorted(set(a.pictures) - set(b.pictures)):
                why = next((f"; {name}: {b.lost[name]}" for name in lacking if name in b.lost), "")
                parts.append(f"{b.name} lacks {len(lacking)} that {a.name} has ({_listed(lacking)}{why})")
        if parts:
            raise BadValue(
                f"runs of different images cannot stand in one table: {' and '.join(parts)}. common=true compares on "
                f"the {len(names)} that all have"
            )
    if not names:
        raise BadValue(f"{' and '.join(one.name for one in found)} have no image in common")
    return names


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + (", …" if len(names) > LISTED else "")


def stored_method(path: Path, parts: Parts) -> MethodOutputs:
    """A run that `lsap.invert` wrote.

    Raises:
        BadValue: it is not finished, or it belongs to another generator.
    """
    store = Store.read(path)
    if left := store.unfinished():
        raise BadValue(f"{path}: {len(left)} of its batches are not done; give the command that makes it again")
    file = path / "summary.json"
    summary = read_json(file, f"delete it, {AGAIN}", dict) if file.is_file() else {}
    settings = store.plan.settings
    called = title(summary) if summary else str(settings.get("embedding", path.name))
    store.check_generator(parts.fingerprint)
    names, codes = store.codes()
    rows = {row["name"]: row for row in store.rows()}
    lost = {name: str(row.get("skipped") or row.get("failed")) for name, row in rows.items() if name not in set(names)}
    pictures = {name: store.picture(name) for name in names}
    by_name = dict(zip(names, codes.float(), strict=True))
    return MethodOutputs(called, path, pictures, store, by_name, summary, lost, store.plan.hash)


def _folder(path: Path, parts: Parts, chosen: Chosen) -> MethodOutputs:
    """A folder of pictures that any tool made, and its codes where it has a file of them."""
    own = path / "images"
    root = own if own.is_dir() and not are_images([file.name for file in path.iterdir()]) else path
    files = are_images(listing(root))
    if not files:
        raise BadValue(f"runs: {path} holds no pictures; name a folder that lsap.invert wrote, or one of pictures")
    pairs = paired(files, chosen.names)
    if not pairs:
        raise BadValue(
            f"runs: no picture of {path} is called as an image of {chosen.label}; {files[0]}: "
            f"{nearest(stem(files[0]), [stem(name) for name in chosen.names[:20]])}"
        )
    if len(pairs) < len(files):
        print(f"{path}: {len(files) - len(pairs)} pictures belong to no image; left out", file=sys.stderr)
    codes = _codes(path, parts, files, pairs)
    source = Bare(list(codes), torch.stack(list(codes.values())), parts.fingerprint) if codes else None
    pictures = {name: root / file for name, file in pairs.items()}
    lost = {name: "there is no picture of it" for name in chosen.names if name not in pairs}
    contents = [files_digest(list(pictures.values()))] + [f"{c.double().sum():.9g}" for c in codes.values()]
    return MethodOutputs(
        path.name, path, pictures, source, codes, {}, lost, hashlib.sha256("/".join(contents).encode()).hexdigest()
    )


def _codes(path: Path, parts: Parts, files: Sequence[str], pairs: Mapping[str, str]) -> dict[str, Tensor]:
    """Codes [L, C] by image name, from what lies beside a tool's pictures: one file, or a file per picture.

    Codes without names are in the order of the pictures.
    """
    there = [path / f"{name}{suffix}" for name in CODES for suffix in ("", *SUFFIXES_OF_CODES)]
    file = next((one for one in there if one.is_file() or (one.is_dir() and code_files(one))), None)
    if file is None and {stem(name) for name in code_files(path)} & {stem(file) for file in files}:
        file = path
    if file is None:
        return {}
    rows, config = parts.generator.n_latent, parts.config
    found = read_codes(
        file, n_latent=rows, style_dim=parts.generator.style_dim, generator=parts.fingerprint, codes_in=config.codes_in
    )
    codes = found.rows(rows)
    if found.names is None and len(codes) != len(files):
        raise BadValue(
            f"{file} holds {len(codes)} codes without names beside {len(files)} pictures; give as many codes as "
            "pictures, or name → code"
        )
    names = found.names if found.names is not None else in_order(files, config.codes_order, file)
    own = {name: pairs[name] for name in pairs if name in set(names)}  # of the image, else of its picture
    places = {name: place for place, name in enumerate(names)}
    by_picture = paired(names, [pairs[name] for name in pairs if name not in own])
    chosen = {n: places[n] for n in own} | {n: places[by_picture[p]] for n, p in pairs.items() if p in by_picture}
    if len(chosen) < len(codes):
        lost = [name for name, place in places.items() if place not in set(chosen.values())]
        print(
            f"{file}: {len(lost)} of {len(codes)} codes belong to no image ({_listed(lost)}); left out", file=sys.stderr
        )
    return {name: codes[chosen[name]] for name in pairs if name in chosen}


def in_order(files: Sequence[str], order: str | None, codes: Path) -> list[str]:
    """The files in the order that codes without names are in.

    Args:
        files: names of pictures.
        order: "text" (1, 10, 2), "natural" (1, 2, 10), or None.
        codes: the file of codes, for the message.

    Raises:
        BadValue: `order` is None and both orders differ, or another word.
    """
    orders = {"text": sorted(files), "natural": sorted(files, key=_natural)}
    if order is not None and order not in orders:
        raise BadValue(f"codes_order={order}: {nearest(order, orders)}")
    if order is None and orders["text"] != orders["natural"]:
        first = next(n for n, pair in enumerate(zip(*orders.values(), strict=True)) if pair[0] != pair[1])
        raise BadValue(
            f"{codes} holds codes without names, and the order of the pictures is not clear: code {first + 1} belongs "
            f"to {orders['text'][first]} in text order and to {orders['natural'][first]} in natural order; give "
            "codes_order=text or codes_order=natural"
        )
    return orders[order or "text"]


def _alone(name: str) -> str:
    return stem(name).rpartition("/")[2]


def _natural(name: str) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def paired(files: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Image name → file of its picture, where that tells all apart.

    By path without suffix; else by file name alone; else the picture is the image's whole name and a suffix, as lsap
    calls those of images that differ only in their suffixes.
    """
    keys: tuple[tuple[Callable[[str], str], Callable[[str], str]], ...] = (
        (stem, stem), (_alone, _alone), (stem, str), (_alone, lambda name: name.rpartition("/")[2])
    )  # fmt: skip
    for of_file, of_image in keys:
        by_key = {of_file(file): file for file in files}
        wanted = [of_image(name) for name in names]
        if len(by_key) < len(files) or len(set(wanted)) < len(wanted):
            continue
        if pairs := {name: by_key[word] for name, word in zip(names, wanted, strict=True) if word in by_key}:
            return pairs
    return {}
