"""A folder of photographs as a source."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from lsap.data.source import UnreadableImage
from lsap.errors import BadValue, MissingFile

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

# Only these decoders run, whatever a file calls itself: others start external programs.
FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")


class ImageFolder:
    """Every image below a folder, resized to one size.

    Names are paths relative to the root with forward slashes, sorted; they are the same on every machine. Hidden files
    and folders (a leading dot) are left out, linked folders are followed once.

    A picture is taken as a viewer shows it: the first frame, turned upright by its EXIF orientation, transparency over
    white, grey and palette turned into RGB, the upper eight bits of 16-bit grey. It is then resized by Pillow's
    antialiased bilinear filter without regard to its aspect ratio, as the published encoders' data were.

    Args:
        root: the folder.
        size: (height, width) in pixels of what `read` returns.
        strict: a broken image stops the run instead of being left out.

    Raises:
        MissingFile: there is no such folder.
        BadValue: `root` is a file, holds no image or may not be read; `size` is not two positive whole numbers.
    """

    def __init__(self, root: str | Path, size: Sequence[int], strict: bool = False) -> None:
        if len(size) != 2 or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in size):
            raise BadValue(f"image size {tuple(size)}: give two positive whole numbers, (height, width)")
        self.root = existing(root)
        self.size = (size[0], size[1])
        self.strict = strict
        self.names = listing(self.root)
        if not self.names:
            raise BadValue(f"data.root={root} holds no image, nor do its subfolders (looked for {' '.join(SUFFIXES)})")

    def __len__(self) -> int:
        return len(self.names)

    def read(self, indices: Sequence[int]) -> Tensor:
        """Images [B, 3, height, width], float32 in [-1, 1]; raises as `Source.read` does."""
        pixels = torch.stack([self.decode(index) for index in indices])
        return pixels.float().div_(127.5).sub_(1)

    def decode(self, index: int) -> Tensor:
        """One image [3, height, width], uint8."""
        name = self.names[index]
        height, width = self.size
        try:
            with Image.open(self.root / name, formats=FORMATS) as image:
                image.load()
                picture = as_rgb(upright(image))
            resized = picture.resize((width, height), Image.Resampling.BILINEAR)
        except Exception as error:  # on broken bytes decoders raise almost anything
            if isinstance(error, MemoryError) or getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
                raise  # the machine's fault, not the image's
            if self.strict:
                raise BadValue(
                    f"{self.root / name} cannot be read ({reason(error)}); "
                    "mend or remove it, or leave such images out with data.strict=false"
                ) from error
            raise UnreadableImage(index, name, reason(error)) from error
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def existing(root: str | Path) -> Path:
    """The folder as a path, or the one line that says why it cannot be used."""
    if not str(root).strip():
        raise BadValue("data.root is empty; give the folder that holds the images")
    path = Path(root).expanduser()
    if not path.exists():
        raise MissingFile(f"data.root={root}: no such folder; give the folder that holds the images")
    if not path.is_dir():
        raise BadValue(f"data.root={root} is a file; give the folder that holds the images")
    return path


def listing(root: Path) -> list[str]:
    """Sorted relative names of all images below `root`."""

    def refuse(error: OSError) -> None:
        raise BadValue(f"{error.filename} cannot be listed ({error.strerror}); check its permissions") from error

    names: list[str] = []
    visited: set[tuple[int, int]] = set()
    for folder, below, files in os.walk(root, onerror=refuse, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in visited:  # a link that leads back up
            below.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        below[:] = sorted(name for name in below if not name.startswith("."))
        images = (file for file in files if file.lower().endswith(SUFFIXES) and not file.startswith("."))
        names += [Path(os.path.relpath(os.path.join(folder, file), root)).as_posix() for file in images]
    return sorted(names)


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
