"""Checkpoints: what is read, what is refused and in which words, what is written."""

from __future__ import annotations

import argparse
import copy
import errno
import json
import math
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from comparison import assert_close_l2
from lsap.checkpoints import (
    average_latent,
    fingerprint,
    load_generator,
    read_card,
    read_state,
    save_generator,
    write_state,
)
from lsap.errors import BadValue, MissingFile, StoppedRun
from lsap.stylegan2 import Generator

CHANNELS = {4: 6, 8: 5, 16: 4}


@pytest.fixture
def generator() -> Generator:
    generator = Generator(16, 8, 3, CHANNELS, mapping_lr=0.5, clamp=256)
    for parameter in generator.parameters():
        torch.nn.init.normal_(parameter)
    torch.nn.init.normal_(generator.latent_avg)
    return generator


@pytest.fixture
def published() -> dict[str, Tensor]:
    """A 16-px generator under rosinality's names: style_dim 8, two mapping layers, widths 6, 5, 4."""
    shapes: dict[str, tuple[int, ...]] = {
        f"style.{i}.{k}": (8, 8) if k == "weight" else (8,) for i in (1, 2) for k in ("weight", "bias")
    }
    shapes["input.input"] = (1, 6, 4, 4)
    convolutions = [
        ("conv1", 6, 6, 4),
        ("convs.0", 6, 5, 8),
        ("convs.1", 5, 5, 8),
        ("convs.2", 5, 4, 16),
        ("convs.3", 4, 4, 16),
    ]
    for index, (name, inputs, outputs, side) in enumerate(convolutions):
        shapes |= {
            f"{name}.conv.weight": (1, outputs, inputs, 3, 3),
            f"{name}.conv.modulation.weight": (inputs, 8),
            f"{name}.conv.modulation.bias": (inputs,),
            f"{name}.noise.weight": (1,),
            f"{name}.activate.bias": (outputs,),
            f"noises.noise_{index}": (1, 1, side, side),
        }
    for name, inputs in (("to_rgb1", 6), ("to_rgbs.0", 5), ("to_rgbs.1", 4)):
        shapes |= {
            f"{name}.conv.weight": (1, 3, inputs, 1, 1),
            f"{name}.conv.modulation.weight": (inputs, 8),
            f"{name}.conv.modulation.bias": (inputs,),
            f"{name}.bias": (1, 3, 1, 1),
        }
    shapes |= {"convs.0.conv.blur.kernel": (4, 4), "to_rgbs.0.upsample.kernel": (4, 4)}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


# --- generators


def test_a_rosinality_file_gives_a_frozen_generator_of_its_own_shape(
    published: dict[str, Tensor], tmp_path: Path
) -> None:
    average = torch.randn(8)
    torch.save({"g_ema": published, "latent_avg": average, "args": argparse.Namespace(lr=0.002)}, tmp_path / "g.pt")
    generator = load_generator(tmp_path / "g.pt", size=16)
    assert (generator.size, generator.style_dim, generator.n_latent) == (16, 8, 6)
    assert [layer.width for layer in generator.layers] == [6, 6, 6, 5, 5, 5, 4, 4]
    assert not any(p.requires_grad for p in generator.parameters())
    assert torch.equal(generator.latent_avg, average)
    assert generator.mapping_lr == 0.01
    state = generator.state_dict()
    assert len(state) == len(published) - 2 + 1  # the two kernels are constants; latent_avg is ours
    assert torch.equal(state["blocks.conv8.weight"], published["convs.1.conv.weight"][0])
    assert torch.equal(state["blocks.up16.affine.bias"], published["convs.2.conv.modulation.bias"])
    assert torch.equal(state["blocks.up16.noise"], published["noises.noise_3"])
    assert torch.equal(state["blocks.conv16.noise_strength"], published["convs.3.noise.weight"][0])
    assert torch.equal(state["blocks.rgb8.bias"], published["to_rgbs.0.bias"].flatten())
    assert torch.equal(state["mapping.layers.1.weight"], published["style.2.weight"])


def test_a_bare_state_dict_without_mean_latent_gets_one_measured(published: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(published, tmp_path / "bare.pt")
    state = torch.get_rng_state()
    generator = load_generator(tmp_path / "bare.pt")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(generator.latent_avg, load_generator(tmp_path / "bare.pt").latent_avg)
    samples = generator.sample_w(20_000, torch.Generator().manual_seed(5))
    error = (samples.mean(0) - generator.latent_avg).abs()
    assert (error < 6 * samples.std(0) * math.sqrt(1 / 10_000 + 1 / 20_000)).all()
    assert_close_l2(average_latent(generator), generator.latent_avg, 1e-5)


def test_a_generator_of_another_size_is_refused(published: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"g_ema": published}, tmp_path / "g.pt")
    with pytest.raises(BadValue, match=r"g\.pt holds a 16-px generator \(6 rows\); this domain asks for 512"):
        load_generator(tmp_path / "g.pt", size=512)


def test_files_without_a_whole_generator_are_refused(published: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"encoder": {}, "opts": {}}, tmp_path / "encoder.pt")
    with pytest.raises(BadValue, match=r"encoder\.pt holds no generator that is known here \(it has encoder, opts"):
        load_generator(tmp_path / "encoder.pt")
    del published["convs.1.activate.bias"]
    torch.save({"g_ema": published}, tmp_path / "part.pt")
    with pytest.raises(BadValue, match=r"part\.pt is no complete 16-px generator: 1 of .*blocks\.conv8\.bias"):
        load_generator(tmp_path / "part.pt")
    torch.save(
        {"g_ema": {**published, "convs.9.strange": torch.zeros(1), "who.knows": torch.zeros(1)}}, tmp_path / "odd.pt"
    )
    with pytest.raises(BadValue, match=r"odd\.pt: 'who\.knows' is no tensor of a rosinality StyleGAN2"):
        load_generator(tmp_path / "odd.pt")


def test_saving_and_loading_keeps_the_image_to_the_bit(generator: Generator, tmp_path: Path) -> None:
    path = save_generator(generator, tmp_path / "new" / "g.safetensors", command="pretrain", steps=3)
    again = load_generator(path)
    w = torch.randn(2, 8)
    assert torch.equal(again(again.mapping(w)), generator(generator.mapping(w)))
    assert torch.equal(again.latent_avg, generator.latent_avg)
    assert (again.mapping_lr, again.clamp) == (0.5, 256)
    assert json.loads(read_card(path)["card"]) == {"command": "pretrain", "steps": 3}
    assert fingerprint(again) == fingerprint(generator)
    assert [p.name for p in path.parent.iterdir()] == ["g.safetensors"]


def test_half_precision_halves_the_file_and_loads_as_float32(generator: Generator, tmp_path: Path) -> None:
    whole = save_generator(generator, tmp_path / "a.safetensors")
    half = save_generator(generator, tmp_path / "b.safetensors", dtype=torch.float16)
    tensors = sum(t.numel() for t in generator.state_dict().values())
    assert whole.stat().st_size - half.stat().st_size == pytest.approx(2 * tensors, abs=200)
    again = load_generator(half)
    assert again.constant.dtype == torch.float32
    assert_close_l2(again.constant, generator.constant, 1e-3)


def test_a_full_disk_leaves_the_old_file_and_no_part(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_generator(generator, tmp_path / "g.safetensors")
    before = path.read_bytes()

    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StoppedRun, match=r"no room left on the disk for g\.safetensors"):
        save_generator(generator, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# --- files


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (os.environ["HOSTILE_FOLDER"],))


@pytest.mark.parametrize("layout", [True, False], ids=["zip", "older"])
def test_a_hostile_file_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: bool) -> None:
    monkeypatch.setenv("HOSTILE_FOLDER", str(tmp_path / "owned"))
    torch.save({"g_ema": Hostile()}, tmp_path / "evil.pt", _use_new_zipfile_serialization=layout)
    with pytest.raises(BadValue, match=r"evil\.pt: refused, because the file wants to run code"):
        read_state(tmp_path / "evil.pt")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("kind", ["zip", "older", "safetensors"])
def test_a_truncated_file_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"cut-{kind}"
    state = {"a": torch.randn(1000)}
    if kind == "safetensors":
        write_state(path, state, {})
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    assert torch.equal(read_state(path)["a"], state["a"])
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BadValue, match=rf"cut-{kind}: cannot be read .*\(2,000 bytes;.*download it again") as error:
        read_state(path)
    assert "\n" not in str(error.value)


def test_missing_files_folders_and_lists_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"nowhere\.pt does not exist"):
        load_generator(tmp_path / "nowhere.pt")
    with pytest.raises(BadValue, match="is a folder, not a checkpoint file"):
        read_state(tmp_path)
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(BadValue, match=r"list\.pt: holds a list, not a checkpoint"):
        read_state(tmp_path / "list.pt")


# --- fingerprint


def test_fingerprint_sees_every_tensor_but_not_the_memory_layout(generator: Generator) -> None:
    stamp = fingerprint(generator)
    assert len(stamp) == 64
    assert fingerprint(copy.deepcopy(generator)) == stamp
    assert fingerprint(copy.deepcopy(generator).to(memory_format=torch.channels_last)) == stamp
    stamps = {stamp}
    for name in ("latent_avg", "blocks.up8.noise", "blocks.conv4.noise_strength", "mapping.layers.0.bias"):
        other = copy.deepcopy(generator)
        tensor = other.state_dict()[name]
        tensor.view(-1)[0] += 1e-3
        stamps.add(fingerprint(other))
    stamps.add(fingerprint(copy.deepcopy(generator).half()))
    assert len(stamps) == 6
