"""Faces as FFHQ shows them: where the square lies in a photograph, cutting it out, pasting it back.

FFHQ (Karras et al. 2019, appendix A) turns and scales every photograph so that eyes and mouth come to rest at the same
places. All generators and encoders of the face domain have seen nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from lsap.errors import BadValue

Points = NDArray[np.float64]

# Of the 68 landmarks of the iBUG scheme, counted from 0: the six around each eye, and the corners of the mouth.
EYES = (range(36, 42), range(42, 48))
MOUTH = (48, 54)


@dataclass(frozen=True)
class Square:
    """A square anywhere in a photograph, possibly turned and partly outside.

    Attributes:
        centre: (x, y) in pixels of the upright photograph, (0, 0) at the corner of its first pixel.
        right: (x, y), half a side long, from the centre to the middle of the crop's right edge.
    """

    centre: tuple[float, float]
    right: tuple[float, float]

    @property
    def side(self) -> float:
        """Its length in pixels of the photograph."""
        return 2 * float(np.hypot(*self.right))

    def matrix(self, size: int) -> Points:
        """[2, 3]: photograph = matrix · (u, v, 1) for a place (u, v) in the crop of `size` pixels."""
        (cx, cy), (rx, ry) = self.centre, self.right
        step = 2 / size
        return np.array([[rx * step, -ry * step, cx - rx + ry], [ry * step, rx * step, cy - ry - rx]])

    def corners(self) -> Points:
        """[4, 2]: top left, top right, bottom right, bottom left."""
        return np.array([[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]]) @ self.matrix(1).T


def aligned(landmarks: Points) -> Square:
    """The square that FFHQ would cut for a face.

    Its upper edge runs along the sum of two vectors: from eye to eye, and the perpendicular of that from eyes to mouth.
    A side is four times the distance of the eyes or 3.6 times that from eyes to mouth, whichever is larger; the centre
    lies a tenth of the way from the eyes to the mouth.

    Args:
        landmarks: [68, 2] x and y in pixels, iBUG scheme.

    Raises:
        BadValue: another shape, values that are not finite, or eyes and mouth in one place.
    """
    if landmarks.shape != (68, 2) or not np.isfinite(landmarks).all():
        raise BadValue(f"landmarks of a face are 68 pairs of finite numbers, not {list(landmarks.shape)}")
    left, right = (landmarks[list(eye)].mean(axis=0) for eye in EYES)
    eyes, mouth = (left + right) / 2, landmarks[list(MOUTH)].mean(axis=0)
    across, down = right - left, mouth - eyes
    direction = across + np.array([down[1], -down[0]])  # `down` turned by a quarter runs along the eyes
    length = float(np.hypot(*direction))
    half = max(2.0 * float(np.hypot(*across)), 1.8 * float(np.hypot(*down)))
    if length < 1e-6 or half < 1e-6:
        raise BadValue("the landmarks have eyes and mouth in one place: they do not describe a face")
    x, y = direction / length * half
    centre = eyes + 0.1 * down
    return Square((float(centre[0]), float(centre[1])), (float(x), float(y)))


def cut_out(photo: Image.Image, square: Square, size: int) -> Image.Image:
    """The crop of `size` x `size` pixels that a square covers.

    Where the square leaves the photograph, the picture goes on as its mirror image, blurred more and more and fading to
    its median colour, much as in FFHQ: a hard edge would be taken for content.

    Args:
        photo: upright RGB.
        square: from `aligned`.
        size: pixels of a side.

    Raises:
        BadValue: the square lies outside the photograph, or is far larger than it.
    """
    if not (0 <= square.centre[0] <= photo.width and 0 <= square.centre[1] <= photo.height):
        raise BadValue("the face lies outside the photograph: are these its landmarks?")
    if square.side > 8 * max(photo.size):
        raise BadValue("the face is far larger than the photograph: are these its landmarks?")
    corners = square.corners()
    margin = 2 + square.side / size  # what the filters reach beyond the square
    low = np.floor(corners.min(axis=0) - margin).astype(int)
    high = np.ceil(corners.max(axis=0) + margin).astype(int)
    region = surrounded(photo, tuple(low), tuple(high), square.side)
    shift = np.array([[0, 0, -low[0]], [0, 0, -low[1]]])
    return warp(region, square.matrix(size) + shift, (size, size))


def paste_back(photo: Image.Image, crop: Image.Image, square: Square, feather: float = 0.1) -> Image.Image:
    """A photograph with an edited crop in the place that it was cut from.

    Args:
        photo: upright RGB, as it was cut.
        crop: RGB, square, of any size.
        square: where it was cut.
        feather: over this fraction of a side, from each edge inwards, the crop fades into the photograph.

    Raises:
        BadValue: the crop is not square, or `feather` is not between 0 and 0.5.
    """
    if crop.width != crop.height:
        raise BadValue(f"a crop is square, but this one has {crop.width}x{crop.height} pixels")
    if not 0 <= feather <= 0.5:
        raise BadValue(f"feather={feather}: a fraction of the crop's side, from 0 to 0.5")
    corners = square.corners()
    low = np.maximum(np.floor(corners.min(axis=0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 1, photo.size)
    if (high <= low).any():
        return photo.copy()
    # the way back: place in the photograph's box → place in the crop
    there = np.vstack([square.matrix(crop.width), [0, 0, 1]])
    back = np.linalg.inv(there) @ np.array([[1, 0, low[0]], [0, 1, low[1]], [0, 0, 1]])
    extent = (int(high[0] - low[0]), int(high[1] - low[1]))
    face = warp(crop, back[:2], extent)
    mask = warp(fading(crop.width, feather), back[:2], extent)
    result = photo.copy()
    result.paste(face, (int(low[0]), int(low[1])), mask)
    return result


def fading(size: int, feather: float) -> Image.Image:
    """A mask that is white inside and falls smoothly to black at every edge."""
    distance = np.minimum(np.arange(size) + 0.5, size - np.arange(size) - 0.5) / size
    ramp = np.clip(distance / max(feather, 1 / size), 0, 1)
    smooth = ramp * ramp * (3 - 2 * ramp)
    return Image.fromarray((np.minimum.outer(smooth, smooth) * 255).round().astype(np.uint8))


def warp(image: Image.Image, matrix: Points, size: tuple[int, int]) -> Image.Image:
    """What an affine map sees of an image, antialiased; black outside.

    Args:
        image: RGB or grey.
        matrix: [2, 3], place in the image = matrix · (u, v, 1).
        size: (width, height) of the result.
    """
    scale = float(np.hypot(*matrix[:, 0]))  # pixels of the image per pixel of the result
    if scale > 1.5:  # Pillow's warps look at few pixels: reduce with a proper filter first
        width, height = max(1, round(image.width / scale)), max(1, round(image.height / scale))
        matrix = matrix * np.array([[width / image.width], [height / image.height]])
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return image.transform(size, Image.Transform.AFFINE, tuple(matrix.flatten()), Image.Resampling.BICUBIC)


def surrounded(photo: Image.Image, low: tuple[int, int], high: tuple[int, int], side: float) -> Image.Image:
    """The pixels from `low` to `high` (x, y), which may lie outside the photograph.

    Outside, mirrored pixels blend over 3 % of the face's side into their blurred copy, and over 30 % into the median
    colour of the photograph.
    """
    outside = ((max(0, -low[1]), max(0, high[1] - photo.height)), (max(0, -low[0]), max(0, high[0] - photo.width)))
    inside = photo.crop((max(low[0], 0), max(low[1], 0), min(high[0], photo.width), min(high[1], photo.height)))
    if not any(before or after for before, after in outside):
        return inside
    pixels = np.asarray(inside)
    mirrored = np.pad(pixels, (*outside, (0, 0)), mode="symmetric")
    height, width = mirrored.shape[:2]
    (top, bottom), (left, right) = outside
    rows = beyond(height, top, bottom)
    columns = beyond(width, left, right)
    distance = np.hypot(rows[:, None], columns[None, :])[..., None] / side
    blurred = np.asarray(Image.fromarray(mirrored).filter(ImageFilter.GaussianBlur(0.02 * side)), np.float64)
    median = np.median(np.asarray(photo.resize((64, 64), Image.Resampling.BOX)).reshape(-1, 3), axis=0)
    picture = mirrored + (blurred - mirrored) * np.clip(distance / 0.03, 0, 1)
    picture += (median - picture) * np.clip(distance / 0.3, 0, 1)
    return Image.fromarray(picture.round().clip(0, 255).astype(np.uint8))


def beyond(length: int, before: int, after: int) -> Points:
    """How far each of `length` places lies outside, with `before` and `after` places outside at the ends."""
    places = np.arange(length, dtype=np.float64)
    return np.maximum(np.maximum(before - places, places - (length - 1 - after)), 0.0)
