"""Composing configurations: where our YAML files lie, and what a command line would give; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from lsap.config.moved import rename_classes
from lsap.config.paths import literal
from lsap.config.settings import check_settings


def config_dir() -> Path:
    """The folder of our YAML files: `conf/` of a checkout, else the copy that travels inside the wheel."""
    here = Path(__file__).resolve().parents[1]
    packaged = here / "conf"
    return packaged if packaged.is_dir() else here.parents[1] / "conf"


def composed(config_name: str, overrides: Iterable[str] = (), searchpath: Sequence[str] = ()) -> DictConfig:
    """The configuration that a command line would give; also from within a running command.

    Args:
        config_name: "train", "pretrain", …
        overrides: key=value, as typed; paths need no quotes (`lsap.config.paths`).
        searchpath: further folders of YAML files, as file://….

    Raises:
        BadValue: a setting is not of its type (`lsap.config.settings`).
    """
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_dir()), version_base=None):
            found = [f"hydra.searchpath=[{','.join(searchpath)}]"] if searchpath else []
            config = compose(config_name, [*literal(overrides, config_name), *found])
            rename_classes(config)  # of users' YAML
            check_settings(config, config_name)
            return config
    finally:
        GlobalHydra.instance().hydra = outer


_NAMED: ContextVar[tuple[str, ...]] = ContextVar("folders of YAML that a Python program named", default=())


@contextmanager
def searching(folders: Iterable[str]) -> Iterator[None]:
    """Within it, a Python program composes with further folders of YAML, as file://…, as if by --config-dir."""
    token = _NAMED.set(tuple(folders))
    try:
        yield
    finally:
        _NAMED.reset(token)


def named_folders(settings: Iterable[str]) -> tuple[list[str], list[str]]:
    """Settings of a Python program without `hydra.searchpath=[…]`, and the folders that it names, for `searching`."""
    rest: list[str] = []
    folders: list[str] = []
    for setting in settings:
        if setting.startswith("hydra.searchpath="):
            folders += map(str, OmegaConf.from_dotlist([setting]).hydra.searchpath)
        else:
            rest.append(setting)
    return rest, folders


def searchpath() -> list[str]:
    """Folders of YAML that the user added with --config-dir or hydra.searchpath; in Python those of `searching`."""
    if not HydraConfig.initialized():
        return list(_NAMED.get())
    sources = HydraConfig.get().runtime.config_sources
    return [
        f"{s.schema}://{s.path}" for s in sources if s.provider in ("command-line", "hydra.searchpath in command-line")
    ]


def choices(group: str) -> list[str]:
    """The choices of a group of settings, as `domain`: those of lsap and those below the user's own folders."""
    folders = [config_dir(), *(Path(folder.removeprefix("file://")) for folder in searchpath())]
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})
