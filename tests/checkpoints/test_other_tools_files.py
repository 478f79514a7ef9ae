"""Files as other tools leave them: generators in every wrapping, unsupported networks, files of no weights."""

from __future__ import annotations

import copy
import gzip
import io
import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from comparison import assert_close_l2
from layouts import nvidia_names, prefixed, pyramid, sixteen_pixels
from lsap.checkpoints import fingerprint, load_generator, read_encoder, read_state, rosinality
from lsap.errors import BadValue
from lsap.stylegan2 import Generator, freeze

State = dict[str, Tensor]
GOLDEN = [1.7769099, -1.0287321, 1.5296723]  # of blocks.conv16.noise, where it is drawn: fingerprints depend on it
Made = Callable[[State, Tensor], Any]


@pytest.fixture
def generator() -> Generator:
    return sixteen_pixels()


def other(state: Mapping[str, Tensor]) -> State:
    """The weights of another network of the same shape."""
    return {name: tensor + 1 for name, tensor in state.items()}


def without(state: Mapping[str, Tensor], begin: str) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith(begin)}


DISCRIMINATOR = {"convs.0.0.weight": torch.zeros(2, 3, 1, 1), "final_conv.0.weight": torch.zeros(2, 2, 3, 3)}

# what a tool saves: of a generator's tensors under rosinality's names and its mean latent
WRAPPED: dict[str, Made] = {
    "DataParallel": lambda s, w: {"g_ema": prefixed(s, "module."), "latent_avg": w},
    "compiled": lambda s, w: {"g_ema": prefixed(s, "_orig_mod."), "latent_avg": w},
    "state_dict": lambda s, w: {"state_dict": s, "latent_avg": w},
    "params_ema beside params": lambda s, w: {"params": other(s), "params_ema": s, "latent_avg": w},
    "model_ema": lambda s, w: {"model": other(s), "model_ema": s, "latent_avg": w, "epoch": 3},
    "a training": lambda s, w: {
        "g": other(s), "d": DISCRIMINATOR, "g_ema": s, "latent_avg": w, "g_optim": {"state": {0: {"step": 1}}},
    },
    "Lightning": lambda s, w: {
        "state_dict": prefixed(s | {"latent_avg": w}, "generator.") | prefixed(DISCRIMINATOR, "discriminator."),
        "pytorch-lightning_version": "2.1",
    },
    "Lightning with an average": lambda s, w: {
        "state_dict": prefixed(other(s), "generator.") | prefixed(s, "generator_ema.module."), "latent_avg": w,
    },
    "DeepSpeed": lambda s, w: {"module": s | {"latent_avg": w}, "dp_world_size": 4},
    "AveragedModel": lambda s, w: prefixed(s | {"latent_avg": w}, "module.") | {"n_averaged": torch.tensor(3)},
    "mean latent in another shape": lambda s, w: {"g_ema": s, "latent_avg": w[None]},
    "parameters with gradients": lambda s, w: {
        "g_ema": {name: nn.Parameter(tensor) for name, tensor in s.items()}, "latent_avg": nn.Parameter(w) * 1.0,
    },
}  # fmt: skip


@pytest.mark.parametrize("tool", WRAPPED)
def test_a_generator_is_found_in_every_wrapping(generator: Generator, tmp_path: Path, tool: str) -> None:
    torch.save(WRAPPED[tool](rosinality.publish(generator), generator.latent_avg), tmp_path / "g.pt")
    again = load_generator(tmp_path / "g.pt")
    assert fingerprint(again) == fingerprint(generator)
    assert fingerprint(copy.deepcopy(again)) == fingerprint(generator)


@pytest.mark.parametrize("wrap", [lambda s: {"G_ema": prefixed(s, "module.")}, lambda s: {"state_dict": s}])
def test_nvidias_names_are_found_in_every_wrapping(
    generator: Generator, tmp_path: Path, wrap: Callable[[State], Any]
) -> None:
    torch.save(wrap(nvidia_names(generator)), tmp_path / "g.pt")
    assert fingerprint(load_generator(tmp_path / "g.pt")) == fingerprint(generator)


def test_forms_of_the_file_make_no_difference(generator: Generator, tmp_path: Path) -> None:
    content = {"g_ema": rosinality.publish(generator), "latent_avg": generator.latent_avg}
    for protocol in (2, 4, 5):
        torch.save(content, tmp_path / f"{protocol}.pt", pickle_protocol=protocol)
    torch.save(content, tmp_path / "older.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "tensors.pkl").write_bytes(pickle.dumps(content))
    flat = content["g_ema"] | {"latent_avg": generator.latent_avg}
    for protocol in (4, 5):
        arrays = {name: tensor.numpy() for name, tensor in flat.items()}
        (tmp_path / f"arrays{protocol}.pkl").write_bytes(pickle.dumps(arrays, protocol))
    save_file(flat, tmp_path / "g.safetensors")
    for path in tmp_path.iterdir():
        assert fingerprint(load_generator(path)) == fingerprint(generator), path.name


@pytest.mark.parametrize(
    ("dtype", "error"), [(torch.bfloat16, 1e-2), (torch.float16, 1e-3), (torch.float64, 1e-9)], ids=str
)
def test_stored_types_become_float32(generator: Generator, tmp_path: Path, dtype: torch.dtype, error: float) -> None:
    state = {name: tensor.to(dtype) for name, tensor in rosinality.publish(generator).items()}
    torch.save({"g_ema": state, "latent_avg": generator.latent_avg.to(dtype)}, tmp_path / "g.pt")
    again = load_generator(tmp_path / "g.pt").state_dict()
    for name, tensor in generator.state_dict().items():
        assert again[name].dtype == torch.float32
        assert_close_l2(again[name], tensor, error)


def test_narrower_layers_are_read_off_the_tensors(tmp_path: Path) -> None:
    narrow = freeze(Generator(16, 8, 2, {4: 3, 8: 2, 16: 2}))
    torch.save({"g_ema": rosinality.publish(narrow)}, tmp_path / "g.pt")
    assert [layer.channels for layer in load_generator(tmp_path / "g.pt").layers if layer.kind == "conv"] == [3, 2, 2]


def test_the_generator_in_training_is_taken_with_a_line(
    generator: Generator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"g": rosinality.publish(generator), "latent_avg": generator.latent_avg}, tmp_path / "g.pt")
    assert fingerprint(load_generator(tmp_path / "g.pt")) == fingerprint(generator)
    told = capsys.readouterr().err
    assert "g.pt: takes 'g', the generator in training: the file holds no average of it" in told
    assert told.count("\n") == 1


# ---- noise maps


def test_noise_maps_that_a_file_lacks_are_drawn_once_and_for_all(generator: Generator, tmp_path: Path) -> None:
    state = without(rosinality.publish(generator), "noises.")
    torch.save({"g_ema": state, "latent_avg": generator.latent_avg}, tmp_path / "g.pt")
    random = torch.get_rng_state()
    one, two = load_generator(tmp_path / "g.pt"), load_generator(tmp_path / "g.pt")
    assert torch.equal(torch.get_rng_state(), random)
    assert fingerprint(one) == fingerprint(two)
    w_plus = torch.randn(1, 6, 8)
    assert torch.equal(one(w_plus), two(w_plus))
    assert torch.equal(one(w_plus, noise="none"), generator(w_plus, noise="none"))
    maps = {name: tensor for name, tensor in one.state_dict().items() if name.endswith(".noise")}
    assert len(maps) == 5
    assert not torch.equal(maps["blocks.up8.noise"], maps["blocks.conv8.noise"])
    first = maps["blocks.conv16.noise"].flatten()[:3]
    assert first.tolist() == pytest.approx(GOLDEN, abs=1e-6)
    assert maps["blocks.conv16.noise"].std().item() == pytest.approx(1, abs=0.1)


def test_noise_maps_of_nvidias_names_are_drawn_alike(generator: Generator, tmp_path: Path) -> None:
    torch.save(without(rosinality.publish(generator), "noises."), tmp_path / "ours.pt")
    theirs = {n: t for n, t in nvidia_names(generator).items() if not n.endswith(("noise_const", "w_avg"))}
    torch.save(theirs, tmp_path / "theirs.pt")
    assert fingerprint(load_generator(tmp_path / "ours.pt")) == fingerprint(load_generator(tmp_path / "theirs.pt"))


def test_a_part_of_the_noise_maps_is_no_complete_generator(generator: Generator, tmp_path: Path) -> None:
    torch.save(without(rosinality.publish(generator), "noises.noise_2"), tmp_path / "g.pt")
    with pytest.raises(BadValue, match=r"g\.pt is no complete 16-px generator: 1 of .*blocks\.conv8\.noise"):
        load_generator(tmp_path / "g.pt")


# ---- what is not supported


def with_channels(state: State, count: int) -> State:
    """The same with another number of channels in every ToRGB."""
    narrow = dict(state)
    for name, tensor in state.items():
        if ("to_rgb" in name or "torgb" in name) and "affine" not in name and "modulation" not in name:
            axis = next((index for index, length in enumerate(tensor.shape) if length == 3), None)
            if axis is not None:
                narrow[name] = tensor.repeat_interleave(2, axis).narrow(axis, 0, count)
    return narrow


def last_rgb(state: State) -> State:
    return {n: t for n, t in state.items() if "rgb" not in n or "to_rgbs.1" in n or "b16" in n}


UNSUPPORTED: dict[str, tuple[Callable[[State, State], Any], str]] = {
    "labels appended to z": (lambda s, _: {"g_ema": s | {"style.1.weight": torch.randn(8, 16)}}, "takes 16 numbers"),
    "a shorter z": (lambda _, n: n | {"mapping.fc0.weight": torch.randn(8, 4)}, "takes 4 numbers and w has 8"),
    "embedded labels": (lambda _, n: n | {"mapping.embed.weight": torch.randn(8, 3)}, "takes class labels"),
    "one channel": (lambda s, _: {"g_ema": with_channels(s, 1)}, r"images have 1 channel; lsap supports RGB images"),
    "four channels": (lambda _, n: with_channels(n, 4), "images have 4 channels; lsap supports RGB"),
    "architecture orig": (lambda _, n: last_rgb(n), "architecture 'orig' or 'resnet', without a ToRGB at every"),
    "architecture orig, rosinality": (lambda s, _: {"g_ema": last_rgb(s)}, "architecture 'orig' or 'resnet'"),
    "architecture resnet": (
        lambda _, n: last_rgb(n) | {"synthesis.b8.skip.weight": torch.zeros(5, 6, 1, 1)},
        "architecture 'resnet'; lsap supports 'skip' only",
    ),
    "StyleGAN3": (lambda *_: {"G_ema": {"synthesis.input.freqs": torch.zeros(8, 2)}}, "holds a StyleGAN3 generator"),
    "StyleGAN": (lambda *_: {"g_running": {"generator.progression.0.conv1.x": torch.zeros(1)}}, "the first StyleGAN"),
    "BasicSR": (lambda *_: {"params_ema": {"style_mlp.1.weight": torch.zeros(8, 8)}}, "names of BasicSR or GFPGAN"),
    "a discriminator": (lambda *_: {"d": DISCRIMINATOR}, "holds a discriminator"),
    "a diffusion model": (lambda *_: {"down_blocks.0.resnets.0.conv1.weight": torch.zeros(1)}, "a diffusion model"),
    "our own without settings": (lambda *_: sixteen_pixels().state_dict(), r"without its settings \(use save_gener"),
    "several": (lambda s, _: {"one": s, "two": other(s)}, r"several generators \(one, two\); save one of them alone"),
    "NaN": (lambda s, _: {"g_ema": s | {"conv1.activate.bias": torch.full((6,), torch.nan)}}, r"1 of .* hold NaN"),
    "a mean of NaN": (lambda s, _: {"g_ema": s, "latent_avg": torch.full((8,), torch.nan)}, "the first: latent_avg"),
    "whole numbers": (lambda s, _: {"g_ema": {k: v.int() for k, v in s.items()}}, "missing, unknown or of another"),
    "complex numbers": (lambda s, _: {"g_ema": s | {"input.input": torch.zeros(1, 6, 4, 4) * 1j}}, "1 of its 47"),
    "numbers for matrices": (lambda s, _: {"g_ema": s | {"style.1.weight": torch.tensor(1.0)}}, "have other shapes"),
    "a stub": (lambda *_: {"g_ema": {"input.input": torch.zeros(1, 6, 4, 4)}}, "no complete generator: .* is missing"),
    "4 px": (
        lambda s, _: {"g_ema": {n: t for n, t in s.items() if not n.startswith(("convs.", "to_rgbs."))}},
        r"a generator of 4 px cannot be built",
    ),
    "nothing": (lambda *_: {}, r"holds no generator that is known here \(it has no tensors\)"),
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_what_is_not_supported_is_named(generator: Generator, tmp_path: Path, kind: str) -> None:
    make, message = UNSUPPORTED[kind]
    torch.save(make(rosinality.publish(generator), nvidia_names(generator)), tmp_path / "g.pt")
    with pytest.raises(BadValue, match=rf"g\.pt.*{message}") as error:
        load_generator(tmp_path / "g.pt")
    assert "\n" not in str(error.value)


# ---- no weights


def archive(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("folder/weights.pt", data)
    return file.getvalue()


def tape(data: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as made:
        entry = tarfile.TarInfo("weights.pt")
        entry.size = len(data)
        made.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def array(save: Callable[..., None]) -> bytes:
    file = io.BytesIO()
    save(file, np.zeros(3))
    return file.getvalue()


def script(*_: object) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # torch.jit is deprecated, its files go on
        torch.jit.save(torch.jit.script(nn.Linear(4, 4)), file)  # type: ignore[no-untyped-call]
    return file.getvalue()


NO_WEIGHTS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", r"is empty \(0 bytes\); download"),
    "LFS": (lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a Git LFS pointer.*pull"),
    "HTML": (lambda _: b"\n<!DOCTYPE html><html>Quota exceeded</html>", "a web page or XML.*download the file itself"),
    "text": (lambda _: b"Access denied. Please log in.\n", "is text, not weights .it begins 'Access denied"),
    "JSON": (lambda _: b'{\n  "error": "not found"\n}', "is text, not weights"),
    "gzip": (gzip.compress, "compressed with gzip; unpack it"),
    "zip": (archive, r"a zip archive \(of folder/weights\.pt\) and no torch file; unpack it"),
    "tar": (tape, "a tar archive; unpack it"),
    "npz": (lambda _: array(np.savez), r"a zip archive \(of arr_0\.npy\) and no torch file"),
    "npy": (lambda _: array(np.save), "one NumPy array"),
    "HDF5": (lambda _: b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file"),
    "ONNX": (lambda _: b"\x08\x08\x12\x07pytorch", "an ONNX graph"),
    "TorchScript": (script, r"a TorchScript program .*, which is code; .*torch\.jit\.load\(FILE\)\.state_dict\(\)"),
    "half a file": (lambda data: data[: len(data) // 2], r"cannot be read as .*its end is missing.*download it again"),
}


@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_a_file_without_weights_is_named(tmp_path: Path, kind: str) -> None:
    make, message = NO_WEIGHTS[kind]
    whole = io.BytesIO()
    torch.save({"a": torch.zeros(1000)}, whole)
    (tmp_path / "w.pt").write_bytes(make(whole.getvalue()))
    for read in (load_generator, read_encoder, read_state):
        with pytest.raises(BadValue, match=rf"w\.pt.*{message}") as error:
            read(tmp_path / "w.pt")
        assert "\n" not in str(error.value)


def test_a_network_of_another_class_that_was_saved_whole_is_refused_with_a_way_out(tmp_path: Path) -> None:
    torch.save({"g_ema": nn.Linear(2, 2)}, tmp_path / "g.pt")
    with pytest.raises(BadValue, match=r"g\.pt: refused.* asks for torch\.nn\.modules.*Linear.* save its state_dict"):
        load_generator(tmp_path / "g.pt")


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({}, tmp_path / "g.pt")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(BadValue, match=r"g\.pt may not be read by this user"):
        load_generator(tmp_path / "g.pt")


# ---- tensors


@pytest.mark.parametrize("protocol", [2, 4])
def test_tensors_leave_a_file_plain(tmp_path: Path, protocol: int) -> None:
    grown = nn.Parameter(torch.ones(2)) * 2
    content = {"a": nn.Parameter(torch.ones(2)), "b": {"c": [grown, {"d": grown}]}, "e": (grown,)}
    torch.save(content, tmp_path / "w.pt", pickle_protocol=protocol)
    found = read_state(tmp_path / "w.pt")
    for tensor in (found["a"], found["b"]["c"][0], found["b"]["c"][1]["d"], found["e"][0]):
        assert type(tensor) is Tensor
        assert not tensor.requires_grad
        copy.deepcopy(tensor)
    assert found["b"]["c"][0].tolist() == [2, 2]


def test_an_encoder_comes_without_gradients(tmp_path: Path) -> None:
    state = {name: nn.Parameter(tensor) for name, tensor in prefixed(pyramid(), "encoder.").items()}
    mean = nn.Parameter(torch.ones(6, 8)) * 1.0
    torch.save(
        {"state_dict": state, "latent_avg": mean, "opts": {"encoder_type": "Encoder4Editing"}}, tmp_path / "e.pt"
    )
    loadable = read_encoder(tmp_path / "e.pt").loadable()
    assert not any(tensor.requires_grad for tensor in loadable.values())
    copy.deepcopy(loadable)
