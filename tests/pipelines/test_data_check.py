"""`lsap.check`: what it says of a data set before anybody trains on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from commands import Command
from image_files import blank_images, encoded, in_database, in_folder
from lsap.pipelines.data_check import spread


def checked(command: Command, folder: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """The reports by split, and what was printed."""
    outcome = command("check", *arguments)
    assert outcome.code == 0, outcome.err
    (file,) = (folder / "outputs").glob("*/check/check.json")
    return {report["split"]: report for report in json.loads(file.read_text())["splits"]}, outcome.out


def test_counts_sizes_and_broken_files_are_reported(command: Command, tmp_path: Path) -> None:
    root = tmp_path / "faces"
    root.mkdir()
    for number in range(3):
        Image.new("RGB", (1024, 1024)).save(root / f"{number}.png")
    Image.new("RGB", (300, 200)).save(root / "3.png")
    (root / "4.png").write_bytes((root / "0.png").read_bytes()[:200])
    (root / "5.png").write_bytes(b"")
    reports, printed = checked(command, tmp_path, "domain=face", f"data.root={root}", "data.num_workers=0")
    report = reports["train"]
    assert (report["images"], report["looked_at"], report["data_set"]) == (6, 6, "")
    assert report["sizes"] == {"1024x1024": 3, "200x300": 1}
    assert set(report["unreadable"]) == {"4.png", "5.png"}
    assert report["warnings"] == [
        "6 images, but FFHQ has 70000: 69994 fewer",
        "1 of 4 images are not 1024x1024 as published, most of them 200x300",
        "1 of 4 images are smaller than the encoder's input, 256x256",
        "2 of 6 images cannot be read; training leaves them out",
    ]
    for said in ("face train:", "6 images, all read: 3 of 1024x1024, 1 of 200x300", "4.png: ", "5.png: ", "4 warnings"):
        assert said in printed
    with Image.open(tmp_path / report["contact_sheet"]) as sheet:
        assert sheet.size == (4 * 128 + 3 * 4, 128), "the four that can be read"


def test_a_data_set_as_published_earns_no_warning(command: Command, tmp_path: Path) -> None:
    """A domain of one's own says what it expects, as ours do."""
    root = in_folder(tmp_path / "birds", {f"{number}.png": encoded(number) for number in range(4)})
    expected = "[{set: birds, count: 4, size: [6, 8]}]"
    reports, printed = checked(
        command, tmp_path, "domain=church", f"data.root={root}", "image_size=[6,8]", f"data.published.train={expected}"
    )
    assert reports["train"]["warnings"] == []
    assert "no warnings" in printed


def test_a_data_set_of_another_domain_is_noticed(command: Command, tmp_path: Path) -> None:
    root = blank_images(tmp_path / "ffhq", ["images1024x1024/0.png", "images1024x1024/1.png"])
    reports, _ = checked(command, tmp_path, "domain=wild", f"data.root={root}", "data.num_workers=0")
    assert reports["train"]["warnings"][0] == "this is FFHQ, but domain=wild is AFHQ"


def test_both_splits_of_a_data_set_are_looked_at(command: Command, tmp_path: Path) -> None:
    for split, keys in (("train", "abcd"), ("val", "x")):
        in_database(tmp_path / "lsun" / f"church_outdoor_{split}_lmdb", {key: encoded(9) for key in keys})
    reports, printed = checked(command, tmp_path, "domain=church", f"data.root={tmp_path}/lsun", "data.num_workers=2")
    assert {split: report["images"] for split, report in reports.items()} == {"train": 4, "test": 1}
    assert "1 image, but LSUN has 300: 299 fewer" in reports["test"]["warnings"]
    assert f"church train: {tmp_path}/lsun/church_outdoor_train_lmdb (LSUN)" in printed


def test_either_version_is_as_published(command: Command, tmp_path: Path) -> None:
    parts = [f"train/wild/{number}.png" for number in range(3)] + ["test/wild/0.png"]
    root = blank_images(tmp_path / "afhq", parts)
    reports, _ = checked(command, tmp_path, "domain=wild", f"data.root={root}", "data.num_workers=0")
    assert reports["train"]["warnings"][0] == (
        "3 images, but AFHQ (version 1) has 4738 or AFHQ (version 2) has 4593: 4590 fewer"
    )


def test_testing_with_training_images_is_noticed(command: Command, tmp_path: Path) -> None:
    root = in_folder(tmp_path / "mine", {f"{number}.png": encoded(number) for number in range(3)})
    reports, _ = checked(command, tmp_path, "domain=car", f"data.root={root}", f"data.test_root={root}")
    assert "3 of its images are trained on too (the first: 0.png)" in reports["test"]["warnings"]


def test_a_sample_is_spread_over_all(command: Command, tmp_path: Path) -> None:
    assert spread(10, 4) == [0, 2, 5, 7]
    assert spread(3, None) == spread(3, 5) == [0, 1, 2]
    reports, printed = checked(command, tmp_path, "domain=demo", "sample=2", "data.train.count=300")
    assert next(iter(reports)) == "train"
    assert reports["train"]["sizes"] == {"64x64": 2}
    assert "300 images, 2 of them read" in printed


def test_many_images_are_announced(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lsap.pipelines.data_check.MANY", 1)
    small = [f"data.tests.{name}.count=1" for name in ("rich", "plain", "far")]
    outcome = command("check", "data.train.count=258", "sample=2", *small)
    assert outcome.err.strip() == "train: renders 2 images, for minutes; sample=500 looks at fewer"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["domain=church", "data.root=absent"], "data.root=absent: no such folder"),
        (["domain=church", "data.root=."], "holds no image"),
        (["sample=0"], "sample=0: expected a whole number of at least 1"),
        (["domain=curch"], "did you mean 'church'"),
    ],
)
def test_what_cannot_be_looked_at_is_one_line(
    command: Command, tmp_path: Path, arguments: list[str], said: str
) -> None:
    outcome = command("check", *arguments)
    assert outcome.code == 2
    assert said in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
    assert not (tmp_path / "outputs").exists()


def test_strict_does_not_stop_at_the_first(command: Command, tmp_path: Path, photographs: Callable[..., Path]) -> None:
    root = photographs(tmp_path / "mine", 4)
    for name in ("001.png", "002.png"):
        (root / name).write_bytes(b"")
    reports, _ = checked(command, tmp_path, "domain=car", f"data.root={root}", "data.strict=true")
    assert set(reports["train"]["unreadable"]) == {"001.png", "002.png"}
