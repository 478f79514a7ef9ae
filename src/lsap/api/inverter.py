"""`Inverter`, the whole of lsap behind one object: images to codes, scores, edits, refinements, files.

What the commands do with folders it does in memory, by the same configuration, the same parts and the same stages. For
thousands of images take `python -m lsap.invert`, which can be stopped and shared between processes.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from PIL import Image
from torch import Tensor

from lsap.alignment import nscd
from lsap.api import image_inputs as given
from lsap.api import inversion_files as kept
from lsap.api.image_inputs import Given, Pictures
from lsap.checkpoints import Direction
from lsap.cli.messages import explain
from lsap.config.checks import FOR_VERBS, NONE, optimises
from lsap.config.checks import check_inversion as check
from lsap.config.compose import choices, composed, searching, searchpath
from lsap.config.containers import editable, plain
from lsap.config.stored import as_stored
from lsap.editing.effects import Reader, beyond
from lsap.embedding import Embedding
from lsap.errors import BadValue, LsapError, nearest
from lsap.evaluation.outside import errors, outside, reference_errors
from lsap.evaluation.rows import Row
from lsap.inversion import Embedded, Inversion, Watch, cat
from lsap.pipelines.build import Parts
from lsap.pipelines.devices import own_device
from lsap.pipelines.editing import setup as editors
from lsap.pipelines.images import chosen_images
from lsap.pipelines.measurement import measure
from lsap.reports.pictures import TILE, Column, grid, tile
from lsap.runs import write_text
from lsap.values import COUNT

SHARED = ("seed", "outputs", "weights")  # what edits take over from the inverter, beside `editors.OF_THE_RUN`
LATER = "."  # `images` of a configuration whose images come later, from anywhere
SHOWN = 8  # of the domain's own images, where nobody says how many


class Inverter:
    """A generator, an embedding and all that is needed to work with inversions; `lsap.load` makes it.

    Images may be given as a file, a folder or an archive, as Pillow's pictures, a list of files and pictures, a tensor
    [N, 3, H, W] in [-1, 1], or what `images` returned. They are known by their names: of their files, or numbers.

    Args:
        config: of `python -m lsap.invert`, composed.

    Attributes:
        config: the same; every setting of the command line.

    Raises:
        BadValue, MissingFile: the configuration cannot run; all missing files are listed.

    Example:
        >>> import lsap
        >>> inverter = lsap.load("demo", "steps=2", "space.samples=500", embedding="lsap_o_wplus")
        >>> photos = inverter.images(count=2)  # or a folder, pictures, a tensor
        >>> inversion = inverter.embed(photos)
        >>> inversion.names
        ('rich-test-00000', 'rich-test-00001')
        >>> smiling = inverter.edit(inversion, "smile", 1.5)
        >>> smiling.history
        ('lsap_o_wplus', 'smile +1.5')
        >>> sorted(inverter.measure(smiling, photos)["rich-test-00000"])
        ['identity', 'lpips', 'mse', 'nscd', 'nscd_raw']
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = editable(config)
        self._folders = searchpath()  # of the user's own YAML, for all that is composed later
        if self.config.images is None:
            self.config.images = LATER
        check(self.config)
        self._parts = Parts(self.config, own_device(config.trainer))
        self._known: dict[str, Direction] = {}
        if not optimises(self.config):
            with unwrapped():
                _ = self._embedding  # an encoder that is not there shows at once

    def __repr__(self) -> str:
        size = self._parts.generator.size
        return f"Inverter(domain={self.domain}, embedding={self.embedding}, generator of {size} px)"

    @property
    def domain(self) -> str:
        """What the images show: demo, face, …."""
        return str(self.config.domain.name)

    @property
    def embedding(self) -> str:
        """How images become codes: lsap_e, lsap_o_wplus, …."""
        return str(self.config.embedding.name)

    @property
    def generator(self) -> str:
        """Fingerprint of the generator, as inversions and files of codes hold it."""
        return self._parts.fingerprint

    # ---- images to codes

    def images(self, images: Given | None = None, *, count: int | None = None, split: str | None = None) -> Pictures:
        """Read images, at the size that encoders and losses see.

        Args:
            images: what to read; None: the domain's own test images.
            count: only so many, the first ones; None: all that are given, or eight of the domain's.
            split: which of the domain's test splits (demo: rich, plain, far); None: the first.

        Raises:
            MissingFile, BadValue: nothing there, or nothing that can be read. An image that is broken among others is
                left out and named on stderr.
        """
        size = self._parts.view_size
        if count is not None:
            COUNT.require("count", count)
        if images is None:
            own = editable(self.config)
            own.images, own.split, own.count = None, split, SHOWN if count is None else count
            with unwrapped():
                found = given.of_source(chosen_images(own, size))
        elif split is not None:
            raise BadValue(f"split={split}: a split is one of the domain's own images; give one of both")
        else:
            found = given.read(images, self.config, size, count)
        if not isinstance(images, Pictures):
            for name, reason in found.skipped.items():
                print(f"{name} cannot be read ({reason}); skipped", file=sys.stderr)
        return found

    def embed(self, images: Given, *, watch: Watch | None = None, warn: bool = True) -> Inversion:
        """Codes of images: one pass of the encoder, or an optimisation of every image.

        Args:
            images: what to invert.
            watch: called meanwhile with the share that is done, in [0, 1], and mean losses by name.
            warn: issue a `UserWarning` where images are probably outside the domain; see `outside`.

        Returns:
            names, codes [N, L, C] in W+, and how they are drawn; on the CPU. An image that fails is left out and named
            on stderr.
        """
        found, module = self.images(images), self._embedding

        def work(first: int, end: int) -> Embedded:
            batch = {"image": found.images[first:end].to(self._parts.device), "names": found.names[first:end]}
            made: Embedded = module.predict_step(batch)
            return made

        inversion = self._in_batches(len(found), work, module, watch)
        if warn and (line := self.outside(inversion, found)) is not None:
            warnings.warn(line, stacklevel=2)
        return inversion

    def outside(self, inversion: Inversion, images: Given) -> str | None:
        """One line that names the images probably outside the domain; None where there are none.

        These are images whose inversion has an error near that of the mean latent's image on samples of the generator.

        Args:
            inversion: from `embed`.
            images: what it was made of; found again by name.
        """
        found, distance = self.images(images).select(self._check(inversion).names), self._parts.judges["distance"]
        rows: dict[str, Row] = {}
        for part in self._parted(inversion):
            with torch.no_grad():
                output = self._parts.view(part.to(self._parts.device).render()).float()
            given = found.select(part.names).images.to(output)
            each = {name: values.tolist() for name, values in errors(output, given, distance).items()}
            rows |= {name: {key: each[key][i] for key in each} for i, name in enumerate(part.names)}
        return outside(rows, self._reference, self.domain)

    def refine(
        self,
        inversion: Inversion,
        images: Given,
        refinement: str = "pti",
        *,
        watch: Watch | None = None,
        **options: Any,
    ) -> Inversion:
        """A better inversion of the same images.

        Args:
            inversion: from `embed`; it stays as it is.
            images: what it was made of; found again by name.
            refinement: pti, sam, hfgi, or none. `sam` and `hfgi` need a network of their own.
            watch: as in `embed`.
            options: settings of the refinement, as in `steps=100`.

        Raises:
            MissingFile: the refinement's network or judge is not there; the message says how to come by it.
            BadValue: an unknown refinement or option.

        Example:
            >>> import lsap
            >>> inverter = lsap.load("demo", "steps=2", "space.samples=500", embedding="lsap_o_wplus")
            >>> photos = inverter.images(count=1)
            >>> tuned = inverter.refine(inverter.embed(photos), photos, "pti", steps=2)
            >>> tuned.history
            ('lsap_o_wplus', 'pti')
        """
        self._check(inversion)
        if refinement == NONE:
            return inversion
        config = self._refined(refinement, options)
        found = self.images(images).select(inversion.names)
        check(config)
        parts = Parts(config, self._parts.device)
        parts.generator = self._parts.generator
        with searching(self._folders):
            module = parts.refinement()

        def work(first: int, end: int) -> Embedded:
            part = inversion.select(range(first, end))
            batch = {"image": found.images[first:end].to(parts.device), "names": part.names, "inversion": part}
            with torch.enable_grad():
                made: Embedded = module.predict_step(batch)
            return made

        return self._in_batches(len(inversion), work, module, watch)

    @property
    def refinements(self) -> list[str]:
        """Names that `refine` can use now: those whose network and judge are at hand."""
        there = []
        with searching(self._folders):
            names = choices("refinement")
        for name in names:
            config = self._refined(name, {})
            try:
                check(config)
                with searching(self._folders):
                    if "training" in config.refinement:
                        assert Parts(config, self._parts.device).network_file
            except (LsapError, OmegaConfBaseException):  # the latter: a network over an encoder, and there is none
                continue
            there.append(name)
        return there

    # ---- edits

    @property
    def directions(self) -> list[str]:
        """Names that `edit` knows in this domain: shipped, found here, published; files are given by their path."""
        return editors.known(self._editing)

    def direction(self, name: str | Path) -> Direction:
        """A direction by its name or file, with its unit, usable range and side effects.

        Args:
            name: one of `directions`, or a file, as `direction=` of `python -m lsap.edit`.

        Raises:
            MissingFile, BadValue: there is none, or it belongs to another generator.
        """
        if not isinstance(name, str | Path):
            raise BadValue(
                f"a direction is a name, a file or a Direction of lsap.checkpoints, not {type(name).__name__}"
            )
        if str(name) not in self._known:
            config = self._editing.copy()
            config.direction = str(name)
            with searching(self._folders):
                (wanted,) = editors.directions(config, self._parts)
            self._known[str(name)] = wanted.direction
        return self._known[str(name)]

    def edit(
        self, inversion: Inversion, direction: str | Path | Direction, strength: float = 1.0, *, warn: bool = True
    ) -> Inversion:
        """The inversion with its codes moved; drawn as before, whichever method made it.

        Args:
            inversion: from `embed`, `refine` or `edit`; it stays as it is.
            direction: as in `direction`, or the object itself.
            strength: in the direction's `unit`, as a rule standard deviations of the generator's samples; of GANSpace's
                published components the coordinate to reach.
            warn: issue a `UserWarning` where the strength is outside of the direction's usable range.

        Raises:
            MissingFile, BadValue: no inversion, no such direction, or a strength that is no finite number.
        """
        self._check(inversion)
        strength = number(strength)
        found = direction if isinstance(direction, Direction) else self.direction(direction)
        if warn and (line := beyond(found, [strength])) is not None:
            warnings.warn(line, stacklevel=2)
        moved = found.moved(inversion.codes, strength)
        return inversion.with_stage(f"{found.name} {editors.label(strength)}", codes=moved)

    # ---- numbers

    @torch.no_grad()
    def nscd(self, inversion: Inversion | Tensor) -> Tensor:
        """NSCD of every image (Eq. 12, unit anchor): [N] in [0, 2], to be read against `synthetic`.

        Args:
            inversion: an inversion, or codes of any tool, w [N, C] or w_plus [N, L, C], of this generator.
        """
        space = self._parts.space
        if isinstance(inversion, Tensor):
            rows, width = self._parts.generator.n_latent, self._parts.generator.style_dim
            if list(inversion.shape[1:]) not in ([width], [rows, width]):
                raise BadValue(
                    f"codes of shape {list(inversion.shape)}; this generator takes [N, {width}] or [N, {rows}, {width}]"
                )
            codes = inversion
        else:
            codes = self._check(inversion).codes
        return nscd(space.styles(codes.float().to(self._parts.device)), space.mean, reduction="none").mean(1).cpu()

    @property
    def synthetic(self) -> float:
        """NSCD of the generator's own samples, on average: what scores of inversions are read against."""
        return self._parts.space.synthetic["unit"]

    def measure(self, inversion: Inversion, images: Given) -> dict[str, Row]:
        """Numbers of every image by its name: mse (on [-1, 1]), lpips, identity, nscd, nscd_raw.

        lpips and identity are None where the domain's judge is not at hand.
        """
        found = self.images(images).select(self._check(inversion).names)
        rows: dict[str, Row] = {}
        for part in self._parted(inversion):
            rows |= measure(self._parts, part, found.select(part.names).images)[0]
        return rows

    @torch.no_grad()
    def attributes(self, inversion: Inversion) -> dict[str, Tensor]:
        """What the domain's reader sees: attribute → [N], in its standard deviations; empty where there is no reader.

        The demo's reads the factors of its portraits: smile, yaw, age, ….
        """
        self._check(inversion)
        if self._reader is None:
            return {}
        seen = [self._parts.view(part.to(self._parts.device).render()) for part in self._parted(inversion)]
        read = torch.cat([self._reader(images.float()).float().cpu() for images in seen])
        return dict(zip(self._reader.names, read.unbind(1), strict=True))

    # ---- pictures and files

    def draw(self, inversion: Inversion) -> list[Image.Image]:
        """The inversion's pictures, at the generator's size."""
        return [tile(image, max(image.shape[-2:])) for image in self._drawn(inversion)]

    def grid(self, columns: Mapping[str, Inversion | Given], *, longest: int = TILE) -> Image.Image:
        """Pictures side by side under their captions: one column per entry, one row per image.

        Args:
            columns: caption → inversion or images, of equally many images.
            longest: pixels of a picture's longer side.
        """
        shown = [
            Column(title, self._drawn(one) if isinstance(one, Inversion) else self.images(one).images)
            for title, one in columns.items()
        ]
        return grid(shown, longest=longest)

    def save(self, inversion: Inversion, folder: str | Path) -> Path:
        """Write an inversion: pictures, codes, and all that drawing and editing it takes.

        Args:
            inversion: any; what was saved before into the same folder must be equal.
            folder: made if need be: `images/`, `codes.safetensors` and a store that `load` and `python -m lsap.edit
                inversions=<folder>` read.

        Returns:
            The folder.

        Raises:
            BadValue: the folder holds another inversion, or cannot be written to.
            StoppedRun: no room on the disk.
        """
        self._check(inversion)
        settings = {"domain": self.domain, "embedding": self.embedding}
        path = kept.write(folder, inversion, settings, self.config.images_per_batch, self.nscd, self._drawn)
        config = editable(self.config)
        config.images = None if config.images == LATER else config.images
        write_text(path / "config.yaml", as_stored(config))
        return path

    def load(self, path: str | Path, *, codes_in: str | None = None) -> Inversion:
        """An inversion again, as it was drawn: of a folder that `save` or `python -m lsap.invert` wrote.

        Args:
            path: the folder, a file of codes of any tool (`.npy`, `.npz`, `.pt`, `.safetensors`), or a folder with such
                a file per image.
            codes_in: "w" or "w_plus", the space of a tool's codes; None: as their shape says, and [L, C] is one code of
                W+.

        Raises:
            MissingFile: there is none.
            BadValue: it belongs to another generator, or is damaged.
        """
        return kept.read(path, self._parts.generator, self._parts.fingerprint, codes_in)

    # ---- parts

    @cached_property
    def _embedding(self) -> Embedding:
        return self._parts.embedding()

    @cached_property
    def _reference(self) -> dict[str, float]:
        parts = self._parts
        return reference_errors(parts.generator, parts.view, parts.judges["distance"])

    @cached_property
    def _reader(self) -> Reader | None:
        return editors.domain_reader(self.config, self._parts)

    @cached_property
    def _editing(self) -> DictConfig:
        """The configuration of `lsap.edit` for this domain and generator."""
        config = composed("edit", [f"domain={self.domain}"], self._folders)
        for key in SHARED:
            config[key] = self.config[key]
        for part in editors.OF_THE_RUN:
            if part in self.config:
                OmegaConf.update(config, part, plain(self.config[part]), merge=False)
        return config

    def _check(self, inversion: Inversion) -> Inversion:
        """An inversion of this generator; raises BadValue where it is anything else."""
        if not isinstance(inversion, Inversion):
            raise BadValue(
                f"an inversion is expected, not {type(inversion).__name__}; embed(images) makes one of images, and "
                "load(path) of a file"
            )
        inversion.check_generator(self._parts.fingerprint)
        return inversion

    def _refined(self, name: str, options: Mapping[str, Any]) -> DictConfig:
        """The configuration with a refinement and its options."""
        config = editable(self.config)
        if config.refinement.name != name:
            chosen = [f"domain={self.domain}", f"embedding={self.embedding}", f"refinement={name}"]
            with open_dict(config), searching(self._folders):
                config.refinement = configured(chosen).refinement
        accepted = [str(key) for key in config.refinement if key not in FOR_VERBS or key == "checkpoint"]
        for key, value in options.items():
            if key not in accepted:
                raise BadValue(f"refinement={name} has no option {key!r}: {nearest(key, accepted)}")
            OmegaConf.update(config, f"refinement.{key}", value, merge=False)
        return config

    def _in_batches(
        self, count: int, work: Callable[[int, int], Embedded], module: Any, watch: Watch | None
    ) -> Inversion:
        """What `work` makes of images [first, end), batch by batch, as one inversion."""
        size, parts = self.config.images_per_batch, []
        failed: dict[str, str] = {}
        for first in range(0, count, size):
            end = min(first + size, count)
            module.watch = None if watch is None else _within(watch, first / count, end / count)
            found = work(first, end)
            failed |= found.failed
            parts += [] if found.inversion is None else [found.inversion]
        for name, reason in failed.items():
            print(f"{name}: {reason}; it is left out, the others go on", file=sys.stderr)
        if not parts:
            raise BadValue("none of these images could be inverted: " + "; ".join(sorted(set(failed.values()))))
        return cat(parts)

    def _parted(self, inversion: Inversion) -> list[Inversion]:
        size, places = self.config.images_per_batch, range(len(inversion))
        return [inversion.select(places[first : first + size]) for first in range(0, len(inversion), size)]

    @torch.no_grad()
    def _drawn(self, inversion: Inversion) -> Tensor:
        """Pictures [N, 3, H, W] on the CPU, at the generator's size, what frames them cut away."""
        self._check(inversion)
        drawn = [part.to(self._parts.device).render().float() for part in self._parted(inversion)]
        return torch.cat([self._parts.picture_rows(images).cpu() for images in drawn])


def configured(settings: Sequence[str]) -> DictConfig:
    """The configuration of `python -m lsap.invert` with these settings; raises BadValue where one is wrong."""
    try:
        return composed("invert", settings, searchpath())
    except (HydraException, OmegaConfBaseException) as error:
        raise BadValue(explain(error, "invert") or str(error)) from error


def number(strength: float) -> float:
    """A strength as a finite number; raises BadValue where it is none."""
    try:
        found = math.nan if isinstance(strength, bool | str) else float(strength)
    except (TypeError, ValueError, RuntimeError):  # the last of tensors of several numbers
        found = math.nan
    if not math.isfinite(found):
        raise BadValue(f"strength={strength!r}: a strength is one finite number, as in edit(inversion, 'smile', 1.5)")
    return found


@contextmanager
def unwrapped() -> Iterator[None]:
    """Hydra wraps what the building of a part raises; a user's mistake comes out as itself."""
    try:
        yield
    except InstantiationException as error:
        if isinstance(error.__cause__, LsapError):
            raise error.__cause__ from error
        raise


def _within(watch: Watch, begin: float, end: float) -> Watch:
    """A watch over a part of the whole."""
    return lambda share, losses: watch(begin + (end - begin) * share, losses)
