"""SAM's first half: an image in segments, and for each of them the latent space that is to invert it.

Spaces are ordered from the most editable to the most faithful: W+, then features of ever finer layers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from skimage.segmentation import slic
from torch import Tensor

from lsap.checkpoints import load_bisenet
from lsap.errors import BadValue, MissingFile
from lsap.runs.store import stem
from lsap.stylegan2 import StyleGenerator
from lsap.values import COUNT, POSITIVE, expanded

W_PLUS = "W+"
PUBLISHED = (W_PLUS, "F4", "F6", "F8", "F10")  # of SAM's predictors


def segmenter(
    folder: str | Path | None = None, faces: str | Path | None = None, count: int = 64, compactness: float = 10.0
) -> Segmenter:
    """Label maps of a folder where one is named, else the parts of faces where a parser is, else superpixels.

    Raises:
        BadValue, MissingFile: as those do; or both are named.
    """
    if folder is not None and faces is not None:
        raise BadValue(
            f"refinement.segmenter.folder={folder} and refinement.segmenter.faces={faces}: segments come from one of "
            "them; set the other to null"
        )
    if folder is not None:
        return LabelMaps(folder)
    return Superpixels(count, compactness) if faces is None else FaceParts(faces)


class Segmenter(Protocol):
    """Cuts images into segments: images [N, 3, H, W] in [-1, 1], their names → labels [N, H, W], whole numbers."""

    def __call__(self, images: Tensor, names: Sequence[str]) -> Tensor: ...


class Superpixels:
    """SLIC superpixels (Achanta et al. 2012): patches of even size that keep to edges; needs no network.

    Args:
        count: segments per image, about.
        compactness: weight of nearness against likeness of colour.

    Raises:
        BadValue: a number that cannot work.
    """

    def __init__(self, count: int = 64, compactness: float = 10.0) -> None:
        COUNT.require("refinement.segmenter.count", count)
        POSITIVE.require("refinement.segmenter.compactness", compactness)
        self.count, self.compactness = count, compactness

    def __call__(self, images: Tensor, names: Sequence[str]) -> Tensor:
        pixels = ((images.detach().double().cpu().clamp(-1, 1) + 1) / 2).permute(0, 2, 3, 1).numpy()
        labels = [slic(p, n_segments=self.count, compactness=self.compactness, start_label=0) for p in pixels]
        return torch.from_numpy(np.stack(labels)).long()


class FaceParts:
    """Brows, eyes, nose, lips, hair and so on, as BiSeNet sees them: SAM's own segments of faces are of this kind.

    Args:
        checkpoint: `79999_iter.pth`, or its safetensors.

    Raises:
        MissingFile, BadValue: no such file, or other weights.
    """

    def __init__(self, checkpoint: str | Path) -> None:
        self.parser = load_bisenet(checkpoint)

    @torch.no_grad()
    def __call__(self, images: Tensor, names: Sequence[str]) -> Tensor:
        return self.parser.to(images.device).parts(images.detach())


class LabelMaps:
    """Segments that another program made: a PNG per image, by its name, whose pixels are numbers of segments.

    Args:
        folder: holds `<name>.png`, the suffix of a photograph dropped or not; resized without mixing labels.

    Raises:
        MissingFile: there is no such folder; when called, no map for an image.
        BadValue: when called, a map that cannot be read, or that is no picture of one channel.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = expanded(folder)
        if not self.folder.is_dir():
            raise MissingFile(f"refinement.segmenter.folder={folder}: there is no such folder")

    def __call__(self, images: Tensor, names: Sequence[str]) -> Tensor:
        height, width = images.shape[-2:]
        return torch.stack([self.read(name, (width, height)) for name in names])

    def read(self, name: str, size: tuple[int, int]) -> Tensor:
        """The labels [H, W] of one image at (width, height)."""
        path = self.path(name)
        try:
            with Image.open(path) as picture:
                if picture.mode not in ("L", "P", "I", "I;16", "1"):
                    raise BadValue(f"{path} is a picture of colours ({picture.mode}); a map of labels has one channel")
                return torch.from_numpy(np.array(picture.resize(size, Image.Resampling.NEAREST))).long()
        except (OSError, UnidentifiedImageError) as error:
            raise BadValue(f"{path} cannot be read as a picture ({error})") from error

    def path(self, name: str) -> Path:
        """The file that holds an image's labels."""
        usual = self.folder / f"{stem(name)}.png"
        for found in (usual, self.folder / f"{name}.png"):
            if found.is_file():
                return found
        raise MissingFile(f"{usual}: there is no map of segments for image {name}")


def resolutions(generator: StyleGenerator, spaces: Sequence[str]) -> dict[str, int]:
    """Pixels of the feature spaces among `spaces` that a generator has: F4 16, F6 32, F8 64, F10 128.

    The features leave a resolution behind its ToRGB, so that those of the last one are seen by nothing.

    Raises:
        BadValue: a name that is no space.
    """
    found = {}
    for space in spaces:
        matched = re.fullmatch(r"F(\d*[02468])", space)
        if space != W_PLUS and matched is None:
            raise BadValue(f"there is no latent space {space!r}; SAM's are {', '.join(PUBLISHED)}")
        if matched is not None and 4 * 2 ** (int(matched[1]) // 2) < generator.size:
            found[space] = 4 * 2 ** (int(matched[1]) // 2)
    return found


def spaces_of(generator: StyleGenerator, spaces: Sequence[str]) -> tuple[str, ...]:
    """W+ and those feature spaces among `spaces` that a generator has; raises as `resolutions`."""
    return (W_PLUS, *resolutions(generator, spaces))


def segment_means(labels: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of every map inside every segment of one image.

    Args:
        labels: [H, W], any whole numbers.
        maps: [S, H, W], one per space.

    Returns:
        means [S, K], and the number of its segment, in 0..K - 1, for each pixel [H, W].
    """
    _, numbers = torch.unique(labels, return_inverse=True)
    counts = torch.bincount(numbers.flatten())
    flat = maps.double().flatten(1)
    sums = torch.zeros(len(maps), len(counts), dtype=flat.dtype, device=flat.device)
    sums.index_add_(1, numbers.flatten(), flat)
    return sums / counts, numbers


def chosen(means: Tensor, tau: float) -> Tensor:
    """The space [K] of every segment: the most editable one whose predicted error [S, K] is at most tau.

    Where none is good enough, the last, most faithful one. A space may be skipped that a finer one fails to better.
    """
    passes = means <= tau
    return torch.where(passes.any(0), passes.double().argmax(0), len(means) - 1)


def masks(
    labels: Tensor, maps: Mapping[str, Tensor], sizes: Mapping[str, int], tau: float, *, square: int, first: int
) -> tuple[dict[str, Tensor], Tensor]:
    """Where each feature space is at work, for every image of a batch.

    Args:
        labels: [N, H, W].
        maps: predicted errors [N, 1, H, W] of every space, W+ first.
        sizes: pixels of every feature space.
        tau: the error up to which a space is good enough.
        square, first: side of the square that the images are a band of, and the band's first row; outside of it
            nothing is chosen.

    Returns:
        Soft masks [N, 1, r, r] in [0, 1] by feature space, resized by Lanczos' filter; and the share of each image's
        pixels that every space inverts, [N, S].
    """
    stacked = torch.cat(list(maps.values()), 1).cpu()
    found: dict[str, list[Tensor]] = {space: [] for space in sizes}
    shares = []
    for label, errors in zip(labels.cpu(), stacked, strict=True):
        means, numbers = segment_means(label, errors)
        pixels = chosen(means, tau)[numbers]
        shares.append(torch.stack([(pixels == place).double().mean() for place in range(len(maps))]))
        for place, space in enumerate(maps):
            if space in sizes:
                whole = torch.zeros(square, square)
                whole[first : first + len(label)] = (pixels == place).float()
                found[space].append(_resized(whole, sizes[space]))
    return {space: torch.stack(each)[:, None] for space, each in found.items()}, torch.stack(shares)


def _resized(mask: Tensor, size: int) -> Tensor:
    picture = Image.fromarray(mask.numpy()).resize((size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture)).clamp(0, float(mask.max()))
