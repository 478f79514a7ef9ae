"""The paper's data sets as they are distributed: how each is recognised, and which of its images are which split.

A data set lies in any storage (a folder, a zip archive), at its root or one level below. None of them is needed: images
that are just there are read as they are.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from typing import ClassVar, Literal, NamedTuple, Protocol

import numpy as np

from lsap.data.archive import ZipArchive
from lsap.data.database import DATA, LmdbDatabase
from lsap.data.storage import Storage
from lsap.errors import BadValue, MissingFile, nearest

log = logging.getLogger(__name__)

Split = Literal["train", "test"]


class Picked(NamedTuple):
    """The images of one split: where they lie, and their names there."""

    storage: Storage
    names: Sequence[str]


class DataSet(Protocol):
    """A data set as distributed. `category` names what is wanted of one that holds several kinds of things."""

    title: ClassVar[str]

    def recognises(self, storage: Storage, category: str | None) -> bool:
        """Whether it lies there."""
        ...

    def pick(self, storage: Storage, split: Split, category: str | None) -> Picked | None:
        """A split of it, None where it has no such split; raises BadValue or MissingFile where it is damaged."""
        ...


class StanfordCars:
    """Stanford Cars: `cars_train/`, `cars_test/` and the annotations of the devkit, which list their images.

    The test split is the 1000 of its 8041 test images that `stanford_cars_test_1000.txt` beside this module lists. The
    paper drew 1000 at random (section 5.1) and published no list: this one is ours.
    """

    title: ClassVar[str] = "Stanford Cars"
    annotations: ClassVar = {
        "train": ("cars_train_annos.mat",),
        "test": ("cars_test_annos.mat", "cars_test_annos_withlabels.mat"),
    }
    test_size = 8041

    def recognises(self, storage: Storage, category: str | None) -> bool:
        """By its annotations, or by both of its image folders."""
        names = {name.rpartition("/")[2] for name in storage.files}
        folders = {part for name in storage.images for part in name.split("/")[:-1]}
        return bool(names & {*self.annotations["train"], *self.annotations["test"]}) or (
            {"cars_train", "cars_test"} <= folders
        )

    def pick(self, storage: Storage, split: Split, category: str | None) -> Picked:
        """The images that the annotations list; raises MissingFile without them, BadValue where they do not fit."""
        wanted = self.annotations[split]
        file = first_called(storage, wanted)
        if file is None:
            raise MissingFile(
                f"{storage.root} holds {self.title}, but not {' or '.join(wanted)}, which lists its {split} images: "
                f"put it there (it comes with the devkit), or name the folder cars_{split} alone to take all in it"
            )
        listed = annotated(storage, file)
        if split == "test":
            if len(listed) != self.test_size:
                raise BadValue(
                    f"{storage.root / file} lists {len(listed)} images, but the test set of {self.title} has "
                    f"{self.test_size}: is it another annotation file?"
                )
            listed = sorted(set(listed) & set(listed_for_test()))
        there = {name.rpartition("/")[2]: name for name in storage.images if f"cars_{split}" in name.split("/")[:-1]}
        names = [there[name] for name in sorted(listed) if name in there]
        missing = [name for name in listed if name not in there]
        if not names:
            raise BadValue(
                f"{storage.root}: no image of a folder cars_{split} is listed in {file} "
                f"(which begins with {', '.join(listed[:2])}): is it another annotation file?"
            )
        if missing:
            log.warning(
                "%s lists %d images that are not in %s/cars_%s (the first: %s); left out",
                file, len(missing), storage.root, split, missing[0],
            )  # fmt: skip
        return Picked(storage, names)


def annotated(storage: Storage, file: str) -> list[str]:
    """The image names in an annotation file of Stanford Cars; raises BadValue where it is none."""
    from scipy.io import loadmat  # a slow import that only cars need

    try:
        entries = np.atleast_1d(loadmat(io.BytesIO(storage.read(file)), squeeze_me=True)["annotations"])
        return [str(name) for name in entries["fname"]]
    except Exception as error:  # on foreign files the reader raises almost anything
        raise BadValue(
            f"{storage.root / file} is no annotation file of Stanford Cars' devkit: it has no `annotations` with "
            f"`fname` ({type(error).__name__}); cars_annos.mat, which numbers images otherwise, cannot stand in for it"
        ) from error


def listed_for_test() -> list[str]:
    """Names of the 1000 images of Stanford Cars' test set that are measured; drawn once with a fixed seed."""
    lines = files("lsap.data").joinpath("stanford_cars_test_1000.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


class CelebAHQ:
    """CelebA-HQ, split as CelebA is: of 30 000 images 24 183 train, 2993 validate and 2824 test (section 5.1).

    Its images are numbered; a mapping file says which image of CelebA each number is, and CelebA's partition to which
    split that belongs.
    """

    title: ClassVar[str] = "CelebA-HQ"
    mappings = ("CelebA-HQ-to-CelebA-mapping.txt", "image_list.txt")
    partition = "list_eval_partition.txt"
    photographs = "CelebA-HQ-img"  # the folder of CelebAMask-HQ that holds them, beside hundreds of thousands of masks
    parts: ClassVar = {"train": "0", "test": "2"}

    def recognises(self, storage: Storage, category: str | None) -> bool:
        """By a mapping file."""
        return first_called(storage, self.mappings) is not None

    def pick(self, storage: Storage, split: Split, category: str | None) -> Picked:
        """The images of CelebA's split; raises MissingFile without its partition, BadValue where files do not fit."""
        mapping, partition = first_called(storage, self.mappings), first_called(storage, (self.partition,))
        assert mapping is not None
        if partition is None:
            raise MissingFile(
                f"{storage.root} holds CelebA-HQ, but not {self.partition} of CelebA, without which its splits are "
                "not known: put it there; to take all images, name a folder that holds nothing but them"
            )
        originals = dict(columns(storage, mapping, ("idx", "orig_file")))
        split_of = dict(columns(storage, partition))
        names: dict[str, str] = {}
        for number, name in self.numbered(storage):
            original = originals.get(number)
            if original is None or original not in split_of:
                file, line = (mapping, number) if original is None else (partition, original)
                raise BadValue(f"{storage.root / file} has no line for {line}, which {name} needs: is it another file?")
            if number in names:
                raise BadValue(
                    f"{storage.root}: {names[number]} and {name} are both image {number} of CelebA-HQ; "
                    "keep one of them, or name a folder that holds the photographs alone"
                )
            names[number] = name
        chosen = [name for number, name in names.items() if split_of[originals[number]] == self.parts[split]]
        if not chosen:
            raise BadValue(f"{storage.root}: none of {len(names)} images belongs to the {split} split of CelebA-HQ")
        return Picked(storage, chosen)

    def numbered(self, storage: Storage) -> Iterator[tuple[str, str]]:
        """(number as the mapping writes it, name) of every photograph."""
        proper = [name for name in storage.images if self.photographs in name.split("/")[:-1]]
        for name in proper or storage.images:
            stem = name.rpartition("/")[2].rpartition(".")[0]
            if stem.isdecimal():
                yield str(int(stem)), name


class FFHQ:
    """FFHQ as its download script lays it out: the crops lie in `images1024x1024`, beside thumbnails and originals."""

    title: ClassVar[str] = "FFHQ"
    crops = "images1024x1024"

    def recognises(self, storage: Storage, category: str | None) -> bool:
        """By the folder of crops."""
        return any(self.crops in name.split("/")[:2] for name in storage.images)

    def pick(self, storage: Storage, split: Split, category: str | None) -> Picked | None:
        """All crops are training images (section 5.1)."""
        if split == "test":
            return None
        return Picked(storage, [name for name in storage.images if self.crops in name.split("/")[:2]])


class AFHQ:
    """AFHQ, both versions: `train/<category>`, and `val/<category>` (version 1) or `test/<category>` (version 2)."""

    title: ClassVar[str] = "AFHQ"
    kinds: ClassVar = {"cat", "dog", "wild"}

    def recognises(self, storage: Storage, category: str | None) -> bool:
        """By the wanted category below `train`, or by all three."""
        kinds = self.categories(storage)
        return category in kinds or kinds >= self.kinds

    def pick(self, storage: Storage, split: Split, category: str | None) -> Picked | None:
        """The images of a category; raises BadValue where it has no such one."""
        kinds = self.categories(storage)
        if category not in kinds:
            raise BadValue(
                f"{storage.root} holds {', '.join(sorted(kinds))}; data.category={category or 'null'} names none of "
                f"them: set data.category, or name the folder of one"
            )
        folders = {"train": ("train",), "test": ("val", "test")}[split]
        names = [name for name in storage.images if placed(name)[0] in folders and placed(name)[1] == category]
        return Picked(storage, names) if names else None

    def categories(self, storage: Storage) -> set[str]:
        """Names of the folders below `train`."""
        return {placed(name)[1] for name in storage.images if placed(name)[0] == "train"}


def placed(name: str) -> tuple[str, str]:
    """(split, category) of …/split/category/file; empty where it does not lie so deep."""
    parts = name.split("/")
    return (parts[-3], parts[-2]) if 3 <= len(parts) <= 4 else ("", "")


class LSUN:
    """LSUN: one LMDB per category and split, `<category>_train_lmdb` and `<category>_val_lmdb`."""

    title: ClassVar[str] = "LSUN"
    folders: ClassVar = {"train": "_train_lmdb", "test": "_val_lmdb"}

    def recognises(self, storage: Storage, category: str | None) -> bool:
        """By any of its databases, unpacked."""
        return not isinstance(storage, ZipArchive) and bool(self.databases(storage))

    def pick(self, storage: Storage, split: Split, category: str | None) -> Picked | None:
        """The database of a category; raises BadValue where it has no such one."""
        databases = self.databases(storage)
        kinds = {name.removesuffix(end) for name in databases for end in self.folders.values() if name.endswith(end)}
        if category not in kinds:
            raise BadValue(
                f"{storage.root} holds LSUN's {', '.join(sorted(kinds))}; data.category={category or 'null'} names "
                "none of them: set data.category, or name the folder of one database"
            )
        name = f"{category}{self.folders[split]}"
        if name not in databases:
            return None
        database = LmdbDatabase(storage.root / databases[name])
        return Picked(database, database.images)

    def databases(self, storage: Storage) -> dict[str, str]:
        """Folders that hold one, by their own names."""
        paths = (name.rpartition("/")[0] for name in storage.files if name.rpartition("/")[2] == DATA)
        ends = tuple(self.folders.values())
        return {path.rpartition("/")[2]: path for path in paths if path.endswith(ends)}


def first_called(storage: Storage, wanted: Sequence[str]) -> str | None:
    """The first file of a storage that has one of these names, in whatever folder."""
    by_name = {name.rpartition("/")[2]: name for name in reversed(storage.files)}
    return next((by_name[name] for name in wanted if name in by_name), None)


def columns(storage: Storage, file: str, heading: tuple[str, str] | None = None) -> Iterable[tuple[str, str]]:
    """Two columns of a text table: those under these headings, or else its first two.

    Raises:
        BadValue: it has no such heading, or a line that is too short.
    """
    text = storage.read(file).decode("utf-8", "replace")
    lines = [line.split() for line in text.splitlines() if line.strip()]
    places = (0, 1)
    if heading is not None:
        titles = lines.pop(0) if lines else []
        for title in heading:
            if title not in titles:
                raise BadValue(f"{storage.root / file}: its first line has no column {title}; {nearest(title, titles)}")
        places = titles.index(heading[0]), titles.index(heading[1])
    for number, line in enumerate(lines, 1 if heading is None else 2):
        if len(line) <= max(places):
            raise BadValue(f"{storage.root / file}, line {number}: {' '.join(line)!r} has too few columns")
        yield line[places[0]], line[places[1]]
