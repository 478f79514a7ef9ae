"""Derived randomness: one seed and the names of what it is for give a stream that never depends on history."""

from __future__ import annotations

import hashlib


def derive(seed: int, *parts: str | int) -> int:
    """A stable 63-bit seed for one purpose, e.g. `derive(seed, "flip", batch)`.

    The same on every machine and Python version, so order, flips, noise and names can be found again at any step.
    """
    text = "/".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
