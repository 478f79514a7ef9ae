"""Where the 68 landmarks of a face come from: a detector on this machine, or a file."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from lsap.data.faces import Points, aligned
from lsap.errors import BadValue, MissingFile

LONGEST = 1600  # pixels; larger photographs are searched in a smaller copy, where their faces are still large
MODEL = "shape_predictor_68_face_landmarks.dat"


class Landmarks(Protocol):
    """Finds the faces of a photograph."""

    def find(self, name: str, photo: Image.Image) -> list[Points]:
        """The landmarks [68, 2] of every face in an upright RGB photograph, the largest face first."""
        ...


class DetectedLandmarks:
    """The detector and the landmark model that made FFHQ: dlib's, with the data of face_recognition_models.

    Raises:
        BadValue: one of the two packages, which the extra `faces` brings, is not installed.
    """

    def __init__(self) -> None:
        # only located, not imported: it imports pkg_resources, which recent setuptools no longer have
        package = find_spec("face_recognition_models")
        missing = [name for name, there in (("dlib-bin", find_spec("dlib")), ("face-recognition-models", package))
                   if there is None]  # fmt: skip
        if missing or package is None or package.origin is None:
            raise BadValue(
                f"finding faces needs {' and '.join(missing)}, which the extra brings: pip install 'lsap[faces]'"
            )
        import dlib

        self._detector = dlib.get_frontal_face_detector()
        self._predictor = dlib.shape_predictor(str(Path(package.origin).parent / "models" / MODEL))
        self._rectangle = dlib.rectangle

    def find(self, name: str, photo: Image.Image) -> list[Points]:
        """All faces that the detector finds, the largest first."""
        pixels = np.asarray(photo)
        scale = max(1.0, max(photo.size) / LONGEST)
        smaller = photo if scale == 1 else photo.resize((round(photo.width / scale), round(photo.height / scale)))
        found = []
        for box in self._detector(np.asarray(smaller), 1):  # enlarged once: faces from 40 pixels on
            sides = (round(side * scale) for side in (box.left(), box.top(), box.right(), box.bottom()))
            shape = self._predictor(pixels, self._rectangle(*sides))
            found.append(np.array([[point.x, point.y] for point in shape.parts()], dtype=np.float64))
        return largest_first(found)


class ListedLandmarks:
    """Landmarks in a JSON file: name of the image → 68 pairs [x, y], or a list of such where it shows several faces.

    Names are those below the folder of images, with forward slashes; places are pixels of the upright photograph.

    Raises:
        MissingFile: there is no such file.
        BadValue: it is no such JSON file.
    """

    def __init__(self, path: str | Path) -> None:
        if not Path(path).is_file():
            raise MissingFile(f"landmarks={path}: there is no such file; give a JSON file: name → 68 pairs [x, y]")
        try:
            read = json.loads(Path(path).read_text(encoding="utf-8"))
            self._faces = {str(name): as_faces(value) for name, value in read.items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise BadValue(
                f"landmarks={path} is not understood ({error}); give a JSON object: name of the image → 68 pairs "
                "[x, y], or a list of such"
            ) from error

    def find(self, name: str, photo: Image.Image) -> list[Points]:
        """The faces that the file lists for this name, the largest first."""
        return largest_first(self._faces.get(name, []))


def as_faces(value: Any) -> list[Points]:
    """A list of [68, 2] out of one face or several; raises ValueError where the numbers are no landmarks."""
    points: Points = np.asarray(value, dtype=np.float64)
    if points.ndim == 2:
        points = points[None]
    if points.size and points.shape[1:] != (68, 2):
        raise ValueError(f"landmarks of shape {list(points.shape)}, not [68, 2] or [faces, 68, 2]")
    return list(points)


def largest_first(faces: list[Points]) -> list[Points]:
    """Faces in falling order of the squares that they are aligned to."""
    return sorted(faces, key=lambda points: -aligned(points).side)
