"""Where a run lives: one folder per set of settings, the same for every process and every restart."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lsap.errors import BadValue, LsapError, StoppedRun
from lsap.runs.atomic import NO_ROOM, no_room, read_json, remove_drafts, write_json
from lsap.runs.class_paths import recorded
from lsap.runs.lock import Lock

LONGEST = 80  # characters of a folder name; longer lists of settings become a hash
State = Literal["new", "continue", "finished"]


@dataclass(frozen=True)
class Record:
    """What `run.json` holds: the settings that make a run what it is, and how far it has come.

    status: "running" (also of a run that was killed), "failed" or "finished".
    step: of the last checkpoint.
    error: why it failed.
    notes: anything a restart needs, such as the id of the run in an online logger.
    """

    settings: dict[str, Any]
    status: Literal["running", "failed", "finished"] = "running"
    step: int = 0
    error: str | None = None
    notes: dict[str, Any] = field(default_factory=dict)


class RunFolder:
    """`<root>/<domain>/<embedding>/<what differs from the defaults>/`.

    The last part lists changed settings, as in `lambda_nscd=0.0,max_steps=300`; it is `default` if there are none, and
    a hash of them if the list is long or holds characters that file names should not. A setting without a default
    counts as changed. Nothing is made on the disk before `claim`.

    Args:
        root: the folder of all runs.
        domain, embedding: their names.
        settings: all that decides what comes out of the run, and nothing else: no devices, loggers or paths. May be
            nested; values are text, numbers, true, false, none, and lists of them.
        defaults: what the settings are when the user changes nothing.
    """

    def __init__(
        self,
        root: str | Path,
        domain: str,
        embedding: str,
        settings: Mapping[str, Any],
        defaults: Mapping[str, Any],
    ) -> None:
        usual = plain(defaults)
        self.settings = {key: like(value, usual.get(key)) for key, value in plain(settings).items()}
        changed = {key: value for key, value in self.settings.items() if key not in usual or usual[key] != value}
        self.path = Path(root) / domain / embedding / folder_name(changed)
        self.record = Record(self.settings)
        self.writes = False

    def state(self) -> State:
        """What stands in the folder: nothing yet, an unfinished or a finished run of exactly these settings.

        A run that has saved no checkpoint is still "new", so that all processes of a run get the same answer whichever
        of them looks first.

        Raises:
            BadValue: a run of other settings, or a `run.json` that cannot be read.
        """
        found = self.read()
        if found is None:
            return "new"
        if found.settings != self.settings:
            raise BadValue(
                f"{self.path} holds a run of other settings: {difference(found.settings, self.settings)}. "
                "Move that folder away, or set those values to what they were"
            )
        if found.status == "finished":
            return "finished"
        return "continue" if found.step > 0 else "new"

    @contextmanager
    def claim(self, rank: int = 0) -> Iterator[State]:
        """Work in the folder; yields what `state` says.

        Process 0 makes the folder, locks it and keeps `run.json`; the others only ask. A finished run is left as it is.
        If the block raises, the record says "failed" and why; the next attempt continues from the last checkpoint.

        Raises:
            BadValue: other settings (see `state`), a folder in use by another process or one that cannot be made.
            StoppedRun: no room on the disk.
        """
        state = self.state()
        self.record = self.read() or self.record
        if rank != 0 or state == "finished":
            yield state
            return
        lock = Lock(self.path / "lock")
        self.take(lock)
        try:
            state = self.state()  # another process may have finished it before it gave the lock back
            self.record = self.read() or self.record
            if state != "finished":
                remove_drafts(self.path)
                self.writes = True
                self.keep(status="running", error=None)
            yield state
        except Exception as error:
            if self.record.status != "finished":
                with suppress(LsapError, OSError):  # a full disk must not hide what happened first
                    self.keep(status="failed", error=f"{type(error).__name__}: {error}")
            raise
        finally:
            self.writes = False
            lock.release()

    def update(self, step: int) -> None:
        """Record the step of a checkpoint just saved. Here and below only process 0 writes, and only within `claim`."""
        self.keep(step=step)

    def note(self, **notes: Any) -> None:
        """Keep values for later restarts; see `Record.notes`."""
        self.keep(notes=self.record.notes | notes)

    def finish(self, step: int) -> None:
        """Record that nothing is left to do."""
        self.keep(step=step, status="finished", error=None)

    def keep(self, **changes: Any) -> None:
        """Change fields of the record, in memory and on the disk."""
        self.record = replace(self.record, **changes)
        if self.writes:
            write_json(self.path / "run.json", asdict(self.record))

    def read(self) -> Record | None:
        """The record on the disk, None if there is none; raises BadValue if it is damaged."""
        file = self.path / "run.json"
        try:
            return Record(**json.loads(file.read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, TypeError) as error:
            raise BadValue(f"{file} cannot be read ({error}); delete that run's folder and start it again") from error

    def holds_run(self) -> bool:
        """Whether a training or a store of exactly these settings lies in the folder; raises BadValue as `read`."""
        record = self.read()
        if record is not None:
            return record.settings == self.settings
        plan = self.path / "plan.json"
        if not plan.is_file():
            return False
        settings = read_json(plan, "delete that folder", dict).get("settings")
        return isinstance(settings, dict) and self.settings.items() <= settings.items()

    def take(self, lock: Lock) -> None:
        """Make the folder and lock it; raises BadValue or StoppedRun if that cannot be done."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            if error.errno in NO_ROOM:
                raise StoppedRun(no_room(self.path / "run.json")) from error
            raise BadValue(
                f"{self.path} cannot be written to ({error.strerror}); choose another folder for the runs"
            ) from error


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings on one level, sorted, and as JSON would give them back, so that a stored run can be compared.

    Class paths are those of version 0.1, so that its runs are found.
    """
    result: dict[str, Any] = json.loads(json.dumps(flatten(settings), sort_keys=True, allow_nan=False))
    return {key: recorded(str(value)) if key.endswith("_target_") else value for key, value in result.items()}


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def like(value: Any, usual: Any) -> Any:
    """A number written as the default is: `lambda_nscd=0` and `lambda_nscd=0.0` are the same run."""
    if type(value) is int and type(usual) is float:
        return float(value)
    if type(value) is float and type(usual) is int and value.is_integer():
        return int(value)
    return value


def folder_name(changed: Mapping[str, Any]) -> str:
    """The changed settings as a name: readable if that is short and harmless, else a hash."""
    if not changed:
        return "default"
    listed = ",".join(f"{key}={value}" for key, value in changed.items())
    if len(listed) <= LONGEST and re.fullmatch(r"[\w.,=+-]+", listed, re.ASCII):
        return listed
    return hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:10]


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Settings that differ, as `name: old → new`."""
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key, ...) != new.get(key, ...))
    return ", ".join(f"{key}: {old.get(key, 'absent')} → {new.get(key, 'absent')}" for key in keys)
