"""The store of inversions: a fixed plan, batches that are whole or absent, many processes, no changed settings."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from safetensors import safe_open

from lsap.checkpoints import load_generator
from lsap.errors import BadValue, MissingFile, StoppedRun
from lsap.inversion import FixedNoise, Inversion
from lsap.runs import Batch, PlanProgress, Store, plan_progress, save_safetensors
from lsap.stylegan2 import Generator

NAMES = ["a.png", "b.jpg", "sub/c.png", "d.png", "e.png"]
SETTINGS = {"lambda_nscd": 20.0, "space": {"samples": 100}}


@pytest.fixture(scope="module")
def generator(generator_file: Path) -> Generator:
    return load_generator(generator_file)


def made(batch: Batch, generator: Generator) -> Inversion:
    """An inversion of a batch that follows from its names."""
    codes = torch.stack([torch.full((generator.n_latent, 16), float(len(name))) for name in batch.names])
    state = {"extra": torch.arange(len(batch.names)) + batch.number}
    return Inversion(batch.names, codes, "f" * 64, FixedNoise(generator), state, ("test",))


def rows(batch: Batch) -> list[dict[str, Any]]:
    return [{"name": name, "mse": 0.1} for name in batch.names]


def work(store: Store, generator: Generator, most: int = 99) -> int:
    """Do at most so many batches; returns how many there were to do."""
    done = 0
    for batch in store.pending():
        if done == most:
            store.let_go(batch)
            break
        inversion = made(batch, generator)
        images = torch.linspace(-1, 1, 3 * 64).reshape(1, 3, 8, 8).expand(len(batch.names), -1, -1, -1)
        store.write(batch, rows(batch), inversion, images, {"seconds": time.time()})
        done += 1
    return done


def opened(path: Path, **changes: Any) -> Store:
    batch_size = changes.pop("batch_size", 2)
    names = changes.pop("names", NAMES)
    return Store.open(path, names, batch_size, SETTINGS | changes)


def test_the_last_batch_is_smaller_and_nothing_is_dropped(tmp_path: Path) -> None:
    batches = opened(tmp_path).batches
    assert [batch.names for batch in batches] == [("a.png", "b.jpg"), ("sub/c.png", "d.png"), ("e.png",)]
    assert [batch.number for batch in batches] == [0, 1, 2]


def test_what_was_written_comes_back(tmp_path: Path, generator: Generator) -> None:
    store = opened(tmp_path)
    assert work(store, generator) == 3
    again = Store.read(tmp_path)
    assert again.plan == store.plan
    assert not again.unfinished()
    assert [row["name"] for row in again.rows()] == NAMES
    stored = list(again.inversions(generator))
    assert [inversion.names for inversion in stored] == [batch.names for batch in store.batches]
    assert torch.equal(stored[1].codes, made(store.batches[1], generator).codes)
    assert stored[1].state["extra"].tolist() == [1, 2]
    names, codes = again.codes()
    assert names == NAMES
    assert codes.shape == (5, generator.n_latent, 16)


def test_pictures_are_named_after_their_images(tmp_path: Path, generator: Generator) -> None:
    store = opened(tmp_path)
    work(store, generator)
    found = {path.relative_to(tmp_path / "images").as_posix() for path in (tmp_path / "images").rglob("*.png")}
    assert found == {"a.png", "b.png", "sub/c.png", "d.png", "e.png"}
    twins = opened(tmp_path / "twins", names=["a.png", "A.jpg", "b"])
    assert twins.picture("A.jpg").name == "A.jpg.png", "suffixes stay where names would fall together"


def test_work_goes_on_where_it_stopped_and_ends_with_equal_files(tmp_path: Path, generator: Generator) -> None:
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    assert work(opened(broken), generator, most=1) == 1
    assert [batch.number for batch in opened(broken).unfinished()] == [1, 2]
    assert work(opened(broken), generator) == 2
    assert work(opened(whole), generator) == 3
    assert opened(broken).checksums() == opened(whole).checksums()
    assert len(opened(whole).checksums()) == 1 + 3 + 3 + 5
    assert work(opened(whole), generator) == 0


def test_a_batch_counts_only_when_all_of_it_is_there(tmp_path: Path, generator: Generator) -> None:
    store = opened(tmp_path)
    work(store, generator)
    (tmp_path / "batches" / "00001.json").unlink()  # as if it had been killed just before the last file
    assert [batch.number for batch in store.unfinished()] == [1]
    with pytest.raises(MissingFile, match="batch 1 is not done"):
        store.load(store.batches[1], generator)
    assert work(store, generator) == 1
    assert not store.unfinished()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lambda_nscd": 5.0}, r"lambda_nscd: 20.0 → 5.0"),
        ({"space": {"samples": 7}}, r"space.samples: 100 → 7"),
        ({"batch_size": 3}, r"batch_size: 2 → 3"),
        ({"names": [*NAMES[:4], "z.png", "y.png"]}, r"images: 5 → 6 \(1 gone, 2 new\)"),
        ({"steps": 3}, r"steps: absent → 3"),
    ],
)
def test_changed_settings_are_refused_with_the_difference(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    opened(tmp_path)
    with pytest.raises(BadValue, match=message):
        opened(tmp_path, **changes)
    opened(tmp_path)  # the plan is as it was


def test_two_workers_share_the_batches(tmp_path: Path, generator: Generator) -> None:
    one, other = opened(tmp_path), opened(tmp_path)
    first = next(one.pending())
    second = next(other.pending())
    assert (first.number, second.number) == (0, 1)
    one.write(first, rows(first), made(first, generator))
    assert [batch.number for batch in one.pending()] == [2]
    one.let_go()
    other.let_go()
    assert not list((tmp_path / "batches").glob("*.lock"))
    assert [batch.number for batch in opened(tmp_path).unfinished()] == [1, 2]


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path, generator: Generator) -> None:
    store = opened(tmp_path)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    lock = tmp_path / "batches" / "00000.lock"
    lock.parent.mkdir()
    lock.write_text(json.dumps({"pid": dead.pid, "host": socket.gethostname(), "started": time.time()}))
    assert work(store, generator) == 3
    assert not lock.exists()


def test_images_without_an_inversion_have_a_row_that_says_why(tmp_path: Path, generator: Generator) -> None:
    store = opened(tmp_path)
    first, second, third = store.pending()
    store.write(first, [{"name": "a.png", "skipped": "cut off"}, {"name": "b.jpg", "failed": "not a number"}], None)
    store.write(second, rows(second), made(second, generator))
    store.write(third, rows(third), made(third, generator))
    assert store.load(first, generator) is None
    assert [inversion.names for inversion in store.inversions(generator)] == [("sub/c.png", "d.png"), ("e.png",)]
    assert store.codes()[0] == ["sub/c.png", "d.png", "e.png"]
    assert store.rows()[1]["failed"] == "not a number"


def test_a_further_stage_goes_on_batch_by_batch(tmp_path: Path, generator: Generator) -> None:
    embedded = opened(tmp_path / "embedded")
    work(embedded, generator)
    plan = Store.read(tmp_path / "embedded").plan
    refined = Store.open(tmp_path / "refined", plan.names, plan.batch_size, {"refinement": "pti", "of": plan.hash})
    for batch in refined.pending():
        before = embedded.load(batch, generator)
        assert before is not None
        better = before.with_stage("pti", state={"weights": torch.ones(len(before), 7, dtype=torch.half)})
        refined.write(batch, rows(batch), better)
    last = list(refined.inversions(generator))[-1]
    assert last.history == ("test", "pti")
    assert set(last.state) == {"extra", "weights"}


def test_equal_content_makes_equal_bytes(tmp_path: Path) -> None:
    card = {str(number): "x" for number in range(20)} | {"name": "é"}
    files = [tmp_path / f"{number}.safetensors" for number in range(5)]
    for file in files:
        save_safetensors(file, {"odd": torch.ones(3, dtype=torch.half), "even": torch.zeros(2, 2)}, card)
    assert len({file.read_bytes() for file in files}) == 1
    with safe_open(files[0], "pt") as stored:
        assert stored.metadata() == card
        assert torch.equal(stored.get_tensor("odd"), torch.ones(3, dtype=torch.half))


def test_times_are_outside_the_checksums(tmp_path: Path, generator: Generator) -> None:
    store = opened(tmp_path)
    work(store, generator)
    assert len(store.times()) == 3
    before = store.checksums()
    (tmp_path / "times" / "00000.json").write_text("{}")
    assert store.checksums() == before


def test_pieces_of_killed_processes_are_tidied_away(tmp_path: Path, generator: Generator) -> None:
    store = opened(tmp_path)
    work(store, generator)
    piece = tmp_path / "images" / ".a.4711.unfinished.png"
    piece.write_bytes(b"half")
    store.tidy()
    assert not piece.exists()
    assert store.picture("a.png").is_file()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "plan.json").write_text("{"), "cannot be read"),
        (lambda path: (path / "plan.json").write_text('{"format": "other"}'), "no plan of lsap"),
    ],
)
def test_a_damaged_plan_is_refused(damage: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    opened(tmp_path)
    damage(tmp_path)
    with pytest.raises(BadValue, match=message):
        opened(tmp_path)


def test_a_damaged_batch_is_named(tmp_path: Path, generator: Generator) -> None:
    store = opened(tmp_path)
    work(store, generator)
    file = tmp_path / "batches" / "00001.safetensors"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(BadValue, match=r"00001.safetensors cannot be read .*delete it"):
        store.load(store.batches[1], generator)


def test_whose_codes_they_are_is_told_without_reading_them(
    tmp_path: Path, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path)
    work(store, generator)
    store.batches[0:1] = [Batch(99, ("lost.png",)), store.batches[0]]  # a batch without an inversion is passed over
    monkeypatch.setattr("lsap.runs.store.restored", lambda *_: pytest.fail("it was read whole"))
    store.check_generator("f" * 64)
    with pytest.raises(
        BadValue, match=r"belong to generator f{12}, but this run uses e{12}; use the generator that they"
    ):
        store.check_generator("e" * 64)
    save_safetensors(tmp_path / "batches" / "00000.safetensors", {"codes": torch.zeros(1)})
    with pytest.raises(BadValue, match=r"00000\.safetensors cannot be read .*delete it and its \.json"):
        store.check_generator("f" * 64)


# ---- progress


class Counted(Store):
    """A store that counts how often it is asked what is done."""

    asked = 0

    def done(self, batch: Batch) -> bool:
        self.asked += 1
        return super().done(batch)


def test_progress_costs_as_much_per_batch_however_long_the_plan_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{number:03d}.png" for number in range(60)]
    store = Counted.open(tmp_path, names, 1, SETTINGS)
    assert isinstance(store, Counted)
    bar = PlanProgress(store, "inverting")
    trainer, module = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False), LightningModule()
    bar.on_predict_start(trainer, module)
    asked = store.asked
    for number, batch in enumerate(store.batches[:40]):
        bar.on_predict_batch_start(trainer, module, {"names": batch.names}, number)
        store.write(batch, rows(batch), None)
        bar.on_predict_batch_end(trainer)
        assert bar.done == number + 1
    assert store.asked - asked == 0, "its own batches are counted, not looked for"
    for batch in store.batches[40:59]:
        store.write(batch, rows(batch), None)  # by another process
    monkeypatch.setattr(plan_progress, "RESCAN", 0.0)
    last = store.batches[59]
    bar.on_predict_batch_start(trainer, module, {"names": ()}, 59)  # none of its images can be read
    store.write(last, rows(last), None)
    bar.on_predict_batch_end(trainer)
    assert bar.done == 60, "from time to time it looks at what others did"
    assert "60/60 images" in capsys.readouterr().err


def test_progress_ends_with_what_others_did_meanwhile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = opened(tmp_path)
    bar = PlanProgress(store, "inverting")
    bar.on_predict_start(Trainer(accelerator="cpu", logger=False, enable_checkpointing=False), LightningModule())
    for batch in store.batches:
        store.write(batch, rows(batch), None)
    bar.on_predict_end()
    assert "5/5 images" in capsys.readouterr().err


def test_a_folder_without_a_plan_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="holds no inversions"):
        Store.read(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadValue, match="is a file"):
        opened(tmp_path / "file")


@pytest.mark.parametrize("names", [[], ["a", "a"]])
def test_a_plan_needs_names_of_their_own(names: list[str], tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="names of their own"):
        opened(tmp_path, names=names)


def test_a_full_disk_leaves_the_batch_undone(
    tmp_path: Path, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path)
    batch = next(store.pending())

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoppedRun, match="no room left on the disk"):
            store.write(batch, rows(batch), made(batch, generator))
    store.let_go()
    assert store.unfinished() == store.batches
    assert work(store, generator) == 3


def test_the_plan_on_the_disk_is_readable(tmp_path: Path) -> None:
    store = opened(tmp_path)
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["names"] == NAMES
    assert plan["settings"] == {"lambda_nscd": 20.0, "space.samples": 100}
    assert plan["hash"] == store.plan.hash
