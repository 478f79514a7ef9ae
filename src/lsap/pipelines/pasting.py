"""`python -m lsap.paste edited=/path/to/edited`: edited faces back in their photographs.

The way back of `lsap.crop`: each edited crop is drawn where it was cut and fades into the photograph at its edges.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path, PurePosixPath

from omegaconf import DictConfig

from lsap.data import Photographs
from lsap.data.faces import paste_back
from lsap.data.folder import Folder
from lsap.errors import BadValue, MissingFile
from lsap.pipelines.cropping import RECORD, file_name, opened, stored
from lsap.reports.pictures import save


def paste(config: DictConfig) -> list[Path]:
    """Put edited crops back; writes one PNG per photograph that has any, and prints their number.

    Raises:
        MissingFile: no `crops.json`, edited crops or photographs are there.
        BadValue: nothing is named, no edited file belongs to a crop, or a photograph is not the one that was cut.
    """
    if config.edited is None:
        raise BadValue("no edited crops are named: give their folder, e.g. edited=/path/to/edited")
    crops = Path(config.crops)
    if not (crops / RECORD).is_file():
        raise MissingFile(f"crops={crops} holds no {RECORD}; name the folder that lsap.crop wrote")
    record = stored(crops)
    folder = Folder(config.edited, "edited")
    edited = Photographs(folder, folder.images, (1, 1))
    by_stem = {without_suffix(name): index for index, name in enumerate(edited.names)}
    wanted = [crop for crop in record.crops if without_suffix(crop.crop) in by_stem]
    if not wanted:
        raise BadValue(
            f"edited={config.edited}: none of {len(edited)} images is named as a crop in {crops} is, "
            f"such as {record.crops[0].crop if record.crops else 'face.png'}"
        )
    photographs = opened(record.photographs if config.images is None else config.images)
    known = {name: index for index, name in enumerate(photographs.names)}
    written: list[Path] = []
    taken: set[str] = set()
    for name, faces in groupby(wanted, key=lambda crop: crop.photo):
        if name not in known:
            raise MissingFile(
                f"{photographs.root / name}, of which {crops} holds a crop, is not there; say where with images="
            )
        photo = photographs.picture(known[name])
        for face in reversed(list(faces)):  # the largest last, so that it lies on top
            if (photo.height, photo.width) != face.photo_size:
                raise BadValue(
                    f"{photographs.root / name} has {photo.height}x{photo.width} pixels (height x width), but the one "
                    f"that {face.crop} was cut from had {face.photo_size[0]}x{face.photo_size[1]}: is it the same?"
                )
            photo = paste_back(photo, edited.picture(by_stem[without_suffix(face.crop)]), face.square, config.feather)
        written.append(save(photo, Path(config.to) / file_name(name, 1, taken)))
    print(f"{len(written)} photograph{'' if len(written) == 1 else 's'} with edited faces: {config.to}")
    return written


def without_suffix(name: str) -> str:
    """A file's path as far as the suffix, which an edited crop may change."""
    return str(PurePosixPath(name).with_suffix(""))
