"""The convert command: every kind of file becomes safetensors, generators go both ways, nothing is lost on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from commands import Command
from comparison import assert_close_l2
from golden import fill
from layouts import nvidia_names, write_nvidia
from lsap.checkpoints import (
    fingerprint,
    load_arcface,
    load_directions,
    load_generator,
    load_lpips,
    read_card,
    read_codes,
    read_encoder,
    read_state,
    rosinality,
    save_generator,
    save_rosinality,
)
from lsap.errors import BadValue
from lsap.stylegan2 import Generator, freeze


@pytest.fixture
def generator() -> Generator:
    made = Generator(16, 8, 2, {4: 6, 8: 5, 16: 4})
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    torch.nn.init.normal_(made.latent_avg)
    return freeze(made)


def test_the_published_layout_is_written_name_by_name() -> None:
    """Every key, shape and value of the recipe's file, constants included, comes back from what we read of it."""
    spec = fill.load("stylegan2_rosinality_256")
    published = fill.state_dict(spec, "generator")
    made = freeze(Generator(256))
    made.load_state_dict(rosinality.rename(published), strict=False)
    again = rosinality.publish(made)
    assert again.keys() == published.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in published.items())


def test_a_generator_goes_to_rosinality_and_back_unchanged(
    command: Command, generator: Generator, tmp_path: Path
) -> None:
    save_generator(generator, tmp_path / "a.safetensors")
    out = command("convert", "source=a.safetensors", "save_to=b.pt")
    assert out.code == 0
    assert "a.safetensors: generator" in out.out
    assert "read again: equal to the bit" in out.out
    assert "not those that the published repositories build" in out.out
    content = torch.load(tmp_path / "b.pt", weights_only=True)
    assert set(content) == {"g_ema", "latent_avg"}
    assert content["latent_avg"].shape == (8,)
    assert command("convert", "source=b.pt", "save_to=new/c.safetensors").code == 0
    again = load_generator(tmp_path / "new" / "c.safetensors")
    assert fingerprint(again) == fingerprint(generator)
    w_plus = torch.randn(1, 6, 8)
    assert torch.equal(again(w_plus), generator(w_plus))
    card = json.loads(read_card(tmp_path / "new" / "c.safetensors")["card"])
    assert card["source"] == "b.pt"
    assert len(card["sha256"]) == 64
    save_rosinality(again, tmp_path / "d.pt")
    other = torch.load(tmp_path / "d.pt", weights_only=True)
    assert all(torch.equal(other["g_ema"][name], tensor) for name, tensor in content["g_ema"].items())


def test_nvidias_pickle_becomes_safetensors_and_says_what_rosinality_lacks(
    command: Command, generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_nvidia(tmp_path / "n.pkl", nvidia_names(generator), monkeypatch, clamp=0.5)
    assert command("convert", "source=n.pkl", "save_to=n.safetensors").code == 0
    assert load_generator(tmp_path / "n.safetensors").clamp == 0.5
    out = command("convert", "source=n.pkl", "save_to=n.pt").out
    assert "rosinality's code has no bound of activations (here 0.5)" in out
    assert "differ from ours by at most 0 " not in out
    assert load_generator(tmp_path / "n.pt").clamp == 0.5, "lsap itself forgets nothing"


def test_another_learning_rate_multiplier_is_rescaled_for_them_and_kept_for_us(
    command: Command, generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = load_generator(write_nvidia(tmp_path / "m.pkl", nvidia_names(generator), monkeypatch, clamp=None, lr=0.7))
    assert command("convert", "source=m.pkl", "save_to=m.pt").code == 0
    again = load_generator(tmp_path / "m.pt")
    assert (fingerprint(again), again.mapping_lr) == (fingerprint(ours), 0.7)
    content = torch.load(tmp_path / "m.pt", weights_only=True)
    torch.save({"g_ema": content["g_ema"], "latent_avg": content["latent_avg"]}, tmp_path / "theirs.pt")
    theirs = load_generator(tmp_path / "theirs.pt")
    assert theirs.mapping_lr == 0.01
    z = torch.randn(4, 8)
    assert_close_l2(theirs.mapping(z), ours.mapping(z), 1e-5)
    torch.save(content | {"lsap": {"mapping_lr": "fast"}}, tmp_path / "odd.pt")
    with pytest.raises(BadValue, match=r"odd\.pt: what lsap wrote beside its generator cannot be read"):
        load_generator(tmp_path / "odd.pt")


def test_a_checkpoint_becomes_encoder_and_generator(command: Command, generator: Generator, tmp_path: Path) -> None:
    state = {"input_layer.0.weight": torch.randn(64, 3, 3, 3), "latlayer1.weight": torch.randn(2, 2)}
    state |= {f"styles.{row}.linear.weight": torch.randn(2, 2) for row in range(6)}
    content: dict[str, Any] = {
        "state_dict": {f"encoder.{k}": v for k, v in state.items()}
        | {f"decoder.{k}": v for k, v in rosinality.publish(generator).items()}
        | {"residue.conv.weight": torch.randn(2)},
        "latent_avg": generator.latent_avg.repeat(6, 1),
        "opts": {"stylegan_size": 16, "exp_dir": "x"},
    }
    torch.save(content, tmp_path / "hfgi.pt")
    undecided = command("convert", "source=hfgi.pt", "save_to=e.safetensors")
    assert undecided.code == 2
    assert "do not say whether it is psp or e4e" in undecided.err
    out = command("convert", "source=hfgi.pt", "save_to=e.safetensors", "encoder=e4e")
    assert out.code == 0, out.err
    assert fingerprint(load_generator(tmp_path / "e-generator.safetensors")) == fingerprint(generator)
    before, after = read_encoder(tmp_path / "hfgi.pt", kind="e4e"), read_encoder(tmp_path / "e.safetensors")
    assert (after.kind, after.opts, after.generator) == ("e4e", before.opts, fingerprint(generator))
    for one, other in ((before.state, after.state), (before.extra, after.extra)):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(after.loadable()["latent_avg"], before.loadable()["latent_avg"])


def test_judges_keep_their_verdicts(command: Command, tmp_path: Path) -> None:
    face = fill.state_dict("arcface_irse50", "facenet")
    torch.save(face, tmp_path / "model_ir_se50.pth")
    out = command("convert", "source=model_ir_se50.pth", "save_to=arcface.safetensors")
    assert "arcface" in out.out, out.err
    loaded = load_arcface(tmp_path / "arcface.safetensors").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in face.items())
    trunk = fill.state_dict("lpips_alex", "backbone") | {"classifier.1.weight": torch.zeros(2, 2)}
    torch.save(trunk, tmp_path / "alexnet.pth")
    assert command("convert", "source=alexnet.pth", "save_to=alex.safetensors").code == 0
    assert load_lpips("alex", tmp_path / "alex.safetensors").label == "LPIPS (AlexNet)"
    assert "classifier.1.weight" not in read_state(tmp_path / "alex.safetensors")


def test_several_tensors_of_no_known_names_are_no_bare_array(command: Command, tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3, 8), "b": torch.zeros(2)}, tmp_path / "some.pt")
    out = command("convert", "source=some.pt", "save_to=some.safetensors")
    assert "some.pt holds nothing that lsap knows" in out.err


def test_all_directions_of_a_file_are_converted(command: Command, generator: Generator, tmp_path: Path) -> None:
    save_generator(generator, tmp_path / "g.safetensors")
    held = {"Smiling": torch.randn(1, 8), "Young": torch.randn(1, 48)}
    torch.save(held, tmp_path / "b.pt")
    unsaid = command("convert", "source=b.pt", "save_to=b.safetensors", "generator=g.safetensors")
    assert "say holds=codes or holds=direction" in unsaid.err
    done = command("convert", "source=b.pt", "save_to=b.safetensors", "holds=direction", "generator=g.safetensors")
    assert done.code == 0, done.err
    found = load_directions(tmp_path / "b.safetensors", fingerprint(generator))
    assert torch.equal(found["Smiling"].vector, held["Smiling"][0])
    assert torch.equal(found["Young"].vector, held["Young"].reshape(6, 8))


def test_components_of_ganspace_need_no_word(command: Command, generator: Generator, tmp_path: Path) -> None:
    save_generator(generator, tmp_path / "g.safetensors")
    np.savez(tmp_path / "p.npz", lat_comp=np.ones((3, 1, 8)), lat_mean=np.zeros((1, 8)), lat_stdev=np.ones(3))
    done = command("convert", "source=p.npz", "save_to=p.safetensors", "generator=g.safetensors")
    assert (done.code, "p.npz: components" in done.out) == (0, True), done.err


def test_codes_and_directions_take_the_name_of_their_generator(
    command: Command, generator: Generator, tmp_path: Path
) -> None:
    save_generator(generator, tmp_path / "g.safetensors")
    torch.save(torch.randn(3, 6, 8), tmp_path / "latents.pt")
    unsaid = command("convert", "source=latents.pt", "save_to=c.safetensors", "generator=g.safetensors")
    assert "is a bare array: say holds=codes or holds=direction" in unsaid.err
    unbound = command("convert", "source=latents.pt", "save_to=c.safetensors", "holds=codes")
    assert "name its file, as in generator=" in unbound.err
    bound = ("generator=g.safetensors",)
    assert command("convert", "source=latents.pt", "save_to=c.safetensors", "holds=codes", *bound).code == 0
    codes = read_codes(tmp_path / "c.safetensors", n_latent=6, style_dim=8, generator=fingerprint(generator))
    assert torch.equal(codes.codes, torch.load(tmp_path / "latents.pt", weights_only=True))
    torch.save(torch.randn(1, 8), tmp_path / "age.pt")
    assert command("convert", "source=age.pt", "save_to=age.safetensors", "holds=direction", *bound).code == 0
    torch.save(torch.randn(1, 9), tmp_path / "wide.pt")
    wide = command("convert", "source=wide.pt", "save_to=wide.safetensors", "holds=direction", *bound)
    assert "wide' is [9], but this generator takes [8] in W, [6, 8] or [48] in W+" in wide.err
    pca = {"mean": torch.randn(1, 8), "comp": torch.randn(5, 1, 8), "std": torch.rand(5)}
    torch.save(pca, tmp_path / "pca.pt")
    assert command("convert", "source=pca.pt", "save_to=pca.safetensors", *bound).code == 0
    for name in ("age", "pca"):
        assert read_card(tmp_path / f"{name}.safetensors")["generator"] == fingerprint(generator)
    again = command("convert", "source=age.safetensors", "save_to=age2.safetensors", *bound)
    assert again.code == 0, again.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "source is not set: give source=FILE save_to=FILE"),
        (("source=a.pt", "save_to=a.ckpt"), "its name must end in .safetensors or .pt"),
        (("source=a.pt", "save_to=./a.pt"), "is the source itself; name another file"),
        (("source=a.pt", "save_to=b.safetensors"), "a.pt does not exist"),
        (("source=odd.pt", "save_to=b.safetensors"), "odd.pt holds nothing that lsap knows"),
        (("source=face.pt", "save_to=b.pt"), "only a generator is written as .pt, and this is 'arcface'"),
        (("source=odd.pt", "save_to=b.pt", "holds=w"), "holds=w: accepted: codes, direction"),
    ],
)
def test_what_cannot_be_converted_is_one_line(
    command: Command, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    torch.save({"x": torch.ones(1), "y": torch.ones(1)}, tmp_path / "odd.pt")
    face = {"input_layer.0.weight": 0, "output_layer.3.weight": 0, "body.0.res_layer.5.fc1.weight": 0}
    torch.save({name: torch.ones(1) for name in face}, tmp_path / "face.pt")
    out = command("convert", *arguments)
    assert out.code == 2
    assert out.err.count("\n") == 1
    assert message in out.err
    assert not list(tmp_path.glob("b.*"))


def test_a_file_that_did_not_come_out_right_is_no_success(
    command: Command, generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of ours keeps its traceback; a converter that loses something must not say that it is done."""
    save_generator(generator, tmp_path / "a.safetensors")
    monkeypatch.setattr("lsap.checkpoints.rosinality.blur_kernel", lambda *_, **__: torch.zeros(1, 1, 4, 4))
    original = rosinality.publish

    def lossy(made: Generator) -> dict[str, torch.Tensor]:
        return {name: tensor.half().float() for name, tensor in original(made).items()}

    monkeypatch.setattr("lsap.checkpoints.rosinality.publish", lossy)
    with pytest.raises(RuntimeError, match=r"b\.pt does not read back as it was written"):
        command("convert", "source=a.safetensors", "save_to=b.pt")


def test_an_unwritable_target_is_named(generator: Generator, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadValue, match="could not be written"):
        save_rosinality(generator, tmp_path / "file" / "g.pt")
