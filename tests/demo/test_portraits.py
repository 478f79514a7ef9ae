"""The demo domain's renderer: deterministic, steered by its factors, and fast enough to draw while training."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor

from comparison import assert_close_l2
from lsap.demo import FACTORS, Portraits, factors, portraits
from lsap.demo.accessories import Accessories
from lsap.errors import BadValue


def neutral(count: int = 1) -> Tensor:
    """A young, beardless, bare-eyed face in the middle of every other range."""
    base = torch.full((count, factors.COUNT), 0.5)
    for name in ("beard", "glasses", "age"):
        base[:, factors.index(name)] = 0.1
    return base


def with_factor(name: str, *values: float) -> Tensor:
    """The neutral portrait once per value of one factor, rendered."""
    rows = neutral(len(values))
    rows[:, factors.index(name)] = torch.tensor(values)
    return portraits.render(rows)


def test_images_are_in_range_finite_and_of_the_size_asked_for() -> None:
    images = portraits.render(factors.draw(0, "train", range(40)), Accessories.draw(0, "train", range(40)))
    assert images.shape == (40, 3, 64, 64)
    assert images.isfinite().all()
    assert -1 <= images.min() < -0.5
    assert 0.5 < images.max() <= 1
    assert portraits.render(neutral(), size=128).shape == (1, 3, 128, 128)


def test_a_portrait_does_not_depend_on_the_others_of_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    together = Portraits("rich", "a split of this test", 50).read(range(40))
    monkeypatch.setattr("lsap.demo.source._REMEMBERED", {})
    alone = Portraits("rich", "a split of this test", 50).read([33])
    assert_close_l2(alone[0], together[33], 1e-3)  # a value between two of the 256 levels may be rounded either way
    drawn = portraits.render(factors.draw(0, "x", range(40)), Accessories.draw(0, "x", range(40)))
    single = portraits.render(factors.draw(0, "x", [33]), Accessories.draw(0, "x", [33]))
    assert_close_l2(drawn[33:34], single, 1e-5)


def test_splits_and_seeds_hold_different_people() -> None:
    first = factors.draw(0, "train", range(200))
    for other in (factors.draw(0, "test", range(200)), factors.draw(1, "train", range(200))):
        nearest = torch.cdist(first[:, factors.IDENTITY], other[:, factors.IDENTITY]).min()
        assert nearest > 0.3  # nobody twice; identical people would be at 0


def test_factors_are_uniform_and_uncorrelated() -> None:
    drawn = factors.draw(3, "train", range(4000))
    assert (drawn.mean(0) - 0.5).abs().max() < 0.03
    assert (drawn.std(0) - factors.STANDARD_DEVIATION).abs().max() < 0.02
    correlation = torch.corrcoef(drawn.T) - torch.eye(factors.COUNT)
    assert correlation.abs().max() < 0.08


def test_factors_of_z_ignore_its_length_and_are_nearly_uniform() -> None:
    z = torch.randn(4000, 128)
    truth = factors.from_z(z)
    assert_close_l2(truth, factors.from_z(7 * z), 1e-5)
    assert (truth.mean(0) - 0.5).abs().max() < 0.03
    assert (truth.std(0) - factors.STANDARD_DEVIATION).abs().max() < 0.02


def test_pictures_of_a_person_share_the_identity_and_differ_in_state() -> None:
    pictures = factors.draw_person(0, "people", [5, 5, 6], [0, 1, 0])
    assert torch.equal(pictures[0, factors.IDENTITY], pictures[1, factors.IDENTITY])
    assert not torch.equal(pictures[0, ~factors.IDENTITY], pictures[1, ~factors.IDENTITY])
    assert not torch.equal(pictures[0, factors.IDENTITY], pictures[2, factors.IDENTITY])


@pytest.mark.parametrize("factor", FACTORS, ids=lambda f: f.name)
def test_every_factor_shows_in_the_picture(factor: factors.Factor) -> None:
    low, high = with_factor(factor.name, 0.02, 0.98)
    assert (low - high).abs().amax(0).gt(0.1).sum() >= 8  # pixels that a person would see change


def test_turning_the_head_moves_the_nose_further_than_the_outline() -> None:
    """Parallax: a pose is more than a shift. Where the change lies is found on pictures, not asked of the geometry."""
    left, front, right = portraits.Head(torch.cat([row(0.1), row(0.5), row(0.9)])).place(
        torch.zeros(3), torch.full((3,), 0.12), lift=0.1
    )[0]
    outline = portraits.Head(torch.cat([row(0.1), row(0.5), row(0.9)])).cx
    assert left < front < right
    assert (right - left) > 2 * (outline[2] - outline[0])
    turned = with_factor("yaw", 0.05, 0.95)
    assert (turned[0].flip(-1) - turned[1]).abs().mean() < 0.5 * (turned[0] - turned[1]).abs().mean()


def row(yaw: float) -> Tensor:
    base = neutral()
    base[:, factors.index("yaw")] = yaw
    return base


def test_a_smile_shows_teeth_and_changes_nothing_far_from_the_face() -> None:
    sad, laughing = with_factor("smile", 0.05, 0.98)
    mouth = (slice(None), slice(38, 52), slice(22, 42))
    assert laughing[mouth].amin(0).max() > 0.7  # near white: teeth
    assert sad[mouth].amin(0).max() < 0.5
    assert torch.equal(sad[:, :8], laughing[:, :8])


def test_age_turns_hair_grey() -> None:
    rows = neutral(2)
    rows[:, factors.index("hair_redness")] = 0.9
    rows[:, factors.index("age")] = torch.tensor([0.05, 0.98])
    hair = portraits.render(rows)[:, :, 6:12, 28:36].mean((2, 3))
    spread = hair.amax(1) - hair.amin(1)
    assert spread[1] < 0.3 * spread[0]
    assert hair[1].mean() > hair[0].mean()


def test_rich_portraits_keep_the_person_and_add_things() -> None:
    plain = Portraits("plain", "test", 64).read(range(64))
    rich = Portraits("rich", "test", 64).read(range(64))
    changed = (plain - rich).abs().amax(1).gt(0.1)
    assert changed.float().mean((1, 2)).gt(0.02).float().mean() > 0.9  # nearly all of them wear something
    chin = changed[:, 38:44, 28:36].float().mean()
    assert chin < 0.1  # faces stay visible


@pytest.mark.parametrize(("name", "most"), [("smile", 0.1), ("nose_size", 0.05), ("clothes", 0.2)])
def test_a_factor_counts_like_any_other_where_it_shows(name: str, most: float) -> None:
    truth = neutral()
    column = torch.tensor([factors.index(name)])
    weight = portraits.where_it_shows(truth, portraits.render(truth), column)
    assert weight.shape == (1, 1, 64, 64)
    assert weight.mean().item() == pytest.approx(1, abs=1e-4), "a nose as much as clothes"
    assert (weight > 0.05 * weight.max()).float().mean() < most, "and nowhere else"


def test_a_factor_that_nobody_sees_weighs_nothing() -> None:
    truth = neutral()
    column = torch.tensor([factors.index("nose_size")])
    portrait = portraits.render(truth)
    truth[0, column] = (truth[0, column] - 0.5) % 1  # the other value is the one that was drawn
    assert portraits.where_it_shows(truth, portrait, column).max() == 0


def test_unknown_family_is_refused_with_the_accepted_ones() -> None:
    with pytest.raises(BadValue, match="accepted: far, plain, rich"):
        Portraits("richh", "train", 3)
    with pytest.raises(BadValue, match="at least one"):
        Portraits("rich", "train", 0)


def test_drawing_many_at_once_is_far_faster_than_one_at_a_time() -> None:
    truth = factors.draw(0, "train", range(64))
    portraits.render(truth[:2])
    begun = time.perf_counter()
    portraits.render(truth)
    together = time.perf_counter() - begun
    begun = time.perf_counter()
    for index in range(16):
        portraits.render(truth[index : index + 1])
    assert together / 64 < (time.perf_counter() - begun) / 16
