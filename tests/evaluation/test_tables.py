"""From numbers of images to tables and rank correlations: by hand, seeded, honest about what is missing."""

from __future__ import annotations

import csv
import doctest
import io

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from comparison import assert_close_l2
from lsap.alignment import NormalizedStyleSpace, nscd
from lsap.evaluation import codes, ranking
from lsap.evaluation.codes import LatentDistances
from lsap.evaluation.columns import Measure
from lsap.evaluation.ranking import spearman
from lsap.evaluation.ranks import rank_correlations
from lsap.evaluation.tables import ResultsTable, of_the_set, summary
from lsap.stylegan2 import Generator


def test_a_summary_is_mean_deviation_interval_and_number() -> None:
    found = summary([1.0, None, 2.0, float("nan"), 6.0])
    assert found is not None
    assert (found.mean, found.n) == (3.0, 3)
    assert found.std == pytest.approx(np.std([1, 2, 6], ddof=1))
    assert found.low is not None
    assert found.high is not None
    assert 1 <= found.low < 3 < found.high <= 6
    assert summary([1.0, 2.0, 6.0]) == found, "seeded: the same every time"
    assert summary([None, None]) is None
    assert summary([2.0]) is not None
    assert summary([2.0]).std is None  # type: ignore[union-attr]


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    intervals = [summary(list(rng.normal(5.0, 2.0, 40)), seed) for seed in range(200)]
    covered = sum(one.low <= 5.0 <= one.high for one in intervals if one is not None and one.low and one.high)
    assert 0.88 < covered / 200 < 0.99


def test_a_table_says_the_same_in_every_form() -> None:
    measures = [Measure("mse", "MSE", "", "lower"), Measure("fid", "FID"), Measure("lec", "LEC")]
    rows = {"a": {"mse": summary([1.0, 2.0, 3.0]), "fid": of_the_set(12.5, 3)}, "b": {"mse": summary([4.0, 5.0])}}
    table = ResultsTable(measures, rows, {})
    assert [m.key for m in table.shown] == ["mse", "fid"], "a column without values is none"
    lines = list(csv.DictReader(io.StringIO(table.csv())))
    assert [(one["method"], one["measure"], one["mean"], one["n"]) for one in lines] == [
        ("a", "mse", "2.0", "3"), ("a", "fid", "12.5", "3"), ("b", "mse", "4.5", "2"), ("b", "fid", "", "0"),
    ]  # fmt: skip
    text = table.markdown()
    assert text.startswith("| | MSE ↓ | FID |")
    assert "2.00 ± 1.00 [" in text
    assert "| b | 4.50 ± 0.707 [4.00, 5.00] | – |" in text or "| b | 4.50 ± 0.71 [4.00, 5.00] | – |" in text
    assert table.json()["b"]["fid"] is None


# ---- rank correlations


def test_correlations_are_scipys() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=30), rng.normal(size=30)
    y[:10] = 0.5  # ties
    assert float(spearman(x, y)) == pytest.approx(spearmanr(x, y).statistic)
    assert np.isnan(spearman(x, np.ones(30))), "where all are equal nothing is ranked"


def test_within_a_method_and_across_them_are_different_questions() -> None:
    """Two methods of three images and more: within each the predictor is perfect, across them it is misleading."""
    images = np.arange(20.0)
    methods = {
        "near": {"p": list(images), "t": list(images + 100)},
        "far": {"p": list(images + 50), "t": list(images)},
    }
    found = {one.scope: one for one in rank_correlations(methods, ["p"], ["t"], count=200)}
    assert found["near"].rho == found["far"].rho == 1.0
    assert found["all methods"].rho < 0
    assert found["per image"].rho == -1.0
    assert {one.n for one in found.values()} == {20}
    assert found["near"].low == found["near"].high == 1.0


def test_intervals_are_wide_where_there_are_few_images_and_narrow_where_there_are_many() -> None:
    rng = np.random.default_rng(2)
    widths = []
    for n in (20, 500):
        x = rng.normal(size=n)
        numbers = {"only": {"p": list(x), "t": list(x + rng.normal(size=n))}}
        (one,) = rank_correlations(numbers, ["p"], ["t"], count=300)
        assert one.low < one.rho < one.high
        widths.append(one.high - one.low)
    assert widths[1] < widths[0] / 3


def test_images_without_a_value_take_no_part_and_constant_predictors_have_no_rank() -> None:
    numbers = {"only": {"p": [1.0, 2.0, None, 4.0], "t": [1.0, 2.0, 9.0, 3.0], "c": [1.0] * 4}}
    found = rank_correlations(numbers, ["p", "c"], ["t"], count=50)
    assert [(one.predictor, one.n, one.rho) for one in found] == [("p", 3, 1.0)]
    assert rank_correlations({"only": {"p": [1.0, 2.0], "t": [1.0, 2.0]}}, ["p"], ["t"]) == []


# ---- the predictors


def test_rivals_of_nscd_are_what_they_say() -> None:
    torch.manual_seed(1)
    generator = Generator(16, style_dim=12, mapping_layers=2, channels={4: 8, 8: 8, 16: 8}, mapping_lr=1.0).eval()
    space = NormalizedStyleSpace(generator, samples=200)
    places = LatentDistances(space, lambda w: w.sum(-1), samples=500)
    w_plus = torch.randn(3, generator.n_latent, 12)
    found = places(w_plus)
    assert found.keys() == places.labels.keys()
    assert_close_l2(found["nscd"], nscd(space.styles(w_plus), space.mean), 1e-5)
    assert_close_l2(found["w_length"], (w_plus - places.w).norm(dim=2).mean(1), 1e-5)
    cosine = torch.cosine_similarity(w_plus, places.w.expand_as(w_plus), dim=2)
    assert_close_l2(found["w_cosine"], (1 - cosine).mean(1), 1e-5)
    expected = torch.nn.functional.softplus(-w_plus.sum(-1)).mean(1)
    assert_close_l2(found["suspicion"], expected, 1e-5)
    doubled = [2 * style for style in space.styles(w_plus)]
    assert_close_l2(nscd(doubled, places.s), found["s_cosine"], 1e-5)  # a cosine does not see lengths
    mean = places(places.w.expand(1, generator.n_latent, -1))
    assert mean["w_length"].item() == pytest.approx(0.0, abs=1e-5)


def test_examples_in_docstrings_hold() -> None:
    for module in (codes, ranking):
        assert doctest.testmod(module).failed == 0
