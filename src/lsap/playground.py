"""What the page of `python -m lsap.app` does, without the page: a picture's inversion, edits, numbers, codes."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from omegaconf import DictConfig
from PIL import Image

from lsap.cli import positive
from lsap.data.storage import FORMATS, decoded, reason
from lsap.editing.effects import incremental
from lsap.editors import WIDE
from lsap.embedders import optimises
from lsap.errors import BadValue, LsapError, nearest
from lsap.evaluation.fidelity import Row
from lsap.evaluation.pictures import tile
from lsap.formats import Codes, Direction, write_codes
from lsap.given import Pictures
from lsap.inversion import Inversion, Watch
from lsap.inverter import Inverter
from lsap.loading import domains, load

SHOWN = 384  # pixels of the longer side of a shown picture
READ = 0.15  # standard deviations; smaller changes of an attribute are not worth a word


@dataclass(frozen=True)
class Slider:
    """One direction on the page: its range in its own unit, and what is known of it."""

    direction: Direction
    low: float
    high: float

    @property
    def told(self) -> str:
        """Unit and origin, for who wants to know."""
        return f"{self.direction.unit}; {self.direction.origin}" if self.direction.origin else self.direction.unit


@dataclass(frozen=True)
class Turn:
    """One inverted picture of one visitor; its folder goes when it does.

    Attributes:
        inverter: what made it.
        photo: the picture, as it was read.
        inversion: of it, refined or not.
        row: its numbers.
        folder: for files to download.
    """

    inverter: Inverter
    photo: Pictures
    inversion: Inversion
    row: Row
    folder: tempfile.TemporaryDirectory[str] = field(default_factory=tempfile.TemporaryDirectory)


class Playground:
    """Embeddings of one domain, its sample images and its directions.

    Args:
        config: of `conf/app.yaml`.

    Raises:
        BadValue, MissingFile: a number that cannot work, or no embedding that does.
    """

    def __init__(self, config: DictConfig) -> None:
        for name in ("steps", "refinement_steps", "samples", "upload_mb", "upload_megapixels", "port"):
            positive(name, config[name])
        self.config = config
        self.inverters = self._offered()
        self.first = next(iter(self.inverters.values()))

    def _offered(self) -> dict[str, Inverter]:
        """Embedding → inverter, those that work here; an encoder's file is one embedding."""
        config, found, why = self.config, dict[str, Inverter](), ""
        wanted = config.embeddings or (config.candidates if config.source in domains() else [None])
        for name in wanted:
            try:
                made = load(config.source, *map(str, config.settings), domain=config.shows, embedding=name)
            except LsapError as error:
                if config.embeddings is not None or len(wanted) == 1:
                    raise
                why = why or str(error)
                continue
            if optimises(made.config):
                short = made.config.copy()
                short.steps = config.steps
                made = Inverter(short)
            found[made.embedding] = made
        if not found:
            raise BadValue(f"none of the embeddings {', '.join(map(str, wanted))} works here; the first: {why}")
        return found

    # ---- what there is to choose from

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
        """The inverter of an embedding; raises BadValue where it is not offered."""
        if embedding not in self.inverters:
            raise BadValue(f"embedding={embedding} is not offered here; {nearest(embedding, self.inverters)}")
        return self.inverters[embedding]

    # ---- what a visitor does

    def upload(self, data: bytes) -> Pictures:
        """A picture that somebody sent, checked and decoded by lsap's own few decoders.

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
        return self.first.images(picture)

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

        inversion = inverter.embed(photo, watch=first)
        if refined:
            options = {"steps": self.config.refinement_steps} if refinement in ("pti", "sam") else {}
            inversion = inverter.refine(inversion, photo, refinement, watch=second, **options)
        return Turn(inverter, photo, inversion, inverter.measure(inversion, photo)[photo.names[0]])

    def edited(self, turn: Turn, strengths: Sequence[float]) -> Inversion:
        """The inversion under all sliders together."""
        moved = turn.inversion
        for slider, strength in zip(self.sliders, strengths, strict=True):
            if strength:
                moved = turn.inverter.edit(moved, slider.direction, strength)
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
