"""The DataModule, with broken images, workers, kills and restarts."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pytorch_lightning import Trainer

import data_runs
from data_runs import Counted, Watcher, fit, module
from lsap.data import ImageDataModule, ImageFolder
from lsap.data.batches import ImageLoader
from lsap.data.order import Draw
from lsap.errors import BadValue

SIZE = (6, 8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty images, no two alike."""
    root = tmp_path / "images"
    root.mkdir()
    for i in range(20):
        Image.new("RGB", (8, 6), (10 * i, 0, 255)).save(root / f"{i:02d}.png")
    return root


def cut(path: Path) -> None:
    """Truncate a file in its pixels: its head is still that of an image."""
    path.write_bytes(path.read_bytes()[:-30])


def first(loader: ImageLoader, count: int) -> list[list[int]]:
    return [batch["index"].tolist() for batch in islice(loader, count)]


# ---- the DataModule


def test_a_source_is_asked_for_whole_batches() -> None:
    source = Counted(20)
    batches = list(islice(module(source).train_dataloader(), 3))
    assert [batch["index"].tolist() for batch in batches] == source.asked
    assert [len(asked) for asked in source.asked] == [4, 4, 4]


def test_training_images_are_mirrored_as_the_order_says_and_validation_never() -> None:
    data = module(Counted(20))
    for number, batch in enumerate(islice(data.train_dataloader(), 6)):
        for slot in range(4):
            draw = data.order.draw(number, slot)
            row, value = batch["image"][slot, 0, 0], draw.image / 1000
            expected = [-1, -1, value, value] if draw.flip else [value, value, -1, -1]
            torch.testing.assert_close(row, torch.tensor(expected))
    (held,) = data.val_dataloader()
    assert torch.all(held["image"][..., 2:] == -1)


def test_validation_is_held_out_and_tests_are_whole() -> None:
    data = module(Counted(20), {"rich": Counted(7), "plain": Counted(5)}, eval_batch_size=3)
    trained = {index for batch in first(data.train_dataloader(), 20) for index in batch}
    validated = [index for batch in data.val_dataloader() for index in batch["index"].tolist()]
    assert trained == set(range(20)) - set(validated)
    assert len(validated) == 3
    rich, plain = data.test_dataloader()
    assert data.test_names == ["rich", "plain"]
    assert [name for batch in rich for name in batch["names"]] == [f"image {i}" for i in range(7)]
    assert [index for batch in plain for index in batch["index"].tolist()] == list(range(5))


def test_without_validation_images_there_is_no_loader() -> None:
    data = module(Counted(20), val_images=0)
    assert data.val_dataloader() == []
    assert len(data.train_indices) == 20


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("batch_size", 0),
        ("batch_size", -1),
        ("batch_size", 2.5),
        ("batch_size", True),
        ("val_images", -1),
        ("num_workers", -1),
        ("eval_batch_size", 0),
    ],
)
def test_counts_that_cannot_work_are_refused_by_name(setting: str, value: Any) -> None:
    with pytest.raises(BadValue, match=rf"{setting}={value}: expected a whole number of at least [01]"):
        module(Counted(20), **{setting: value})


def test_loaders_leave_the_global_random_state_alone() -> None:
    data = module(Counted(20))
    before = torch.get_rng_state()
    first(data.train_dataloader(), 3)
    list(data.val_dataloader())
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_change_nothing(folder: Path) -> None:
    cut(folder / "04.png")
    cut(folder / "11.png")
    runs = []
    for workers in (0, 2):
        data = module(ImageFolder(folder, SIZE), num_workers=workers)
        runs.append(list(islice(data.train_dataloader(), 12)))
        assert data.skipped == {"train": ["04.png", "11.png"]}, "what workers find is known here"
    for alone, helped in zip(*runs, strict=True):
        assert torch.equal(alone["index"], helped["index"])
        assert torch.equal(alone["image"], helped["image"])


# ---- broken images in the middle of an epoch


def test_a_broken_image_is_named_once_and_its_place_is_taken_by_the_next(caplog: pytest.LogCaptureFixture) -> None:
    whole, holed = module(Counted(20)), module(Counted(20))
    broken = {whole.train_indices[2], whole.train_indices[9]}
    holed.train.broken = broken
    with caplog.at_level(logging.WARNING, "lsap"):
        found = first(holed.train_dataloader(), 30)
    expected, sequence = [], first(whole.train_dataloader(), 60)
    for number in range(30):
        slots = []
        for slot in range(4):
            later = number
            while sequence[later][slot] in broken:
                later += 1
            slots.append(sequence[later][slot])
        expected.append(slots)
    assert found == expected
    named = [record.getMessage() for record in caplog.records]
    assert len(named) == 2
    assert "skipped (2 so far). data.strict=true stops instead" in named[1]


def test_a_resumed_run_goes_on_counting_the_images_that_were_skipped_before() -> None:
    stopped, resumed = module(Counted(20)), module(Counted(20))
    stopped.train.broken = {stopped.train_indices[0]}
    first(stopped.train_dataloader(), 10)
    assert stopped.skipped["train"]
    resumed.load_state_dict(stopped.state_dict())
    assert resumed.skipped == stopped.skipped


def test_replacements_do_not_depend_on_where_a_run_was_interrupted() -> None:
    probe = module(Counted(20))
    broken = probe.train_indices[::3]

    def resumed(start: int) -> list[list[int]]:
        data = module(Counted(20, broken))
        data.batches_seen = lambda: start  # type: ignore[method-assign]
        return first(data.train_dataloader(), 10)

    unbroken = first(module(Counted(20, broken)).train_dataloader(), 20)
    assert [resumed(start) for start in (0, 3, 10)] == [unbroken[start : start + 10] for start in (0, 3, 10)]


def test_a_known_broken_image_is_not_opened_again() -> None:
    data = module(Counted(20), val_images=0)
    data.train.broken = {5}
    list(islice(data.train_dataloader(), 25))  # five epochs
    assert sum(5 in asked for asked in data.train.asked) == 1


def test_validation_leaves_a_broken_image_out_and_empty_batches_too() -> None:
    data = module(Counted(8), {"all": Counted(6, broken=[1, 2])}, eval_batch_size=1)
    (loader,) = data.test_dataloader()
    assert [batch["names"] for batch in loader] == [["image 0"], ["image 3"], ["image 4"], ["image 5"]]
    assert data.skipped == {"test/all": ["image 1", "image 2"]}


@pytest.mark.parametrize("workers", [0, 2])
def test_when_nothing_can_be_read_there_is_one_error_and_no_endless_loop(folder: Path, workers: int) -> None:
    images = ImageFolder(folder, SIZE)
    for path in folder.iterdir():
        cut(path)
    data = module(images, {"again": images}, num_workers=workers)
    with pytest.raises(BadValue, match=r"^none of 17 images can be read \(the first: \d\d\.png\); look at the files$"):
        next(iter(data.train_dataloader()))
    with pytest.raises(BadValue, match=r"^none of 20 images can be read \(the first: 00\.png\)"):
        list(data.test_dataloader()[0])


def test_the_search_for_a_replacement_ends_though_other_workers_find_the_last_images_broken() -> None:
    data = module(Counted(20))
    images = data.train_dataloader().dataset
    one, later = data.order.draw(0, 0), data.order.later
    data.unreadable["train"].flags[one.image] = True

    def meanwhile(draw: Draw) -> Draw:
        data.unreadable["train"].flags[:] = True
        return later(draw)

    data.order.later = meanwhile  # type: ignore[method-assign]
    with pytest.raises(BadValue, match="none of 17 images can be read"):
        images.readable(one)


@pytest.mark.parametrize("workers", [0, 2])
def test_strict_stops_at_the_broken_image_in_one_line(folder: Path, workers: int) -> None:
    cut(folder / "04.png")
    data = module(ImageFolder(folder, SIZE, strict=True), val_images=0, num_workers=workers)
    with pytest.raises(BadValue, match=r"04\.png cannot be read.*data\.strict=false$") as caught:
        first(data.train_dataloader(), 5)
    assert "\n" not in str(caught.value)


# ---- under a Trainer


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_resumed_in_mid_epoch_sees_what_an_unbroken_one_sees(tmp_path: Path, workers: int) -> None:
    def data() -> ImageDataModule:
        return module(Counted(20), num_workers=workers)

    unbroken = fit(tmp_path / "a", data(), 11)
    resumed = fit(tmp_path / "b", data(), 11, ckpt=tmp_path / "a" / "step=7.ckpt")
    assert unbroken.shown[7:] == resumed.shown
    assert len(unbroken.shown) == 11
    assert sorted(unbroken.validated[-3:]) == data().val_indices


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_epoch_of_the_trainer_does_not_restart_the_order(tmp_path: Path) -> None:
    unbroken = fit(tmp_path / "a", module(Counted(20)), 6)
    chopped = fit(tmp_path / "b", module(Counted(20)), 6, limit_train_batches=2, val_check_interval=2)
    assert chopped.shown == unbroken.shown


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_trainer_tests_past_batches_that_cannot_be_read() -> None:
    data = module(Counted(8), {"all": Counted(6, broken=[1, 5]), "more": Counted(3)}, eval_batch_size=1)
    model = Watcher()
    Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, use_distributed_sampler=False).test(
        model, data, verbose=False
    )
    assert model.validated == [0, 2, 3, 4, 0, 1, 2]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_processes_see_together_what_one_sees(tmp_path: Path) -> None:
    """Real DDP on the CPU: the model has a buffer, which DDP exchanges in every forward pass, and the 7 images of the
    validation slice cannot be shared out equally."""
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import json, sys
from pathlib import Path
sys.path.insert(0, {str(Path(data_runs.__file__).parent)!r})
import data_runs
out = Path({str(tmp_path)!r})

class Writer(data_runs.Watcher):
    def on_fit_end(self):
        (out / f"{{self.global_rank}}.json").write_text(json.dumps([self.shown, self.validated]))

data = data_runs.module(data_runs.Counted(30), val_images=7)
data_runs.fit(out, data, 8, model=Writer(), devices=2, strategy="ddp_fork", val_check_interval=4)
"""
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(program)], env=environment, timeout=600, check=True)
    (shown0, validated0), (shown1, validated1) = (json.loads((tmp_path / f"{i}.json").read_text()) for i in (0, 1))
    data = module(Counted(30), val_images=7)
    assert [a[0] + b[0] for a, b in zip(shown0, shown1, strict=True)] == first(data.train_dataloader(), 8)
    assert validated0[-3:] + validated1[-4:] == data.val_indices
