"""Class paths of version 0.1, in users' YAML and in records of runs, and where these classes lie now."""

from __future__ import annotations

MOVED = {  # package of version 0.1 → package now
    "lsap.features": "lsap.pretrained",
    "lsap.formats": "lsap.checkpoints",
    "lsap.generator": "lsap.stylegan2",
    "lsap.objective": "lsap.losses",
}


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
    return _replaced(path, {new: old for old, new in MOVED.items()})


def _replaced(path: str, table: dict[str, str]) -> str:
    package = ".".join(path.split(".")[:2])
    return table[package] + path[len(package) :] if package in table and path != package else path
