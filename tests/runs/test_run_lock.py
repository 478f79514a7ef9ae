"""One process per run folder, and locks whose owner is gone."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from lsap.errors import BadValue
from lsap.runs import RunFolder
from lsap.runs import lock as locks
from lsap.runs.lock import Lock


def folder(root: Path) -> RunFolder:
    return RunFolder(root, "demo", "lsap_e", {"seed": 0}, {"seed": 0})


def listed(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def hold(path: Path, **owner: Any) -> None:
    """A lock as another process leaves it."""
    mine = {"pid": os.getpid(), "host": socket.gethostname(), "started": psutil.Process().create_time()}
    path.write_text(json.dumps({**mine, **owner}))


def test_two_processes_cannot_train_in_one_folder(tmp_path: Path) -> None:
    run = folder(tmp_path)
    run.path.mkdir(parents=True)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            Lock(run.path / "lock").acquire()
            os.write(writing, b"held")
            time.sleep(60)
        finally:
            os._exit(1)
    os.close(writing)
    try:
        assert os.read(reading, 4) == b"held"
        with pytest.raises(BadValue, match=rf"in use by process {child} on .*; wait for it or stop it"), run.claim():
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
    with run.claim() as state:  # killed: it could not give its lock back
        assert state == "new"
    assert not (run.path / "lock").exists()


def test_a_process_cannot_claim_its_own_folder_twice(tmp_path: Path) -> None:
    with (
        folder(tmp_path).claim(),
        pytest.raises(BadValue, match=f"in use by process {os.getpid()}"),
        folder(tmp_path).claim(),
    ):
        pass


def test_a_number_used_again_is_not_the_process_that_held_the_lock(tmp_path: Path) -> None:
    hold(tmp_path / "lock", started=psutil.Process().create_time() - 1000)
    lock = Lock(tmp_path / "lock")
    lock.acquire()
    assert listed(tmp_path) == ["lock"]
    lock.release()
    assert listed(tmp_path) == []


def test_the_lock_of_another_host_counts_until_it_falls_silent(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    hold(path, host="elsewhere")
    with pytest.raises(BadValue, match="on elsewhere"):
        Lock(path).acquire()
    long_ago = time.time() - locks.SILENCE - 1
    os.utime(path, (long_ago, long_ago))
    lock = Lock(path)
    lock.acquire()
    lock.release()


def test_a_held_lock_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT", 0.01)
    lock = Lock(tmp_path / "lock")
    lock.acquire()
    os.utime(lock.path, (0, 0))
    deadline = time.monotonic() + 10
    while lock.path.stat().st_mtime == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert lock.path.stat().st_mtime > 0
    lock.release()


def test_a_lock_cut_off_in_writing_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text('{"pid": ')
    os.utime(tmp_path / "lock", (1, 1))
    lock = Lock(tmp_path / "lock")
    lock.acquire()
    lock.release()


def test_a_lock_is_only_given_back_by_its_owner(tmp_path: Path) -> None:
    hold(tmp_path / "lock", host="elsewhere")
    Lock(tmp_path / "lock").release()
    assert listed(tmp_path) == ["lock"]
