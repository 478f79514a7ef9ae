"""What the page of `python -m lsap.app` does, without the page: a picture's inversion, edits, numbers, codes."""

from __future__ import annotations

import io
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from PIL import Image

from lsap.api.image_inputs import Pictures
from lsap.api.inverter import Inverter, configured
from lsap.api.loading import FILE, domains, load
from lsap.checkpoints import Codes, Direction, read_card, write_codes
from lsap.cli.messages import explain
from lsap.config.checks import optimises
from lsap.config.compose import composed, searchpath
from lsap.config.containers import editable
from lsap.data.storage import FORMATS, decoded, reason
from lsap.editing.effects import incremental
from lsap.errors import BadValue, LsapError, nearest
from lsap.evaluation.rows import Row
from lsap.inversion import Inversion, Watch
from lsap.pipelines.editing.setup import WIDE
from lsap.reports.pictures import tile
from lsap.runs import read_json

SHOWN = 384  # pixels of the longer side of a shown picture
READ = 0.15  # standard deviations; smaller changes of an attribute are not worth a word


@dataclass(frozen=True)
class Slider:
    """One direction on the page: its range in its own unit, and what is known of it."""

    direction: Direction
    low: float
    high: float

    @property
    def text(self) -> str:
        """Unit and origin, for who wants to know."""
        return f"{self.direction.unit}; {self.direction.origin}" if self.direction.origin else self.direction.unit


@dataclass(frozen=True)
class Turn:
    """One inverted picture of one visitor; its folder is deleted with it.

    Attributes:
        method: the embedding and the refinement, as the page lists them.
        inverter: what made it.
        photo: the picture, as it was read.
        inversion: of it, refined or not.
        row: its numbers.
        warning: one line where the picture is probably outside the domain; else empty.
        folder: for files to download.
    """

    method: str
    inverter: Inverter
    photo: Pictures
    inversion: Inversion
    row: Row
    warning: str = ""
    folder: tempfile.TemporaryDirectory[str] = field(default_factory=tempfile.TemporaryDirectory)


class Playground:
    """Embeddings of one domain, its sample images and its directions.

    Args:
        config: of `conf/app.yaml`.

    Attributes:
        first: the inverter that is chosen at the start; it also reads the images.

    Raises:
        BadValue, MissingFile: a number that cannot work, or no embedding that does.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        self._trained: dict[str, Path] = {}
        self._loaded: dict[str, Inverter] = {}
        self.first = self._find()

    def _find(self) -> Inverter:
        """Find all that is offered; trained encoders come first, and each is loaded when it is first used."""
        config, reasons = self.config, list[str]()
        of_domain = config.source in domains()
        if of_domain and config.embeddings is None:
            self._trained = trained_encoders(config.source, config.settings)
        wanted = config.embeddings or (config.candidates if of_domain else [None])
        for name in wanted:
            try:
                made = load(config.source, *map(str, config.settings), domain=config.shows, embedding=name)
            except LsapError as error:
                if config.embeddings is not None or not of_domain:
                    raise
                reasons.append(str(error))
                continue
            if optimises(made.config):
                short = editable(made.config)
                short.steps = config.steps
                made = Inverter(short)
            self._loaded[made.embedding] = made
        own = next(iter(self._loaded.values()), None)
        for name, path in list(self._trained.items()):
            try:
                own = own or self.inverter(name)
                if read_card(path / FILE).get("generator") != own.generator:
                    raise BadValue("it was trained for another generator")
                if name == self.embeddings[0]:
                    self.inverter(name)
            except LsapError as error:
                reasons.append(str(error))
                print(f"{self._trained.pop(name)} is not offered: {error}", file=sys.stderr)
        if not self.embeddings:
            raise BadValue(f"none of the embeddings {', '.join(map(str, wanted))} works here; the first: {reasons[0]}")
        return self.inverter(self.embeddings[0])

    # ---- what there is to choose from

    @property
    def embeddings(self) -> list[str]:
        """What the page lists: trained encoders by their settings, then embeddings by optimisation."""
        return list(self._trained | self._loaded)

    @cached_property
    def samples(self) -> Pictures | None:
        """The domain's own images; None where none are at hand."""
        try:
            return self.first.images(count=self.config.samples)
        except LsapError:
            return None

    @cached_property
    def sliders(self) -> list[Slider]:
        """The first directions that belong to the generator, over their usable ranges."""
        found = []
        for name in self.first.directions:
            try:
                direction = incremental(self.first.direction(name))
            except LsapError:
                continue
            low, high = direction.usable or (-WIDE, WIDE)
            found.append(Slider(direction, min(low, -1.0), max(high, 1.0)))
        return found[: self.config.directions]

    def refinements(self, embedding: str) -> list[str]:
        """Refinements that work over an embedding, `none` first."""
        return sorted(self.inverter(embedding).refinements, key=lambda name: name != "none")

    def inverter(self, embedding: str) -> Inverter:
        """The inverter of an embedding that is offered.

        Raises:
            BadValue, MissingFile: it is not offered, or its encoder cannot be loaded.
        """
        if embedding not in self.embeddings:
            raise BadValue(f"embedding={embedding} is not offered here; {nearest(embedding, self.embeddings)}")
        if embedding not in self._loaded:
            config = self.config
            self._loaded[embedding] = load(self._trained[embedding], *map(str, config.settings), domain=config.source)
        return self._loaded[embedding]

    # ---- what a visitor does

    def upload(self, data: bytes, name: str = "upload") -> Pictures:
        """An uploaded picture, checked and decoded by lsap's own few decoders.

        Args:
            data: the file.
            name: of the file; warnings and downloaded codes hold it.

        Raises:
            BadValue: no picture, a broken one, or one that is too large.
        """
        if len(data) > self.config.upload_mb * 1_000_000:
            raise BadValue(f"this file has {len(data) / 1e6:.1f} MB; at most {self.config.upload_mb} MB are taken")
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
            if width * height > self.config.upload_megapixels * 1_000_000:
                most = self.config.upload_megapixels
                raise BadValue(f"this picture has {width}x{height} pixels; at most {most} million are taken")
            picture = decoded(data)
        except LsapError:
            raise
        except Exception as error:  # on broken bytes decoders raise almost anything
            raise BadValue(
                f"this is no picture that can be read ({reason(error)}); give a PNG, JPEG or WebP file"
            ) from error
        return Pictures((name,), self.first.images(picture).images)

    def sample(self, place: int) -> Pictures:
        """One of the domain's own images."""
        assert self.samples is not None
        return self.samples.select([self.samples.names[place]])

    def invert(self, photo: Pictures, embedding: str, refinement: str = "none", watch: Watch | None = None) -> Turn:
        """Invert one picture; raises as `Inverter.embed` and `Inverter.refine` do."""
        inverter = self.inverter(embedding)
        refined = refinement != "none"

        def first(share: float, losses: Mapping[str, float]) -> None:
            if watch is not None:
                watch(share / (2 if refined else 1), losses)

        def second(share: float, losses: Mapping[str, float]) -> None:
            if watch is not None:
                watch((1 + share) / 2, losses)

        inversion = inverter.embed(photo, watch=first, warn=False)
        warning = inverter.outside(inversion, photo) or ""
        if refined:
            options = {"steps": self.config.refinement_steps} if refinement in ("pti", "sam") else {}
            inversion = inverter.refine(inversion, photo, refinement, watch=second, **options)
        method = embedding if not refined else f"{embedding} + {refinement}"
        row = inverter.measure(inversion, photo)[photo.names[0]]
        return Turn(method, inverter, photo, inversion, row, warning)

    def edited(self, turn: Turn, strengths: Sequence[float]) -> Inversion:
        """The inversion under all sliders together."""
        moved = turn.inversion
        for slider, strength in zip(self.sliders, strengths, strict=True):
            if strength:
                moved = turn.inverter.edit(moved, slider.direction, strength, warn=False)
        return moved

    def numbers(self, turn: Turn, edited: Inversion) -> list[tuple[str, str, str, str]]:
        """Rows of a table: what, MSE, LPIPS, NSCD; an edit has no picture to be compared with."""
        row = turn.row
        (score,) = turn.inverter.nscd(edited).tolist()
        return [
            ("inversion", _digits(row["mse"]), _digits(row["lpips"]), _digits(row["nscd"])),
            ("edit", "", "", _digits(score)),
            ("synthetic", "", "", _digits(turn.inverter.synthetic)),
        ]

    def changes(self, turn: Turn, edited: Inversion) -> dict[str, float]:
        """Attribute → what the domain's reader sees the edit change, the largest first; empty where nobody reads."""
        before, after = (turn.inverter.attributes(one) for one in (turn.inversion, edited))
        found = {name: (after[name] - before[name]).item() for name in before}
        return dict(sorted(((n, v) for n, v in found.items() if abs(v) >= READ), key=lambda pair: -abs(pair[1])))

    def file(self, turn: Turn, edited: Inversion) -> Path:
        """The codes of the inversion and of the edit in one file, with names and the generator's fingerprint."""
        name = Path(turn.photo.names[0]).stem
        kept = [(name, turn.inversion)] + ([(f"{name} edited", edited)] if edited is not turn.inversion else [])
        codes = torch.cat([inversion.codes for _, inversion in kept])
        path = Path(turn.folder.name) / f"codes-{'+'.join(turn.inversion.history)}.safetensors"
        return write_codes(path, Codes(codes, tuple(each for each, _ in kept)), turn.inversion.generator)


def trained_encoders(domain: str, settings: Sequence[str] = ()) -> dict[str, Path]:
    """Finished trainings of encoders below `outputs/<domain>`: label → folder, those of default settings first.

    A label holds the embedding, `lambda_nscd` and what differs from the defaults: "lsap_e, lambda_nscd=0". Only the
    record of a run is read, and of that only numbers, truth values and short words.

    Args:
        domain: by its name.
        settings: as typed for `lsap.invert`; `outputs=` says where runs lie.
    """
    typed = [setting for setting in map(str, settings) if setting.startswith("outputs=")]
    root = Path(configured([f"domain={domain}", *typed]).outputs) / domain
    found: dict[str, Path] = {}
    for file in sorted(root.glob(f"*/*/{FILE}"), key=lambda file: (file.parent.name != "default", file)):
        path = file.parent
        try:
            record = read_json(path / "run.json", "train it again", dict)
            if record.get("status") != "finished":
                continue
            label = _label(domain, path.parent.name, record.get("settings"))
        except (LsapError, HydraException, OmegaConfBaseException) as error:
            print(f"{path} is not offered: {explain(error, 'train') or error}", file=sys.stderr)
            continue
        found[label if label not in found else f"{label} ({path.name})"] = path
    return found


def _label(domain: str, embedding: str, settings: Any) -> str:
    """The name of a trained encoder on the page, by its embedding and the scalars among its stored settings."""
    usual = composed("train", [f"domain={domain}", f"embedding={embedding}"], searchpath())
    stored = settings if isinstance(settings, dict) else {}
    named = {
        key: value
        for key, value in stored.items()
        if isinstance(usual.get(key), int | float | str)
        and (isinstance(value, int | float) or (isinstance(value, str) and re.fullmatch(r"[\w.+-]{1,40}", value)))
        and (key == "lambda_nscd" or value != usual[key])
    }
    ordered = sorted(named.items(), key=lambda pair: pair[0] != "lambda_nscd")
    words = [f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in ordered]
    return ", ".join([embedding, *words])


def shown(inverter: Inverter, what: Pictures | Inversion) -> Image.Image:
    """A picture for the eye: small ones enlarged."""
    if isinstance(what, Pictures):
        return tile(what.images[0], SHOWN)
    (picture,) = inverter.draw(what)
    longest = max(picture.size)
    if longest >= SHOWN:
        return picture
    size = (picture.width * SHOWN // longest, picture.height * SHOWN // longest)
    return picture.resize(size, Image.Resampling.LANCZOS)


def _digits(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
