"""What offline runs of Weights & Biases wrote."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import wandb
from wandb.proto import wandb_internal_pb2 as protocol


def end_of_process() -> None:
    """What happens to a run of Weights & Biases when its process ends."""
    wandb.finish()
    wandb.teardown()


def records(path: Path) -> Iterator[Any]:
    """What an offline run wrote: a log of protocol buffers in blocks of 32 KiB, as LevelDB lays them out."""
    data, at, message = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # a header never straddles two blocks
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        message += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole message, or the last part of one
            record = protocol.Record()
            record.ParseFromString(message)
            message = b""
            yield record
