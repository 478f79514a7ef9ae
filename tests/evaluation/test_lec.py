"""Latent editing consistency: the published numbers, its rule about batches, and nothing else that batches decide."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import torch
from torch import Tensor

from comparison import assert_close_l2, assert_published
from golden import fill
from lsap.checkpoints import rosinality
from lsap.embedding import PyramidEncoder
from lsap.errors import BadValue
from lsap.evaluation import editability
from lsap.evaluation.editability import LEC, consistent, round_trip
from lsap.stylegan2 import Generator, View, freeze

# ---- the published code's numbers (parity case `lec`)


@pytest.fixture(scope="module")
def encoder() -> PyramidEncoder:
    """The case's encoder, filled without being initialised first."""
    spec = fill.load("lec")
    with torch.device("meta"):
        encoder = PyramidEncoder(14)
    state = fill.state_dict(spec, "encoder") | {"latent_avg": fill.inputs(spec)["latent_avg"]}
    encoder.load_state_dict(state, assign=True)
    return encoder.eval()


@pytest.fixture(scope="module")
def generator() -> Generator:
    state = rosinality.rename(fill.state_dict(fill.load("lec"), "decoder"))
    made = Generator(256)
    made.load_state_dict(state, strict=False)
    assert made.state_dict().keys() - state.keys() == {"latent_avg"}
    return freeze(made)


@torch.no_grad()
@pytest.mark.slow
def test_parity_with_the_published_metric(encoder: PyramidEncoder, generator: Generator) -> None:
    spec = fill.load("lec")
    x = fill.inputs(spec)
    shift = 3 * x["direction"]  # the factor of the published example

    def distances(images: Tensor, view: View, keep: dict[str, Tensor]) -> Tensor:
        def draw(codes: Tensor) -> Tensor:
            keep["edited_images"] = view(generator(codes))
            return keep["edited_images"]

        def undo(codes: Tensor) -> Tensor:
            keep["codes_back"] = codes - shift
            return keep["codes_back"]

        keep["codes"] = encoder(images)
        return round_trip(keep["codes"], lambda codes: codes + shift, undo, draw, encoder)

    seen: dict[str, Tensor] = {}
    first = distances(x["images"][:2], View(256), seen)
    assert_published(spec, "codes", seen["codes"], 1e-4)
    assert_published(spec, "edited_images", seen["edited_images"], 1e-4)
    assert_published(spec, "codes_back", seen["codes_back"], 1e-4)
    assert_published(spec, "distance_each", first, 1e-5)
    whole = torch.cat([first, distances(x["images"][2:], View(256), {})])
    for batch in (1, 2):
        metric = LEC(batch)
        metric.update(whole, torch.arange(4))
        assert_published(spec, f"lec_batch{batch}", metric.compute(), 1e-5)
    cars = LEC(2)
    cars.update(distances(x["images_car"], View(256, (32, 224)), {}), torch.arange(2))
    assert_published(spec, "lec_cars", cars.compute(), 1e-5)


def test_the_published_rule_about_outliers() -> None:
    spec = fill.load("lec")
    kept = consistent(fill.inputs(spec)["outlier_values"].numpy().astype(np.float64))
    found = np.array([len(kept), kept.mean(), kept.min(), kept.max()])
    assert_published(spec, "outlier_kept", found, 1e-6)


# ---- its own properties


def test_up_to_a_hundred_batches_are_all_kept() -> None:
    values = np.arange(100.0)
    assert len(consistent(values)) == 100
    assert 0 < len(consistent(np.arange(1000.0))) < 1000


def test_the_value_depends_on_the_batch_of_the_rule_and_on_no_other() -> None:
    distances = torch.rand(1001, dtype=torch.float64).exp()
    numbers = torch.arange(1001)
    values = []
    for size in (1, 7, 1001):
        order = torch.randperm(1001)
        first, second = LEC(4), LEC(4)  # two processes
        for turn, part in enumerate(order.split(size)):
            (first, second)[turn % 2].update(distances[part], numbers[part])
        first.update(distances[:3], numbers[:3])  # as a loader pads that shares images out equally
        parts = [m for m in (first, second) if m.distances]
        if len(parts) == 2:
            first.merge_state(second)
        else:
            first = parts[0]
        values.append((first.compute().item(), first.plain().item()))
    assert values[0] == values[1] == values[2]
    assert values[0][1] == pytest.approx(distances.mean().item(), rel=1e-6)
    other = LEC(1)
    other.update(distances, numbers)
    assert other.compute() != values[0][0], "the published value does depend on the batch of its rule"


def test_by_hand_a_last_batch_that_is_not_full_is_dropped_unless_it_is_the_only_one() -> None:
    metric, few = LEC(2), LEC(8)
    for one in (metric, few):
        one.update(torch.tensor([1.0, 2.0, 30.0]), torch.arange(3))
    assert metric.compute().item() == 1.5
    assert metric.plain().item() == few.compute().item() == 11.0


def test_a_perfect_encoder_comes_back_and_a_lazy_one_does_not() -> None:
    codes = torch.randn(3, 4, 5)

    def edit(moved: Tensor) -> Tensor:
        return moved + 2

    def undo(moved: Tensor) -> Tensor:
        return moved - 2

    def same(images: Tensor) -> Tensor:
        return images

    assert_close_l2(round_trip(codes, edit, undo, same, same), torch.zeros(3), 1e-5, floor=1)
    lazy = round_trip(codes, edit, undo, same, torch.zeros_like)  # finds zeros in everything
    assert_close_l2(lazy, (codes + 2).flatten(1).norm(dim=1).double(), 1e-5)


def test_what_cannot_be_a_rule_is_refused() -> None:
    with pytest.raises(BadValue, match="batch=0"):
        LEC(0)
    with pytest.raises(BadValue, match="at least one image"):
        LEC().compute()


def test_examples_in_docstrings_hold() -> None:
    assert doctest.testmod(editability).failed == 0
