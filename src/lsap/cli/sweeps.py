"""What became of the members of a sweep (`-m`), whichever launcher ran them, and in which process or on which machine.

Hydra drops the results of a sweep and raises the first mistake alone. So every member leaves a line beside the sweep's
plan, where the process that started them reads it: those that failed are named, and so are those that left no line.
"""

from __future__ import annotations

import itertools
import json
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ValueType
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from lsap.runs import write_json

LISTED = (ValueType.CHOICE_SWEEP, ValueType.SIMPLE_CHOICE_SWEEP, ValueType.RANGE_SWEEP)
SILENT = "it left no word: stopped, killed, or still in the queue when this command ended"


@dataclass(frozen=True)
class Failed:
    """What a member returns instead of raising: `why`, in a line, and whether the mistake is one of lsap's own."""

    why: str
    ours: bool = False


@dataclass
class Sweep(Callback):
    """One sweep. Hydra makes it, tells it of the start, and hands it on to the processes that run members.

    Attributes:
        members: what each is called, in order: the settings that are swept. Empty where only the sweeper knows them.
        folder: where members leave their lines.
    """

    begun: ClassVar[list[Sweep]] = []  # of this process

    members: Sequence[str] = ()
    folder: Path = field(default_factory=Path)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        self.members = members_of(list(config.hydra.overrides.task))
        self.folder = Path(config.hydra.sweep.dir).absolute() / f"members-{uuid.uuid4().hex[:8]}"
        Sweep.begun.append(self)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        if self.folder == Path():  # not of a sweep
            return
        number, fate = int(config.hydra.job.num), job_return.return_value
        failed = {"why": fate.why, "ours": fate.ours} if isinstance(fate, Failed) else None
        name = self.members[number] if self.members else " ".join(config.hydra.overrides.task)
        write_json(self.folder / f"{number}.json", {"name": name, "failed": failed})

    def failures(self) -> dict[str, Failed]:
        """Member → why it failed, or that nothing is known of it."""
        ended = {int(file.stem): json.loads(file.read_text(encoding="utf-8")) for file in self.folder.glob("*.json")}
        silent = {"failed": {"why": SILENT, "ours": False}}
        for number, name in enumerate(self.members):
            ended.setdefault(number, {"name": name} | silent)
        found = [ended[number] for number in sorted(ended)]
        return {each["name"]: Failed(**each["failed"]) for each in found if each["failed"] is not None}

    def tidy(self) -> None:
        """Take the lines of the members away."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def summary(self, failures: dict[str, Failed]) -> str:
        """The failures, as a user should read them."""
        lines = "".join(f"\n  {name}\n    {failed.why}" for name, failed in failures.items())
        known = f" of {len(self.members)}" if self.members else ""
        return (
            f"{len(failures)}{known} members of this sweep failed; the others are done and stay. Started again, only "
            f"these are run:{lines}"
        )


def members_of(arguments: Sequence[str]) -> tuple[str, ...]:
    """What the members of a command line are called: the settings that vary, the last one fastest, as Hydra runs them.

    Empty where a setting is swept in a way that only the sweeper can list (`glob`, `interval`).

    >>> members_of(["max_steps=3", "lambda_nscd=0,0.5", "seed=range(2)"])
    ('lambda_nscd=0 seed=0', 'lambda_nscd=0 seed=1', 'lambda_nscd=0.5 seed=0', 'lambda_nscd=0.5 seed=1')
    """
    swept: dict[str, list[str]] = {}
    for one in OverridesParser.create().parse_overrides(list(arguments)):
        key = one.get_key_element()
        swept.pop(key, None)
        if one.is_sweep_override():
            if one.value_type not in LISTED:
                return ()
            values = list(one.sweep_string_iterator())
            if len(values) > 1:
                swept[key] = [f"{key}={value}" for value in values]
    if not swept:
        return (" ".join(arguments),)
    return tuple(" ".join(chosen) for chosen in itertools.product(*swept.values()))
