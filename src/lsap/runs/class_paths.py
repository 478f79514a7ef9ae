"""Class paths of version 0.1, in users' YAML and in records of runs, and where these classes lie now."""

from __future__ import annotations

MOVED = {  # module or package of version 0.1 → its place now
    "lsap.demo.judges": "lsap.demo.networks",
    "lsap.features": "lsap.pretrained",
    "lsap.formats": "lsap.checkpoints",
    "lsap.generator": "lsap.stylegan2",
    "lsap.objective": "lsap.losses",
    "lsap.sweeps": "lsap.cli.sweeps",
}
BEFORE = {now: earlier for earlier, now in MOVED.items()}


def current(path: str) -> str:
    """Where a class or function lies now.

    >>> current("lsap.objective.L2")
    'lsap.losses.L2'
    """
    return _replaced(path, MOVED)


def recorded(path: str) -> str:
    """The path by which records of runs know a class or function: that of version 0.1, so that its runs are found.

    >>> recorded("lsap.losses.L2")
    'lsap.objective.L2'
    """
    return _replaced(path, BEFORE)


def _replaced(path: str, table: dict[str, str]) -> str:
    module = next((each for each in table if path.startswith(f"{each}.")), None)
    return path if module is None else table[module] + path[len(module) :]
