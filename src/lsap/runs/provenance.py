"""What a run ran on: versions, machine, time and memory. None of it can repeat, so it has a file of its own."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytorch_lightning
import torch
import torchvision

import lsap


def manifest(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Versions, source commit, machine, time (UTC) and `peak_memory`; plain values, ready for JSON."""
    return {
        "versions": versions(),
        "commit": commit(),
        "device": device_name(torch.device(device)),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "peak_memory_mb": peak_memory(),
    }


def versions() -> dict[str, str]:
    """Of everything that can change a number."""
    return {
        "lsap": lsap.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "none",
        "torchvision": torchvision.__version__,
        "lightning": pytorch_lightning.__version__,
        "numpy": np.__version__,
    }


def commit() -> str | None:
    """The commit of the checkout that lsap runs from, with a `+` if files were changed; None if it is installed."""
    package = Path(lsap.__file__).resolve().parent
    checkout = package.parent.parent
    # a virtual environment inside somebody's repository is not a checkout of ours
    if package != checkout / "src" / "lsap" or not (checkout / ".git").exists():
        return None
    try:
        head = git(checkout, "rev-parse", "HEAD")
        return head + ("+" if git(checkout, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def git(checkout: Path, *arguments: str) -> str:
    """What git says, without taking its locks."""
    command = ["git", "--no-optional-locks", "-C", str(checkout), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()


def device_name(device: torch.device) -> str:
    """The device as its maker calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        try:
            models = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        except OSError:
            models = []
        return models[0] if models else platform.processor() or platform.machine()
    return device.type


def peak_memory() -> dict[str, float | None]:
    """Most memory held at once so far, in MB (10^6 bytes): `process`, and `cuda` where there is such a device."""
    cuda = torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else None
    return {"process": round(peak_bytes() / 1e6, 1), "cuda": None if cuda is None else round(cuda, 1)}


def peak_bytes() -> int:
    """Largest resident size of this process in bytes."""
    try:
        # Linux: unlike rusage, this does not carry over the size of the process that started this one
        found = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found:
        return int(found[1]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
