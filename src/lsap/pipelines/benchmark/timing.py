"""Forms of one computation against one another: they take turns, and the median counts."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import psutil
import torch

Work = Callable[[], object]

ENOUGH = 20.0  # seconds for the repetitions of one comparison


@dataclass(frozen=True)
class Comparison:
    """Forms of one computation.

    part: the part of the benchmark.
    what: what was computed.
    seconds: form → median time; the first form is the one that lsap uses. Empty if it could not run here.
    memory_mb: form → most memory held at once, above what was held before, in MB; where that is the point.
    note: whatever a reader should know.
    """

    part: str
    what: str
    seconds: Mapping[str, float]
    memory_mb: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Time of the other form over that of the used one: above 1, the used one is faster."""
        if len(self.seconds) < 2:
            return None
        used, other = list(self.seconds.values())[:2]
        return other / used


def interleaved(forms: Mapping[str, Work], repetitions: int, device: torch.device) -> dict[str, float]:
    """Median seconds of every form. They take turns, so that a slow moment of the machine meets them all.

    Slow forms are repeated less often: once `ENOUGH` seconds have passed, three rounds will do.
    """
    times: dict[str, list[float]] = {name: [] for name in forms}
    for work in forms.values():
        work()  # memory is allocated and kernels are chosen
    started = time.perf_counter()
    for turn in range(repetitions):
        if turn >= 3 and time.perf_counter() - started > ENOUGH:
            break
        for name, work in forms.items():
            synchronize(device)
            start = time.perf_counter()
            work()
            synchronize(device)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def peak_memory(work: Work, device: torch.device) -> float:
    """Most memory in MB (10^6 bytes) that `work` holds at once beyond what was held before it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    process = psutil.Process()
    before = peak = process.memory_info().rss
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return (peak - before) / 1e6


def allocated(device: torch.device) -> float:
    """MB (10^6 bytes) that tensors on a GPU hold at this moment; 0 on a processor, where nobody counts."""
    return torch.cuda.memory_allocated(device) / 1e6 if device.type == "cuda" else 0.0


def synchronize(device: torch.device) -> None:
    """Wait for a GPU, which works on while Python goes ahead."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
