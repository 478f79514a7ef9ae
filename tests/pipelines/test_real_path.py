"""The real path, whole: published layouts, a 512-px generator, photographs of many sizes, three steps at 192x256.

The weights are not the published ones, which cannot be shipped, but have their names, shapes and sane values: the
parity recipe fills them. Everything else is what a researcher runs.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from PIL import Image

from commands import Command
from golden import fill
from lsap.checkpoints import read_card, read_state
from lsap.config.compose import composed
from lsap.demo import Portraits
from lsap.pipelines.build import Parts

pytestmark = pytest.mark.slow


class Weights(NamedTuple):
    """The four files that the car domain needs, as they are published."""

    generator: Path
    alexnet: Path
    moco: Path
    arcface: Path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """Networks filled by the recipe, written as torch files in their published layouts."""
    folder = tmp_path_factory.mktemp("published")
    files = Weights(
        folder / "stylegan2-car-config-f.pt",
        folder / "alexnet-owt-7be5be79.pth",
        folder / "moco_v2_800ep_pretrain.pth.tar",
        folder / "model_ir_se50.pth",
    )
    torch.save({"g_ema": fill.state_dict("stylegan2_rosinality_512", "generator")}, files.generator)
    torch.save(fill.state_dict("lpips_alex", "backbone"), files.alexnet)
    moco = fill.state_dict("moco_resnet50", "encoder_q")
    named = {f"module.encoder_q.{name}": tensor for name, tensor in moco.items()}
    torch.save({"epoch": 800, "arch": "resnet50", "state_dict": named | {"module.queue": torch.zeros(2)}}, files.moco)
    torch.save(fill.state_dict("arcface_irse50", "facenet"), files.arcface)
    return files


@pytest.fixture(scope="module")
def cars(tmp_path_factory: pytest.TempPathFactory, photographs: Callable[..., Path]) -> Path:
    """Eleven photographs as people have them: sizes, shapes, formats, colour modes and orientations of every kind."""
    folder = tmp_path_factory.mktemp("cars")
    for number, size in enumerate(((96, 128), (480, 640), (301, 177))):
        photographs(folder / f"blocks{number}", 2, size)
    portraits = Portraits("rich", "real path", 5).read(range(5))
    for number, portrait in enumerate(portraits):
        pixels = ((portrait + 1) * 127.5).byte().permute(1, 2, 0).numpy()
        picture = Image.fromarray(pixels).resize((200 + 97 * number, 150 + 61 * number), Image.Resampling.BICUBIC)
        if number == 1:
            picture = picture.convert("L")
        elif number == 2:
            picture = picture.convert("RGBA")
        exif = Image.Exif()
        exif[0x0112] = 6  # lies on its side
        options = {"exif": exif} if number == 3 else {}
        picture.save(folder / f"portrait {number}.{'png' if number == 2 else 'jpg'}", **options)
    (folder / "notes.txt").write_text("no picture")
    return folder


def overrides(weights: Weights, cars: Path) -> list[str]:
    """The command line of the documentation, with paths filled in."""
    return [
        "domain=car", "lambda_nscd=0.5", f"generator.checkpoint={weights.generator}",
        f"perceptual.checkpoint={weights.alexnet}", f"similarity.checkpoint={weights.moco}",
        f"backbone.checkpoint={weights.arcface}", f"data.root={cars}", "max_steps=3", "batch_size=2",
        "space.samples=512", "trainer.accelerator=cpu", "trainer.devices=1",
    ]  # fmt: skip


def test_three_steps_on_photographs_save_everything(
    command: Command, weights: Weights, cars: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    started = time.perf_counter()
    outcome = command("train", *overrides(weights, cars))
    seconds = time.perf_counter() - started
    assert outcome.code == 0, outcome.err
    (folder,) = tmp_path.glob("outputs/car/lsap_e/*")
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "config.yaml",
        "encoder.safetensors",
        "metrics.csv",
        "metrics.json",
        "reconstructions.png",
        "report.html",
        "run.json",
    }
    metrics = json.loads((folder / "metrics.json").read_text())
    with capfd.disabled():
        print(
            f"\nthree steps of two images: {seconds:.0f} s, peak {metrics['peak_memory_mb']['process'] / 1000:.1f} GB"
        )
    row = metrics["splits"]["validation"]["lambda_0.5"]
    assert row["n"] == 1, "every twentieth of eleven photographs, but at least one"
    assert all(0 < row[name] < float("inf") for name in ("mse", "lpips", "nscd", "nscd_raw"))
    assert -1 <= row["identity"] <= 1
    assert len(row["nscd_layers"]) == 16, "one layer per row of W+"
    assert metrics["labels"] == {"lpips": "LPIPS (AlexNet)", "identity": "similarity (MoCo v2 ResNet-50)"}
    with (folder / "metrics.csv").open(newline="") as file:
        steps = list(csv.DictReader(file))
    assert [step["step"] for step in steps] == ["0", "1", "2"]
    assert all(float(step["train/stage"]) == 0 for step in steps), "the published schedule begins with the base alone"
    assert all(float(step[f"train/{name}"]) > 0 for step in steps for name in ("l2", "lpips", "id", "nscd"))
    state = read_state(folder / "encoder.safetensors")
    assert state["latent_avg"].shape == (16, 512)
    assert read_card(folder / "encoder.safetensors")["domain"] == "car"
    with Image.open(folder / "reconstructions.png") as picture:
        assert picture.width >= 128
        assert picture.height >= 2 * 96


def test_the_body_of_the_encoder_starts_from_arcface(weights: Weights, cars: Path) -> None:
    parts = Parts(composed("train", overrides(weights, cars)), torch.device("cpu"))
    ours, theirs = parts.encoder().state_dict(), read_state(weights.arcface)
    shared = [name for name in theirs if name.startswith(("input_layer.", "body.")) and name in ours]
    assert len(shared) > 300
    assert all(torch.equal(ours[name], theirs[name]) for name in shared)


def test_photographs_come_as_the_generator_is_seen(weights: Weights, cars: Path) -> None:
    parts = Parts(composed("train", overrides(weights, cars)), torch.device("cpu"))
    source = parts.data().train
    images = source.read(range(len(source)))
    assert images.shape == (11, 3, 192, 256)
    with torch.no_grad():
        seen = parts.view(parts.generator(parts.generator.latent_avg[None]))
    assert seen.shape == (1, 3, 192, 256)


def test_weights_in_each_others_places_are_refused(
    command: Command, weights: Weights, cars: Path, tmp_path: Path
) -> None:
    arguments = overrides(weights, cars)
    swapped = {
        f"backbone.checkpoint={weights.alexnet}": "an IR-SE-50 body",
        f"perceptual.checkpoint={weights.arcface}": "torchvision's AlexNet",
        f"similarity.checkpoint={weights.alexnet}": "a MoCo-v2 ResNet-50",
        f"generator.checkpoint={weights.moco}": "holds no generator that is known here",
    }
    for override, said in swapped.items():
        outcome = command("train", *arguments, override)
        assert outcome.code == 2
        assert said in outcome.err
        assert override.split("=")[1] in outcome.err, "the file is named"
    assert not (tmp_path / "outputs").exists()
