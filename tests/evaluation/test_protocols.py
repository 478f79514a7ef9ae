"""How saved pictures are compared with their images: the published numbers, files of every kind, threads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from golden import fill
from lsap.data import ImageFolder
from lsap.errors import BadValue
from lsap.evaluation.metrics import Identity, mse, psnr
from lsap.evaluation.protocols import Pairs, Protocol, ShownFaces, picture, saved

PSP = Protocol("psp256", (256, 256))


def write(path: Path, pixels: Tensor) -> Path:
    """Save pixels [3, H, W] in [0, 255] as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.floor().byte().permute(1, 2, 0).numpy()).save(path)
    return path


# ---- the published code's numbers (parity case `evaluation`)


def test_images_are_resized_as_published(tmp_path: Path) -> None:
    spec = fill.load("evaluation")
    x = fill.inputs(spec)
    for name in ("photo", "photo_big"):
        write(tmp_path / name / "0.png", x[name])
        images = ImageFolder(tmp_path / name, (256, 256)).read([0])
        assert fill.check(spec, f"{name}_256", images[0]).rel_l2 < 1e-6
    car = ImageFolder(tmp_path / "photo_big", (192, 256)).read([0])
    assert fill.check(spec, "photo_big_car", car[0]).rel_l2 < 1e-6


def test_saved_pictures_are_seen_and_measured_as_published(tmp_path: Path) -> None:
    spec = fill.load("evaluation")
    x = fill.inputs(spec)
    truncated = (x["generated"][0].clamp(-1, 1) + 1) / 2 * 255  # the released code cuts where ours rounds
    shown = picture(write(tmp_path / "0.png", truncated))[None]
    assert fill.check(spec, "quantised", shown).rel_l2 < 1e-6
    seen = PSP.seen(shown)
    assert fill.check(spec, "quantised_256", seen).rel_l2 < 1e-6
    write(tmp_path / "images" / "0.png", x["photo_big"])
    target = ImageFolder(tmp_path / "images", (256, 256)).read([0])
    assert fill.check(spec, "mse", mse(seen, target)).rel_l2 < 1e-6
    ratio = psnr(seen, target)
    assert fill.check(spec, "psnr", ratio - 10 * math.log10(2)).rel_l2 < 1e-6, "published with 2 as the squared peak"


def test_rounding_instead_of_cutting_moves_the_error_by_less_than_a_hundredth() -> None:
    generated = fill.inputs(fill.load("evaluation"))["generated"]
    cut = ((generated.clamp(-1, 1) + 1) / 2 * 255).floor() / 127.5 - 1
    target = torch.zeros(1, 3, 256, 256)
    ours, theirs = (mse(PSP.seen(shown), target) for shown in (saved(generated), cut))
    assert ours.item() == pytest.approx(theirs.item(), rel=0.01)


# ---- its own properties


def test_edits_are_seen_as_if_they_had_been_saved(tmp_path: Path) -> None:
    images = 2.4 * torch.rand(1, 3, 64, 64) - 1.2
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round()
    file = picture(write(tmp_path / "0.png", pixels[0]))[None]
    torch.testing.assert_close(PSP.drawn(images), PSP.seen(file), rtol=0, atol=1e-6)
    assert PSP.drawn(images).shape[-2:] == (256, 256)


def test_without_a_size_pictures_stay_as_they_are() -> None:
    image = torch.rand(1, 3, 20, 30)
    assert Protocol("full").seen(image) is image


def test_pairs_come_in_order_however_many_threads_read(tmp_path: Path) -> None:
    names = [f"{number:02d}" for number in range(17)]
    files = {n: write(tmp_path / f"{n}.png", torch.full((3, 8, 8), 10.0 * i)) for i, n in enumerate(names)}

    def read(wanted: Sequence[str]) -> Tensor:
        return torch.stack([torch.full((3, 8, 8), float(name)) for name in wanted])

    pairs = Pairs(read, files, Protocol("tiny", (8, 8)))
    for workers, size in ((1, 1), (2, 5), (3, 17)):
        parts = [names[first : first + size] for first in range(0, len(names), size)]
        found = list(pairs.chunks(parts, workers))
        assert torch.cat([images for images, _ in found])[:, 0, 0, 0].tolist() == list(range(17))
        shown = torch.cat([pictures for _, pictures in found])[:, 0, 0, 0]
        torch.testing.assert_close(shown, torch.arange(17.0) * 10 / 127.5 - 1)


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    file = tmp_path / "cut.png"
    file.write_bytes(b"\x89PNG")
    with pytest.raises(BadValue, match=r"cut\.png cannot be read"):
        picture(file)


def test_images_of_another_size_than_the_protocols_are_refused(tmp_path: Path) -> None:
    files = {"a": write(tmp_path / "a.png", torch.zeros(3, 8, 8))}
    pairs = Pairs(lambda names: torch.zeros(len(names), 3, 8, 8), files, PSP)
    with pytest.raises(BadValue, match=r"8x8 pixels .* 256x256 under protocol=psp256"):
        pairs.chunk(["a"])


def test_a_size_that_is_none_is_refused() -> None:
    with pytest.raises(BadValue, match=r"protocol\.size=\[0, 256\]"):
        Protocol("odd", (0, 256))


class WhereRed:
    """Landmarks of whatever is red."""

    def find(self, name: str, photo: Image.Image) -> list[np.ndarray]:
        return [np.zeros((68, 2))] if np.asarray(photo)[..., 0].mean() > 128 else []


class Mean:
    """Embeds an image as its mean colour."""

    label = "mean colour"

    def embed(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


def test_images_without_a_face_have_no_identity() -> None:
    images = torch.full((3, 3, 4, 4), 0.5)
    images[1, 0] = -0.5  # no face in the image
    output = torch.full((3, 3, 4, 4), 0.5)
    output[2, 0] = -0.9  # none left in its picture
    metric = Identity(Mean(), ShownFaces(WhereRed()))
    assert metric(output, images).tolist() == pytest.approx([1.0, torch.nan, torch.nan], nan_ok=True)
