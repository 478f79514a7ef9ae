"""The images that a command works on."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from lsap.data import SUFFIXES, Photographs, Source, UnreadableImage, open_images
from lsap.data.folder import file_stamp
from lsap.errors import BadValue, MissingFile, nearest
from lsap.runs import image_digests
from lsap.values import expanded


class OneFile:
    """A single file as a storage."""

    def __init__(self, path: Path) -> None:
        self.root = path.parent
        self.files = self.images = [path.name]

    def read(self, name: str) -> bytes:
        """Its bytes."""
        return (self.root / name).read_bytes()

    def stamp(self, name: str) -> tuple[int, int]:
        """Its size and modification time."""
        return file_stamp(self.root / name)


@dataclass(frozen=True)
class Chosen:
    """The images to invert: where they come from, which of them, and what to call the whole."""

    source: Source
    names: tuple[str, ...]
    label: str

    @cached_property
    def places(self) -> dict[str, int]:
        """Name → number in the source."""
        return {name: place for place, name in enumerate(self.source.names)}

    @cached_property
    def digests(self) -> dict[str, str] | None:
        """Name → size and digest of the image's file; None where the source renders its images."""
        return image_digests(self.source, self.names)

    def read(self, names: Sequence[str]) -> tuple[list[str], Tensor | None, dict[str, str]]:
        """Names and images [N, 3, H, W] of those that can be read, and why the others cannot."""
        kept, skipped = list(names), dict[str, str]()
        while kept:
            try:
                return kept, self.source.read([self.places[name] for name in kept]), skipped
            except UnreadableImage as error:
                skipped[error.name] = error.reason
                kept = [name for name in kept if name not in skipped]
        return [], None, skipped


def chosen_images(config: DictConfig, view_size: tuple[int, int]) -> Chosen:
    """The images that `images`, `split` and `count` name.

    Args:
        config: of the command.
        view_size: (height, width) that images are read at.

    Raises:
        MissingFile, BadValue: there is no such folder, file or split.
    """
    if config.images is not None:
        path = expanded(config.images)
        if config.split is not None:
            raise BadValue(
                f"images={path} and split={config.split}: a split is one of the domain's own; give one of both"
            )
        if path.is_file() and path.suffix.lower() in SUFFIXES:
            source: Source = Photographs(OneFile(path), [path.name], view_size, config.data.strict)
        else:
            source = open_images(path, view_size, config.data.strict, setting="images")
        label = re.sub(r"[^\w.-]+", "-", path.resolve().name) or "images"
    else:
        splits = {str(name): node for name, node in config.data.tests.items()}
        if "test" in config.data:
            splits["test"] = config.data.test
        label = str(config.split or next(iter(splits), "test"))
        if label not in splits:
            raise BadValue(f"split={label}: domain={config.domain.name} has no such split; {nearest(label, splits)}")
        source = instantiate(splits[label], _convert_="all")
        if source is None:
            raise MissingFile("there are no test images here: name a folder with images= or data.test_root=")
    names = tuple(source.names)[: config.count]
    if config.count is not None and len(names) < config.count:
        print(f"count={config.count}: there are {len(names)} images; all of them are used", file=sys.stderr)
    return Chosen(source, names, label)
