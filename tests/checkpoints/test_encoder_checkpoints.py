"""Encoders and whole checkpoints of the published repositories: taken apart, named, and held against what was asked."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from comparison import assert_published
from golden import fill
from layouts import ROWS, prefixed, published, pyramid, sixteen_pixels
from lsap.checkpoints import fingerprint, load_generator, read_encoder, rosinality, write_state
from lsap.checkpoints.encoders import encoder_card
from lsap.checkpoints.lineages import holding
from lsap.embedding import encoders
from lsap.errors import BadValue
from lsap.stylegan2 import Generator


@pytest.fixture
def generator() -> Generator:
    return sixteen_pixels()


ANY = torch.zeros(())


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_published_checkpoint_gives_encoder_options_and_generator(generator: Generator, tmp_path: Path) -> None:
    state = pyramid()
    path = published(tmp_path, state, generator, encoder_type="Encoder4Editing", stylegan_size=16, device="cuda")
    found = read_encoder(path, size=16)
    assert (found.kind, found.n_latent) == ("e4e", ROWS)
    assert equal(found.state, state)
    assert found.opts == {"encoder_type": "Encoder4Editing", "stylegan_size": 16, "device": "cuda"}
    assert torch.equal(found.loadable()["latent_avg"], generator.latent_avg.repeat(ROWS, 1))
    assert found.generator_state is not None
    ours = {name: tensor for name, tensor in generator.state_dict().items() if name != "latent_avg"}
    assert equal(found.generator_state, ours)
    assert fingerprint(load_generator(path)) == fingerprint(generator), "the decoder of a checkpoint is a generator"


@pytest.mark.parametrize("prefix", ["encoder.", "encoder.module."])
def test_the_toolboxs_own_checkpoint_gives_the_same(generator: Generator, tmp_path: Path, prefix: str) -> None:
    state = pyramid()
    content = {
        "encoder": prefixed(state, prefix) | {"latent_avg": generator.latent_avg.repeat(ROWS, 1)},
        "decoder": rosinality.publish(generator),
        "opts": argparse.Namespace(encoder_type="Encoder4Editing", resolution=16, start_from_latent_avg=True),
        "global_step": 7,
        "best_val_loss": 0.5,
        "discriminator_state_dict": {"mlp.0.weight": torch.zeros(2, 2)},
    }
    torch.save(content, tmp_path / "lsap.pt")
    found = read_encoder(tmp_path / "lsap.pt", kind="lsap_e", size=16)
    assert (found.kind, found.opts["resolution"]) == ("e4e", 16)
    assert equal(found.state, state)
    assert found.latent_avg is not None
    assert torch.equal(found.latent_avg, generator.latent_avg.repeat(ROWS, 1))
    assert fingerprint(load_generator(tmp_path / "lsap.pt")) == fingerprint(generator)


def test_hfgis_further_networks_are_kept_apart(generator: Generator, tmp_path: Path) -> None:
    state, extra = pyramid(), {"residue.conv_layer1.0.weight": torch.randn(2), "grid_align.x.weight": torch.randn(3)}
    content = {"state_dict": prefixed(state, "encoder.") | extra, "latent_avg": torch.zeros(ROWS, 8), "opts": {}}
    torch.save(content, tmp_path / "hfgi.pt")
    found = read_encoder(tmp_path / "hfgi.pt", kind="e4e")
    assert equal(found.extra, extra)
    assert equal(found.state, state)
    assert found.generator_state is None


@pytest.mark.parametrize(
    ("tensors", "opts", "kind"),
    [
        ({"input_layer.0.weight": (64, 3, 3, 3), "linear.weight": (8, 8)}, {}, "w"),
        ({"input_layer.0.weight": (64, 6, 3, 3)}, {"encoder_type": "ProgressiveBackboneEncoder"}, "restyle_e4e"),
        ({"conv1.weight": (64, 6, 7, 7)}, {"encoder_type": "ResNetProgressiveBackboneEncoder"}, "restyle_e4e"),
        ({"conv1.weight": (64, 6, 7, 7)}, {"encoder_type": "ResNetBackboneEncoder"}, "restyle_psp"),
        (
            {"input_layer.0.weight": (64, 3, 3, 3), "latlayer1.weight": (2, 2)},
            {"encoder_type": "GradualStyleEncoder"},
            "psp",
        ),
    ],
)
def test_kinds_are_told_by_tensors_and_options(
    tmp_path: Path, tensors: dict[str, tuple[int, ...]], opts: dict[str, str], kind: str
) -> None:
    state = {f"encoder.{name}": torch.zeros(shape) for name, shape in tensors.items()}
    torch.save({"state_dict": state, "opts": opts}, tmp_path / "e.pt")
    assert read_encoder(tmp_path / "e.pt").kind == kind


def test_a_file_of_hyperstyle_names_its_encoder_otherwise(tmp_path: Path) -> None:
    state = {"input_layer.0.weight": torch.zeros(64, 3, 3, 3), "linear.weight": torch.zeros(8, 8)}
    torch.save({"state_dict": prefixed(state, "encoder."), "opts": {"encoder_type": "WEncoder"}}, tmp_path / "w.pt")
    assert read_encoder(tmp_path / "w.pt", kind="w", size=32).kind == "w"


@pytest.mark.parametrize(
    ("wrap", "has_decoder"),
    [
        (lambda e, d: {"state_dict": prefixed(e, "module.encoder.") | prefixed(d, "module.decoder.")}, True),
        (lambda e, d: {"state_dict": prefixed(e, "net.encoder.module.") | prefixed(d, "net.decoder.")}, True),
        (lambda e, d: {"model_state_dict": prefixed(e, "encoder.") | prefixed(d, "decoder.")}, True),
        (lambda e, d: {"encoder": prefixed(e, "module."), "decoder": d}, True),
        (lambda e, _: e, False),
        (lambda e, _: {"encoder_state": e}, False),
    ],
    ids=["DataParallel", "Lightning", "another key", "apart", "alone", "alone under a key"],
)
def test_an_encoder_is_found_in_every_wrapping(
    generator: Generator,
    tmp_path: Path,
    wrap: Callable[[dict[str, Tensor], dict[str, Tensor]], dict[str, Any]],
    has_decoder: bool,
) -> None:
    state = pyramid()
    content = wrap(state, rosinality.publish(generator)) | {"latent_avg": generator.latent_avg}
    torch.save(content, tmp_path / "e.pt")
    found = read_encoder(tmp_path / "e.pt", kind="e4e")
    assert equal(found.state, state)
    assert holding(content, {}) == "encoder"
    assert found.generator_state is not None if has_decoder else found.generator_state is None
    if has_decoder:
        assert fingerprint(load_generator(tmp_path / "e.pt")) == fingerprint(generator)


def test_a_checkpoint_of_a_training_says_which_file_to_take(tmp_path: Path) -> None:
    content = {"state_dict": {"encoder.stem.weight": torch.zeros(1)}, "pytorch-lightning_version": "2.5"}
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(BadValue, match=r"last\.ckpt: .* no known kind .*take encoder\.safetensors, which lies beside"):
        read_encoder(tmp_path / "last.ckpt")


@pytest.mark.parametrize("case", ["encoder_restyle_e4e_256", "encoder_restyle_e4e_cars_512"])
def test_restyle_checkpoints_keep_every_published_name(tmp_path: Path, case: str) -> None:
    tensors = fill.load(case)["models"]["encoder"]["tensors"]
    state = {f"encoder.{name}": ANY.expand(entry.get("shape", [])) for name, entry in tensors.items()}
    torch.save({"state_dict": state, "opts": {"encoder_type": "ProgressiveBackboneEncoder"}}, tmp_path / "r.pt")
    assert read_encoder(tmp_path / "r.pt").state.keys() == tensors.keys()


def test_codes_that_are_meant_as_they_come_get_no_mean(tmp_path: Path) -> None:
    state = prefixed(pyramid(), "encoder.")
    opts = {"encoder_type": "GradualStyleEncoder", "start_from_latent_avg": False}
    torch.save({"state_dict": state, "latent_avg": torch.ones(ROWS, 8), "opts": opts}, tmp_path / "p.pt")
    assert not read_encoder(tmp_path / "p.pt").loadable()["latent_avg"].any()
    torch.save({"state_dict": state, "opts": opts}, tmp_path / "q.pt")
    with pytest.raises(BadValue, match="came without latent_avg"):
        read_encoder(tmp_path / "q.pt").loadable()


def test_a_run_of_ours_is_read_by_its_card(generator: Generator, tmp_path: Path) -> None:
    state = {"stem.0.weight": torch.randn(2), "heads.0.linear.weight": torch.randn(2, 2), "heads.1.linear.weight": ANY}
    card = {"embedding": "lsap_e", "domain": "demo", "generator": "0123"}
    path = write_state(tmp_path / "encoder.safetensors", state | {"latent_avg": torch.ones(2, 8)}, card)
    found = read_encoder(path, kind="e4e")
    assert (found.kind, found.n_latent, found.generator) == ("e4e", 2, "0123")
    assert equal(found.loadable(), state | {"latent_avg": torch.ones(2, 8)})


def test_an_encoder_of_ones_own_is_read_without_guessing(tmp_path: Path) -> None:
    """Kind and rows stand in the card; neither names of tensors nor a list of kinds count."""
    state = {"residue.weight": torch.randn(16, 3), "latent_avg": torch.ones(2, 8)}
    card = {"embedding": "mine", **encoder_card("mean colour", 2)}
    found = read_encoder(write_state(tmp_path / "e.safetensors", state, card), kind="mean colour")
    assert (found.kind, found.n_latent, found.extra) == ("mean colour", 2, {})
    assert equal(found.loadable(), state)
    with pytest.raises(BadValue, match=r"holds the encoder 'mean colour' \(mine\), but 'e4e' was asked for"):
        read_encoder(tmp_path / "e.safetensors", kind="e4e")
    del card["rows"]  # as version 0.1 wrote it
    assert read_encoder(write_state(tmp_path / "old.safetensors", state, card), kind="mean colour").n_latent == 2


@pytest.mark.parametrize("rows", ["two", "-1", "0", "99999999999", "2\n"])
def test_rows_that_are_no_number_are_refused(tmp_path: Path, rows: str) -> None:
    card = {"embedding": "mine", "encoder": "os.system", "rows": rows}
    path = write_state(tmp_path / "e.safetensors", {"latent_avg": torch.ones(2, 8)}, card)
    with pytest.raises(BadValue, match="which is no number of rows"):
        read_encoder(path)


def test_rows_that_contradict_the_mean_latent_are_refused(tmp_path: Path) -> None:
    card = {"embedding": "mine", **encoder_card("mean colour", 3)}
    path = write_state(tmp_path / "e.safetensors", {"latent_avg": torch.ones(2, 8)}, card)
    with pytest.raises(BadValue, match="latent_avg has 2 rows, its encoder answers 3"):
        read_encoder(path)


# --- what does not fit is refused


@pytest.mark.parametrize(
    ("opts", "asked", "message"),
    [
        (
            {"encoder_type": "Encoder4Editing"},
            {"kind": "psp"},
            r"holds the encoder 'e4e' \(Encoder4Editing\), but 'psp'",
        ),
        ({}, {}, r"do not say whether it is psp or e4e"),
        (
            {"encoder_type": "Encoder4Editing", "stylegan_size": 1024},
            {},
            r"6 rows of W\+, but its options say .*: 18",
        ),
        ({"encoder_type": "Encoder4Editing"}, {"size": 512}, r"6 rows of W\+, but you ask for a 512-px generator: 16"),
        (
            {"encoder_type": "Encoder4Edit"},
            {},
            r"name the encoder 'Encoder4Edit', which lsap does not read; it reads",
        ),
        ({"encoder_type": "ProgressiveBackboneEncoder"}, {}, r"but its tensors are those of psp or e4e"),
        ({}, {"kind": "e4f"}, r"there is no published encoder 'e4f'; did you mean 'e4e'"),
    ],
)
def test_options_are_checked_against_tensors_and_question(
    tmp_path: Path, opts: dict[str, Any], asked: dict[str, Any], message: str
) -> None:
    torch.save({"state_dict": prefixed(pyramid(), "encoder."), "opts": opts}, tmp_path / "e.pt")
    with pytest.raises(BadValue, match=message):
        read_encoder(tmp_path / "e.pt", **asked)


@pytest.mark.parametrize(
    ("channels", "takes"),
    [
        (1, r"sketches \(1 channel\), not photographs"),
        (4, r"images of another kind \(4 channels\), not photographs"),
        (19, r"segmentation maps \(19 channels\), not photographs"),
    ],
)
def test_encoders_of_other_inputs_say_what_they_take(tmp_path: Path, channels: int, takes: str) -> None:
    state = prefixed(pyramid() | {"input_layer.0.weight": torch.zeros(64, channels, 3, 3)}, "encoder.")
    torch.save({"state_dict": state, "opts": {"encoder_type": "GradualStyleEncoder"}}, tmp_path / "e.pt")
    with pytest.raises(BadValue, match=rf"e\.pt: its encoder takes {takes}"):
        read_encoder(tmp_path / "e.pt")


@pytest.mark.parametrize(
    ("state", "opts", "message"),
    [
        (
            {"input_layer.0.weight": (64, 3, 3, 3), "output_layer_2.3.weight": (8, 8), "linear.weight": (48, 8)},
            {"encoder_type": "BackboneEncoderUsingLastLayerIntoWPlus"},
            "name the encoder 'BackboneEncoderUsingLastLayerIntoWPlus', which lsap does not read",
        ),
        (
            {"input_layer.0.weight": (64, 3, 3, 3), "output_layer_2.3.weight": (8, 8), "linear.weight": (48, 8)},
            {},
            "its encoder is of no known kind",
        ),
    ],
)
def test_encoders_that_are_not_supported_are_named(
    tmp_path: Path, state: dict[str, tuple[int, ...]], opts: dict[str, str], message: str
) -> None:
    tensors = {f"encoder.{name}": torch.zeros(shape) for name, shape in state.items()}
    torch.save({"state_dict": tensors, "opts": opts}, tmp_path / "e.pt")
    with pytest.raises(BadValue, match=message):
        read_encoder(tmp_path / "e.pt")


def test_an_encoder_of_text_is_none(tmp_path: Path) -> None:
    content = {f"bert.encoder.layer.{n}.output.dense.weight": torch.zeros(2, 2) for n in (0, 1)}
    torch.save(content, tmp_path / "bert.pt")
    assert holding(content, {}) == "none"
    with pytest.raises(BadValue, match=r"bert\.pt: holds no encoder \(it has bert\.encoder"):
        read_encoder(tmp_path / "bert.pt")


def test_damaged_weights_and_hypernetworks_are_named(generator: Generator, tmp_path: Path) -> None:
    state = prefixed(pyramid() | {"latlayer1.weight": torch.full((2, 2), torch.inf)}, "encoder.")
    torch.save({"state_dict": state, "opts": {"encoder_type": "Encoder4Editing"}}, tmp_path / "e.pt")
    with pytest.raises(BadValue, match=r"e\.pt: its encoder: 1 of its 8 tensors hold NaN or .*latlayer1"):
        read_encoder(tmp_path / "e.pt")
    state = {"hypernet.x.weight": torch.zeros(2)} | prefixed(rosinality.publish(generator), "decoder.")
    torch.save({"state_dict": state, "latent_avg": generator.latent_avg, "opts": {}}, tmp_path / "h.pt")
    with pytest.raises(BadValue, match=r"h\.pt: holds no encoder but HyperStyle's hypernetwork"):
        read_encoder(tmp_path / "h.pt")
    assert fingerprint(load_generator(tmp_path / "h.pt")) == fingerprint(generator)


def test_files_without_encoder_are_refused(generator: Generator, tmp_path: Path) -> None:
    torch.save({"g_ema": rosinality.publish(generator)}, tmp_path / "g.pt")
    with pytest.raises(BadValue, match=r"g\.pt: holds no encoder \(it has g_ema"):
        read_encoder(tmp_path / "g.pt")
    opts = {"encoder_type": "Encoder4Editing"}
    state = prefixed(pyramid(), "encoder.")
    torch.save({"state_dict": state, "latent_avg": torch.zeros(4, 8), "opts": opts}, tmp_path / "m.pt")
    with pytest.raises(BadValue, match=r"latent_avg has 4 rows, its encoder answers 6"):
        read_encoder(tmp_path / "m.pt")


# --- the recipe's numbers, at full size


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "written", "network", "toolbox"),
    [
        ("encoder_e4e_256", "Encoder4Editing", "PyramidEncoder", False),
        ("encoder_e4e_256", "Encoder4Editing", "PyramidEncoder", True),
        ("encoder_psp_256", "GradualStyleEncoder", "PSPEncoder", False),
        ("encoder_w_single", "BackboneEncoderUsingLastLayerIntoW", "WEncoder", True),
    ],
)
def test_a_checkpoint_of_the_recipe_gives_the_published_codes(
    tmp_path: Path, case: str, written: str, network: str, toolbox: bool
) -> None:
    spec = fill.load(case)
    x = fill.inputs(spec)
    mean = x.get("latent_avg", torch.zeros(14, 512))
    state = fill.state_dict(spec, "encoder")
    opts = {"encoder_type": written, "output_size": 256}
    if toolbox:
        content: dict[str, Any] = {"encoder": prefixed(state, "encoder.") | {"latent_avg": mean}, "opts": opts}
    else:
        content = {"state_dict": prefixed(state, "encoder."), "latent_avg": mean, "opts": opts}
    torch.save(content, tmp_path / "checkpoint.pt")
    del content, state
    found = read_encoder(tmp_path / "checkpoint.pt", size=256)
    (tmp_path / "checkpoint.pt").unlink()  # 0.9 GB
    with torch.device("meta"):
        encoder = getattr(encoders, network)(14)
    encoder.load_state_dict(found.loadable(14), assign=True)
    with torch.no_grad():
        codes = encoder.eval()(x["image"])
    if case == "encoder_w_single":
        assert_published(spec, "codes", codes[:, 0], 1e-4)
    else:
        output = "w_plus" if case == "encoder_psp_256" else "w_plus_inference"
        assert_published(spec, output, codes, 1e-4)
