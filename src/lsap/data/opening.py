"""From a path to a source of images: what lies there is recognised, not declared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from lsap.data.archive import ZipArchive
from lsap.data.database import LmdbDatabase
from lsap.data.datasets import AFHQ, FFHQ, LSUN, CelebAHQ, DataSet, Picked, Split, StanfordCars
from lsap.data.folder import Folder, existing
from lsap.data.storage import Photographs, Storage, found, image_size
from lsap.errors import BadValue

# The first that claims a root opens it.
STORAGES: tuple[type[LmdbDatabase] | type[ZipArchive] | type[Folder], ...] = (LmdbDatabase, ZipArchive, Folder)
DATA_SETS: tuple[DataSet, ...] = (StanfordCars(), CelebAHQ(), FFHQ(), AFHQ(), LSUN())


def open_images(
    root: str | Path,
    size: Sequence[int],
    strict: bool = False,
    split: Split = "train",
    category: str | None = None,
    setting: str = "data.root",
) -> Photographs:
    """The images at a path: one split of a data set that is recognised there, else every image.

    Args:
        root: a folder, a zip archive or an LMDB.
        size: (height, width) in pixels of what is read.
        strict: a broken image stops the run instead of being left out.
        split: "train" or "test"; images that are just there have no splits.
        category: what is wanted of a data set of several kinds of things ("wild" of AFHQ, "church_outdoor" of LSUN).
        setting: the setting that named the path, for messages.

    Raises:
        MissingFile: nothing lies there, or a data set lacks the file that lists its split.
        BadValue: it cannot be read, holds no image, or has no such split or category.
    """
    image_size(size)  # before a long listing
    storage = open_storage(root, setting)
    data_set = recognised(storage, category)
    if data_set is None:
        return Photographs(storage, found(storage, setting), size, strict)
    picked = data_set.pick(storage, split, category)
    if picked is None:
        raise BadValue(
            f"{setting}={root} holds {data_set.title}, but no {split} split of it; "
            "to take images as they are, name the folder that holds them"
        )
    return _photographs(data_set, picked, size, strict)


def open_test_images(
    root: str | Path,
    test_root: str | Path | None,
    size: Sequence[int],
    strict: bool = False,
    category: str | None = None,
) -> Photographs | None:
    """The images to measure on: those of `test_root`; where it is None, the test split of a data set in `root`.

    None where neither is there. Arguments and errors are those of `open_images`.
    """
    if test_root is not None:
        return open_images(test_root, size, strict, "test", category, "data.test_root")
    storage = open_storage(root, "data.root")
    data_set = recognised(storage, category)
    picked = data_set.pick(storage, "test", category) if data_set is not None else None
    return None if data_set is None or picked is None else _photographs(data_set, picked, size, strict)


def open_storage(root: str | Path, setting: str = "data.root") -> Storage:
    """Whatever holds the files of a path; raises MissingFile or BadValue, with the setting, where nothing can."""
    path = existing(root, setting)
    kind: Callable[[str | Path, str], Storage] = next((kind for kind in STORAGES if kind.claims(path)), Folder)
    return kind(root, setting)


def recognised(storage: Storage, category: str | None) -> DataSet | None:
    """The data set that lies in a storage, if it is one that we know."""
    return next((data_set for data_set in DATA_SETS if data_set.recognises(storage, category)), None)


def _photographs(data_set: DataSet, picked: Picked, size: Sequence[int], strict: bool) -> Photographs:
    return Photographs(picked.storage, picked.names, size, strict, data_set.title)
