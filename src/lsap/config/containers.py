"""Configurations as plain containers, and as copies that can be changed."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf


def plain(value: Any) -> Any:
    """A setting with its references resolved, as plain containers."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def as_written(node: DictConfig) -> Any:
    """A group of settings as its YAML says it, references unresolved."""
    return OmegaConf.to_container(node, resolve=False)


def editable(config: DictConfig) -> DictConfig:
    """A copy of a configuration whose settings can be changed; a command's own configuration is read-only."""
    copied = config.copy()
    OmegaConf.set_readonly(copied, False)
    return copied
