"""Pictures for people: right pixels, right places, proportions kept, files whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lsap.errors import BadValue
from lsap.reports import pictures
from lsap.reports.pictures import GAP, GROUP_GAP, MARGIN, Column


def flat(red: float, green: float, blue: float, count: int = 1, height: int = 64, width: int = 64) -> Tensor:
    """Images of one colour."""
    return torch.tensor([red, green, blue])[None, :, None, None].expand(count, 3, height, width)


def columns_of(picture: Image.Image, colour: tuple[int, int, int]) -> list[int]:
    """The x positions at which a colour occurs."""
    return np.flatnonzero((np.asarray(picture) == colour).all(2).any(0)).tolist()


def rows_of(picture: Image.Image, colour: tuple[int, int, int]) -> list[int]:
    return np.flatnonzero((np.asarray(picture) == colour).all(2).any(1)).tolist()


def test_the_range_is_mapped_to_bytes_and_clipped() -> None:
    image = torch.tensor([-1.0, 0.0, 3.0])[:, None, None].expand(3, 8, 8)
    assert pictures.tile(image, longest=8).getpixel((4, 4)) == (0, 128, 255)


def test_nan_is_grey_and_not_an_error() -> None:
    assert pictures.tile(torch.full((3, 8, 8), torch.nan), longest=8).getpixel((0, 0)) == (128, 128, 128)


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(64, 64, (128, 128)), (192, 256, (128, 96)), (16, 8, (64, 128)), (512, 512, (128, 128))],
)
def test_tiles_keep_their_proportions(height: int, width: int, size: tuple[int, int]) -> None:
    assert pictures.tile(torch.zeros(3, height, width)).size == size


def test_a_grid_puts_every_image_under_its_caption_and_sets_groups_apart() -> None:
    red, green, blue = flat(1, -1, -1, 2), flat(-1, 1, -1, 2), flat(-1, -1, 1, 2)
    picture = pictures.grid([Column("input", red), Column("same", green, "λ = 0.5"), Column("smile", blue, "λ = 0.5")])
    assert columns_of(picture, (255, 0, 0)) == list(range(MARGIN, MARGIN + 128))
    second = MARGIN + 128 + GROUP_GAP
    assert columns_of(picture, (0, 255, 0)) == list(range(second, second + 128))
    third = second + 128 + GAP
    assert columns_of(picture, (0, 0, 255)) == list(range(third, third + 128))
    shown = rows_of(picture, (255, 0, 0))
    assert len(shown) == 2 * 128
    assert picture.height == shown[-1] + 1 + MARGIN
    above = np.asarray(picture)[: shown[0]]
    assert (above[:, second:] < 128).any()  # captions are drawn, and only above the images
    assert (above[:, :MARGIN] == 255).all()


def test_reconstructions_lie_under_their_inputs_also_when_not_square() -> None:
    cars = flat(1, -1, -1, 3, height=192, width=256)
    picture = pictures.reconstruction_grid(cars, {"λ = 0": flat(-1, -1, 1, 3, 192, 256)}, count=2)
    above, below = rows_of(picture, (255, 0, 0)), rows_of(picture, (0, 0, 255))
    assert len(above) == len(below) == 96
    assert below[0] == above[-1] + 1 + GAP
    assert columns_of(picture, (255, 0, 0)) == columns_of(picture, (0, 0, 255))
    assert len(columns_of(picture, (0, 0, 255))) == 2 * 128  # `count` images, not all three


def test_the_caption_font_has_the_signs_of_the_field() -> None:
    font = pictures._font(16)
    missing = bytes(font.getmask("\U000f1234"))
    assert all(bytes(font.getmask(sign)) != missing for sign in "λμσ×→−")


def test_a_sheet_is_filled_row_by_row() -> None:
    images = torch.cat([flat(1, -1, -1, 4), flat(-1, 1, -1)])
    picture = pictures.sheet(images, columns=3, longest=32)
    assert picture.size == (3 * 32 + 2 * GAP, 2 * 32 + GAP)
    assert columns_of(picture, (0, 255, 0)) == list(range(32 + GAP, 64 + GAP))
    assert rows_of(picture, (0, 255, 0)) == list(range(32 + GAP, 64 + GAP))


def test_a_saved_picture_is_read_back_and_nothing_else_is_left(tmp_path: Path) -> None:
    picture = pictures.sheet(torch.rand(2, 3, 16, 16) * 2 - 1)
    path = pictures.save(picture, tmp_path / "samples.png")
    assert [p.name for p in tmp_path.iterdir()] == ["samples.png"]
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(picture))


def test_what_cannot_be_drawn_is_said() -> None:
    with pytest.raises(BadValue, match="at least one column with at least one image"):
        pictures.grid([])
    with pytest.raises(BadValue, match=r"equally many images.*'a': 1, 'b': 2"):
        pictures.grid([Column("a", flat(0, 0, 0)), Column("b", flat(0, 0, 0, 2))])
    with pytest.raises(BadValue, match="2 row names for 1 rows"):
        pictures.grid([Column("a", flat(0, 0, 0))], names=["x", "y"])
    with pytest.raises(BadValue, match="'input': 2, 'λ = 0': 1"):
        pictures.reconstruction_grid(flat(0, 0, 0, 2), {"λ = 0": flat(0, 0, 0)})
    with pytest.raises(BadValue, match=r"\[1, 8, 8\]"):
        pictures.tile(torch.zeros(1, 8, 8))
    with pytest.raises(BadValue, match="at least one image"):
        pictures.sheet(torch.zeros(0, 3, 8, 8))
