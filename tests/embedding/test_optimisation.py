"""Embedding by optimisation: parity with the published projection, and images that do not know of one another."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from comparison import assert_close_l2, assert_published
from golden import fill
from lsap.alignment import NormalizedStyleSpace, nscd
from lsap.checkpoints import load_generator, rosinality
from lsap.embedding import Embedded, Optimisation, OptimisationInW, OptimisationInWPlus, noise
from lsap.embedding.optimisation import MeanLatent
from lsap.embedding.projection import noise_strength, spread
from lsap.errors import BadValue
from lsap.losses import L2, Alignment, LossInputs, Objective, Running, Term, learning_rate
from lsap.runs import quiet_lightning
from lsap.stylegan2 import Generator, View, freeze

CASE = "projection"


# ---- parity with the published projection


@pytest.fixture(scope="module")
def published() -> tuple[fill.Spec, dict[str, Tensor]]:
    spec = fill.load(CASE)
    return spec, fill.inputs(spec)


def test_schedules_agree_with_the_published_ones(published: tuple[fill.Spec, dict[str, Tensor]]) -> None:
    spec, _ = published
    times = [i / 1000 for i in range(0, 1001, 50)]
    assert_published(spec, "lr_schedule", torch.tensor([learning_rate(t, 0.1) for t in times]), 1e-6)
    strengths = torch.tensor([noise_strength(t) for t in times])
    assert_published(spec, "noise_strength_schedule", strengths, 1e-6)


def test_noise_terms_agree_with_the_published_ones(published: tuple[fill.Spec, dict[str, Tensor]]) -> None:
    spec, x = published
    maps = [x[f"noise_{i}"] for i in range(11)]
    assert_published(spec, "noise_regularize", noise.regularity(maps)[0], 1e-5)
    each = torch.cat([noise.regularity([m]) for m in maps])
    assert_published(spec, "noise_regularize_each", each, 1e-5)
    shifted = [(1.5 * x["noise_3"] + 0.3), 1.5 * x["noise_0"] + 0.3]
    noise.normalise(shifted)
    assert_published(spec, "noise_normalized_3", shifted[0], 1e-5)
    both = torch.cat([x["noise_4"], 2 * x["noise_3"]])
    coupled([both])
    assert_published(spec, "noise_normalized_batch", both, 1e-5)


def coupled(maps: Sequence[Tensor]) -> None:
    """The published normalisation, which treats the maps of a batch as one tensor."""
    with torch.no_grad():
        for noise_map in maps:
            noise_map.sub_(noise_map.mean()).div_(noise_map.std())


class Published(Optimisation):
    """The published projection: noise terms over the whole batch, its image path, no noise on the codes."""

    def published(self, x: dict[str, Tensor]) -> dict[str, list[Tensor]]:
        """Run it; keeps the codes after, and losses and gradients at, every step."""
        self.seen: dict[str, list[Tensor]] = {"codes": [], "mse": [], "noise": [], "gradient": [], "maps": []}
        self.first_maps = [x[f"noise_{i}"] for i in range(11)]
        embedded = self.predict_step({"image": x["target"], "names": ["a", "b"]})
        assert embedded.inversion is not None
        self.seen["codes"].append(self.variable(embedded.inversion.codes))
        return self.seen

    def values(self, images: Tensor, code: Tensor, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        if not self.seen["mse"]:
            with torch.no_grad():  # the case fixes the first maps, which the code would draw
                for mine, given in zip(maps, self.first_maps, strict=True):
                    mine.copy_(given.expand_as(mine))
        self.seen["codes"].append(code.detach().clone())
        if code.requires_grad:
            code.register_hook(lambda gradient: self.seen["gradient"].append(gradient.clone()))
        values = super().values(images, code, maps)
        self.seen["mse"].append(values["l2"].detach().sum())
        self.seen["noise"].append(values["noise"].detach().sum() / (2 * self.lambda_noise))
        self.seen["maps"] = [m.detach() for m in maps]
        return values

    def regularity(self, maps: Sequence[Tensor]) -> Tensor:
        total = torch.zeros(())
        for level in maps:
            while True:
                total = total + sum((level * level.roll(1, axis)).mean().square() for axis in (2, 3))
                if level.shape[-1] <= 8:
                    break
                level = F.avg_pool2d(level, 2)
        return total.expand(2)

    def normalise(self, maps: Sequence[Tensor]) -> None:
        coupled(maps)


class PublishedInW(Published, OptimisationInW):
    """In W."""


class PublishedInWPlus(Published, OptimisationInWPlus):
    """In W+."""


class ClampedBilinear(nn.Module):
    """How the case sees the generator's image."""

    def forward(self, images: Tensor) -> Tensor:
        return F.interpolate(images.clamp(-1, 1), 32, mode="bilinear", align_corners=False)


class Exact(Term):
    """L2 in the precision of the images."""

    def forward(self, fit: LossInputs) -> Tensor:
        return (fit.output - fit.images).square().mean((1, 2, 3))


METHODS = [(PublishedInW, "w"), (PublishedInWPlus, "wplus")]


@pytest.fixture(scope="module")
def projected(published: tuple[fill.Spec, dict[str, Tensor]]) -> Generator:
    """The generator of the case."""
    spec, x = published
    generator = Generator(128)
    generator.load_state_dict(rosinality.rename(fill.state_dict(spec, "generator")), strict=False)
    generator.latent_avg.copy_(x["latent_avg"])
    return freeze(generator)


def published_run(method: type[Published], generator: Generator, steps: int) -> Published:
    # The published loss is the mean over a batch of two: half of each image's loss, and half the weight of the noise.
    return method(
        generator, "case", "published", view=ClampedBilinear(), objective=Objective({"l2": (0.5, Exact())}), layers=[],
        start=MeanLatent(generator), steps=steps, lr=0.1, lambda_noise=0.5e5, latent_noise=0.0,
    )  # fmt: skip


@pytest.mark.slow
def test_the_spread_of_codes_agrees_with_the_published_one(
    projected: Generator, published: tuple[fill.Spec, dict[str, Tensor]]
) -> None:
    spec, x = published
    w = projected.mapping(x["z"])
    assert_published(spec, "latent_std", torch.tensor(spread(w)), 1e-5)
    assert_published(spec, "latent_mean", w.mean(0), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "prefix"), METHODS)
def test_the_first_gradient_agrees_with_the_published_one(
    method: type[Published], prefix: str, projected: Generator, published: tuple[fill.Spec, dict[str, Tensor]]
) -> None:
    spec, x = published
    # In float32 the kinks of leaky ReLUs and of the clamp fall either way (1.2e-4 in W+); in float64 none does.
    double = copy.deepcopy(projected).double()
    seen = published_run(method, double, steps=1).published({name: tensor.double() for name, tensor in x.items()})
    assert_published(spec, f"{prefix}.grad_latent_step1", seen["gradient"][0].float(), 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "prefix"), METHODS)
def test_losses_and_trajectory_agree_with_the_published_ones(
    method: type[Published], prefix: str, projected: Generator, published: tuple[fill.Spec, dict[str, Tensor]]
) -> None:
    spec, x = published
    # In float64 for the same reason: Adam divides tiny gradients by their own size, so that rounding grows.
    double = copy.deepcopy(projected).double()
    seen = published_run(method, double, steps=10).published({name: tensor.double() for name, tensor in x.items()})
    rates = torch.tensor([learning_rate(i / 10, 0.1) for i in range(10)])
    assert_published(spec, f"{prefix}.lr", rates, 1e-6)
    expected = fill.expected(spec)
    for name, key in (("mse", "mse"), ("noise", "noise_loss")):
        mine, theirs = torch.stack(seen[name]), torch.from_numpy(expected[f"{prefix}.{key}"]).float()
        assert_close_l2(mine[:2], theirs[:2], 1e-4, name=name)
        assert_close_l2(mine, theirs, 2e-2, name=name)
    for step in (1, 2, 5, 10):
        bound = 1e-4 if step < 2 else 2e-2
        assert_published(spec, f"{prefix}.latent_step{step}", seen["codes"][step], bound)
    for place in (2, 10):
        assert_published(spec, f"{prefix}.noise_{place}_final", seen["maps"][place], 2e-2)
    with torch.no_grad():
        image = double(seen["codes"][-1], noise=seen["maps"])
    assert_published(spec, f"{prefix}.image_final", image, 2e-2)


# ---- a tiny generator


@pytest.fixture(scope="module")
def generator(generator_file: Any) -> Generator:
    return load_generator(generator_file)


@pytest.fixture(scope="module")
def space(generator: Generator) -> NormalizedStyleSpace:
    return NormalizedStyleSpace(generator, samples=256)


@pytest.fixture
def targets(generator: Generator) -> Tensor:
    """Five images that the generator cannot quite make."""
    with torch.no_grad():
        made = generator(generator.sample_w(5, torch.Generator().manual_seed(1)))
    return (made + 0.1 * torch.randn(made.shape, generator=torch.Generator().manual_seed(2))).clamp(-1, 1)


Make = Callable[..., Optimisation]


@pytest.fixture
def make(generator: Generator, space: NormalizedStyleSpace) -> Make:
    """`make(method, lambda_nscd=…, steps=…)`: L2 and alignment on the tiny generator."""

    def build(
        method: type[Optimisation] = OptimisationInWPlus, *, lambda_nscd: float = 0.0, **options: Any
    ) -> Optimisation:
        objective = Objective({"l2": (1.0, L2()), "nscd": (lambda_nscd, Alignment(space, "mean"))})
        options = {"steps": 30, "lambda_noise": 1.0} | options
        return method(
            generator, "fingerprint", "tiny", view=View(32), objective=objective, layers=space.names,
            start=MeanLatent(generator), **options,
        )  # fmt: skip

    return build


def names(count: int) -> list[str]:
    return [f"image-{number}" for number in range(count)]


def embedded(run: Optimisation, images: Tensor, called: Sequence[str] | None = None) -> Embedded:
    return run.predict_step({"image": images, "names": list(called or names(len(images)))})


def error(found: Embedded, images: Tensor) -> Tensor:
    """Of every image, [N]."""
    assert found.inversion is not None
    with torch.no_grad():
        return (found.inversion.render() - images).square().mean((1, 2, 3))


@pytest.mark.parametrize("method", [OptimisationInW, OptimisationInWPlus])
def test_a_batch_of_four_equals_four_single_runs(
    method: type[Optimisation], generator: Generator, space: NormalizedStyleSpace, targets: Tensor
) -> None:
    double = copy.deepcopy(generator).double()
    objective = Objective({"l2": (1.0, Exact()), "nscd": (5.0, Alignment(space, "mean"))}).double()
    run = method(
        double, "fingerprint", "tiny", view=View(32), objective=objective, layers=space.names,
        start=MeanLatent(double), steps=50,
    )  # fmt: skip
    images = targets[:4].double()
    together = embedded(run, images).inversion
    assert together is not None
    for place, name in enumerate(names(4)):
        alone = embedded(run, images[place : place + 1], [name]).inversion
        assert alone is not None
        assert_close_l2(alone.codes[0], together.codes[place], 1e-6)
        for key, maps in alone.state.items():
            assert_close_l2(maps[0], together.state[key][place], 1e-6, name=key)
    moved = (together.codes - generator.latent_avg).flatten(1).norm(dim=1)
    assert (moved > 0.1).all(), "all of them went somewhere"


def test_the_random_stream_follows_name_and_seed(make: Make, targets: Tensor) -> None:
    def codes(seed: int, name: str) -> Tensor:
        found = embedded(make(steps=3, seed=seed), targets[:1], [name]).inversion
        assert found is not None
        return found.codes

    assert torch.equal(codes(0, "a"), codes(0, "a"))
    assert not torch.equal(codes(0, "a"), codes(0, "b"))
    assert not torch.equal(codes(0, "a"), codes(1, "a"))


def test_optimising_lowers_every_images_error(make: Make, generator: Generator, targets: Tensor) -> None:
    found = embedded(make(steps=60), targets)
    with torch.no_grad():
        before = (generator(generator.latent_avg[None]) - targets).square().mean((1, 2, 3))
    assert (error(found, targets) < 0.7 * before).all()


def test_w_plus_fits_better_than_w_and_its_rows_part(make: Make, targets: Tensor) -> None:
    in_w, in_w_plus = (embedded(make(method, steps=50), targets) for method in (OptimisationInW, OptimisationInWPlus))
    assert error(in_w_plus, targets).mean() < error(in_w, targets).mean()
    assert in_w.inversion is not None
    assert in_w_plus.inversion is not None
    assert torch.equal(in_w.inversion.codes, in_w.inversion.codes[:, :1].expand_as(in_w.inversion.codes))
    assert (in_w_plus.inversion.codes.std(1) > 0).any()


def test_alignment_lowers_nscd(make: Make, space: NormalizedStyleSpace, targets: Tensor) -> None:
    distances = []
    for weight in (0.0, 5.0):
        found = embedded(make(lambda_nscd=weight, steps=60), targets).inversion
        assert found is not None
        with torch.no_grad():
            distances.append(nscd(space.styles(found.codes), space.mean).mean().item())
    assert distances[1] < 0.5 * distances[0]


def test_the_inversion_draws_the_image_with_the_maps_that_were_found(
    make: Make, generator: Generator, targets: Tensor
) -> None:
    with torch.no_grad():
        for block in generator.blocks.values():
            if hasattr(block, "noise_strength"):
                block.noise_strength.fill_(0.1)
    try:
        found = embedded(make(), targets[:2]).inversion
        assert found is not None
        with torch.no_grad():
            assert not torch.allclose(found.render(), generator(found.codes), atol=1e-3)
    finally:
        with torch.no_grad():
            for block in generator.blocks.values():
                if hasattr(block, "noise_strength"):
                    block.noise_strength.fill_(0.0)
    assert found.renderer.key == "own_noise"
    assert found.history == ("tiny",)
    assert {key: maps.dtype for key, maps in found.state.items()}["noise.conv4"] == torch.half
    for maps in found.state.values():  # every image's map has unit variance by itself
        assert torch.allclose(maps.float().std((1, 2, 3)), torch.ones(2), atol=1e-2)


def test_a_broken_image_stops_alone_and_leaves_the_others_as_they_would_be(make: Make, targets: Tensor) -> None:
    spoilt = targets.clone()
    spoilt[1, 0, 3, 3] = float("nan")
    found, whole = embedded(make(), spoilt), embedded(make(), targets)
    assert found.failed == {"image-1": "not a number in step 0 (l2)"}
    assert found.inversion is not None
    assert whole.inversion is not None
    kept = [0, 2, 3, 4]
    assert found.inversion.names == tuple(names(5)[i] for i in kept)
    assert_close_l2(found.inversion.codes, whole.inversion.select(kept).codes, 1e-3)


class BreaksLate(Term):
    """Becomes infinite for the first image after some steps."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, fit: LossInputs) -> Tensor:
        self.calls += 1
        values = fit.output.square().mean((1, 2, 3))
        return values / torch.tensor([0.0 if self.calls == 6 and i == 0 else 1.0 for i in range(len(values))])


def test_an_image_may_break_in_the_middle(generator: Generator, targets: Tensor) -> None:
    run = OptimisationInW(
        generator, "f", "tiny", view=View(32), objective=Objective({"size": (1.0, BreaksLate())}), layers=[],
        start=MeanLatent(generator), steps=9,
    )  # fmt: skip
    found = embedded(run, targets)
    assert found.failed == {"image-0": "not a number in step 5 (size)"}
    assert [note["steps"] for note in found.notes.values()] == [9, 9, 9, 9]


def test_when_all_images_break_there_is_no_inversion(make: Make, targets: Tensor) -> None:
    found = embedded(make(), targets * float("nan"))
    assert found.inversion is None
    assert set(found.failed) == set(names(5))


def test_a_finished_image_stops_early_and_the_others_go_on(make: Make, generator: Generator, targets: Tensor) -> None:
    with torch.no_grad():
        targets[1] = generator(generator.latent_avg[None])[0]  # found before it starts
    run = make(steps=40, patience=15, latent_noise=0.0, lambda_noise=0.0)
    found, whole = embedded(run, targets), embedded(make(steps=40, latent_noise=0.0, lambda_noise=0.0), targets)
    assert [found.notes[name]["steps"] for name in names(5)] == [40, 16, 40, 40, 40]
    assert found.inversion is not None
    assert whole.inversion is not None
    assert found.inversion.names == tuple(names(5)), "in the order of the batch, whoever finished first"
    kept = [0, 2, 3, 4]
    assert_close_l2(found.inversion.codes[kept], whole.inversion.codes[kept], 1e-3)


def test_moments_of_images_that_stay_are_kept_when_one_leaves(make: Make, targets: Tensor) -> None:
    whole = Running(names(3), [torch.zeros(3, 2), torch.zeros(3)], {"image": targets[:3]})
    alone = Running(["image-2"], [torch.zeros(1, 2), torch.zeros(1)], {"image": targets[2:3]})
    for step in range(4):
        for run in (whole, alone):
            codes, single = run.variables
            run.backward((codes - 3).square().sum(1) + (single + 1).square())
            run.step(0.1)
        if step == 1:
            whole = whole.part([False, False, True])
    assert_close_l2(whole.variables[0], alone.variables[0], 1e-6)
    assert_close_l2(whole.variables[1], alone.variables[1], 1e-6)
    assert whole.steps == [4]


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_one_number_among_all_gradients_is_enough_to_break_its_image(wrong: float) -> None:
    run = Running(names(3), [torch.zeros(3, 4, 5), torch.zeros(3)], {})
    run.backward(run.variables[0].sum((1, 2)) + run.variables[1])
    loss = torch.tensor([1.0, 2.0, 3.0])
    assert run.sound(loss) == [True, True, True]
    assert run.last == [1.0, 2.0, 3.0]
    gradient = run.variables[0].grad
    assert gradient is not None
    gradient[1, 2, 3] = wrong
    assert run.sound(loss) == [True, False, True]
    gradient[1, 2, 3] = 0.0
    gradient[1, 2, 2:4] = torch.tensor([wrong, -wrong])
    assert run.sound(loss) == [True, False, True]
    assert run.sound(torch.tensor([wrong, 2.0, 3.0])) == [False, False, True]


def test_gradients_whose_sum_overflows_are_still_numbers() -> None:
    run = Running(names(2), [torch.zeros(2, 4)], {})
    run.backward(run.variables[0].sum(1))
    run.variables[0].grad = torch.tensor([[3e38] * 4, [1.0] * 4])
    assert run.sound(torch.ones(2)) == [True, True]


def iter_once(batch: dict[str, Any]) -> DataLoader[Any]:
    """A loader of one ready-made batch."""
    return DataLoader([batch], batch_size=None)  # type: ignore[arg-type]


def test_lightning_predicts_with_it(make: Make, targets: Tensor) -> None:
    shares = []
    run = make(steps=4)
    run.watch = lambda share, losses: shares.append((share, set(losses)))
    with quiet_lightning():
        trainer = Trainer(
            accelerator="cpu", devices=1, logger=False, inference_mode=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        (found,) = trainer.predict(run, iter_once({"image": targets, "names": names(5)}))  # type: ignore[misc]
    assert isinstance(found, Embedded)
    assert [share for share, _ in shares] == [0.25, 0.5, 0.75, 1.0]
    assert shares[0][1] == {"l2", "noise"}
    direct = embedded(make(steps=4), targets).inversion
    assert found.inversion is not None
    assert direct is not None
    assert torch.equal(found.inversion.codes, direct.codes)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"steps": 0}, "steps=0"), ({"lr": 0.0}, "optimisation.lr=0.0"), ({"patience": 0}, "patience=0")],
)
def test_numbers_that_cannot_work_are_refused(make: Make, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadValue, match=message):
        make(**options)


# ---- properties of the noise terms


def test_white_noise_is_regular_and_a_stripe_is_not() -> None:
    white = torch.randn(1, 1, 64, 64)
    stripe = torch.sin(torch.arange(64) / 5.0).expand(1, 1, 64, 64).contiguous()
    stripe = (stripe - stripe.mean()) / stripe.std()
    values = noise.regularity([torch.cat([white, stripe])])
    assert values[0] < 0.05 < 1 < values[1]


def test_a_constant_map_has_a_known_irregularity() -> None:
    # Every product of neighbours is 4, its square 16, in two directions, on the levels 16 and 8.
    assert noise.regularity([torch.full((3, 1, 16, 16), 2.0)]).tolist() == [64.0, 64.0, 64.0]
    assert noise.regularity([torch.full((1, 1, 4, 4), 2.0)]).tolist() == [32.0]


def test_normalising_gives_every_image_unit_variance_by_itself() -> None:
    maps = torch.randn(3, 1, 8, 8) * torch.tensor([1.0, 5.0, 0.1]).view(3, 1, 1, 1) + 2
    noise.normalise([maps])
    assert_close_l2(maps.mean((1, 2, 3)), torch.zeros(3), 1e-5, floor=1)
    assert_close_l2(maps.std((1, 2, 3)), torch.ones(3), 1e-5)


def test_the_rate_rises_then_falls_to_nothing() -> None:
    assert learning_rate(0.0, 0.1) == 0.0
    assert learning_rate(0.025, 0.1) == pytest.approx(0.05)
    assert learning_rate(0.5, 0.1) == pytest.approx(0.1)
    assert learning_rate(0.875, 0.1) == pytest.approx(0.05)
    assert learning_rate(1.0, 0.1) == pytest.approx(0.0, abs=1e-9)
    assert [noise_strength(t) for t in (0.0, 0.375, 0.75, 1.0)] == [0.05, 0.0125, 0.0, 0.0]


def test_the_spread_is_one_number_for_all_channels() -> None:
    assert spread(torch.tensor([[3.0, 4.0], [-3.0, -4.0]])) == pytest.approx(5.0)
