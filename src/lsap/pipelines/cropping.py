"""`python -m lsap.crop images=/path/to/photographs`: faces cut out as FFHQ shows them.

Generators and encoders of the face domain know aligned faces only. Beside the crops lies `crops.json`: which square of
which photograph each is, so that `lsap.paste` can put it back, and the images in which no face was found.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from omegaconf import DictConfig

from lsap.data import SUFFIXES, Photographs, UnreadableImage
from lsap.data.faces import Square, aligned, cut_out
from lsap.data.folder import Folder
from lsap.data.landmarks import DetectedLandmarks, Landmarks, ListedLandmarks
from lsap.data.opening import open_storage
from lsap.data.storage import found
from lsap.errors import BadValue
from lsap.reports.pictures import save
from lsap.runs import write_json
from lsap.values import expanded

RECORD = "crops.json"


@dataclass(frozen=True)
class Crop:
    """One face: the file that it became, the photograph that it is in, and where."""

    crop: str
    photo: str
    photo_size: tuple[int, int]  # height, width, upright
    square: Square


@dataclass
class Crops:
    """What became of a collection of photographs."""

    photographs: str  # where they lie
    size: int
    crops: list[Crop] = field(default_factory=list)
    without_face: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)  # name: reason


def crop(config: DictConfig) -> Crops:
    """Cut the faces out of photographs; writes the crops and `crops.json`, prints what was found.

    Raises:
        BadValue: no images are named, none of them shows a face, a number that cannot work, packages are missing.
        MissingFile: there are no such images or landmarks.
    """
    size, most = config.size, config.faces
    photographs = opened(config.images)
    finder = _finder(config.landmarks)
    folder = Path(config.to)
    result = Crops(str(photographs.root.absolute()), size)
    taken: set[str] = set()
    for index, name in enumerate(photographs.names):
        try:
            photo = photographs.picture(index)
        except UnreadableImage as error:
            result.unreadable[name] = error.reason
            continue
        faces = finder.find(name, photo)[:most]
        if not faces:
            result.without_face.append(name)
        for number, landmarks in enumerate(faces, 1):
            square = aligned(landmarks)
            try:
                face = cut_out(photo, square, size)
            except BadValue as error:
                raise BadValue(f"{photographs.root / name}: {error}") from error
            file = file_name(name, number, taken)
            save(face, folder / file)
            result.crops.append(Crop(file, name, (photo.height, photo.width), square))
    if not result.crops:
        raise BadValue(
            f"images={config.images}: no face found in any of {len(photographs)} images "
            f"(the first: {photographs.names[0]}); landmarks=/path/to/file.json can say where they are"
        )
    write_json(folder / RECORD, asdict(result))
    _print_result(result, folder)
    return result


def _finder(landmarks: str | None) -> Landmarks:
    """Who finds the faces: the detector, or a file that lists them."""
    if landmarks is not None:
        return ListedLandmarks(landmarks)
    try:
        return DetectedLandmarks()
    except BadValue as error:
        raise BadValue(f"{error}; or bring landmarks of your own with landmarks=/path/to/file.json") from error


def opened(images: Any) -> Photographs:
    """Photographs at their own size: one file, or whatever holds several; raises BadValue or MissingFile."""
    if images is None:
        raise BadValue("no images are named: give a photograph or a folder, e.g. images=/path/to/photographs")
    path = expanded(str(images))
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return Photographs(Folder(path.parent, "images"), [path.name], (1, 1))
    storage = open_storage(images, "images")
    return Photographs(storage, found(storage, "images"), (1, 1))


def file_name(name: str, number: int, taken: set[str]) -> str:
    """A file for one face of an image, as no other of this run; never outside the folder, whatever an archive says."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "..")]
    whole = "/".join(parts)
    stem = str(PurePosixPath(whole).with_suffix(""))
    face = "" if number == 1 else f".{number}"
    file = next(choice for choice in (f"{stem}{face}.png", f"{whole}{face}.png") if choice not in taken)
    taken.add(file)
    return file


def _print_result(result: Crops, folder: Path) -> None:
    """Print what became of the photographs, naming those without a crop."""
    number = f"{len(result.crops)} face{'' if len(result.crops) == 1 else 's'}"
    print(f"{number} of {result.size}x{result.size} pixels: {folder}")
    for what, names in (("no face in", result.without_face), ("cannot be read:", list(result.unreadable))):
        if names:
            more = f" and {len(names) - 10} more, all in {RECORD}" if len(names) > 10 else ""
            print(f"{what} {', '.join(names[:10])}{more}")


def stored(folder: Path) -> Crops:
    """What `crop` wrote into a folder; raises BadValue where that is not understood."""
    try:
        read = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        crops = [
            Crop(
                str(one["crop"]), str(one["photo"]), (int(one["photo_size"][0]), int(one["photo_size"][1])),
                Square(*((float(one["square"][key][0]), float(one["square"][key][1])) for key in ("centre", "right"))),
            )
            for one in read["crops"]
        ]  # fmt: skip
        return Crops(str(read["photographs"]), int(read["size"]), crops)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise BadValue(f"{folder / RECORD} is not what lsap.crop writes ({error!r}); cut the faces again") from error
