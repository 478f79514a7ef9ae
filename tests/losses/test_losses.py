"""The terms of Eq. 16 against the published loss, and what the composition promises."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from comparison import assert_published
from golden import fill
from lsap import alignment
from lsap import pretrained as features
from lsap.checkpoints import rosinality
from lsap.errors import BadValue
from lsap.losses import L2, Adversarial, Alignment, Delta, LossInputs, Objective, Perceptual, Similarity, WNorm
from lsap.stylegan2 import Generator, freeze


def fit(**changed: object) -> LossInputs:
    parts = {
        "images": torch.zeros(2, 3, 4, 4),
        "output": torch.zeros(2, 3, 4, 4),
        "w_plus": torch.zeros(2, 5, 3),
        "styles": None,
        "stage": 4,
    }
    return LossInputs(**(parts | changed))  # type: ignore[arg-type]


class Means(SimpleNamespace):
    """A style space with nothing but its means."""

    mean: list[Tensor]


# Published numbers


@pytest.fixture(scope="module")
def generator() -> Generator:
    made = Generator(256)
    made.load_state_dict(rosinality.rename(fill.state_dict("lsap_loss", "generator")), strict=False)
    return freeze(made).double()


@pytest.fixture(scope="module")
def objective(generator: Generator) -> Objective:
    """The released loss: weights and networks of the case, in float64: near ties fall alike everywhere."""
    spec = fill.load("lsap_loss")
    weight = spec["hyperparameters"]
    with torch.no_grad():
        styles = generator.styles(generator.mapping(fill.inputs(spec)["z"].double()))
    names = alignment.style_layers(generator)
    anchors = [F.normalize(styles[name], dim=1).mean(0) for name in names]
    distance = features.LPIPS.from_state("alex", fill.state_dict(spec, "backbone"), fill.state_dict(spec, "lin"))
    judge = features.ArcFace.from_state(fill.state_dict(spec, "facenet")).double()
    return Objective(
        {
            "nscd": (weight["sncd"], Alignment(Means(mean=anchors))),
            "delta": (weight["delta"], Delta()),
            "id": (weight["id"], Similarity(judge)),
            "l2": (weight["l2"], L2()),
            "lpips": (weight["lpips"], Perceptual(distance.double())),
        }
    )


@pytest.mark.parametrize("stage", [4, 13])
def test_objective_agrees_with_the_published_loss(objective: Objective, generator: Generator, stage: int) -> None:
    spec = fill.load("lsap_loss")
    x = {name: tensor.double() for name, tensor in fill.inputs(spec).items()}
    output, codes = x["y_hat"].requires_grad_(), x["latent"].requires_grad_()
    styles = generator.styles(codes)
    chosen = [styles[name] for name in alignment.style_layers(generator)]
    terms = objective(LossInputs(x["y"], output, codes, chosen, stage))
    total = torch.stack(list(terms.values())).sum()
    total.backward()

    # The published term is minus the sum of dot products; ours adds 1 per trained layer, which no gradient sees.
    layers = stage + 1
    published = {
        "total_sncd_loss": terms["nscd"] / objective.weights["nscd"] - layers,
        "total_delta_loss": terms["delta"] / objective.weights["delta"],
        "loss_id": terms["id"] / objective.weights["id"],
        "loss_l2": terms["l2"] / objective.weights["l2"],
        "loss_lpips": terms["lpips"] / objective.weights["lpips"],
        "loss": total - objective.weights["nscd"] * layers,
    }
    for name, value in published.items():
        assert_published(spec, f"stage{stage}.{name}", value, 1e-5)
    assert_published(spec, f"stage{stage}.grad_latent", codes.grad, 1e-4)
    # The reference was recorded in float32, where ties in AlexNet's max-pools fell otherwise: 7e-4.
    assert_published(spec, f"stage{stage}.grad_y_hat", output.grad, 2e-3)


@pytest.mark.parametrize("stage", [0, 3, 13])
def test_delta_agrees_with_the_published_regulariser(stage: int) -> None:
    spec = fill.load("latent_discriminator")
    value = Delta()(fit(w_plus=fill.inputs(spec)["latent"], stage=stage)).mean()
    assert_published(spec, f"delta_stage{stage}", value, 1e-5)


@pytest.mark.parametrize(("output", "with_mean"), [("w_norm", True), ("w_norm_no_avg", False)])
def test_w_norm_agrees_with_the_published_one(output: str, with_mean: bool) -> None:
    spec = fill.load("latent_discriminator")
    x = fill.inputs(spec)
    mean = x["latent_avg"] if with_mean else torch.zeros(512)
    assert_published(spec, output, WNorm(mean)(fit(w_plus=x["latent"])).mean(), 1e-5)


# Terms


def test_l2_is_the_mean_square_of_each_image() -> None:
    output = torch.stack([torch.full((3, 4, 4), 0.5), torch.full((3, 4, 4), -2.0)])
    assert torch.equal(L2()(fit(output=output)), torch.tensor([0.25, 4.0]))


def test_delta_adds_up_the_distances_of_trained_rows_to_the_first() -> None:
    codes = torch.zeros(1, 5, 2)
    codes[0] = torch.tensor([[1.0, 1], [4, 5], [1, 3], [1, 1], [99, 99]])  # 3-4-5 triangle, 2, 0, not yet trained
    assert Delta()(fit(w_plus=codes, stage=3)).item() == 7
    assert Delta()(fit(w_plus=codes, stage=0)).item() == 0


def test_delta_has_a_finite_gradient_where_rows_are_equal() -> None:
    codes = torch.ones(1, 5, 2, requires_grad=True)
    Delta()(fit(w_plus=codes)).sum().backward()
    assert torch.equal(codes.grad, torch.zeros(1, 5, 2))


def test_w_norm_is_the_length_of_all_rows_together() -> None:
    mean = torch.tensor([1.0, 2.0, 3.0])
    codes = mean.expand(2, 5, 3).clone()
    codes[0, 0] += torch.tensor([3.0, 0, 0])
    codes[0, 4] += torch.tensor([0, 0, 4.0])  # 3-4-5 across rows
    assert torch.equal(WNorm(mean)(fit(w_plus=codes)), torch.tensor([5.0, 0.0]))
    assert WNorm(mean).state_dict() == {}, "the mean latent has its place in the encoder's file"


def test_the_adversarial_term_asks_about_the_rows_trained_so_far() -> None:
    codes = torch.zeros(2, 5, 3)
    codes[0, :, 0] = torch.tensor([0.0, 10.0, -10.0, 99.0, 99.0])  # undecided, taken for real, seen through, not asked
    value = Adversarial(lambda rows: rows[..., 0])(fit(w_plus=codes, stage=2))
    assert value.tolist() == pytest.approx([(math.log(2) + 4.54e-5 + 10.0000454) / 3, math.log(2)], rel=1e-5)


def test_similarity_compares_directions_of_output_and_target() -> None:
    class Corner(nn.Module):
        label = "corner"

        def embed(self, images: Tensor) -> Tensor:
            return F.normalize(images[:, :, 0, 0], dim=1)

    red, blue = torch.tensor([1.0, 0, 0]), torch.tensor([0, 0, 1.0])
    target = torch.stack([red, red]).view(2, 3, 1, 1).expand(2, 3, 4, 4)
    output = torch.stack([3 * red, blue]).view(2, 3, 1, 1).expand(2, 3, 4, 4)
    assert torch.allclose(Similarity(Corner())(fit(images=target, output=output)), torch.tensor([0.0, 1.0]))


def test_alignment_sums_over_the_layers_trained_so_far() -> None:
    mean = [torch.tensor([0.6, 0.0]), torch.tensor([0.0, 0.5, 0.0]), torch.tensor([1.0, 0.0])]
    styles = [torch.tensor([[5.0, 0.0]]), torch.tensor([[0.0, 3.0, 4.0]]), torch.tensor([[-2.0, 0.0]])]
    raw = Alignment(Means(mean=mean))
    by_stage = [raw(fit(styles=styles, stage=stage)).item() for stage in range(3)]
    assert by_stage == pytest.approx([1 - 0.6, (1 - 0.6) + (1 - 0.3), (1 - 0.6) + (1 - 0.3) + 2])
    unit = Alignment(Means(mean=mean), reduction="mean", anchor="unit")
    assert unit(fit(styles=styles, stage=2)).item() == pytest.approx((0 + 0.4 + 2) / 3)


def test_alignment_carries_its_means_along_but_not_into_checkpoints() -> None:
    term = Alignment(Means(mean=[torch.ones(2)])).to(torch.float64)
    assert term.mean[0].dtype == torch.float64
    assert term.state_dict() == {}


# Composition


def test_terms_are_weighted_batch_means() -> None:
    output = torch.stack([torch.full((3, 4, 4), 1.0), torch.full((3, 4, 4), 3.0)])
    codes = torch.zeros(2, 5, 3)
    codes[0, 1, 0] = 2.0
    terms = Objective({"l2": (0.5, L2()), "delta": (10.0, Delta())})(fit(output=output, w_plus=codes))
    assert {name: value.item() for name, value in terms.items()} == {"l2": 0.5 * 5, "delta": 10 * 1}


def test_a_term_of_weight_zero_is_dropped() -> None:
    objective = Objective({"l2": (1.0, L2()), "nscd": (0.0, Alignment(Means(mean=[torch.ones(2)])))})
    assert list(objective(fit())) == ["l2"]  # the fit has no styles: the dropped term would have stumbled over that
    assert list(objective.terms) == ["l2"]


@pytest.mark.parametrize("weight", [-0.5, math.nan, math.inf])
def test_a_weight_that_is_negative_or_no_number_is_refused(weight: float) -> None:
    with pytest.raises(BadValue, match=rf"lambda_l2={weight}: expected a number of at least 0"):
        Objective({"l2": (weight, L2())})


def test_an_objective_that_asks_for_nothing_is_refused() -> None:
    with pytest.raises(BadValue, match="nothing to minimise"):
        Objective({"l2": (0.0, L2()), "delta": (0.0, Delta())})
