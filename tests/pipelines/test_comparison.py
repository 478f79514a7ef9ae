"""The comparison of `make demo`, end to end on a tiny budget: pages, numbers and pictures that belong together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lsap.config.compose import composed
from lsap.errors import BadValue
from lsap.pipelines.comparison import announced, compare
from lsap.pipelines.evaluation.evaluate import evaluate
from small_runs import TINY

EVALUATED = ["space.samples=512", "accelerator=cpu", "correlations=false", "shown=1"]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSAP_CACHE", str(folder / "cache"))
        return compare(composed("compare", [f"outputs={folder}", *TINY]))


def test_the_time_is_told_where_it_is_known() -> None:
    assert announced(composed("compare"), 2) == "2 encoders, 900 steps each: nine to twelve minutes on two cores"
    assert announced(composed("compare", ["max_steps=1"]), 2) == "2 encoders, 1 step each"
    assert announced(composed("compare"), 3) == "3 encoders, 900 steps each"


def test_summary_has_the_four_rows_and_the_seconds(page: Path) -> None:
    summary = json.loads((page.parent / "summary.json").read_text())
    rows = {row["name"]: row for row in summary["rows"]}
    assert list(rows) == ["mean_latent", "synthetic", "lambda_0", "lambda_0.5"]
    for name in ("mean_latent", "lambda_0", "lambda_0.5"):
        assert all(isinstance(rows[name][key], float) for key in ("mse", "lpips", "identity", "nscd"))
    assert rows["synthetic"]["mse"] is None
    assert rows["synthetic"]["nscd"] > 0
    assert summary["split"] == "rich"
    assert summary["seconds"] > 0


def test_both_encoders_saw_the_same_images_and_start(page: Path) -> None:
    runs = sorted((page.parent / "lsap_e").iterdir())
    assert len(runs) == 2
    metrics = [json.loads((run / "metrics.json").read_text()) for run in runs]
    assert metrics[0]["splits"]["rich"]["mean_latent"] == metrics[1]["splits"]["rich"]["mean_latent"]
    assert metrics[0]["splits"]["plain"]["mean_latent"]["n"] == 5


def test_edits_have_the_effect_that_was_asked_for_or_say_how_far_they_got(page: Path) -> None:
    edits = json.loads((page.parent / "summary.json").read_text())["edits"]
    assert set(edits) == {"rich", "far"}
    for found in (row for split in edits.values() for row in split.values()):
        assert set(found) == {"pose", "smile", "age"}
        for edit in found.values():
            assert edit["effect"] == pytest.approx(1.0, rel=0.03) or (edit["strength"] == 3.0 and edit["effect"] < 1)
            assert edit["leakage"] > edit["excess"]
            assert edit["distance"] > 0


def test_the_page_shows_the_pictures_and_names_its_control(page: Path) -> None:
    text = page.read_text()
    assert "Control: the plain split" in text
    assert text.count("data:image/png") >= (8 + 6) * 9  # input, two inversions, six edits; rich and far
    for picture in ("comparison.png", "comparison-far.png"):
        assert (page.parent / picture).stat().st_size > 10_000


def test_inversions_and_edits_are_those_of_the_other_commands(page: Path) -> None:
    """The inversions are runs of `lsap.invert`, and the edits of `lsap.evaluate` on them have the same numbers."""
    files = sorted((page.parent / "inversions" / "lsap_e").glob("*/summary.json"))
    summaries = {file.parent: json.loads(file.read_text()) for file in files}
    found = sorted((one["images"], one["count"]["inverted"]) for one in summaries.values())
    assert found == [("far", 6), ("far", 6), ("rich", 9), ("rich", 9)], "two encoders each"
    run = next(run for run, summary in summaries.items() if summary["images"] == "rich")
    folder = evaluate(composed("evaluate", [f"runs=['{run}']", f"outputs={page.parents[1]}", *EVALUATED]))
    table = json.loads((folder / "results.json").read_text())["table"]
    edits = json.loads((page.parent / "summary.json").read_text())["edits"]["rich"]
    (measured,) = (row for row in table.values() if row.get("effect/pose"))
    means = {name: {key: measured[f"{key}/{name}"]["mean"] for key in edit} for name, edit in edits["lambda_0"].items()}
    assert means in [{name: pytest.approx(edit, rel=1e-5) for name, edit in row.items()} for row in edits.values()]


def test_without_test_images_those_held_out_of_training_are_shown(tmp_path: Path) -> None:
    tests = ["~data.tests.rich", "~data.tests.plain", "~data.tests.far", "~domain.pictured"]
    few = [setting for setting in TINY if "tests" not in setting]
    page = compare(composed("compare", [f"outputs={tmp_path}", "max_steps=1", *few[1:], *tests]))
    summary = json.loads((page.parent / "summary.json").read_text())
    assert summary["split"] == "validation"
    assert set(summary["edits"]) == {"validation"}
    inversions = next((page.parent / "inversions" / "lsap_e").iterdir())
    assert json.loads((inversions / "summary.json").read_text())["count"]["inverted"] == 4


@pytest.mark.parametrize("lambdas", ["[0.5]", "[0.5,0.5]", "[-1,0]", "[a,b]", "null"])
def test_lambdas_that_cannot_be_compared_are_refused(lambdas: str, tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="at least two different numbers"):
        compare(composed("compare", [f"outputs={tmp_path}", f"lambdas={lambdas}"]))
    assert list(tmp_path.iterdir()) == []


def test_several_devices_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="a comparison runs in one process; train its members on several devices first"):
        compare(composed("compare", [f"outputs={tmp_path}", "trainer.accelerator=cpu", "trainer.devices=2"]))
    assert list(tmp_path.iterdir()) == []
