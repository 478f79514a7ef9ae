"""Where images lie: files by name under one root, whatever it is; and what they look like once decoded."""

from __future__ import annotations

import errno
import io
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from lsap.data.source import UnreadableImage
from lsap.errors import BadValue

log = logging.getLogger(__name__)

SUFFIXES = (".bmp", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

# Only these decoders run, whatever a file calls itself: others start external programs.
FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")


@runtime_checkable
class Storage(Protocol):
    """Files under one root: a folder, an archive, a database.

    Workers are forked from the process that made a storage: a handle to an open file is each process's own.
    """

    @property
    def root(self) -> Path: ...

    @property
    def files(self) -> Sequence[str]:
        """The names of all files, sorted."""
        ...

    @property
    def images(self) -> Sequence[str]:
        """Those of the images among them."""
        ...

    def read(self, name: str) -> bytes:
        """The bytes of one file; raises OSError or whatever the format's reader raises on a broken one."""
        ...

    def stamp(self, name: str) -> tuple[int, int]:
        """Size in bytes and modification time in nanoseconds of one file; raises OSError where it is gone."""
        ...


class Photographs:
    """Images of a storage, resized to one size: the source behind every photographic domain.

    A picture is taken as a viewer shows it: the first frame, turned upright by its EXIF orientation, transparency over
    white, grey and palette turned into RGB, the upper eight bits of 16-bit grey. It is then resized by Pillow's
    antialiased bilinear filter without regard to its aspect ratio, as the published encoders' data were.

    Args:
        storage: where the images lie.
        names: which of them, in this order.
        size: (height, width) in pixels of what `read` returns.
        strict: a broken image stops the run instead of being left out.
        title: the data set that was recognised, e.g. "AFHQ"; empty for images that are just there.

    Raises:
        BadValue: `size` is not two positive whole numbers.
    """

    def __init__(
        self, storage: Storage, names: Sequence[str], size: Sequence[int], strict: bool = False, title: str = ""
    ) -> None:
        self.storage = storage
        self.names = list(names)
        self.size = image_size(size)
        self.strict = strict
        self.title = title

    @property
    def root(self) -> Path:
        """Where the images lie."""
        return self.storage.root

    def __len__(self) -> int:
        return len(self.names)

    def read(self, indices: Sequence[int]) -> Tensor:
        """Images [B, 3, height, width], float32 in [-1, 1]; raises as `Source.read` does."""
        pixels = torch.stack([self.decode(index) for index in indices])
        return pixels.float().div_(127.5).sub_(1)

    def decode(self, index: int) -> Tensor:
        """One image [3, height, width], uint8; raises as `Source.read` does."""
        height, width = self.size
        resized = self.picture(index).resize((width, height), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1)

    def picture(self, index: int) -> Image.Image:
        """One image at its own size, upright RGB; raises as `Source.read` does."""
        name = self.names[index]
        try:
            return decoded(self.storage.read(name))
        except Exception as error:  # on broken bytes decoders raise almost anything
            if isinstance(error, MemoryError) or getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
                raise  # the machine's fault, not the image's
            if self.strict:
                raise BadValue(
                    f"{self.root / name} cannot be read ({reason(error)}); "
                    "mend or remove it, or leave such images out with data.strict=false"
                ) from error
            raise UnreadableImage(index, name, reason(error)) from error


def image_size(size: Sequence[int]) -> tuple[int, int]:
    """(height, width), or BadValue if it is not two positive whole numbers."""
    if len(size) != 2 or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in size):
        raise BadValue(f"image size {tuple(size)}: give two positive whole numbers, (height, width)")
    return size[0], size[1]


def decoded(data: bytes) -> Image.Image:
    """The picture that a file holds, as a viewer shows it, in eight-bit RGB; raises whatever its decoder raises."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        image.load()
        return as_rgb(upright(image))


def upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF orientation says; as stored where that cannot be read."""
    try:
        return ImageOps.exif_transpose(image)
    except (SyntaxError, ValueError, KeyError, TypeError, OSError):  # pixels are fine, only the EXIF block is broken
        return image


def as_rgb(image: Image.Image) -> Image.Image:
    """Eight-bit RGB: transparency over white, 16-bit grey by its upper byte.

    Raises:
        ValueError: float pixels, whose range nobody knows.
    """
    if image.mode == "F":
        raise ValueError("32-bit float pixels; save it with 8 bits per channel")
    if image.mode.startswith("I"):
        upper = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        return Image.fromarray(upper.astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        drawn = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn).convert("RGB")
    return image.convert("RGB")


def reason(error: Exception) -> str:
    """Why a decoder gave up, in a few words on one line."""
    if isinstance(error, UnidentifiedImageError):
        return "no image that we know, or cut off in its first bytes"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def are_images(names: Sequence[str]) -> list[str]:
    """Those names that end as an image's does."""
    return [name for name in names if name.lower().endswith(SUFFIXES)]


def found(storage: Storage, setting: str) -> Sequence[str]:
    """The images of a storage; what else lies there is counted in a warning.

    Raises:
        BadValue: there is none.
    """
    others, looked_for = counted(left_out(storage)), " ".join(SUFFIXES)
    if not storage.images:
        there = f"; it holds {others}" if others else ""
        raise BadValue(
            f"{setting}={storage.root} holds no image, nor do its subfolders (looked for {looked_for}){there}"
        )
    if others:
        log.warning("%s=%s: left out %s; images are %s", setting, storage.root, others, looked_for)
    return storage.images


def left_out(storage: Storage) -> dict[str, int]:
    """How many files are not read as images, by suffix; most frequent first."""
    images = set(storage.images)
    suffixes = (PurePosixPath(name).suffix.lower() for name in storage.files if name not in images)
    return dict(Counter(suffixes).most_common())


def counted(suffixes: Mapping[str, int]) -> str:
    """Numbers of files by suffix, in words."""
    return ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in suffixes.items())
