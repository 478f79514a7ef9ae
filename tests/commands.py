"""Commands started in this process or another one, as a user starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Outcome(NamedTuple):
    """How a command ended: its exit code and what it printed."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


def launch(arguments: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    """`python -m lsap.train …` in a folder, as a user starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "lsap.train", *arguments],
        cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


def after(calls: int, function: Callable[..., Any], *, then: Callable[[], object]) -> Callable[..., Any]:
    """`function`, which on its `calls`-th call does something else first."""
    made = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal made
        made += 1
        if made == calls:
            then()
        return function(*args, **kwargs)

    return wrapped


def killed_at(start: Callable[[], object], owner: object, name: str, calls: int) -> None:
    """Run `start` in a process that is killed (SIGKILL: nothing is tidied up) before the n-th call of a function."""
    child = os.fork()
    if child == 0:
        try:
            kill = lambda: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
            setattr(owner, name, after(calls, getattr(owner, name), then=kill))
            start()
        finally:
            os._exit(0)  # neither pytest's reports nor its fixtures belong to this process
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"{name} was called fewer than {calls} times"


def environment(cache: Path) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "LSAP_CACHE": str(cache)}
