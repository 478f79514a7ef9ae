"""Folders of photographs: what is listed, how it is read, and what is said about what cannot be."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lsap.data import ImageFolder, Source, UnreadableImage, open_images
from lsap.data.folder import existing
from lsap.errors import BadValue, MissingFile

SIZE = (6, 8)


def paint(path: Path, value: int, size: tuple[int, int] = (8, 6), **options: Any) -> Path:
    """One image whose left half is darker than its right; `size` is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), value, np.uint8)
    pixels[:, size[0] // 2 :] += 5
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty images; number i has the value 10 i on its left."""
    for i in range(20):
        paint(tmp_path / "images" / f"{i:02d}.png", 10 * i)
    return tmp_path / "images"


def cut(path: Path) -> None:
    """Truncate a file in its pixels: its head is still that of an image."""
    path.write_bytes(path.read_bytes()[:-30])


def test_a_folder_is_listed_by_sorted_relative_names(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.JPG", "a/b/c.webp", "d.bmp", "e.tiff", ".hidden.png", ".thumbs/f.png"):
        paint(tmp_path / name, 0)
    (tmp_path / "notes.txt").write_text("no image")
    images = ImageFolder(tmp_path, SIZE)
    assert images.names == ["a/b/c.webp", "a/z.JPG", "b.png", "d.bmp", "e.tiff"]
    assert isinstance(images, Source)
    assert images.read(range(5)).shape == (5, 3, *SIZE)


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    paint(tmp_path / "elsewhere" / "a.png", 0)
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(root)
    assert ImageFolder(root, SIZE).names == ["link/a.png"]


def test_pixels_run_from_minus_one_to_one(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[0, 51, 255]]], np.uint8)).save(tmp_path / "a.png")
    pixels = ImageFolder(tmp_path, (1, 1)).read([0])
    assert pixels.dtype == torch.float32
    torch.testing.assert_close(pixels.flatten(), torch.tensor([-1.0, -0.6, 1.0]))


def test_resizing_is_antialiased_and_ignores_the_aspect_ratio(tmp_path: Path) -> None:
    stripes = np.zeros((10, 40, 3), np.uint8)
    stripes[:, ::2] = 254  # columns alternate: a filter that sees all of them finds the mean
    Image.fromarray(stripes).save(tmp_path / "a.png")
    pixels = ImageFolder(tmp_path, (20, 4)).read([0])
    assert pixels.shape == (1, 3, 20, 4)
    assert pixels[..., 1:-1].abs().max() < 0.03


def test_every_kind_of_picture_is_read_as_a_viewer_shows_it(tmp_path: Path) -> None:
    grey = Image.new("L", (4, 4), 102)
    grey.save(tmp_path / "grey.png")
    grey.convert("P").save(tmp_path / "palette.png")
    Image.fromarray(np.full((4, 4), 102 * 256 + 77, np.uint16)).save(tmp_path / "sixteen.png")
    Image.new("RGBA", (4, 4), (102, 102, 102, 255)).save(tmp_path / "opaque.png")
    Image.new("CMYK", (4, 4), (153, 153, 153, 0)).save(tmp_path / "cmyk.tiff")
    Image.new("LA", (4, 4), (50, 0)).save(tmp_path / "transparent.png")
    images = ImageFolder(tmp_path, (4, 4))
    values = {name: images.read([i]).unique().tolist() for i, name in enumerate(images.names)}
    assert values.pop("transparent.png") == [1.0], "transparency lies over white"
    for name, found in values.items():
        assert found == pytest.approx([102 / 127.5 - 1]), name


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff"])
def test_the_exif_orientation_is_applied_once(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn to the right: the stored left becomes the top
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, :16] = 255
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", exif=exif)
    image = ImageFolder(tmp_path, (32, 32)).read([0])[0]
    assert image[:, :12].min() > 0.9
    assert image[:, 20:].max() < -0.9


def test_a_broken_exif_block_does_not_cost_the_image(tmp_path: Path) -> None:
    paint(tmp_path / "a.jpg", 100, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert ImageFolder(tmp_path, SIZE).read([0]).shape == (1, 3, *SIZE)


def test_folders_that_cannot_be_used_are_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty" / "below").mkdir(parents=True)
    (tmp_path / "empty" / "a.txt").touch()
    file = paint(tmp_path / "a.png", 0)
    cases = [
        (tmp_path / "absent", MissingFile, "absent: no such folder"),
        (file, BadValue, r"a\.png is a file"),
        (tmp_path / "empty", BadValue, r"empty holds no image.*\.webp"),
        ("", BadValue, r"data\.root is empty"),
    ]
    for root, kind, message in cases:
        with pytest.raises(kind, match=message) as caught:
            ImageFolder(root, SIZE)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [(0, 8), (8,), (8, 8.5), (True, 8)])
def test_sizes_that_are_none_are_refused(tmp_path: Path, size: Any) -> None:
    with pytest.raises(BadValue, match="two positive whole numbers"):
        ImageFolder(tmp_path, size)


def floats(path: Path) -> None:
    Image.new("F", (4, 4), 0.5).save(path, format="TIFF")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (cut, "truncated|broken"),
        (lambda path: path.write_bytes(b""), "no image that we know"),
        (lambda path: path.write_bytes(b"GIF89a" + bytes(40)), "no image that we know"),
        (lambda path: path.unlink(), "No such file"),
        (floats, "32-bit float"),
    ],
)
def test_a_broken_image_is_named_with_the_reason(folder: Path, spoil: Callable[[Path], None], why: str) -> None:
    images, strict = ImageFolder(folder, SIZE), ImageFolder(folder, SIZE, strict=True)
    spoil(folder / "04.png")
    with pytest.raises(UnreadableImage, match=rf"04\.png cannot be read \(.*({why})") as caught:
        images.read([3, 4])
    assert caught.value.index == 4
    with pytest.raises(BadValue, match=rf"04\.png cannot be read \(.*({why}).*data\.strict=false") as stopped:
        strict.read([3, 4])
    assert not isinstance(stopped.value, UnreadableImage)


def test_the_error_survives_the_way_from_a_worker() -> None:
    error = pickle.loads(pickle.dumps(UnreadableImage(4, "04.png", "cut off")))
    assert (error.index, str(error)) == (4, "04.png cannot be read (cut off)")


# ---- what is left out


def test_what_is_left_out_is_counted_by_suffix_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paint(tmp_path / "a.png", 60)
    paint(tmp_path / "b.jpg", 60).rename(tmp_path / "b.jfif")
    for name in ("c.gif", "d.GIF", "e.heic", "f", ".hidden.gif"):
        (tmp_path / name).touch()
    images = open_images(tmp_path, (4, 4), setting="images")
    assert images.names == ["a.png", "b.jfif"]
    assert images.read([0, 1]).shape == (2, 3, 4, 4)
    (line,) = caplog.messages
    assert f"images={tmp_path}: left out 2 .gif, 1 .heic, 1 without suffix; images are .bmp .jfif" in line


def test_nothing_is_said_where_all_are_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paint(tmp_path / "a.png", 60)
    assert open_images(tmp_path, (4, 4)).names == ["a.png"]
    assert caplog.messages == []


def test_a_folder_without_images_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "c.gif").touch()
    with pytest.raises(BadValue, match=r"holds no image.* it holds 1 \.gif"):
        open_images(tmp_path, (4, 4))


@pytest.fixture
def bytes_folder(tmp_path: Path) -> Path:
    """A folder with a file whose name is not UTF-8, where the disk takes such names."""
    paint(tmp_path / "b.png", 30)
    try:
        with open(os.fsencode(tmp_path) + b"/caf\xe9.png", "wb") as file:
            file.write((tmp_path / "b.png").read_bytes())
    except OSError:
        pytest.skip("this disk takes UTF-8 names only")
    return tmp_path


def test_a_name_that_is_not_utf8_is_named_and_the_others_go_on(
    bytes_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert open_images(bytes_folder, (4, 4)).names == ["b.png"]
    assert caplog.messages == [
        f"{bytes_folder}: left out 1 file whose name is not UTF-8 (the first: caf\\xe9.png); rename them"
    ]
    with pytest.raises(BadValue, match=r"images=.*caf\\xe9\.png: the name is not UTF-8"):
        existing(os.fsdecode(os.fsencode(bytes_folder) + b"/caf\xe9.png"), "images")


def test_a_folder_that_is_called_like_an_image_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    paint(tmp_path / "x.png" / "a.png", 60)
    assert open_images(tmp_path, (4, 4)).names == ["x.png/a.png"]


def test_of_several_frames_the_first_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("white", "black")]
    for name in ("a.webp", "b.tiff"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    Image.new("CMYK", (4, 4), (0, 0, 0, 0)).save(tmp_path / "c.jpg")
    assert open_images(tmp_path, (4, 4)).read([0, 1, 2]).min() > 0.95
