"""How a run records its images, and how runs of version 0.1, which recorded only names, are found again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lsap.config.stored import read_settings, stored_value
from lsap.data import Source
from lsap.errors import LsapError
from lsap.runs import RunFolder, content_digest, image_digests, unchanged_since
from lsap.values import expanded


def names_digest(names: Sequence[str]) -> str:
    """12 hex digits over the names of images, all that version 0.1 recorded of them."""
    return hashlib.sha256("/".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:12]


def source_digest(source: Source) -> str | None:
    """12 hex digits over names and content of all images of a source; None for a source that renders its images."""
    digests = image_digests(source, source.names)
    return None if digests is None else content_digest(digests)


@dataclass(frozen=True)
class GivenImages:
    """The images of a run: which, and the setting that names them.

    Attributes:
        source: of the images.
        names: of those that are used.
        setting: the setting that names where they lie, e.g. "data.root".
        root: its value.
    """

    source: Source
    names: Sequence[str]
    setting: str
    root: str | Path

    def certainly_of(self, folder: Path) -> bool:
        """Whether a run of version 0.1 can only have been made of these images.

        It can where its `config.yaml` names the same folder or file, and no image was modified after that was written.
        """
        file = folder / "config.yaml"
        if not file.is_file():
            return False
        try:
            stored = stored_value(read_settings(file), self.setting)
        except LsapError:
            return False
        if not isinstance(stored, str) or _resolved(stored) != _resolved(self.root):
            return False
        return unchanged_since(self.source, self.names, file.stat().st_mtime)

    def find(self, current: RunFolder, earlier: RunFolder) -> RunFolder:
        """The folder of a run: `earlier` if it holds one of version 0.1, certainly of these images; else `current`."""
        if current.holds_run() or not earlier.holds_run() or not self.certainly_of(earlier.path):
            return current
        return earlier


def _resolved(path: str | Path) -> str:
    return os.path.realpath(expanded(path))
