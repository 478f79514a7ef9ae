"""Weights & Biases: online where somebody is logged in, offline with one line on how to sync where nobody is."""

from __future__ import annotations

import netrc
import os
from pathlib import Path

from pytorch_lightning.loggers import WandbLogger

HOST = "api.wandb.ai"


def logged_in() -> bool:
    """Whether a key for Weights & Biases is at hand; never asks and never connects."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc(Path(os.environ.get("NETRC") or Path.home() / ".netrc")).authenticators(HOST) is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False


def wandb_logger(
    folder: Path, *, name: str, project: str, entity: str | None, group: str | None, tags: list[str], run_id: str
) -> WandbLogger:
    """A logger of one run; a resumed run goes on under the id that its folder keeps."""
    mode = os.environ.get("WANDB_MODE") or ("online" if logged_in() else "offline")
    if mode == "offline":
        kept = folder / "wandb" / "offline-run-*"
        print(f"wandb: nobody is logged in, so the run is kept offline; later: wandb sync {kept}")
    return WandbLogger(
        project=project, entity=entity, group=group, tags=tags, name=name, id=run_id, save_dir=str(folder),
        resume="allow", mode=mode, offline=mode == "offline",
    )  # fmt: skip
