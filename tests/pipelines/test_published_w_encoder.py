"""The encoder of one w (pSp's BackboneEncoderUsingLastLayerIntoW, HyperStyle's WEncoder) from a published file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import lsap
from commands import Command
from comparison import assert_close_l2
from layouts import prefixed
from lsap.checkpoints import fingerprint, load_generator, read_codes, read_encoder, rosinality
from lsap.embedding import WEncoder

ROWS = 8  # of the generator, 32 px


@pytest.fixture(scope="module")
def encoder(generator_file: Path) -> WEncoder:
    """An encoder of weights that are one number per tensor, so that its file is small."""
    generator = load_generator(generator_file)
    with torch.device("meta"):
        made = WEncoder(ROWS, style_dim=16)
    state: dict[str, Tensor] = {}
    for index, (name, tensor) in enumerate(made.state_dict().items()):
        scale = tensor[0].numel() if tensor.ndim == 4 else 1
        value = 1 if name.endswith("num_batches_tracked") else (0.5 + index % 7 / 10) / scale
        state[name] = torch.tensor(value).expand(tensor.shape)
    state["latent_avg"] = generator.latent_avg[None].repeat(ROWS, 1)
    state["linear.weight"] = torch.randn(16, 512)
    made.load_state_dict(state, assign=True)
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module", params=["BackboneEncoderUsingLastLayerIntoW", "WEncoder"])
def checkpoint(
    encoder: WEncoder, generator_file: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Path:
    state = encoder.state_dict()
    mean = state.pop("latent_avg")
    decoder = rosinality.publish(load_generator(generator_file))
    content = {
        "state_dict": prefixed(state, "encoder.") | prefixed(decoder, "decoder."),
        "latent_avg": mean,
        "opts": {"encoder_type": request.param, "output_size": 32, "start_from_latent_avg": True},
    }
    path = tmp_path_factory.mktemp("published") / "w.pt"
    torch.save(content, path)
    return path


def settings(own: list[str]) -> list[str]:
    return [setting for setting in own if not setting.startswith(("domain=", "generator.checkpoint"))]


def test_it_inverts_through_load(checkpoint: Path, encoder: WEncoder, own: list[str], images: Path) -> None:
    inverter = lsap.load(checkpoint, *settings(own), domain="church")
    assert inverter.embedding == "w"
    pictures = inverter.images(images, count=2)
    codes = inverter.embed(pictures, warn=False).codes
    assert codes.shape == (2, ROWS, 16)
    assert torch.equal(codes, codes[:, :1].expand_as(codes)), "one w for all rows"
    assert_close_l2(codes, encoder(pictures.images), 1e-5)


def test_it_inverts_through_the_command_and_after_conversion(
    checkpoint: Path, encoder: WEncoder, own: list[str], images: Path, command: Command, tmp_path: Path
) -> None:
    done = command("convert", f"source={checkpoint}", "save_to=w.safetensors")
    assert done.code == 0, done.err
    found = read_encoder(tmp_path / "w.safetensors", kind="w", size=32)
    assert found.generator == fingerprint(load_generator(tmp_path / "w-generator.safetensors"))
    typed = [f"images={images}", "count=2", "embedding=w", "domain=church", *settings(own), "trainer.accelerator=cpu"]
    files = ["checkpoint=w.safetensors", "generator.checkpoint=w-generator.safetensors"]
    done = command("invert", *typed, *files, "lambda_lpips=0", "lambda_id=0")
    assert done.code == 0, done.err
    (path,) = tmp_path.glob("outputs/church/inversions/w/*/codes.safetensors")
    pictures = lsap.load(checkpoint, *settings(own), domain="church").images(images, count=2)
    assert_close_l2(read_codes(path, n_latent=ROWS, style_dim=16).codes, encoder(pictures.images), 1e-4)
