"""Checkpoints of the Trainer that are whole or absent."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from lsap.runs.atomic import write_bytes


class AtomicCheckpoints(TorchCheckpointIO):
    """Write checkpoints as `write_bytes` does: forced to the disk, then renamed; a full disk is said in one line.

    Lightning's own writing starts in the system's temporary folder, from where a file is copied, not renamed, if that
    is another disk: a run killed in this moment is left with a piece of its only checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        assert storage_options is None, "storage options belong to remote paths; run folders are local"
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_bytes(path, buffer.getbuffer())
