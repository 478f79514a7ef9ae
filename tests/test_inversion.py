"""The record that stages hand on: what it refuses, how it is cut and put together, and that files give it back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from comparison import assert_close_l2
from lsap.checkpoints import load_generator
from lsap.errors import BadValue
from lsap.inversion import RENDERERS, FixedNoise, Inversion, OwnNoise, cat, registered, renderer, restored
from lsap.stylegan2 import Generator


@pytest.fixture(scope="module")
def generator(generator_file: Path) -> Generator:
    made = load_generator(generator_file)
    for block in made.blocks.values():
        if hasattr(block, "noise_strength"):
            block.noise_strength.data.fill_(0.3)
    return made


@pytest.fixture
def inversion(generator: Generator) -> Inversion:
    """Three images with noise maps of their own."""
    codes = generator.sample_w(3)[:, None].repeat(1, generator.n_latent, 1)
    convolutions = [layer for layer in generator.layers if layer.demodulates]
    state = {f"noise.{c.name}": torch.randn(3, 1, c.resolution, c.resolution).half() for c in convolutions}
    return Inversion(("a", "b", "c"), codes, "0123456789abcdef", OwnNoise(generator), state, ("tiny",))


@torch.no_grad()
def test_every_image_is_drawn_with_its_own_state(inversion: Inversion, generator: Generator) -> None:
    images = inversion.render()
    assert images.shape == (3, 3, 32, 32)
    assert not torch.allclose(images, generator(inversion.codes), atol=1e-3), "the fixed maps would give other images"
    alone = inversion.select([2]).render()
    assert_close_l2(alone[0], images[2], 1e-4)


@torch.no_grad()
def test_edited_codes_are_drawn_with_the_same_state(inversion: Inversion) -> None:
    edited = inversion.codes + 0.1
    assert torch.equal(inversion.render(edited), inversion.renderer(edited, inversion.state))
    with pytest.raises(BadValue, match="6 codes for 3 images"):
        inversion.render(edited.repeat(2, 1, 1))


@torch.no_grad()
def test_several_edits_of_each_image_are_drawn_at_once(inversion: Inversion) -> None:
    strengths = torch.tensor([0.0, 1.0])
    many = inversion.repeat(2)
    assert many.names == ("a#0", "a#1", "b#0", "b#1", "c#0", "c#1")
    images = many.render(many.codes + strengths.repeat(3)[:, None, None])
    assert_close_l2(images[0::2], inversion.render(), 1e-4)
    assert_close_l2(images[1::2], inversion.render(inversion.codes + 1), 1e-4)


def test_selecting_and_putting_together_gives_the_same_back(inversion: Inversion) -> None:
    again = cat([inversion.select([0]), inversion.select([1, 2])])
    assert again.names == inversion.names
    assert torch.equal(again.codes, inversion.codes)
    assert all(torch.equal(again.state[name], inversion.state[name]) for name in inversion.state)
    turned = inversion.select([2, 0])
    assert turned.names == ("c", "a")
    assert torch.equal(turned.state["noise.conv4"][1], inversion.state["noise.conv4"][0])


@torch.no_grad()
def test_a_file_gives_back_what_was_put_in_to_the_bit(inversion: Inversion, generator: Generator) -> None:
    again = restored(inversion.tensors(), inversion.card(), generator)
    assert (again.names, again.generator, again.history) == (inversion.names, inversion.generator, inversion.history)
    assert torch.equal(again.render(), inversion.render())


def test_a_stage_adds_to_the_state_and_leaves_the_record_untouched(inversion: Inversion, generator: Generator) -> None:
    before = dict(inversion.state)
    better = inversion.with_stage("pti", renderer=FixedNoise(generator), state={"weights": torch.zeros(3, 5)})
    assert better.history == ("tiny", "pti")
    assert set(better.state) == {*before, "weights"}
    assert torch.equal(better.codes, inversion.codes)
    assert inversion.state == before
    assert inversion.history == ("tiny",)


def test_another_generator_is_refused_with_both_names(inversion: Inversion) -> None:
    inversion.check_generator("0123456789abcdef")
    with pytest.raises(BadValue, match=r"belong to generator 0123456789ab, but this run uses ffff"):
        inversion.check_generator("ffff")


@pytest.mark.parametrize(
    ("names", "state", "message"),
    [
        (("a", "b"), {}, r"2 names came with codes of shape \[3, 8, 16\]"),
        (("a", "b", "a"), {}, "names of their own, but a occurs twice"),
        (("a", "b", "c"), {"mask": torch.zeros(2)}, "state 'mask' has 2 rows for 3 images"),
    ],
)
def test_records_that_do_not_fit_together_are_refused(
    names: tuple[str, ...], state: dict[str, Tensor], message: str, generator: Generator
) -> None:
    with pytest.raises(BadValue, match=message):
        Inversion(names, torch.zeros(3, 8, 16), "f", FixedNoise(generator), state)


def test_kinds_are_not_mixed(inversion: Inversion, generator: Generator) -> None:
    other = Inversion(("d",), inversion.codes[:1], inversion.generator, FixedNoise(generator), {}, ("other",))
    with pytest.raises(BadValue, match="different kinds"):
        cat([inversion, other])
    with pytest.raises(BadValue, match="no inversion"):
        cat([])


# ---- files name a renderer, and nothing else


def test_an_unknown_renderer_is_refused_by_name(inversion: Inversion, generator: Generator) -> None:
    card = inversion.card() | {"renderer": '{"key": "os.system", "settings": {"command": "true"}}'}
    with pytest.raises(BadValue, match=r"no renderer 'os.system' here; accepted: .*own_noise"):
        restored(inversion.tensors(), card, generator)


def test_the_module_of_an_unknown_renderer_is_shown_and_never_imported(
    inversion: Inversion, generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_drawers.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    described = {"key": "mine", "settings": {}, "module": "my_drawers"}
    card = inversion.card() | {"renderer": json.dumps(described)}
    with pytest.raises(BadValue, match=r"no renderer 'mine' here; .*add imports=\[my_drawers\]"):
        restored(inversion.tensors(), card, generator)
    for odd in ("my_drawers]\nrm -rf", "os;system", "../evil", 5, ["os"], "__main__", "a" * 100):
        card = inversion.card() | {"renderer": json.dumps(described | {"module": odd})}
        with pytest.raises(BadValue, match=r"imports=\[…\]"):
            restored(inversion.tensors(), card, generator)


def test_the_module_of_lsaps_own_renderers_is_not_stored(inversion: Inversion) -> None:
    assert json.loads(inversion.card()["renderer"]) == {"key": "own_noise", "settings": {}}


def test_settings_that_a_renderer_does_not_take_are_refused(generator: Generator) -> None:
    with pytest.raises(BadValue, match=r"renderer 'generator' does not take the settings \['_target_'\]"):
        renderer("generator", {"_target_": "os.system"}, generator)


@pytest.mark.parametrize("missing", ["format", "names", "renderer", "history", "generator"])
def test_cards_that_lack_something_are_no_inversion(missing: str, inversion: Inversion, generator: Generator) -> None:
    card = {name: text for name, text in inversion.card().items() if name != missing}
    with pytest.raises(BadValue, match="no stored inversion"):
        restored(inversion.tensors(), card, generator)


def test_a_renderer_with_settings_comes_back_with_them(inversion: Inversion, generator: Generator) -> None:
    @registered("test_brighter")
    class Brighter:
        key: str

        def __init__(self, generator: Generator, amount: float) -> None:
            self.generator, self.settings = generator, {"amount": amount}

        def __call__(self, codes: Tensor, state: Mapping[str, Tensor]) -> Tensor:
            return self.generator(codes) + self.settings["amount"] * state["share"][:, None, None, None]

    try:
        brighter: Any = Brighter(generator, 0.5)
        made = inversion.with_stage("brighter", renderer=brighter, state={"share": torch.tensor([0.0, 1.0, 2.0])})
        again = restored(made.tensors(), made.card(), generator)
        with torch.no_grad():
            assert torch.equal(again.render(), made.render())
            lift = (made.render() - generator(made.codes)).mean((1, 2, 3))
        assert_close_l2(lift, torch.tensor([0.0, 0.5, 1.0]), 1e-5)
    finally:
        del RENDERERS["test_brighter"]


def test_an_inversion_is_shown_without_its_numbers(inversion: Inversion) -> None:
    assert repr(inversion) == f"Inversion(3 images, codes {list(inversion.codes.shape)}, made by tiny, names a, b, c)"
    edited = inversion.repeat(2).with_stage("smile +1")
    assert repr(edited).endswith("made by tiny → smile +1, names a#0, a#1, b#0, …)")
