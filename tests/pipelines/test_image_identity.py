"""A result belongs to its images: equal file names are not enough, and equal content is found again anywhere."""

from __future__ import annotations

import json
import os
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch
from PIL import Image

from commands import Command
from lsap.config.compose import composed
from lsap.data import open_images
from lsap.demo import Portraits
from lsap.errors import BadValue
from lsap.pipelines.build import Parts
from lsap.pipelines.evaluation.methods import in_order
from lsap.pipelines.inversion import Inverted, invert
from lsap.pipelines.run_identity.encoders import training_folder
from lsap.pipelines.run_identity.images import names_digest
from lsap.runs import Store, content
from lsap.runs.content import changed_images, content_digest, image_digests

SMALL = [
    "domain=church", "generator.size=32", "view.size=32", "image_size=[32,32]", "embedding=lsap_o_w", "steps=2",
    "lambda_lpips=0", "lambda_l2=1", "space.samples=64", "data.num_workers=0", "backbone.checkpoint=random",
    "encoders.progressive=lsap.embedding.SmallPyramidEncoder", "trainer.accelerator=cpu", "trainer.devices=1",
]  # fmt: skip


def pictures(folder: Path, grey: int, names: tuple[str, ...] = ("00000.png", "00001.png")) -> Path:
    """Uniform pictures of one size in bytes, whatever their grey."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(np.full((32, 32, 3), grey, np.uint8)).save(folder / name)
    return folder


def aged(folder: Path, seconds: float = 60) -> Path:
    """The same folder, its files not written just now."""
    for file in folder.rglob("*"):
        os.utime(file, (time.time() - seconds,) * 2)
    return folder


def digests(root: Path) -> dict[str, str]:
    source = open_images(root, (32, 32))
    found = image_digests(source, source.names)
    assert found is not None
    return found


@pytest.fixture
def start(generator_file: Path, tmp_path: Path) -> Callable[..., Inverted]:
    """`start("images=…")` inverts images by an optimisation of two steps."""

    def run(*overrides: str) -> Inverted:
        given = [*SMALL, f"generator.checkpoint={generator_file}", f"data.root={tmp_path}", f"outputs={tmp_path}/out"]
        return invert(composed("invert", [*given, *overrides]))

    return run


# ---- digests


def test_digests_tell_contents_apart_and_are_the_same_in_any_container(tmp_path: Path) -> None:
    one, two = pictures(tmp_path / "one", 40), pictures(tmp_path / "two", 200)
    assert {size.partition(":")[0] for size in digests(one).values()} == {
        size.partition(":")[0] for size in digests(two).values()
    }, "the test needs equal sizes"
    assert changed_images(digests(one), digests(two)) == ["00000.png", "00001.png"]
    archive, database = tmp_path / "one.zip", tmp_path / "lmdb"
    files = sorted(one.iterdir())
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in files:
            file.write(path, path.name)
    with lmdb.open(str(database)) as environment, environment.begin(write=True) as transaction:
        for path in files:
            transaction.put(path.name.encode(), path.read_bytes())
    assert digests(one) == digests(archive) == digests(database)


def test_a_copy_has_the_same_digest_and_a_replaced_picture_another(tmp_path: Path) -> None:
    one = aged(pictures(tmp_path / "one", 40))
    before = content_digest(digests(one))
    shutil.copytree(one, tmp_path / "copy")
    assert content_digest(digests(aged(tmp_path / "copy", 5))) == before
    pictures(one, 200, ("00001.png",))
    assert changed_images(digests(one), digests(tmp_path / "copy")) == ["00001.png"]
    assert content_digest(digests(one)) != before


def test_digests_are_cached_by_path_size_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = aged(pictures(tmp_path / "one", 40))
    first = digests(one)
    monkeypatch.setattr("lsap.data.folder.Folder.read", lambda *_: pytest.fail("a file was read again"))
    assert digests(one) == first


def test_a_file_that_was_written_just_now_is_not_cached(tmp_path: Path) -> None:
    """A second write within the resolution of modification times would not be noticed."""
    one = pictures(tmp_path / "one", 40)
    first, status = digests(one), (one / "00000.png").stat()
    pictures(one, 200)
    os.utime(one / "00000.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digests(one)["00000.png"] != first["00000.png"]


def test_of_many_images_a_fixed_sample_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = pictures(tmp_path / "one", 40, tuple(f"{n}.png" for n in range(20)))
    whole = digests(one)
    monkeypatch.setattr(content, "ALL", 10)
    monkeypatch.setattr(content, "SAMPLE", 5)
    some = digests(one)
    assert sum(":" in each for each in some.values()) == 5
    assert some == digests(one)
    assert not changed_images(whole, some), "where one knows only the size, sizes are compared"
    (one / "3.png").write_bytes(b"shorter")
    assert changed_images(some, digests(one)) == ["3.png"], "sizes are compared of all"


def test_rendered_portraits_have_no_files(tmp_path: Path) -> None:
    source = Portraits("rich", "test", 4)
    assert image_digests(source, source.names) is None


def test_a_file_that_cannot_be_read_is_no_error(tmp_path: Path) -> None:
    one = pictures(tmp_path / "one", 40)
    source = open_images(one, (32, 32))
    (one / "00001.png").unlink()
    found = image_digests(source, source.names)
    assert found is not None
    assert found["00001.png"] == "unreadable"


# ---- inversions


def test_folders_with_equal_names_are_inverted_apart(start: Callable[..., Inverted], tmp_path: Path) -> None:
    one, two = pictures(tmp_path / "one/frames", 40), pictures(tmp_path / "two/frames", 200)
    first, second = start(f"images={one}"), start(f"images={two}")
    assert first.folder != second.folder
    codes = [Store.read(each.folder).codes()[1] for each in (first, second)]
    assert not torch.equal(*codes)
    marks = [json.loads((each.folder / "summary.json").read_text())["same_images"] for each in (first, second)]
    assert marks[0] != marks[1], "they are not put into one table"


def test_pictures_that_were_replaced_are_inverted_anew(start: Callable[..., Inverted], tmp_path: Path) -> None:
    one = pictures(tmp_path / "one", 40)
    first = start(f"images={one}")
    pictures(one, 200)
    second = start(f"images={one}")
    assert second.folder != first.folder
    pictures(one, 40)
    assert start(f"images={one}").folder == first.folder
    with pytest.raises(BadValue, match=r"holds inversions of other settings: images: \w+ → \w+"):
        start(f"images={pictures(one, 90)}", f"save_to={first.folder}")


def test_a_moved_folder_keeps_its_inversions(
    start: Callable[..., Inverted], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = pictures(tmp_path / "one", 40)
    first = start(f"images={one}")
    one.rename(tmp_path / "moved")
    capsys.readouterr()
    assert start(f"images={tmp_path}/moved").folder == first.folder
    assert "finished before" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["none", "replaced", "elsewhere"])
def test_inversions_of_version_0_1_are_found_only_for_certainly_the_same_images(
    start: Callable[..., Inverted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    one = aged(pictures(tmp_path / "one/frames", 40))
    with monkeypatch.context() as patch:  # it knew images by the name of their folder and their own names
        patch.setattr(
            "lsap.pipelines.run_identity.inversions.content_digest",
            lambda found: f"frames-{names_digest(list(found))[:6]}",
        )
        old = start(f"images={one}").folder
    if change == "replaced":
        pictures(one, 200)
    elif change == "elsewhere":
        one = aged(pictures(tmp_path / "two/frames", 40))
    assert (start(f"images={one}").folder == old) == (change == "none")


# ---- trainings


def test_a_training_belongs_to_the_content_of_its_images(generator_file: Path, tmp_path: Path) -> None:
    def folder(root: Path, *more: str) -> Path:
        given = [each for each in SMALL if not each.startswith(("steps", "embedding"))]
        config = composed(
            "train", [*given, f"generator.checkpoint={generator_file}", f"data.root={root}", "lambda_id=0", *more]
        )
        parts = Parts(config, torch.device("cpu"))
        return training_folder(config, parts, parts.data().train).path

    one, two = pictures(tmp_path / "one/frames", 40), pictures(tmp_path / "two/frames", 200)
    first = folder(one)
    assert folder(two) != first
    shutil.copytree(one, tmp_path / "copy")
    assert folder(tmp_path / "copy") == first


# ---- evaluation


def test_runs_of_other_images_do_not_stand_in_one_table(
    start: Callable[..., Inverted], command: Command, generator_file: Path, tmp_path: Path
) -> None:
    one, two = pictures(tmp_path / "one/frames", 40), pictures(tmp_path / "two/frames", 200)
    first, second = start(f"images={one}").folder, start(f"images={two}", "seed=1").folder
    ended = command("evaluate", f"runs=[{first},{second}]")
    assert ended.code == 2
    assert "was made of other images than those of frames, although their names are equal: 2 of 2 differ" in ended.err
    pictures(one, 90)
    ended = command("evaluate", f"runs=[{first}]")
    assert ended.code == 2
    assert f"{first} was made of other images" in ended.err


@pytest.mark.parametrize(("order", "expected"), [("text", "1.png 10.png 2.png"), ("natural", "1.png 2.png 10.png")])
def test_codes_without_names_are_paired_in_the_order_that_is_asked_for(order: str, expected: str) -> None:
    assert " ".join(in_order(["1.png", "2.png", "10.png"], order, Path("codes.npy"))) == expected


def test_where_orders_differ_the_setting_that_decides_is_named() -> None:
    with pytest.raises(
        BadValue, match=r"code 2 belongs to 10\.png in text order and to 2\.png in natural .*codes_order"
    ):
        in_order(["1.png", "2.png", "10.png"], None, Path("codes.npy"))
    assert in_order(["a2.png", "a1.png"], None, Path("codes.npy")) == ["a1.png", "a2.png"]
    with pytest.raises(BadValue, match="codes_order=alphabetic"):
        in_order(["1.png"], "alphabetic", Path("codes.npy"))
