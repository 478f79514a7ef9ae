"""The paper's data sets as they are distributed: each recognised, its splits picked, wrong annotations refused."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from scipy.io import savemat

from image_files import blank_images, encoded, in_archive, in_database
from lsap.config.compose import composed
from lsap.data import ImageDataModule, Photographs, open_images, open_test_images
from lsap.data.datasets import StanfordCars, listed_for_test
from lsap.errors import BadValue, MissingFile
from lsap.pipelines.build import Parts
from lsap.seeds import derive

SIZE = (6, 8)


def zipped(root: Path, top: str = "") -> Path:
    """A folder as an archive beside it."""
    path = root.with_name(f"{root.name}.zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, top + file.relative_to(root).as_posix())
    return path


def of_domain(domain: str, root: Path, *overrides: str) -> ImageDataModule:
    """The DataModule that training would read."""
    settings = [f"data.root={root}", "image_size=[6,8]", "data.val_images=0", *overrides]
    config = OmegaConf.merge(configuration(domain), OmegaConf.from_dotlist(settings))
    assert isinstance(config, DictConfig)
    return Parts(config, torch.device("cpu")).data()


@cache
def configuration(domain: str) -> DictConfig:
    return composed("train", [f"domain={domain}"])


def names(found: ImageDataModule) -> tuple[list[str], list[str] | None]:
    """What is trained on and what is tested with."""
    return list(found.train.names), list(found.tests["test"].names) if "test" in found.tests else None


# ---- Stanford Cars


def annotations(path: Path, files: Sequence[str], **more: Any) -> Path:
    """An annotation file as MATLAB writes it: a struct array with one element per image."""
    kinds = [("bbox_x1", "O"), ("class", "O"), ("fname", "O")]
    entries = np.array([(np.uint8(3), np.uint8(7), name) for name in files], dtype=kinds)
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"annotations": entries[None]} | more)
    return path


@pytest.fixture
def cars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five training images of which four are annotated, and the first fifteen of the 8041 test images."""
    monkeypatch.setattr(StanfordCars, "test_size", 15)
    root = blank_images(tmp_path / "cars", [f"cars_train/{number:05d}.jpg" for number in (1, 2, 3, 4, 5)])
    blank_images(root, [f"cars_test/{number:05d}.jpg" for number in range(1, 16)])
    annotations(root / "devkit" / "cars_train_annos.mat", [f"{number:05d}.jpg" for number in (1, 2, 4, 5)])
    annotations(root / "devkit" / "cars_test_annos.mat", [f"{number:05d}.jpg" for number in range(1, 16)])
    return root


def test_the_thousand_test_cars_are_a_draw_that_can_be_repeated() -> None:
    listed = listed_for_test()
    generator = torch.Generator().manual_seed(derive(0, "Stanford Cars", "test"))
    drawn = torch.randperm(8041, generator=generator)[:1000] + 1
    assert listed == sorted(f"{number:05d}.jpg" for number in drawn.tolist())
    assert len(set(listed)) == 1000


def test_cars_are_those_that_the_annotations_list(cars: Path, caplog: pytest.LogCaptureFixture) -> None:
    (cars / "cars_train" / "00004.jpg").unlink()
    with caplog.at_level(logging.WARNING, "lsap"):
        trained, tested = names(of_domain("car", cars))
    assert trained == [f"cars_train/{number:05d}.jpg" for number in (1, 2, 5)], "00003.jpg is not annotated"
    assert tested == [f"cars_test/{name}" for name in listed_for_test() if name <= "00015.jpg"]
    assert tested, "some of the first fifteen are among the thousand"
    (warning,) = (record.getMessage() for record in caplog.records)
    assert warning.endswith(f"lists 1 images that are not in {cars}/cars_train (the first: 00004.jpg); left out")


def test_cars_in_an_archive_are_the_same(cars: Path) -> None:
    trained, tested = names(of_domain("car", zipped(cars, "stanford_cars/")))
    assert trained == [f"stanford_cars/cars_train/{number:05d}.jpg" for number in (1, 2, 4, 5)]
    assert tested is not None


def spoil_with_text(root: Path) -> None:
    (root / "devkit" / "cars_train_annos.mat").write_text("not a matrix")


def spoil_with_other_fields(root: Path) -> None:
    savemat(root / "devkit" / "cars_train_annos.mat", {"annotations": {"relative_im_path": "car_ims/000001.jpg"}})


def spoil_with_other_names(root: Path) -> None:
    annotations(root / "devkit" / "cars_train_annos.mat", ["000001.jpg", "000002.jpg"])


def spoil_by_removal(root: Path) -> None:
    (root / "devkit" / "cars_train_annos.mat").unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_with_text, r"cars_train_annos\.mat is no annotation file of Stanford Cars' devkit"),
        (spoil_with_other_fields, r"has no `annotations` with `fname`.*cars_annos\.mat.*cannot stand in"),
        (spoil_with_other_names, r"which begins with 000001\.jpg, 000002\.jpg\): is it another annotation file"),
        (
            spoil_by_removal,
            r"but not cars_train_annos\.mat, which lists",
        ),
    ],
)
def test_wrong_annotations_are_one_line(cars: Path, spoil: Any, said: str) -> None:
    spoil(cars)
    with pytest.raises((BadValue, MissingFile), match=said) as caught:
        open_images(cars, SIZE)
    assert "\n" not in str(caught.value)


def test_other_annotations_in_the_place_of_the_tests_are_noticed(cars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(BadValue, match="lists 15 images, but the test set of Stanford Cars has 8041"):
        open_test_images(cars, None, SIZE)


# ---- CelebA-HQ


@pytest.fixture
def celeba(tmp_path: Path) -> Path:
    """Six photographs beside two masks of the same numbers; images 1 and 4 belong to CelebA's test partition."""
    root = blank_images(tmp_path / "CelebAMask-HQ", [f"CelebA-HQ-img/{number}.jpg" for number in range(6)])
    blank_images(root, ["mask/1.png", "CelebAMask-HQ-mask-anno/0/00001_hair.png"])
    rows = [f"{number} {number * 10} {number * 10:06d}.jpg" for number in range(6)]
    (root / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(["idx   orig_idx   orig_file", *rows]) + "\n")
    parts = {0: 0, 10: 2, 20: 1, 30: 0, 40: 2, 50: 0, 60: 2}
    (root / "list_eval_partition.txt").write_text(
        "".join(f"{number:06d}.jpg {part}\n" for number, part in parts.items())
    )
    return root


def test_celeba_hq_is_split_as_celeba_is(celeba: Path) -> None:
    tested = open_images(celeba, SIZE, split="test")
    assert tested.names == ["CelebA-HQ-img/1.jpg", "CelebA-HQ-img/4.jpg"]
    assert tested.title == "CelebA-HQ"
    assert open_images(celeba, SIZE).names == [f"CelebA-HQ-img/{number}.jpg" for number in (0, 3, 5)]
    assert open_images(zipped(celeba), SIZE, split="test").names == tested.names


def test_celeba_hq_is_what_faces_are_measured_on(celeba: Path, tmp_path: Path) -> None:
    ffhq = blank_images(tmp_path / "ffhq", ["images1024x1024/00000/00000.png", "images1024x1024/01000/01000.png"])
    blank_images(ffhq, ["thumbnails128x128/00000/00000.png", "in-the-wild-images/00000/00000.png"])
    trained, tested = names(of_domain("face", ffhq, f"data.test_root={celeba}"))
    assert trained == ["images1024x1024/00000/00000.png", "images1024x1024/01000/01000.png"]
    assert tested == ["CelebA-HQ-img/1.jpg", "CelebA-HQ-img/4.jpg"]
    assert names(of_domain("face", ffhq)) == (trained, None), "FFHQ alone brings nothing to measure on"
    with pytest.raises(BadValue, match="holds FFHQ, but no test split of it"):
        open_test_images(ffhq, ffhq, SIZE)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("list_eval_partition.txt", None, r"holds CelebA-HQ, but not list_eval_partition\.txt of CelebA"),
        ("list_eval_partition.txt", "000000.jpg 0\n", r"list_eval_partition\.txt has no line for 000010\.jpg"),
        (
            "list_eval_partition.txt",
            "000000.jpg\n",
            r"list_eval_partition\.txt, line 1: '000000\.jpg' has too few columns",
        ),
        ("CelebA-HQ-to-CelebA-mapping.txt", "a b c\n0 0 0\n", r"first line has no column idx; .*accepted: a, b, c"),
        (
            "CelebA-HQ-to-CelebA-mapping.txt",
            "idx orig_file\n0 000000.jpg\n",
            r"has no line for 1, which CelebA-HQ-img/1",
        ),
    ],
)
def test_files_that_do_not_fit_celeba_hq_are_named(celeba: Path, file: str, text: str | None, said: str) -> None:
    (celeba / file).unlink()
    if text is not None:
        (celeba / file).write_text(text)
    with pytest.raises((BadValue, MissingFile), match=said):
        open_images(celeba, SIZE, split="test")


def test_a_number_that_comes_twice_is_refused(celeba: Path) -> None:
    blank_images(celeba, ["CelebA-HQ-img/00001.png"])
    with pytest.raises(BadValue, match=r"00001\.png and CelebA-HQ-img/1\.jpg are both image 1 of CelebA-HQ"):
        open_images(celeba, SIZE)


# ---- AFHQ


@pytest.mark.parametrize("tests", ["val", "test"], ids=["version 1", "version 2"])
@pytest.mark.parametrize("packed", [False, True])
def test_of_afhq_the_wanted_animals_are_taken(tmp_path: Path, tests: str, packed: bool) -> None:
    kinds = ("cat", "dog", "wild")
    root = blank_images(tmp_path / "afhq", [f"{part}/{kind}/a.jpg" for part in ("train", tests) for kind in kinds])
    top = "afhq/" if packed else ""
    root = zipped(root, top) if packed else root
    assert names(of_domain("wild", root)) == ([f"{top}train/wild/a.jpg"], [f"{top}{tests}/wild/a.jpg"])
    assert names(of_domain("wild", root, "data.category=cat"))[0] == [f"{top}train/cat/a.jpg"]
    with pytest.raises(Exception, match=r"holds cat, dog, wild; data\.category=church_outdoor names none of them"):
        of_domain("church", root)
    assert names(of_domain("wild", root, f"data.test_root={root}"))[1] == [f"{top}{tests}/wild/a.jpg"]


def test_wild_animals_without_a_test_folder_are_measured_on_the_held_out_slice(tmp_path: Path) -> None:
    root = blank_images(tmp_path / "afhq", ["train/wild/a.jpg", "train/wild/b.jpg"])
    assert names(of_domain("wild", root)) == (["train/wild/a.jpg", "train/wild/b.jpg"], None)


# ---- LSUN


def test_of_lsun_the_wanted_scenes_are_taken(tmp_path: Path) -> None:
    root = tmp_path / "lsun"
    for kind, keys in (("church_outdoor", "ab"), ("bedroom", "x")):
        in_database(root / f"{kind}_train_lmdb", {key: encoded(9, "WEBP") for key in keys})
    assert names(of_domain("church", root)) == (["a", "b"], None)
    in_database(root / "church_outdoor_val_lmdb", {"c": encoded(200, "JPEG")})
    data = of_domain("church", root)
    assert names(data) == (["a", "b"], ["c"])
    assert isinstance(data.train, Photographs)
    assert data.train.title == "LSUN"
    assert data.train.read([0]).shape == (1, 3, *SIZE)
    with pytest.raises(
        Exception, match=r"holds LSUN's bedroom, church_outdoor; data\.category=wild names none of them"
    ):
        of_domain("wild", root)


def test_a_database_alone_is_read_whole(tmp_path: Path) -> None:
    one = in_database(tmp_path / "church_outdoor_train_lmdb", {"a": encoded(9), "b": encoded(8)})
    other = in_database(tmp_path / "church_outdoor_val_lmdb", {"c": encoded(9)})
    assert names(of_domain("church", one, f"data.test_root={other}")) == (["a", "b"], ["c"])


# ---- images that are just there


FOREIGN: Mapping[str, Sequence[str]] = {
    "flat": ["a.png", "b.png"],
    "nested": ["00000/00000.png", "01000/01000.png"],
    "people's own folders": ["train/red/a.png", "train/blue/b.png", "val/red/c.png"],
    "numbered, without a mapping": ["0.jpg", "1.jpg"],
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("domain", ["car", "church", "face", "wild"])
def test_other_folders_are_taken_whole(tmp_path: Path, kind: str, domain: str) -> None:
    root = blank_images(tmp_path / "mine", FOREIGN[kind])
    trained, tested = names(of_domain(domain, root))
    assert trained == sorted(FOREIGN[kind])
    assert tested is None
    assert names(of_domain(domain, in_archive(tmp_path / "mine", {"a.png": b""})))[0] == ["a.png"]
