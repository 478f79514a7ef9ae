"""Images as people have them in a notebook: a path, a folder, pictures, a tensor; read as any other photographs are."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from lsap.config.containers import editable
from lsap.data import Photographs
from lsap.data.folder import check_name, file_stamp
from lsap.data.storage import as_rgb, upright
from lsap.errors import BadValue, MissingFile
from lsap.inversion import Inversion, brief
from lsap.pipelines.images import Chosen, chosen_images
from lsap.values import expanded

Opened = str | Path | Image.Image  # one image: its file, or what Pillow has opened
FARTHEST = 2.0  # that a value of an image in [-1, 1] may be from 0; generators overshoot a little


@dataclass(frozen=True, repr=False)
class Pictures:
    """Images in memory, read and resized: what `Inverter.images` returns.

    Attributes:
        names: one per image, unique.
        images: [N, 3, H, W] in [-1, 1], at the size that encoders and losses see.
        skipped: name → why an image could not be read.
    """

    names: tuple[str, ...]
    images: Tensor
    skipped: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        lost = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"Pictures({list(self.images.shape)}{lost}, names {brief(self.names)})"

    def select(self, names: Sequence[str]) -> Pictures:
        """Those of these names, in this order; raises BadValue where one is missing."""
        places = {name: place for place, name in enumerate(self.names)}
        if absent := [name for name in names if name not in places]:
            raise BadValue(
                f"there is no image {absent[0]!r} among those given ({', '.join(self.names[:4])}, …); give the images "
                "that the inversion was made of"
            )
        return Pictures(tuple(names), self.images[[places[name] for name in names]])


Given = Opened | Tensor | Pictures | Sequence[Opened]


def read(given: Given, config: DictConfig, size: tuple[int, int], count: int | None = None) -> Pictures:
    """Images of any kind as tensors of one size.

    Args:
        given: a file, a folder or an archive; a picture of Pillow; a list of files and pictures; a tensor [N, 3, H, W]
            in [-1, 1]; or pictures that were read before.
        config: of `lsap.invert`.
        size: (height, width) to read at. Pictures are resized as all photographs are, tensors by the same filter.
        count: only so many, the first ones; None: all.

    Raises:
        MissingFile: there is no such file.
        BadValue: none of them can be read, or a tensor of another shape or range.
    """
    if isinstance(given, Pictures):
        return given if count is None else given.select(given.names[:count])
    if isinstance(given, Tensor):
        return _of_tensor(given[:count], size)
    if isinstance(given, str | Path):
        named = editable(config)
        named.images, named.count, named.split = str(given), count, None
        return of_source(chosen_images(named, size))
    if isinstance(given, Inversion):
        raise BadValue("this is an inversion, and images are expected; draw(inversion) makes pictures of it")
    if not isinstance(given, Image.Image | Sequence):
        raise BadValue(
            f"images are a file, a folder, Pillow's pictures, a list of them or a tensor [N, 3, H, W] in [-1, 1], not "
            f"{type(given).__name__}; Image.fromarray makes a picture of an array"
        )
    listed = _named([given] if isinstance(given, Image.Image) else list(given)[:count])
    if not listed:
        raise BadValue("there is no image in this list; give at least one")
    source = Photographs(_Handful(listed), list(listed), size, config.data.strict)
    return of_source(Chosen(source, tuple(listed), "a list"))


def of_source(chosen: Chosen) -> Pictures:
    """All images of a choice; raises BadValue where none can be read."""
    names, images, skipped = chosen.read(chosen.names)
    if images is None:
        name, reason = next(iter(skipped.items()))
        raise BadValue(f"{name} cannot be read ({reason}); give PNG, JPEG, WebP, TIFF or BMP pictures")
    return Pictures(tuple(names), images, skipped)


class _Handful:
    """Single files and opened pictures as a storage."""

    def __init__(self, items: Mapping[str, Path | Image.Image]) -> None:
        self.items = items
        self.root = Path()
        self.files = self.images = list(items)

    def read(self, name: str) -> bytes:
        """The bytes of a file, or of an opened picture as a file without loss."""
        item = self.items[name]
        if isinstance(item, Path):
            return item.read_bytes()
        buffer = io.BytesIO()
        as_rgb(upright(item)).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    def stamp(self, name: str) -> tuple[int, int]:
        """Size and modification time of a file; of an opened picture its size without loss, and 0."""
        item = self.items[name]
        return file_stamp(item) if isinstance(item, Path) else (len(self.read(name)), 0)


def _named(given: Sequence[Opened]) -> dict[str, Path | Image.Image]:
    """Items by name: that of their file where they have one and all differ, with their number before it elsewhere."""
    items: list[Path | Image.Image] = []
    for one in given:
        if not isinstance(one, str | Path | Image.Image):
            raise BadValue(f"a list of images may hold files and Pillow's pictures, not {type(one).__name__}")
        items.append(expanded(one) if isinstance(one, str | Path) else one)
    for item in items:
        if isinstance(item, Path):
            check_name(item, "images")
            if not item.is_file():
                raise MissingFile(f"{item}: there is no such image; a folder is given by itself, not in a list")
    names = [item.name if isinstance(item, Path) else Path(str(getattr(item, "filename", ""))).name for item in items]
    if "" in names or len(set(names)) < len(names):
        names = [f"{place:04d}-{name}".rstrip("-") for place, name in enumerate(names)]
    return dict(zip(names, items, strict=True))


def _of_tensor(images: Tensor, size: tuple[int, int]) -> Pictures:
    """A tensor as pictures that are named by their places."""
    if images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise BadValue(f"a tensor of shape {list(images.shape)}; images are [N, 3, H, W] in [-1, 1]")
    images = images.detach().float().cpu()
    if not images.isfinite().all() or images.abs().max() > FARTHEST:
        low, high = images.min().item(), images.max().item()
        raise BadValue(f"a tensor with values from {low:.4g} to {high:.4g}; images are in [-1, 1]: x / 127.5 - 1")
    if tuple(images.shape[-2:]) != size:
        images = F.interpolate(images, size, mode="bilinear", antialias=True)
    return Pictures(tuple(f"{place:04d}" for place in range(len(images))), images)
