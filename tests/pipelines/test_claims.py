"""Claims about tables: when they hold, do not hold or stay open, and that the paper's own numbers bear them out."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from lsap.errors import BadValue
from lsap.pipelines.reproduction import (
    CheaperThan,
    Claim,
    Less,
    Measured,
    Plateau,
    RanksAcross,
    RanksWithin,
    Table,
    claim_of,
    judged,
    read_experiment,
)
from lsap.pipelines.reproduction.results import published
from pages import ROOT

FOLDERS = sorted(path.parent for path in (ROOT / "experiments").glob("*/experiment.yaml"))


def table(seeds: int = 3, images: int = 200, **means: float) -> Table:
    """Measure `mse` of methods whose images are hard or easy for all of them alike."""
    rng = np.random.default_rng(0)
    hardness = rng.uniform(0.5, 1.5, (1, images))
    noise = {name: rng.normal(0, 0.02, (seeds, images)) for name in means}
    return Table([Measured(name, "mse", mean * hardness + noise[name]) for name, mean in means.items()])


def test_a_difference_far_beyond_the_noise_holds_or_does_not() -> None:
    found = table(a=1.0, b=1.2)
    assert Less("", "mse", "a", "b").check(found).verdict == "holds"
    assert Less("", "mse", "b", "a").check(found).verdict == "does not hold"


def test_the_interval_is_that_of_pairs() -> None:
    """Images differ by a factor of three, methods by a hundredth: only in pairs can that be seen."""
    finding = Less("", "mse", "a", "b").check(table(a=1.0, b=1.01))
    assert finding.verdict == "holds"
    assert finding.high - finding.low < 0.01


def test_what_lies_within_the_noise_stays_open() -> None:
    finding = Less("", "mse", "a", "b").check(table(seeds=2, images=20, a=1.0, b=1.001))
    assert finding.verdict == "open"
    assert finding.low < 0 < finding.high


def test_a_margin_moves_what_is_wanted() -> None:
    found = table(a=1.0, b=1.2)
    assert Less("", "mse", "a", "b", by=0.1).check(found).verdict == "holds"
    assert Less("", "mse", "a", "b", by=0.3).check(found).verdict == "does not hold"
    assert Less("", "mse", "b", "a", by=-0.25).check(found).verdict == "holds"


def test_a_plateau_is_flat_beside_the_step_before_it() -> None:
    found = table(none=1.0, little=0.5, much=0.48, most=0.2)
    assert Plateau("", "mse", "none", "little", "much").check(found).verdict == "holds"
    assert Plateau("", "mse", "none", "little", "most").check(found).verdict == "does not hold"


def test_gain_and_cost_are_compared_as_shares() -> None:
    rng = np.random.default_rng(1)
    rows = {("plain", "nscd"): 0.02, ("aligned", "nscd"): 0.01, ("plain", "mse"): 0.04, ("aligned", "mse"): 0.05}
    found = Table([Measured(*key, mean + rng.normal(0, mean / 50, (3, 100))) for key, mean in rows.items()])
    finding = CheaperThan("", "nscd", "mse", "plain", "aligned").check(found)
    assert finding.verdict == "holds"
    assert finding.value == pytest.approx(0.25, abs=0.02)  # 50 % less NSCD, 25 % more MSE


def test_seeds_count_as_much_as_images() -> None:
    """Two seeds that disagree leave a claim open, however many images there are."""
    b = np.ones((2, 5000))
    a = b * np.array([[0.9], [1.08]])
    assert Less("", "mse", "a", "b").check(Table([Measured("a", "mse", a), Measured("b", "mse", b)])).verdict == "open"


def test_measures_of_whole_sets_are_compared_too() -> None:
    found = Table([Measured("a", "lec", np.array([[1.0], [1.1]])), Measured("b", "lec", np.array([[2.0], [2.2]]))])
    assert Less("", "lec", "a", "b").check(found).verdict == "holds"


def test_claims_about_what_was_not_run_are_refused() -> None:
    with pytest.raises(BadValue, match="'c', which was not run"):
        Less("", "mse", "c", "a").check(table(a=1.0))
    with pytest.raises(BadValue, match="a has no 'msee'; did you mean 'mse'"):
        Less("", "msee", "a", "a").check(table(a=1.0))
    uneven = Table([Measured("a", "mse", np.ones((1, 5))), Measured("b", "mse", np.ones((1, 6)))])
    with pytest.raises(BadValue, match="not run on the same images"):
        Less("", "mse", "a", "b").check(uneven)
    other = Table([Measured("a", "mse", np.ones((1, 1)), ["x"]), Measured("b", "mse", np.ones((1, 1)), ["y"])])
    with pytest.raises(BadValue, match="no image in common: a, b"):
        Less("", "mse", "a", "b").check(other)


def test_a_claim_about_what_was_not_run_is_not_tested_and_says_why() -> None:
    finding = judged(Less("alignment helps", "mse", "c", "a"), table(a=1.0))
    assert (finding.verdict, finding.value, finding.low, finding.high) == ("not tested", None, None, None)
    assert str(finding).startswith("not tested     alignment helps: a claim speaks of 'c', which was not run")


def test_several_methods_are_all_below_only_if_the_worst_is() -> None:
    found = table(none=1.0, little=0.9, much=0.5, most=0.99)
    assert Less("", "mse", ["little", "much"], "none", by=0.05).check(found).verdict == "holds"
    finding = Less("", "mse", ["little", "much", "most"], "none", by=0.05).check(found)
    assert finding.verdict == "does not hold"
    assert finding.value == pytest.approx(-0.01, abs=0.005)
    assert Less("", "mse", "much", ["none", "little", "most"]).check(found).verdict == "holds"


def test_images_that_one_method_lacks_are_left_out_of_the_other() -> None:
    """b lacks the image that is hard for a: without pairing by name, a would look worse than b."""
    a = Measured("a", "mse", np.array([[9.0, 1.0, 1.0]]), ["hard", "x", "y"])
    b = Measured("b", "mse", np.array([[2.0, 2.0, 9.0]]), ["x", "y", "worse"])
    assert Less("", "mse", "a", "b").check(Table([a, b])).value == pytest.approx(-0.5)


# ---- ranks


def ranked(noise: float, rivals_noise: float, offsets: tuple[float, float] = (0.0, 0.0)) -> Table:
    """Two methods, two seeds, 60 images; what edits did follows `good` closely and `poor` as `rivals_noise` has it."""
    rng = np.random.default_rng(2)
    found = []
    for method, offset in zip("ab", offsets, strict=True):
        truth = rng.normal(0, 1, (2, 60))
        found += [Measured(method, f"excess/{edit}", truth + offset) for edit in ("pose", "age")]
        found.append(Measured(method, "good", truth + rng.normal(0, noise, truth.shape)))
        found.append(Measured(method, "poor", truth + rng.normal(0, rivals_noise, truth.shape)))
    return Table(found)


EDITS = ["excess/pose", "excess/age"]


def test_what_ranks_images_better_than_its_rival_holds() -> None:
    found = ranked(noise=0.3, rivals_noise=3.0)
    own = RanksWithin("", "good", EDITS, ["a", "b"]).check(found)
    assert own.verdict == "holds"
    assert own.value == pytest.approx(0.95, abs=0.04)
    better = RanksWithin("", "good", EDITS, ["a", "b"], rival="poor").check(found)
    assert better.verdict == "holds"
    poor = RanksWithin("", "poor", EDITS, ["a", "b"]).check(found)
    assert poor.value is not None
    assert own.value is not None
    assert better.value == pytest.approx(own.value - poor.value)
    assert RanksWithin("", "poor", EDITS, ["a", "b"], rival="good").check(found).verdict == "does not hold"
    assert RanksWithin("", "good", EDITS, ["a", "b"], rival="good").check(found).value == 0


def test_across_methods_their_own_levels_count() -> None:
    """One method leaks more, and its predictor does not know: within it ranks well, across it does not."""
    found = ranked(noise=0.3, rivals_noise=3.0, offsets=(0.0, 8.0))
    within = RanksWithin("", "good", EDITS, ["a", "b"]).check(found)
    across = RanksAcross("", "good", EDITS, ["a", "b"]).check(found)
    assert within.value is not None
    assert across.value is not None
    assert within.value > 0.9
    assert 0.1 < across.value < 0.6


def test_where_nothing_differs_nothing_is_ranked() -> None:
    same = [Measured("a", measure, np.ones((1, 5))) for measure in ("good", *EDITS)]
    finding = judged(RanksWithin("", "good", EDITS, ["a"]), Table(same))
    assert (finding.value, finding.verdict) == (None, "not tested")
    assert "all values of one measure are equal" in finding.wanted


def test_a_few_images_are_ranked_though_some_samples_of_them_are_all_one_image() -> None:
    """Of three images a ninth of the samples is one image three times."""
    few = [Measured("a", measure, np.array([[1.0, 2.0, 3.0]])) for measure in ("good", *EDITS)]
    finding = judged(RanksWithin("", "good", EDITS, ["a"]), Table(few))
    assert (finding.verdict, finding.value, finding.low) == ("holds", pytest.approx(1), pytest.approx(1))


@pytest.mark.parametrize(
    "claim",
    [
        Less("", "mse", "a", "zero"),
        Less("", "mse", ["zero", "a"], "zero"),
        Plateau("", "mse", "a", "a", "zero"),
        CheaperThan("", "mse", "mse", "zero", "a"),
    ],
    ids=lambda claim: type(claim).__name__,
)
def test_what_would_divide_by_nothing_is_not_tested_and_stays_valid_json(claim: Claim) -> None:
    found = Table([Measured("a", "mse", np.ones((1, 3))), Measured("zero", "mse", np.zeros((1, 3)))])
    finding = judged(claim, found)
    assert (finding.verdict, finding.value, finding.low, finding.high) == ("not tested", None, None, None)
    assert "divides by is 0" in finding.wanted
    assert json.loads(json.dumps(asdict(finding), allow_nan=False))["verdict"] == "not tested"


def test_an_interval_that_has_no_end_is_not_told() -> None:
    """One image of two has an error: half of the samples have none, and no number."""
    rows = {"a": [0.0, 1.0], "b": [0.0, 1.5]}
    found = Table([Measured(name, "mse", np.array([row])) for name, row in rows.items()])
    assert judged(Less("", "mse", "a", "b"), found).verdict == "holds", "samples without a number take no part"
    rows = {"a": [1.0, 1.0], "b": [0.0, 3.0]}
    found = Table([Measured(name, "mse", np.array([row])) for name, row in rows.items()])
    assert judged(Less("", "mse", "a", "b"), found).verdict == "not tested", "a quarter of the samples is infinite"


# ---- what the paper itself prints


def printed(folder: Path, domain: str) -> Table:
    """The paper's own numbers, as if they were measured; LEC is printed as published, and claims speak of its mean."""
    rows = published(read_experiment(folder))
    found = []
    for name, row in rows.items():
        for column, value in row.items():
            for measure in {column, column.replace("lec/", "lec_mean/"), column.removesuffix("_raw")}:
                found.append(Measured(name, measure, np.array([[value]])))
    return Table(found)


def paper_claims() -> Iterator[tuple[Path, str, Claim]]:
    for folder in FOLDERS:
        experiment = read_experiment(folder)
        for domain, described in itertools.product(experiment.domains, experiment.claims):
            if domain != "demo":
                yield folder, domain, claim_of(described, domain)


@pytest.mark.parametrize(
    ("folder", "domain", "claim"), list(paper_claims()), ids=[f"{f.name}, {d}: {c.says}" for f, d, c in paper_claims()]
)
def test_the_papers_own_numbers_bear_out_its_claims(folder: Path, domain: str, claim: Claim) -> None:
    finding = judged(claim, printed(folder, domain))
    if finding.verdict == "not tested":  # Table 1 has no NSCD
        assert folder.name == "table1_fidelity"
        assert "nscd" in finding.wanted
    else:
        assert finding.verdict == "holds", finding


def test_all_that_the_paper_leads_one_to_expect_is_claimed() -> None:
    """Issue by issue, what its section 5 states: every pair below stands in a claim of the table that prints it."""
    claims = {folder.name: list(read_experiment(folder).claims) for folder in FOLDERS}
    lambdas = ["0.1", "0.25", "0.5", "0.75", "1"]
    for measure in ("nscd_raw", "lec_mean/pose", "lec_mean/smile", "lec_mean/age"):
        assert any(
            c["claim"] == "Less" and c["measure"] == measure and c["lower"] == lambdas for c in claims["table4_lambda"]
        )
        assert any(c["claim"] == "Plateau" and c["measure"] == measure for c in claims["table4_lambda"])
    assert any(c.get("measure") == "mse" and c.get("higher") == lambdas for c in claims["table4_lambda"])
    pairs = {(c.get("measure"), c.get("lower"), c.get("higher")) for c in claims["table1_fidelity"]}
    for refinement in ("hfgi", "sam", "pti"):
        assert ("mse", f"lsap_e + {refinement}", f"e4e + {refinement}") in pairs
    assert {("mse", "restyle_lsap", "restyle_e4e"), ("mse", "lsap_e", "e4e")} <= pairs
    for space in ("w", "wplus"):
        assert any(c["claim"] == "CheaperThan" and c["changed"] == f"lsap_o_{space}" for c in claims["table1_fidelity"])
    rivals = {(c["claim"], c.get("rival")) for c in claims["sec56_nscd"]}
    assert rivals == set(itertools.product(("RanksWithin", "RanksAcross"), (None, "w_cosine", "s_cosine", "suspicion")))
