"""One process per run folder."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from lsap.errors import BadValue

BEAT = 20.0  # seconds between two signs of life
SILENCE = 300.0  # seconds without one after which a process of another host counts as dead

# Two clocks may read a process's start a little differently.
SAME_START = 2.0


class Lock:
    """A file that names the process which writes in a folder.

    A lock whose process no longer lives is taken over: on the same host by looking for the process (number and start
    time, since numbers are used again), from another host by the age of its last sign of life.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stop = threading.Event()

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            BadValue: a living process holds it.
        """
        mine = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": psutil.Process().create_time()})
        while not self.create(mine):
            self.clear_dead()
        self.stop.clear()
        threading.Thread(target=self.beat, daemon=True, name="run folder lock").start()

    def release(self) -> None:
        """Give the lock back; does nothing if it is not held."""
        self.stop.set()
        with suppress(OSError, ValueError):
            owner = json.loads(self.path.read_text())
            if (owner["pid"], owner["host"]) == (os.getpid(), socket.gethostname()):
                self.path.unlink()

    def create(self, text: str) -> bool:
        """Write the file unless there is one."""
        try:
            file = self.path.open("x")
        except FileExistsError:
            return False
        try:
            with file:
                file.write(text)
        except OSError:
            self.path.unlink(missing_ok=True)
            raise
        return True

    def clear_dead(self) -> None:
        """Remove the lock of a dead process; raises BadValue if its owner lives."""
        try:
            text = self.path.read_text()
            silence = time.time() - self.path.stat().st_mtime
        except FileNotFoundError:
            return  # given back in this moment
        owner = parse(text)
        if owner is None and abs(silence) < 1:
            time.sleep(0.05)  # it is being written
            return
        if owner is not None and alive(owner, silence):
            raise BadValue(
                f"{self.path.parent} is in use by process {owner['pid']} on {owner['host']}; "
                f"wait for it or stop it (if it is long gone, delete {self.path.name} in that folder)"
            )
        # Two processes may come here at once: only one rename of the same file works.
        grave = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        with suppress(FileNotFoundError):
            os.rename(self.path, grave)
            if grave.read_text() != text and not self.path.exists():
                os.rename(grave, self.path)  # it was the other one's new lock, not the dead one
            else:
                grave.unlink()

    def beat(self) -> None:
        """Touch the file every now and then as long as the lock is held."""
        while not self.stop.wait(BEAT):
            with suppress(OSError):
                os.utime(self.path)


def parse(text: str) -> dict[str, Any] | None:
    """What a lock file says, None if it is cut off."""
    try:
        owner = json.loads(text)
        return {"pid": int(owner["pid"]), "host": str(owner["host"]), "started": float(owner["started"])}
    except (ValueError, KeyError, TypeError):
        return None


def alive(owner: dict[str, Any], silence: float) -> bool:
    """Whether the process that wrote a lock still runs."""
    if owner["host"] != socket.gethostname():
        return silence < SILENCE
    try:
        return abs(psutil.Process(owner["pid"]).create_time() - owner["started"]) < SAME_START
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
