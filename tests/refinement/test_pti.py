"""PTI: parity with the published tuning, images that do not know of one another, differences that are kept exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from comparison import assert_close_l2, assert_published
from golden import fill
from lsap.checkpoints import rosinality
from lsap.errors import BadValue
from lsap.inversion import FixedNoise, Inversion, OwnNoise, restored
from lsap.refinement import Locality, PivotalTuning, TunedLowRank
from lsap.refinement.locality import around
from lsap.refinement.tuned import low_rank, together, tunable
from lsap.stylegan2 import Generator, Noise, View, freeze

CHANNELS = dict.fromkeys((4, 8, 16), 8)


class Plain(nn.Module):
    """A perceptual distance that everybody can compute: the mean absolute difference of neighbouring pixels."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x - y).diff(dim=-1).abs().mean((1, 2, 3))


@pytest.fixture
def generator() -> Generator:
    torch.manual_seed(3)
    small = freeze(Generator(16, style_dim=8, mapping_layers=2, channels=CHANNELS))
    for layer in small.layers:
        if layer.demodulates:
            nn.init.constant_(small.blocks[layer.name].noise_strength, 0.1)  # type: ignore[arg-type]
    return small


Make = Callable[..., PivotalTuning]


@pytest.fixture
def make(generator: Generator) -> Make:
    def build(**settings: Any) -> PivotalTuning:
        chosen = {"steps": 6, "lr": 0.02, "view": View(16), "distance": Plain()} | settings
        return PivotalTuning(generator, "f", **chosen)

    return build


@pytest.fixture
def pivots(generator: Generator) -> Inversion:
    codes = generator.sample_w(4)[:, None] + 0.1 * torch.randn(4, generator.n_latent, 8)
    return Inversion(tuple("abcd"), codes, "f", FixedNoise(generator), {}, ("some",))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(4, 3, 16, 16) * 2 - 1


def tuned(run: PivotalTuning, inversion: Inversion, images: Tensor) -> Inversion:
    batch = {"image": images, "names": list(inversion.names), "inversion": inversion}
    found = run.predict_step(batch).inversion
    assert found is not None
    return found


def mse(inversion: Inversion, images: Tensor) -> Tensor:
    return (inversion.render() - images).square().mean((1, 2, 3))


# ---- parity with the published tuning


@pytest.fixture(scope="module")
def published() -> tuple[fill.Spec, dict[str, Tensor]]:
    spec = fill.load("pti")
    return spec, fill.inputs(spec)


def recipe(spec: fill.Spec, model: str) -> Generator:
    generator = Generator(64)
    missing, unexpected = generator.load_state_dict(rosinality.rename(fill.state_dict(spec, model)), strict=False)
    assert (missing, unexpected) in ((["latent_avg"], []), ([], []))
    return freeze(generator)


AFTER = {
    "conv1.conv.modulation.bias": "blocks.conv4.affine.bias",
    "to_rgb1.bias": "blocks.rgb4.bias",
    "convs.0.noise.weight": "blocks.up8.noise_strength",
    "convs.3.activate.bias": "blocks.conv16.bias",
    "convs.5.conv.weight": "blocks.conv32.weight",
    "input.input": "constant",
}


@pytest.mark.slow
def test_five_steps_agree_with_the_published_tuning(published: tuple[fill.Spec, dict[str, Tensor]]) -> None:
    spec, x = published
    generator = recipe(spec, "generator")
    run = PivotalTuning(generator, "f", view=View(64), distance=nn.Identity(), steps=5, lambda_lpips=0)
    pivot = Inversion(("a",), x["w_pivot"], "f", FixedNoise(generator))
    losses: list[float] = []
    run.watch = lambda share, values: losses.append(values["l2"])
    ((end,), failed) = run.tune(pivot, x["target"], False, 0, 1)
    assert not failed
    assert_published(spec, "l2_trajectory", torch.tensor(losses), 1e-4)
    weights = dict(zip(run.weights, end.variables, strict=True))
    for theirs, ours in AFTER.items():
        shape = spec["outputs"][f"after5.{theirs}"]["shape"]
        assert_published(spec, f"after5.{theirs}", weights[ours].detach().view(shape), 1e-3)
    image = together(generator, weights, x["w_pivot"]).detach()
    assert_published(spec, "image_after5", image, 1e-3)
    assert set(weights) == {name for name in dict(generator.named_parameters()) if "mapping" not in name}


@pytest.mark.slow
def test_locality_agrees_with_the_published_regulariser(published: tuple[fill.Spec, dict[str, Tensor]]) -> None:
    spec, x = published
    old, new = recipe(spec, "generator"), recipe(spec, "tuned")
    old.latent_avg.copy_(x["w_avg"])
    w = old.truncate(old.mapping(x["z"]), 0.5)
    assert_published(spec, "w_samples", w, 1e-5)
    codes = around(x["w_pivot"], w[:, None], 30.0)
    assert_published(spec, "morphed", codes, 1e-5)
    assert_published(spec, "morph_norm", (codes - x["w_pivot"]).flatten(1).norm(dim=1), 1e-5)
    seen: list[Tensor] = []

    def draw(codes: Tensor, noise: Noise | Any) -> Tensor:
        seen.append(new(codes, noise=noise))
        return seen[-1]

    local = Locality(lambda_lpips=0, samples=2)
    values = local.penalty(old, draw, codes[None], View(64), nn.Identity())
    assert_published(spec, "image_new", seen[0], 1e-4)
    assert_published(spec, "regulariser_l2", values["locality_l2"][0], 1e-4)


# ---- what tuning does


def test_tuning_lowers_the_error_and_leaves_generator_and_inversion_alone(
    make: Make, generator: Generator, pivots: Inversion, images: Tensor
) -> None:
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    first = pivots.render()
    shares: list[float] = []
    run = make(steps=30, at_once=2)
    run.watch = lambda share, losses: shares.append(share)
    found = tuned(run, pivots, images)
    assert (mse(found, images) < 0.5 * mse(pivots, images)).all()
    assert torch.equal(found.codes, pivots.codes), "the pivot stays"
    assert found.history == ("some", "pti")
    assert torch.equal(pivots.render(), first)
    assert all(torch.equal(before[name], tensor) for name, tensor in generator.state_dict().items())
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_batch_of_four_agrees_with_four_single_runs(generator: Generator, make: Make, pivots: Inversion) -> None:
    generator.double()
    four = Inversion(pivots.names, pivots.codes.double(), "f", FixedNoise(generator))
    images = torch.rand(4, 3, 16, 16, dtype=torch.float64) * 2 - 1
    run = make(steps=12, locality=Locality(alpha=2.0, lambda_lpips=0))
    whole = tuned(run, four, images)
    for place in range(4):
        alone = tuned(run, four.select([place]), images[place : place + 1])
        for name, tensor in alone.state.items():
            assert_close_l2(tensor[0], whole.state[name][place], 1e-6, name=name)


def test_several_in_one_pass_agree_with_one_by_one(make: Make, pivots: Inversion, images: Tensor) -> None:
    several, single = (tuned(make(at_once=count), pivots, images) for count in (4, 1))
    assert_close_l2(several.render(), single.render(), 1e-3)


def test_noise_maps_of_the_embedding_are_used(
    make: Make, generator: Generator, pivots: Inversion, images: Tensor
) -> None:
    layers = [layer for layer in generator.layers if layer.demodulates]
    maps = {f"noise.{layer.name}": torch.randn(4, 1, layer.resolution, layer.resolution).half() for layer in layers}
    noisy = Inversion(pivots.names, pivots.codes, "f", OwnNoise(generator), maps)
    still = tuned(make(lr=1e-9, steps=1), noisy, images)
    assert_close_l2(still.render(), noisy.render(), 1e-5)
    assert not torch.allclose(still.render(), pivots.render(), atol=1e-2)


def test_locality_keeps_the_neighbourhood(make: Make, generator: Generator, pivots: Inversion, images: Tensor) -> None:
    def change(run: PivotalTuning) -> float:
        found = tuned(run, pivots, images)
        near = around(pivots.codes, generator.sample_w(4, torch.Generator().manual_seed(1))[:, None], 1.0)
        return (found.render(near) - pivots.render(near)).square().mean().item()

    free, held = make(steps=20), make(steps=20, locality=Locality(alpha=1.0, lambda_l2=10, lambda_lpips=0, samples=2))
    assert change(held) < 0.8 * change(free)


def test_an_image_that_breaks_leaves_alone(make: Make, pivots: Inversion, images: Tensor) -> None:
    whole = tuned(make(), pivots, images)
    images[1] = float("nan")
    found = make().refine(pivots, images)
    assert found.failed == {"b": "not a number in step 0 (l2, lpips)"}
    assert found.inversion is not None
    assert found.inversion.names == ("a", "c", "d")
    assert_close_l2(found.inversion.render(), whole.render()[[0, 2, 3]], 1e-3)
    assert make().refine(pivots.select([1]), images[1:2]).inversion is None


def test_it_stops_early_only_when_asked_and_before_the_update(make: Make, pivots: Inversion, images: Tensor) -> None:
    images[2] = pivots.render()[2]
    found = make(stop_at=0.01).refine(pivots, images)
    assert [found.notes[name]["steps"] for name in "abcd"] == [6, 6, 0, 6]
    assert found.inversion is not None
    assert all(not tensor[2].any() for tensor in found.inversion.state.values()), "nothing was changed"
    every = make().refine(pivots, images)
    assert [every.notes[name]["steps"] for name in "abcd"] == [6] * 4


# ---- what is kept


@pytest.mark.parametrize("rank", [None, 2])
def test_saved_and_reloaded_it_draws_and_edits_the_same_to_the_bit(
    make: Make, generator: Generator, pivots: Inversion, images: Tensor, rank: int | None
) -> None:
    found = tuned(make(rank=rank), pivots, images)
    again = restored(found.tensors(), found.card(), generator)
    edited = found.codes + 0.3 * torch.randn(generator.style_dim)
    assert torch.equal(again.render(), found.render())
    assert torch.equal(again.render(edited), found.render(edited))
    assert not torch.equal(found.render(edited), pivots.render(edited)), "edits are drawn by the tuned generator"
    assert torch.equal(found.select([2]).render(), found.render()[2:3]), "images do not know of one another"
    assert torch.equal(found.repeat(2).render()[::2], found.render())
    assert {tensor.dtype for tensor in found.state.values()} == {torch.float16}


def test_a_low_rank_is_the_nearest_of_that_rank() -> None:
    matrices = torch.randn(2, 5, 9)
    for given in (matrices, matrices.mT):
        left, right = low_rank(given, 3)
        rest = torch.linalg.svdvals(given)[:, 3:].square().sum(1)
        assert_close_l2((given - left @ right).square().sum((1, 2)), rest, 1e-5)
    left, right = low_rank(matrices[:, :, :1] @ matrices[:, :1], 1)
    assert_close_l2(left @ right, matrices[:, :, :1] @ matrices[:, :1], 1e-5)


def test_a_low_rank_takes_less_room_and_costs_accuracy(make: Make, pivots: Inversion, images: Tensor) -> None:
    whole, thin = (tuned(make(steps=30, rank=rank), pivots, images) for rank in (None, 2))

    def size(inversion: Inversion) -> int:
        return sum(tensor.numel() for tensor in inversion.state.values())

    assert size(thin) < 0.5 * size(whole)
    before = mse(pivots, images).mean()
    assert mse(whole, images).mean() < mse(thin, images).mean() < before


def test_small_weights_are_kept_whole(generator: Generator) -> None:
    drawn = TunedLowRank(generator, rank=3)
    kept = {name: drawn.thins(weight) for name, weight in tunable(generator).items()}
    assert kept["blocks.conv8.weight"]
    assert kept["blocks.conv8.affine.weight"] is (3 * 16 < 64)
    assert not any(kept[name] for name in ("constant", "blocks.rgb8.weight", "blocks.conv8.bias"))


# ---- mistakes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "refinement.steps=0: expected a whole number"),
        ({"at_once": 0}, "refinement.at_once=0: expected a whole number"),
        ({"lr": 0}, "refinement.lr=0: expected a number above 0"),
        ({"lambda_l2": -1}, "lambda_l2=-1: expected a number of at least 0"),
        ({"lambda_l2": 0, "lambda_lpips": 0}, "nothing would be tuned towards"),
        ({"lambda_lpips": 0, "stop_at": 0.06}, "refinement.stop_at=0.06 looks at LPIPS"),
        ({"rank": 0}, "refinement.rank=0: expected a whole number"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str, make: Make) -> None:
    with pytest.raises(BadValue, match=message):
        make(**settings)


def test_locality_that_cannot_work_is_refused() -> None:
    with pytest.raises(BadValue, match=r"refinement\.locality\.alpha=0: expected a number above 0"):
        Locality(alpha=0)


def test_what_was_refined_is_not_refined_again(make: Make, pivots: Inversion, images: Tensor) -> None:
    found = tuned(make(), pivots, images)
    with pytest.raises(BadValue, match=r"drawn by 'tuned' \(some \+ pti\); start from the embedding"):
        make().refine(found, images)
    other = make()
    other.fingerprint = "g"
    with pytest.raises(BadValue, match="belong to generator f, but this run uses g"):
        tuned(other, pivots, images)
