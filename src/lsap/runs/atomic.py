"""Files that are whole or absent.

Everything is written beside its destination, forced to the disk and renamed over it: a reader never meets half a file,
and a failed write leaves the old one in place.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lsap.errors import BadValue, MissingFile, StoppedRun

if TYPE_CHECKING:
    from torch import Tensor

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
SUFFIX = ".unfinished"
NAMED: Mapping[type, str] = {dict: "JSON object", list: "JSON array"}
T = TypeVar("T", dict[str, Any], list[Any])


@contextmanager
def replacing(path: str | Path, needed: int | None = None) -> Iterator[Path]:
    """Hand out a path to write to; when the block ends well, what was written there becomes `path`.

    Args:
        path: the destination; its folder is made if need be.
        needed: bytes about to be written, where known, for the message below.

    Raises:
        StoppedRun: the disk is full; `path` is as it was before, and nothing else is left behind.
    """
    path = Path(path)
    # the destination's suffix stays last, since image and archive writers go by it
    draft = path.with_name(f".{path.stem}.{os.getpid()}{SUFFIX}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise StoppedRun(no_room(path, needed)) from error
        raise
    sync_folder(path.parent)


def write_bytes(path: str | Path, data: bytes | memoryview) -> None:
    """Write `data` to `path`, whole or not at all; raises as `replacing` does."""
    with replacing(path, len(data)) as draft:
        draft.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all; raises as `replacing` does."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as readable JSON, keys in the order given; raises as `replacing` does.

    NaN and infinity, which JSON lacks, are an error of the caller (ValueError).
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: str | Path, mend: str, kind: type[T]) -> T:
    """The content of a JSON file.

    Args:
        path: of the file.
        mend: what to do where it cannot be read, for the message.
        kind: what it has to hold: `dict` or `list`.

    Raises:
        MissingFile: there is no such file.
        BadValue: it is damaged, or holds something else.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingFile(f"{path} is not there; {mend}") from error
    except (OSError, ValueError) as error:
        raise BadValue(f"{path} cannot be read ({error}); {mend}") from error
    if not isinstance(found, kind):
        raise BadValue(f"{path} cannot be read (it holds no {NAMED[kind]}); {mend}")
    return found


def save_safetensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors and their card as safetensors, whole or not at all; raises as `replacing` does."""
    import safetensors.torch  # imports torch, which most writers of this module do without

    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, _sorted_card(safetensors.torch.save(whole, dict(metadata) if metadata else None)))


def _sorted_card(data: bytes) -> bytes:
    """The same file, its card in sorted order: safetensors writes it in any, and equal content makes equal bytes."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    if len(header.get("__metadata__", {})) < 2:
        return data
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + data[start:]


def remove_drafts(folder: Path) -> None:
    """Delete what a killed process had begun to write in `folder` and below; nobody else may be writing there."""
    for draft in folder.rglob(f".*{SUFFIX}*"):
        draft.unlink(missing_ok=True)


def no_room(path: Path, needed: int | None = None) -> str:
    """The one line about a full disk."""
    folder = path.parent
    wanted = "" if needed is None else f" {megabytes(needed)} needed,"
    with suppress(OSError):
        wanted += f" {megabytes(shutil.disk_usage(folder).free)} free;"
    return (
        f"no room left on the disk for {path.name} in {folder}:{wanted} "
        "free some space and give the same command again; what was written before is whole"
    )


def megabytes(count: int) -> str:
    """A number of bytes as a person reads it."""
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count} bytes"


def sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the system lets folders be synced."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
