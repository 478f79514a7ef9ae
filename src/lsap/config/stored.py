"""Placeholder of read_settings until the real one is written."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf


def read_settings(file: Path) -> dict[str, Any]:
    """Plain."""
    return OmegaConf.to_container(OmegaConf.load(file), resolve=False)  # type: ignore
