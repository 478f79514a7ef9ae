"""Weights & Biases: online where somebody is logged in, offline with one line on how to sync where nobody is."""

from __future__ import annotations

import netrc
import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger

from lsap.errors import BadValue
from lsap.runs.atomic import read_json, write_json

HOST = "api.wandb.ai"
NOTE = "wandb.json"  # beside results that have no run.json: the id of their run, and what of them has been logged
MEND = "delete it: the results are then logged as a new run"


def logged_in() -> bool:
    """Whether a key for Weights & Biases is at hand; never asks and never connects."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc(Path(os.environ.get("NETRC") or Path.home() / ".netrc")).authenticators(HOST) is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False


def mode(offline: bool = False) -> str:
    """What Weights & Biases is told: `offline` where it was asked for or nobody is logged in, else `online`.

    WANDB_MODE decides what was not asked for.
    """
    if offline:
        return "offline"
    return os.environ.get("WANDB_MODE") or ("online" if logged_in() else "offline")


def wandb_logger(
    folder: Path,
    *,
    name: str,
    project: str,
    entity: str | None,
    group: str | None,
    tags: Sequence[str],
    run_id: str,
    offline: bool = False,
    job: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> WandbLogger:
    """A logger of one run; a resumed run goes on under the id that its folder keeps.

    Args:
        folder: of the results; the run's files go into it.
        name, project, entity, group, tags: of the run, as Weights & Biases calls them.
        run_id: the same again goes on with the same run.
        offline: keep the run on this machine even where somebody is logged in.
        job: the verb.
        settings: what dashboards choose and sort runs by.
    """
    chosen = mode(offline)
    if chosen == "offline":
        why = "as asked" if offline or os.environ.get("WANDB_MODE") else "as nobody is logged in"
        kept = folder / "wandb" / "offline-run-*"
        print(f"wandb: the run is kept offline, {why}; later: wandb sync {kept}")
    return WandbLogger(
        project=project, entity=entity, group=group, tags=list(tags), name=name, id=run_id, save_dir=str(folder),
        resume="allow", mode=chosen, job_type=job, config=dict(settings or {}),
    )  # fmt: skip


@contextmanager
def own_run() -> Iterator[None]:
    """End the run that is begun within, as failed where something is raised, so that the next one is another.

    A run that was there before is the caller's and stays.
    """
    before = _current()
    code = 1
    try:
        yield
        code = 0
    finally:
        now = _current()
        if now is not None and now is not before:
            now.finish(exit_code=code)


def _current() -> Any:
    return getattr(sys.modules.get("wandb"), "run", None)


# ---- results without a run.json


def noted(folder: Path) -> dict[str, Any]:
    """The id of the run that shows the results in a folder, new where there is none yet, and what has been logged.

    Returns:
        {"id": eight hex digits, "logged": a mark of the results that were logged, or None}.

    Raises:
        BadValue: what was noted is damaged.
    """
    file = folder / NOTE
    if file.is_file():
        known = read_json(file, MEND, dict)
        if not isinstance(known.get("id"), str):
            raise BadValue(f"{file} cannot be read (it holds no id of a run); {MEND}")
        return {"id": known["id"], "logged": known.get("logged")}
    made = {"id": secrets.token_hex(4), "logged": None}
    write_json(file, made)
    return made


def note_logged(folder: Path, mark: str) -> None:
    """Remember that the results of this mark have been logged."""
    write_json(folder / NOTE, noted(folder) | {"logged": mark})
