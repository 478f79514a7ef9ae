"""Users' YAML of version 0.1: its class paths are replaced by those of today."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from lsap.runs.class_paths import current


def rename_classes(config: DictConfig | ListConfig) -> None:
    """Replace class paths of version 0.1 in a composed configuration, in place: below every `_target_`."""
    nodes: Any = config._content
    if not isinstance(nodes, dict | list):  # none, missing, or a reference to another node
        return
    for key, node in nodes.items() if isinstance(nodes, dict) else enumerate(nodes):
        if isinstance(node, DictConfig | ListConfig):
            rename_classes(node)
        elif key == "_target_" and isinstance(config, DictConfig) and not OmegaConf.is_interpolation(config, key):
            config[key] = current(str(config[key]))
