"""Claims about tables, and the stages of experiments: what runs, what is skipped, what comes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lsap.errors import BadValue, MissingFile
from lsap.figures import Curves, Evaluated, Strips, figure_of, principal, save_figure
from lsap.reproduction import CheaperThan, Less, Measured, Plateau, Table, claim_of, read_experiment
from lsap.reproduction.results import published, values_of
from lsap.reproduction.stages import Stage, written

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
FOLDERS = sorted(path.parent for path in EXPERIMENTS.glob("*/experiment.yaml"))


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


def test_a_stage_is_all_combinations_in_order() -> None:
    stage = Stage(
        "invert", {"embedding": ["e4e", "lsap_e"], "refinement": ["none", "pti"]}, "{embedding} + {refinement}"
    )
    members = list(stage.members({"domain": "demo", "count": None}))
    assert [m.row for m in members] == ["e4e + none", "e4e + pti", "lsap_e + none", "lsap_e + pti"]
    assert str(members[1]) == "python -m lsap.invert embedding=e4e refinement=pti domain=demo count=null"


def test_a_row_speaks_of_settings_that_its_stage_has() -> None:
    with pytest.raises(BadValue, match="refinement"):
        list(Stage("invert", {"embedding": "e4e"}, "{refinement}").members({}))


def test_values_are_written_in_hydras_grammar() -> None:
    assert written({"a": [1, None, True], "b": 2e-5}) == "{a:[1,null,true],b:2e-05}"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_experiment_reads_and_lists_its_commands(folder: Path) -> None:
    experiment = read_experiment(folder)
    for domain in experiment.domains:
        members = experiment.members(domain, {})
        assert len({str(m) for m in members}) == len(members) > 0


def test_numbers_of_seeds_are_gathered_from_evaluations(tmp_path: Path) -> None:
    """Two seeds; one image lacks identity; LEC as published is of the set, its plain mean of images."""
    for seed, more in ((0, 0.0), (1, 0.2)):
        folder = tmp_path / str(seed)
        folder.mkdir()
        images, sets = ["method,name,mse,identity,lec/pose"], ["method,measure,label,mean,std,low,high,n"]
        for method, value in (("x", 1.0), ("y", 2.0)):
            images += [f"{method},{n},{value + more},{'' if n == 'b' else 0.5},{value}" for n in "abc"]
            sets += [f"{method},lec/pose,LEC,{value + 4 + more},,,,3", f"{method},mse,MSE,9,1,8,10,3"]
        (folder / "images.csv").write_text("\n".join(images))
        (folder / "table.csv").write_text("\n".join(sets))
    values = values_of({0: tmp_path / "0", 1: tmp_path / "1"}, ["x", "y"])
    found = {(each.method, each.measure): each for each in values}
    assert found["x", "mse"].values.shape == (2, 3)
    assert found["y", "mse"].mean == pytest.approx(2.1)
    assert found["x", "identity"].values.shape == (2, 2)
    assert found["x", "lec/pose"].values.tolist() == [[5.0], [5.2]]
    assert found["x", "lec_mean/pose"].values.shape == (2, 3)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_claims_and_published_rows_speak_of_rows_that_are_run(folder: Path) -> None:
    experiment = read_experiment(folder)
    for domain in experiment.domains:
        rows = {member.row for member in experiment.members(domain, {})} - {None}
        for described in experiment.claims:
            assert {method for method, _ in claim_of(described, domain).needs()} <= rows
        if domain != "demo" and experiment.claims:
            assert rows <= set(published(experiment))
        for described in experiment.figures:
            figure = figure_of(described)
            if isinstance(figure, Strips):
                assert set(figure.methods or rows) <= rows
        assert experiment.claims or experiment.figures, "something is shown"
        assert set(experiment.gain) | set(experiment.gain.values()) <= rows


def test_an_unknown_experiment_names_those_that_there_are() -> None:
    with pytest.raises(MissingFile, match="table4_lambda"):
        read_experiment(EXPERIMENTS / "table4")


def test_another_domain_is_refused() -> None:
    with pytest.raises(BadValue, match="accepted: demo, face"):
        read_experiment(EXPERIMENTS / "table4_lambda").members("car", {})


# ---- figures


def values(**rows: float) -> list[Measured]:
    return [Measured(name.removeprefix("l"), "mse", np.full((2, 3), mean)) for name, mean in rows.items()]


def test_curves_go_over_rows_that_are_numbers(tmp_path: Path) -> None:
    found = Evaluated(None, values(l0=1.0, l1=0.5))  # type: ignore[arg-type]
    path = save_figure(Curves(["mse"]).draw(found), tmp_path / "demo-curves.png")
    with Image.open(path) as picture:
        assert picture.width > 200
        assert len(picture.convert("L").getcolors(1 << 16)) > 10
    with pytest.raises(BadValue, match="nobody measured 'lpips'"):
        Curves(["lpips"]).draw(found)
    with pytest.raises(BadValue, match="rows must be numbers"):
        Curves(["mse"]).draw(Evaluated(None, values(e4e=1.0)))  # type: ignore[arg-type]


def test_principal_directions_are_those_of_greatest_spread() -> None:
    rng = torch.Generator().manual_seed(0)
    points = torch.randn(500, 5, generator=rng, dtype=torch.double) * torch.tensor([0.1, 3.0, 0.1, 1.0, 0.1])
    axes = principal(points - points.mean(0))
    torch.testing.assert_close(axes.T @ axes, torch.eye(2, dtype=torch.double))
    assert axes[1, 0] > 0.99
    assert axes[3, 1] > 0.99


def test_unknown_figures_and_arguments_are_refused() -> None:
    with pytest.raises(BadValue, match=r"no figure 'Curve'.*Curves"):
        figure_of({"figure": "Curve"})
    with pytest.raises(BadValue, match="figure Curves: "):
        figure_of({"figure": "Curves", "measure": ["mse"]})
