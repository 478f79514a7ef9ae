"""Pictures of results: images side by side under captions, drawn so that a person can judge them.

Images are float tensors [N, 3, H, W] in [-1, 1], square or not. Small ones are enlarged smoothly, large ones reduced;
nothing is ever stretched.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import matplotlib
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lsap.errors import BadValue
from lsap.runs import replacing, write_bytes

TILE = 128  # the longer side of a shown image, in pixels
GAP, GROUP_GAP, MARGIN = 4, 18, 14
FRAME = 120  # milliseconds that a picture of an animation stands
INK, FAINT, PAPER = (28, 33, 40), (104, 114, 125), (255, 255, 255)


@dataclass(frozen=True)
class Column:
    """One column of a picture: the same N subjects, treated in one way.

    Attributes:
        title: the caption above, e.g. "smile".
        images: [N, 3, H, W] in [-1, 1], or N images [3, H, W].
        group: neighbouring columns of one group stand together under its name, e.g. "λ = 0.5".
    """

    title: str
    images: Tensor | Sequence[Tensor]
    group: str = ""


def tile(image: Tensor, longest: int = TILE) -> Image.Image:
    """One image [3, H, W] in [-1, 1] for the eye: 8 bits, its longer side `longest` pixels, proportions kept.

    Values outside the range are clipped and NaN is shown grey.

    Raises:
        BadValue: not an RGB image.
    """
    if image.ndim != 3 or image.shape[0] != 3:
        raise BadValue(f"a picture needs images of shape [3, H, W], but one has the shape {list(image.shape)}")
    values = torch.nan_to_num(image.detach().float().cpu(), nan=0.0).clamp(-1, 1)
    pixels = ((values + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    picture = Image.fromarray(pixels)
    scale = longest / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS)


def reconstruction_grid(
    inputs: Tensor, outputs: Mapping[str, Tensor], *, count: int = 8, longest: int = TILE
) -> Image.Image:
    """Inputs in the first row, one row of outputs per name below, one column per image.

    Args:
        inputs: [N, 3, H, W] in [-1, 1].
        outputs: name → [N, 3, H, W]; the names stand at the left.
        count: at most this many images, the first ones.
        longest: pixels of a tile's longer side.

    Raises:
        BadValue: no image, or inputs and outputs differ in number.
    """
    counts = {"input": len(inputs)} | {name: len(images) for name, images in outputs.items()}
    if len(set(counts.values())) > 1:
        raise BadValue(f"inputs and outputs must be equally many images, but these differ: {counts}")
    rows = [inputs[:count], *(images[:count] for images in outputs.values())]
    columns = [Column("", images) for images in zip(*rows, strict=True)]
    return grid(columns, names=list(counts), longest=longest)


def grid(columns: Sequence[Column], *, names: Sequence[str] = (), longest: int = TILE) -> Image.Image:
    """Columns of images under their captions, groups set apart and named.

    Args:
        columns: at least one, each with the same number of images.
        names: captions of the rows, drawn at the left; none by default.
        longest: pixels of a tile's longer side.

    Raises:
        BadValue: no image, or columns or names of different length.
    """
    rows = _rows(columns, names)
    tiles = [[tile(image, longest) for image in column.images] for column in columns]
    width = max(t.width for column in tiles for t in column)
    height = max(t.height for column in tiles for t in column)
    font = _font(max(12, round(longest / 8)))
    bold = _font(max(12, round(longest / 8)), bold=True)
    line = round(font.size * 1.35)
    titles = [_wrapped(column.title, font, width) for column in columns]
    grouped = any(column.group for column in columns)
    captions = line * max(len(title) for title in titles)
    top = MARGIN + (line + 8 if grouped else 0) + (captions + 4 if captions else 0)
    left = MARGIN + (max(round(font.getlength(name)) for name in names) + 10 if names else 0)
    starts, at = [], left
    for index, column in enumerate(columns):
        if index:
            at += width + (GAP if column.group == columns[index - 1].group else GROUP_GAP)
        starts.append(at)
    canvas = Image.new("RGB", (at + width + MARGIN, top + rows * (height + GAP) - GAP + MARGIN), PAPER)
    draw = ImageDraw.Draw(canvas)
    for name, first, last in spans(columns):
        begin, end = starts[first], starts[last] + width
        draw.text(((begin + end) / 2, MARGIN), name, INK, bold, anchor="ma")
        draw.line([(begin, MARGIN + line), (end - 1, MARGIN + line)], FAINT, 1)
    for x, column, title, pictures in zip(starts, columns, titles, tiles, strict=True):
        for number, text in enumerate(title):
            y = top - 4 - line * (len(title) - number)
            draw.text((x + width / 2, y), text, FAINT if column.group else INK, font, anchor="ma")
        for row, picture in enumerate(pictures):
            y = top + row * (height + GAP)
            canvas.paste(picture, (x + (width - picture.width) // 2, y + (height - picture.height) // 2))
    for row, name in enumerate(names):
        draw.text((left - 10, top + row * (height + GAP) + height / 2), name, INK, font, anchor="rm")
    return canvas


def spans(columns: Sequence[Column]) -> list[tuple[str, int, int]]:
    """Named groups of neighbouring columns: (name, first, last)."""
    found = []
    for name, members in groupby(enumerate(columns), key=lambda pair: pair[1].group):
        positions = [index for index, _ in members]
        if name:
            found.append((name, positions[0], positions[-1]))
    return found


def sheet(images: Tensor, columns: int = 8, *, longest: int = TILE) -> Image.Image:
    """All images [N, 3, H, W] in reading order, without captions: samples of a generator, a look at a data set."""
    if not len(images):
        raise BadValue("a sheet needs at least one image")
    if columns < 1:
        raise BadValue(f"a sheet needs at least one column, not {columns}")
    tiles = [tile(image, longest) for image in images]
    columns = min(columns, len(tiles))
    width, height = tiles[0].size
    rows = -(-len(tiles) // columns)
    canvas = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP), PAPER)
    for index, picture in enumerate(tiles):
        row, column = divmod(index, columns)
        canvas.paste(picture, (column * (width + GAP), row * (height + GAP)))
    return canvas


def png(picture: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def save(picture: Image.Image, path: Path) -> Path:
    """Write a PNG file whole or not at all."""
    write_bytes(path, png(picture))
    return path


def save_image(image: Tensor, path: Path) -> None:
    """Write one image [3, H, W] in [-1, 1] as PNG, whole or not at all."""
    pixels = ((image.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte()
    with replacing(path) as draft:
        Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(draft, "PNG")


def save_animation(frames: Sequence[Image.Image], path: Path) -> None:
    """Write frames as an endless GIF that runs there and back, whole or not at all.

    They share one palette, so that colours do not flicker.
    """
    tall = Image.new("RGB", (frames[0].width, sum(frame.height for frame in frames)))
    for number, frame in enumerate(frames):
        tall.paste(frame, (0, number * frame.height))
    palette = tall.quantize(256, Image.Quantize.FASTOCTREE)
    drawn = [frame.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for frame in frames]
    first, *others = [*drawn, *drawn[-2:0:-1]]
    with replacing(path) as draft:
        first.save(draft, "GIF", save_all=True, append_images=others, duration=FRAME, loop=0)


def _rows(columns: Sequence[Column], names: Sequence[str]) -> int:
    counts = {column.title: len(column.images) for column in columns}
    if not counts or 0 in counts.values():
        raise BadValue("a picture needs at least one column with at least one image")
    if len(set(counts.values())) > 1:
        raise BadValue(f"columns of a picture must show equally many images, but these differ: {counts}")
    rows = len(columns[0].images)
    if names and len(names) != rows:
        raise BadValue(f"{len(names)} row names for {rows} rows of images")
    return rows


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The lines of a caption no wider than its column, where its words allow."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


@lru_cache(maxsize=16)
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans out of matplotlib: the font inside Pillow has no λ."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)
