"""Shared fixtures: seeds that repeat, a tiny but whole generator, photographs, and commands run as a user runs them."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from PIL import Image

from lsap import formats
from lsap.generator import Generator

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))  # two test processes run at a time


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Style means that tests measure do not land among the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSAP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def generator_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A seeded generator of 32 px and 16 channels, as `save_generator` writes it."""
    torch.manual_seed(5)
    generator = Generator(32, style_dim=16, mapping_layers=2, channels=dict.fromkeys((4, 8, 16, 32), 16))
    generator.latent_avg.copy_(formats.average_latent(generator, 500))
    return formats.save_generator(generator, tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="session")
def photographs() -> Callable[..., Path]:
    """`photographs(folder, count, size=(40, 48))` writes PNG pictures, height x width `size`, no two alike."""

    def write(folder: Path, count: int, size: tuple[int, int] = (40, 48)) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        height, width = size
        rng = np.random.default_rng(0)
        for number in range(count):
            picture = np.zeros((height, width, 3))
            for cell, weight in ((16, 0.6), (4, 0.3), (1, 0.1)):
                blocks = rng.random((-(-height // cell), -(-width // cell), 3))
                picture += weight * blocks.repeat(cell, 0).repeat(cell, 1)[:height, :width]
            Image.fromarray((picture * 255).astype(np.uint8)).save(folder / f"{number:03d}.png")
        return folder

    return write


class Outcome(NamedTuple):
    """How a command ended: its exit code and what it printed."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """`command("train", "domain=car")` is `python -m lsap.train domain=car` in an empty folder, in this process.

    An exception that a user would see as a traceback comes out as itself.
    """

    def run(verb: str, *arguments: str) -> Outcome:
        main = importlib.import_module(f"lsap.{verb}").main
        monkeypatch.setattr(sys, "argv", [f"{verb}.py", *arguments])
        monkeypatch.chdir(tmp_path)
        capfd.readouterr()
        code: int = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            GlobalHydra.instance().clear()
            HydraConfig.instance().cfg = None
        return Outcome(code, *capfd.readouterr())

    return run
