"""Run folders, and files that are whole or absent."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from safetensors import safe_open

from lsap.errors import BadValue, MissingFile, StoppedRun
from lsap.runs import (
    AtomicCheckpoints,
    RunFolder,
    manifest,
    read_json,
    replacing,
    save_safetensors,
    write_bytes,
    write_json,
    write_text,
)
from lsap.runs.atomic import remove_drafts
from lsap.seeds import derive

DEFAULTS = {"lambda_nscd": 0.5, "max_steps": 20_000, "seed": 0, "optimizer": {"lr": 1e-3}, "backbone": None}


def folder(root: Path, defaults: Mapping[str, Any] = DEFAULTS, **changed: Any) -> RunFolder:
    return RunFolder(root, "demo", "lsap_e", {**DEFAULTS, **changed}, defaults)


def listed(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


# ---- atomic files


@pytest.mark.parametrize(
    ("write", "read"),
    [
        (lambda path: write_bytes(path, b"\0new"), b"\0new"),
        (lambda path: write_text(path, "λ = 0.5\n"), "λ = 0.5\n".encode()),
        (lambda path: write_json(path, {"b": 1, "a": None}), b'{\n  "b": 1,\n  "a": null\n}\n'),
    ],
)
def test_what_is_written_can_be_read_and_nothing_else_is_left(
    tmp_path: Path, write: Callable[[Path], None], read: bytes
) -> None:
    for _ in range(2):  # into a new folder, then over the old file
        write(tmp_path / "new" / "file.bin")
        assert (tmp_path / "new" / "file.bin").read_bytes() == read
        assert listed(tmp_path / "new") == ["file.bin"]


def test_tensors_and_their_card_come_back(tmp_path: Path) -> None:
    view = torch.arange(6.0).view(2, 3).t()  # not contiguous
    save_safetensors(tmp_path / "w.safetensors", {"w": view, "h": torch.ones(1).half()}, {"seed": "0"})
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert file.metadata() == {"seed": "0"}
        assert torch.equal(file.get_tensor("w"), view)
        assert file.get_tensor("h").dtype == torch.float16


@pytest.mark.parametrize("failure", [ValueError("bad"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_no_piece_of_the_new(tmp_path: Path, failure: BaseException) -> None:
    path = tmp_path / "a.png"
    write_bytes(path, b"old")
    with pytest.raises(type(failure)), replacing(path) as draft:  # noqa: PT012
        draft.write_bytes(b"half of the ne")
        raise failure
    assert path.read_bytes() == b"old"
    assert listed(tmp_path) == ["a.png"]


def test_the_draft_lies_in_the_same_folder_with_the_same_suffix(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.png") as draft:
        assert draft.parent == tmp_path
        assert draft.suffix == ".png"
        draft.touch()


def test_json_without_an_equal_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "metrics.json", {"mse": float("nan")})
    assert listed(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "told"), [("{", r"Expecting"), ("[1]", "it holds no JSON object"), ("\udcff", "codec")], ids=str
)
def test_damaged_json_is_one_line_that_says_what_to_do(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "summary.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BadValue, match=rf"summary\.json cannot be read \(.*{told}.*\); make it again$"):
        read_json(path, "make it again", dict)
    with pytest.raises(MissingFile, match=r"other\.json is not there; make it again"):
        read_json(tmp_path / "other.json", "make it again", dict)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    path = tmp_path / "w.safetensors"
    write_bytes(path, b"old")

    def full(self: Path, data: bytes) -> None:
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoppedRun) as caught:
        save_safetensors(path, {"w": torch.zeros(500_000)})
    message = str(caught.value)
    assert f"no room left on the disk for w.safetensors in {tmp_path}: 2.0 MB needed" in message
    assert "free some space" in message
    assert "\n" not in message
    assert path.read_bytes() == b"old"
    assert listed(tmp_path) == ["w.safetensors"]


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no device that is always full")
def test_the_system_s_own_full_disk_is_recognised(tmp_path: Path) -> None:
    with pytest.raises(StoppedRun, match="no room left"), replacing(tmp_path / "a"), open("/dev/full", "wb") as file:
        file.write(bytes(100_000))


def test_other_errors_keep_their_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises((FileExistsError, NotADirectoryError)):
        write_bytes(tmp_path / "file" / "a", b"")


def test_drafts_of_a_killed_process_are_removed_at_any_depth(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        try:
            with replacing(tmp_path / "below" / "a.ckpt") as draft:
                draft.write_bytes(b"half")
                os._exit(9)  # as good as a kill: nothing is cleaned up
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len(listed(tmp_path / "below")) == 1
    write_bytes(tmp_path / "below" / "kept.ckpt", b"")
    remove_drafts(tmp_path)
    assert listed(tmp_path / "below") == ["kept.ckpt"]


# ---- checkpoints


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_trainer_saves_whole_checkpoints_or_stops_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3))

        def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
            return (self.weight * batch).sum()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=1.0)

    def fit() -> None:
        Trainer(
            max_steps=2,
            accelerator="cpu",
            logger=False,
            plugins=[AtomicCheckpoints()],
            callbacks=[ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=2)],
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(Module(), torch.utils.data.DataLoader(torch.ones(2, 3)))

    fit()
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert torch.equal(saved["state_dict"]["weight"], torch.full((3,), -1.0))
    before = {name: (tmp_path / name).read_bytes() for name in listed(tmp_path)}

    def full(self: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoppedRun, match=r"no room left on the disk for .*ckpt"):
        fit()
    assert {name: (tmp_path / name).read_bytes() for name in listed(tmp_path)} == before


# ---- the name of a run


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({}, "default"),
        ({"lambda_nscd": 0.5, "seed": 0}, "default"),
        ({"max_steps": 300, "lambda_nscd": 0.0}, "lambda_nscd=0.0,max_steps=300"),
        ({"lambda_nscd": 0, "max_steps": 300.0}, "lambda_nscd=0.0,max_steps=300"),
        ({"optimizer": {"lr": 1e-4}}, "optimizer.lr=0.0001"),
        ({"backbone": "random"}, "backbone=random"),
        ({"generator": "9f02"}, "generator=9f02"),
    ],
)
def test_a_run_is_named_by_what_was_changed(tmp_path: Path, changed: dict[str, Any], name: str) -> None:
    assert folder(tmp_path, **changed).path == tmp_path / "demo" / "lsap_e" / name
    assert listed(tmp_path) == [], "asking where a run would be makes folders"


@pytest.mark.parametrize("changed", [{f"setting_{i}": i for i in range(9)}, {"backbone": "a/b"}, {"seed": [1, 2]}])
def test_long_or_awkward_names_become_a_hash(tmp_path: Path, changed: dict[str, Any]) -> None:
    name = folder(tmp_path, **changed).path.name
    assert len(name) == 10
    assert int(name, 16) >= 0
    assert name == folder(tmp_path, **dict(reversed(changed.items()))).path.name
    assert name != folder(tmp_path, **{**changed, "max_steps": 7}).path.name


def test_the_hash_is_the_same_in_every_process(tmp_path: Path) -> None:
    # printf '{"backbone": "a/b"}' | sha256sum: a run must be found again after an update
    assert folder(tmp_path, backbone="a/b").path.name == "75710cf533"


# ---- the life of a run


def test_a_run_is_new_then_continued_then_finished(tmp_path: Path) -> None:
    run = folder(tmp_path)
    with run.claim() as state:
        assert state == "new"
        run.note(wandb_id="abc")
        assert folder(tmp_path).state() == "new", "without a checkpoint there is nothing to continue from"
        run.update(step=40)
    again = folder(tmp_path)
    with again.claim() as state:
        assert state == "continue"
        assert (again.record.step, again.record.notes) == (40, {"wandb_id": "abc"})
        again.finish(step=100)
    stored = (again.path / "run.json").read_bytes()
    last = folder(tmp_path)
    with last.claim() as state:
        assert state == "finished"
        last.update(step=3)
    assert (again.path / "run.json").read_bytes() == stored
    assert listed(again.path) == ["run.json"]


def test_a_failed_run_says_why_and_can_be_continued(tmp_path: Path) -> None:
    run = folder(tmp_path)
    with pytest.raises(StoppedRun), run.claim():  # noqa: PT012
        run.update(step=40)
        raise StoppedRun("lsap term is NaN at step 41")
    record = json.loads((run.path / "run.json").read_text())
    assert (record["status"], record["error"]) == ("failed", "StoppedRun: lsap term is NaN at step 41")
    again = folder(tmp_path)
    with again.claim() as state:
        assert state == "continue"
        assert (again.record.status, again.record.error) == ("running", None)


def test_an_interrupted_run_is_unlocked_and_unfinished(tmp_path: Path) -> None:
    run = folder(tmp_path)
    with pytest.raises(KeyboardInterrupt), run.claim():  # noqa: PT012
        run.update(step=40)
        raise KeyboardInterrupt
    assert listed(run.path) == ["run.json"]
    assert run.state() == "continue"


def test_the_first_error_is_the_one_that_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ZeroDivisionError), folder(tmp_path).claim():  # noqa: PT012
        monkeypatch.setattr(Path, "write_bytes", full)
        raise ZeroDivisionError


def test_an_error_after_the_end_does_not_undo_a_finished_run(tmp_path: Path) -> None:
    run = folder(tmp_path)
    with pytest.raises(ZeroDivisionError), run.claim():  # noqa: PT012
        run.finish(step=100)
        raise ZeroDivisionError
    assert run.state() == "finished"


def test_settings_survive_the_disk(tmp_path: Path) -> None:
    changed = {"widths": (1, 2), "backbone": None, "optimizer": {"lr": 0.1 + 0.2}, "flip": True}
    with folder(tmp_path, **changed).claim():
        pass
    assert folder(tmp_path, **changed).state() == "new"


def test_another_run_in_the_folder_is_refused_with_the_difference(tmp_path: Path) -> None:
    with folder(tmp_path).claim():
        pass
    newer = {**DEFAULTS, "lambda_nscd": 0.25, "clip": 1.0}
    run = RunFolder(tmp_path, "demo", "lsap_e", newer, newer)  # a later version with other defaults
    before = (run.path / "run.json").read_bytes()
    for attempt in (run.state, lambda: run.claim().__enter__()):
        with pytest.raises(BadValue, match=r"other settings: clip: absent → 1\.0, lambda_nscd: 0\.5 → 0\.25\. Move"):
            attempt()
    assert (run.path / "run.json").read_bytes() == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"unknown": 1}'])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    run = folder(tmp_path)
    run.path.mkdir(parents=True)
    (run.path / "run.json").write_text(text)
    with pytest.raises(BadValue, match=r"run\.json cannot be read .*; delete that run's folder"):
        run.state()


def test_only_the_first_process_writes_and_all_agree_on_the_state(tmp_path: Path) -> None:
    first, second = folder(tmp_path), folder(tmp_path)
    with second.claim(rank=1) as before, first.claim(rank=0) as mine, folder(tmp_path).claim(rank=1) as after:
        assert before == mine == after == "new"
        second.update(step=7)
        assert json.loads((first.path / "run.json").read_text())["step"] == 0
        first.update(step=5)
    with folder(tmp_path).claim(rank=1) as later:
        assert later == "continue"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "outputs").touch()
    with pytest.raises(BadValue, match=r"outputs.*cannot be written to"), folder(tmp_path / "outputs").claim():
        pass


def test_no_room_for_the_folder_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(StoppedRun, match="no room left"), folder(tmp_path).claim():
        pass


# ---- manifest and seeds


def test_the_manifest_names_versions_machine_and_memory() -> None:
    found = json.loads(json.dumps(manifest()))
    assert found["versions"]["torch"] == torch.__version__
    assert found["versions"]["python"] == ".".join(str(part) for part in sys.version_info[:3])
    assert found["threads"] == torch.get_num_threads()
    assert found["device"]
    assert found["time"].endswith("+00:00")


def test_peak_memory_never_falls_and_counts_what_was_freed() -> None:
    """In a process of its own: memory that other tests left to the allocator could serve the block here."""
    code = """
import torch
from lsap.runs import peak_memory
before = peak_memory()["process"]
block = torch.ones(100_000_000)
del block
print(peak_memory()["process"] - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 300 < float(done.stdout) < 500, "a block of 400 MB"


def test_derived_seeds_are_stable_and_depend_on_every_part() -> None:
    # printf 0/order/1 | sha256sum, the first 16 digits halved
    assert derive(0, "order", 1) == 4489457307835839548
    seeds = {derive(seed, name, step) for seed in range(5) for name in ("order", "flip") for step in range(20)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)
