"""Shared fixtures: seeds that repeat, a tiny but whole generator, photographs, and commands run as a user runs them."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from PIL import Image

from commands import Command, Outcome
from lsap import checkpoints as formats
from lsap.stylegan2 import Generator
from pages import PAGES, blocks
from small_runs import ON_ONE_CPU, SMALL

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


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory, photographs: Callable[..., Path]) -> Path:
    """A folder of seven photographs."""
    return photographs(tmp_path_factory.mktemp("seven") / "pictures", 7)


@pytest.fixture(scope="session")
def own(generator_file: Path, images: Path) -> list[str]:
    """A domain of one's own, without judges."""
    return [
        "domain=church", f"generator.checkpoint={generator_file}", f"data.root={images}", "generator.size=32",
        "view.size=32", "image_size=[32,32]", *SMALL,
    ]  # fmt: skip


@pytest.fixture(scope="session")
def optimised(own: list[str], images: Path) -> list[str]:
    """The same, to be embedded by a very short optimisation."""
    return [
        *own,
        "embedding=lsap_o_wplus",
        "lambda_lpips=0",
        "lambda_l2=1",
        "steps=3",
        f"images={images}",
        "images_per_batch=3",
    ]


@pytest.fixture(scope="session")
def training_photographs(tmp_path_factory: pytest.TempPathFactory, photographs: Callable[..., Path]) -> Path:
    """A folder of twelve photographs."""
    return photographs(tmp_path_factory.mktemp("photos"), 12)


@pytest.fixture(scope="session")
def training_domain(generator_file: Path, training_photographs: Path) -> list[str]:
    """A domain of one's own: two overrides, generator and folder; the others only make it small."""
    return [
        "domain=church", f"generator.checkpoint={generator_file}", f"data.root={training_photographs}",
        "generator.size=32", "view.size=32", "image_size=[32,32]",
        "encoder._target_=lsap.embedding.SmallPyramidEncoder", "backbone.checkpoint=random", "lambda_lpips=0",
        "lambda_id=0", "space.samples=64", "data.num_workers=0",
        "data.val_images=3", "max_steps=8", "batch_size=2", "stages.start=0.25", "stages.every=0.125",
        "trainer.val_check_interval=0.25", "trainer.save_every=0.375", *ON_ONE_CPU,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def own_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The YAML files that the pages show, written where they say."""
    folder = tmp_path_factory.mktemp("yaml")
    for page in PAGES:
        for block in blocks(page, "yaml"):
            named = re.search(r"^# (\S+\.yaml)$", block, re.MULTILINE)
            assert named is not None, f"{page.name} shows a YAML file without saying which"
            path = folder / named[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block, encoding="utf-8")
    return folder
