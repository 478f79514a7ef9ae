"""pSp and the single-code encoder: published numbers, and rows that stand alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from comparison import assert_close_l2, assert_published
from golden import fill
from lsap.embedding import AllRows, PSPEncoder, PyramidEncoder, SmallPSPEncoder, SmallPyramidEncoder, WEncoder
from lsap.errors import BadValue

# Published numbers


@pytest.mark.slow
@torch.no_grad()
def test_codes_agree_with_published_psp() -> None:
    spec = fill.load("encoder_psp_256")
    x = fill.inputs(spec)
    with torch.device("meta"):
        encoder = PSPEncoder(14)
    state = fill.state_dict(spec, "encoder") | {"latent_avg": x["latent_avg"]}
    encoder.load_state_dict(state, assign=True)
    encoder.eval()
    assert_published(spec, "codes", encoder.offsets(x["image"]), 1e-4)
    assert_published(spec, "w_plus", encoder(x["image"]), 1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_codes_agree_with_the_published_encoder_of_one_w() -> None:
    spec = fill.load("encoder_w_single")
    with torch.device("meta"):
        encoder = WEncoder(14)
    encoder.load_state_dict(fill.state_dict(spec, "encoder") | {"latent_avg": torch.zeros(14, 512)}, assign=True)
    codes = encoder.eval()(fill.inputs(spec)["image"])
    assert_published(spec, "codes", codes[:, 0], 1e-4)
    assert torch.equal(codes, codes[:, :1].expand(-1, 14, -1))


@pytest.mark.parametrize(("case", "encoder"), [("encoder_psp_256", PSPEncoder), ("encoder_w_single", WEncoder)])
def test_published_weights_load_by_name(case: str, encoder: type[PSPEncoder | WEncoder]) -> None:
    with torch.device("meta"):
        ours = encoder(14).state_dict()
    tensors = fill.load(case)["models"]["encoder"]["tensors"]
    assert ours.keys() - tensors.keys() == {"latent_avg"}
    assert all(list(ours[name].shape) == entry.get("shape", []) for name, entry in tensors.items())


# Rows


@pytest.fixture
def pair() -> tuple[SmallPyramidEncoder, SmallPSPEncoder]:
    """The same weights under both rules, with large last layers, so that rows differ."""
    progressive = SmallPyramidEncoder(10, latent_avg=torch.randn(128)).eval()
    for head in progressive.heads:
        torch.nn.init.normal_(head.linear.weight)
    independent = SmallPSPEncoder(10).eval()
    independent.load_state_dict(progressive.state_dict())
    return progressive, independent


@torch.no_grad()
def test_rows_stand_alone_where_e4e_adds_them_to_the_first(pair: tuple[SmallPyramidEncoder, SmallPSPEncoder]) -> None:
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    progressive, independent = (encoder(images) - encoder.latent_avg for encoder in pair)
    assert_close_l2(independent[:, :1], progressive[:, :1], 1e-5)
    assert_close_l2(independent[:, 1:], progressive[:, 1:] - progressive[:, :1], 1e-5)


@torch.no_grad()
def test_no_stage_holds_rows_of_psp_back(pair: tuple[SmallPyramidEncoder, SmallPSPEncoder]) -> None:
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(pair[1](images, stage=0), pair[1](images))


def test_a_loss_on_one_row_reaches_its_own_head_alone(pair: tuple[SmallPyramidEncoder, SmallPSPEncoder]) -> None:
    for encoder, reached in zip(pair, ({0, 4}, {4}), strict=True):
        loss: Tensor = encoder(torch.rand(1, 3, 64, 64))[:, 4].sum()
        loss.backward()
        moved = {
            n for n, head in enumerate(encoder.heads) if (grad := head.linear.bias.grad) is not None and grad.any()
        }
        assert moved == reached


def test_all_rows_are_trained_at_every_step() -> None:
    assert {AllRows(10, max_steps=100).stage(step) for step in (0, 1, 99)} == {9}


def test_every_encoder_says_by_which_rule_its_weights_are_meant() -> None:
    kinds = {encoder: encoder.kind for encoder in (PyramidEncoder, SmallPyramidEncoder, PSPEncoder, SmallPSPEncoder)}
    assert list(kinds.values()) == ["e4e", "e4e", "psp", "psp"]
    assert WEncoder.kind == "w"


def test_the_body_of_the_w_encoder_starts_from_arcface() -> None:
    tensors = fill.load("arcface_irse50")["models"]["facenet"]["tensors"]
    encoder = WEncoder(14)
    layer = encoder.linear.weight.detach().clone()
    encoder.start_backbone({name: torch.full(entry.get("shape", []), 0.25) for name, entry in tensors.items()})
    assert torch.all(encoder.body[23].res_layer[1].weight == 0.25)
    assert torch.equal(encoder.linear.weight, layer)
    with pytest.raises(BadValue, match="not those of an IR-SE-50 body"):
        encoder.start_backbone({"conv1.weight": torch.zeros(1)})
