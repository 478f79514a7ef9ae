"""The demo as a laboratory: far portraits, the truth about edits, and the figures that judge a generator."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor

from comparison import assert_close_l2
from lsap.config.compose import composed
from lsap.demo import Portraits, factors, portraits
from lsap.demo.accessories import Accessories
from lsap.demo.out_of_distribution import KINDS, kinds
from lsap.demo.quality import distances, fine_energy, frechet, measure, precision_recall
from lsap.demo.truth import SIGMA, edit_truth, reconstruction_error
from lsap.demo.weights import load_factor_reader, load_identity, load_identity_judge
from lsap.pipelines.generator_quality import laboratory
from lsap.stylegan2 import Generator

# ---- far portraits


def test_far_portraits_follow_from_seed_and_number_alone_and_differ_from_rich_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    far = Portraits("far", "unit", 24).read(range(24))
    monkeypatch.setattr("lsap.demo.source._REMEMBERED", {})
    assert_close_l2(Portraits("far", "unit", 24).read([5]), far[5:6], 1e-3)  # a value may be rounded either way
    assert far.min() >= -1
    assert far.max() <= 1
    rich = Portraits("rich", "unit", 24).read(range(24))
    changed = (far - rich).abs().amax(1) > 0.1
    assert (changed.float().mean((1, 2)) > 0.03).all()


def test_every_kind_of_far_portrait_appears_about_equally_often() -> None:
    counts = kinds(Accessories.draw(0, "test", range(600))).bincount(minlength=len(KINDS))
    assert (counts > 70).all()


# ---- the truth about edits


@pytest.fixture(scope="module")
def people() -> tuple[Portraits, list[int]]:
    return Portraits("rich", "truth", 48), list(range(48))


def moved(source: Portraits, indices: list[int], factor: str, by: float) -> Tensor:
    truth = source.factors(indices)
    column = factors.index(factor)
    truth[:, column] = (truth[:, column] + by * SIGMA).clamp(0, 1)
    return source.again(indices, truth)


def test_the_perfect_edit_has_its_effect_and_no_leakage_of_its_own(people: tuple[Portraits, list[int]]) -> None:
    source, indices = people
    inside = [i for i in indices if source.factors([i])[0, factors.index("yaw")] < 0.6]
    reader = load_factor_reader()
    found = edit_truth(source.read(inside), moved(source, inside, "yaw", 1.0), "yaw", source, inside, reader)
    assert found.effect.mean().item() == pytest.approx(1.0, abs=0.1)
    assert found.excess.abs().mean() < 0.05  # the reader's own, on pictures that differ by its error in the effect
    assert found.distance.mean() < 0.01
    assert found.clipped.sum() == 0


def test_an_edit_that_changes_something_else_leaks(people: tuple[Portraits, list[int]]) -> None:
    source, indices = people
    reader = load_factor_reader()
    smiling = moved(source, indices, "smile", 1.0)
    truth = source.factors(indices)
    for name in ("smile", "light"):
        column = factors.index(name)
        truth[:, column] = (truth[:, column] + SIGMA).clamp(0, 1)
    both = source.again(indices, truth)
    clean = edit_truth(source.read(indices), smiling, "smile", source, indices, reader)
    leaking = edit_truth(source.read(indices), both, "smile", source, indices, reader)
    assert (leaking.excess - clean.excess).mean() > 0.5 * 0.7 / (factors.COUNT - 1)
    assert leaking.distance.mean() > 2 * clean.distance.mean()


def test_an_edit_beyond_the_factors_range_is_marked(people: tuple[Portraits, list[int]]) -> None:
    source, indices = people
    far_out = edit_truth(
        moved(source, indices, "yaw", -5.0), moved(source, indices, "yaw", 5.0), "yaw", source, indices,
        load_factor_reader(),
    )  # fmt: skip
    assert far_out.effect.mean() > 2.5
    assert far_out.clipped.mean() > 0.9


def test_a_perfect_reconstruction_errs_as_the_reader_does(people: tuple[Portraits, list[int]]) -> None:
    source, indices = people
    error, own = reconstruction_error(source.read(indices), source, indices, load_factor_reader())
    assert error.shape == (48, factors.COUNT)
    assert_close_l2(error, own, 1e-5)
    other, _ = reconstruction_error(source.read(indices).roll(1, 0), source, indices, load_factor_reader())
    assert other[:, factors.index("yaw")].mean() > 3 * own[:, factors.index("yaw")].mean()


# ---- figures of a generator


def test_kolmogorov_smirnov_is_the_largest_gap() -> None:
    first = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    second = torch.tensor([[2.5, 0.0], [3.5, 0.0]])
    torch.testing.assert_close(distances(first, second), torch.tensor([0.75, 0.0]))


def test_frechet_of_known_gaussians() -> None:
    rng = torch.Generator().manual_seed(0)
    cloud = torch.randn(4000, 3, generator=rng, dtype=torch.float64)
    assert frechet(cloud, cloud) == pytest.approx(0, abs=1e-6)
    assert frechet(cloud, cloud + torch.tensor([3.0, 0.0, 4.0])) == pytest.approx(25, rel=1e-6)
    assert frechet(cloud, 2 * cloud) == pytest.approx(
        (cloud.mean(0).square().sum() + torch.cov(cloud.T).trace()).item(), rel=1e-6
    )


def test_precision_and_recall_tell_collapse_from_strangers() -> None:
    rng = torch.Generator().manual_seed(0)
    real, same = torch.randn(600, 2, generator=rng), torch.randn(600, 2, generator=rng)
    precision, recall = precision_recall(real, same)
    assert min(precision, recall) > 0.9
    precision, recall = precision_recall(real, 0.05 * same)
    assert precision > 0.9
    assert recall < 0.1
    assert precision_recall(real, same + 100) == (0.0, 0.0)


def test_fine_energy_lies_above_half_the_nyquist_frequency() -> None:
    axis = torch.arange(64) * math.pi
    fine = torch.cos(axis * 0.75).expand(1, 3, 64, 64)
    coarse = torch.cos(axis * 0.25).expand(1, 3, 64, 64)
    assert fine_energy(fine) > 1e3 * fine_energy(coarse)
    assert fine_energy(2 * fine) == pytest.approx(4 * fine_energy(fine).item())


class Perfect:
    """A generator that draws the portraits of its factors without error."""

    style_dim = 128
    latent_avg = torch.zeros(128)

    def mapping(self, z: Tensor) -> Tensor:
        return z

    def __call__(self, z: Tensor, noise: str) -> Tensor:
        return portraits.render(factors.from_z(z))


def test_renders_themselves_would_be_judged_perfect() -> None:
    found = measure(cast(Generator, Perfect()), load_factor_reader(), count=300)
    assert found["psnr_db"] > 80
    assert found["ks_mean"] < 0.1
    assert found["precision"] > 0.85 * found["real_precision"]
    assert found["fine_energy_ratio"] == pytest.approx(1, abs=0.1)


def test_the_command_writes_figures_and_sheets(tmp_path: Path) -> None:
    found = laboratory(composed("laboratory", [f"outputs={tmp_path}", "count=60"]))
    saved = json.loads((tmp_path / "quality.json").read_text())
    assert saved["ks_mean"] == found["ks_mean"]
    assert {f"ks_{name}" for name in factors.NAMES} <= set(saved)
    for name in ("samples", "renders", "sweeps", "rich", "far"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5000


# ---- two sets of judges


def test_judges_of_measurements_share_nothing_with_those_of_losses() -> None:
    losses, measures = load_identity(), load_identity_judge()
    assert type(losses) is not type(measures)
    shapes = [[tuple(p.shape) for p in network.parameters()] for network in (losses, measures)]
    assert shapes[0] != shapes[1]


def test_both_identity_networks_tell_people_apart_across_poses() -> None:
    people = 100
    for network in (load_identity(), load_identity_judge()):
        pictures = [
            network.embed(portraits.render(factors.draw_person(7, "unseen people", range(people), [n] * people)))
            for n in (0, 1)
        ]
        same = (pictures[0] * pictures[1]).sum(1)
        other = (pictures[0] * pictures[1].roll(1, 0)).sum(1)
        assert (same > other).float().mean() > 0.93
