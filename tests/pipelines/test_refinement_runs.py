"""Refinements through the real entry point of `python -m lsap.invert`, on a generator that takes seconds."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from commands import Command, environment
from lsap.checkpoints import fingerprint
from lsap.checkpoints.sam import write_predictor
from lsap.config.checks import check_inversion as check
from lsap.config.compose import composed, config_dir
from lsap.errors import BadValue, MissingFile
from lsap.inversion import RENDERERS
from lsap.pipelines.build import Parts, arguments
from lsap.pipelines.devices import device_of
from lsap.pipelines.images import chosen_images
from lsap.pipelines.inversion import Inverted, invert
from lsap.pipelines.stages import stages
from lsap.refinement import PivotalTuning, SmallPredictor, SpatiallyAdaptive
from lsap.runs import Store
from small_runs import DOMAINS

REFINEMENTS = sorted(path.stem for path in (config_dir() / "refinement").glob("*.yaml"))
PTI = ["refinement=pti", "refinement.lambda_lpips=0", "refinement.steps=2"]
SAM = ["refinement=sam", "refinement.lambda_lpips=0", "refinement.steps=2", "refinement.samples=64"]

Start = Callable[..., Inverted]


@pytest.fixture
def start(optimised: list[str], tmp_path: Path) -> Start:
    """`start(*PTI)` inverts and refines the seven photographs."""

    def run(*overrides: str, to: Path = tmp_path / "outputs") -> Inverted:
        return invert(composed("invert", [*optimised, f"outputs={to}", *overrides]))

    return run


@pytest.fixture(scope="module")
def unbroken(optimised: list[str], tmp_path_factory: pytest.TempPathFactory) -> Inverted:
    """Optimised and tuned to the end without a break."""
    return invert(composed("invert", [*optimised, f"outputs={tmp_path_factory.mktemp('unbroken')}", *PTI]))


@pytest.fixture(scope="module")
def predictor(generator_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained predictor of the tiny generator's; all of its errors are small."""
    from lsap.checkpoints import load_generator

    torch.manual_seed(1)
    owner = fingerprint(load_generator(generator_file, size=32))
    return write_predictor(
        tmp_path_factory.mktemp("predictor") / "p.safetensors", SmallPredictor(("W+", "F4")).stored(owner)
    )


def summary(run: Inverted) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.folder / "summary.json").read_text())
    return found


def first_stage(run: Inverted) -> Path:
    (folder,) = (run.folder.parents[1] / "lsap_o_wplus").iterdir()
    return folder


# ---- configuration


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("refinement", REFINEMENTS)
def test_every_refinement_composes_on_every_domain(refinement: str, domain: str) -> None:
    config = composed("invert", [f"domain={domain}", f"refinement={refinement}"])
    OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert config.refinement.name == refinement


@pytest.mark.parametrize("embedding", ["psp", "e4e", "stylegan2_w", "stylegan2_wplus"])
def test_alignment_is_off_where_it_was_not_published(embedding: str) -> None:
    assert composed("invert", [f"embedding={embedding}", "refinement=pti"]).lambda_nscd == 0


def test_the_published_values_are_the_defaults() -> None:
    pti = composed("invert", ["refinement=pti"]).refinement
    assert (pti.steps, pti.lr, pti.lambda_l2, pti.lambda_lpips, pti.stop_at, pti.locality) == (
        350,
        3e-4,
        1,
        1,
        None,
        None,
    )
    sam = composed("invert", ["refinement=sam"]).refinement
    weights = (sam.lambda_l2, sam.lambda_lpips, sam.lambda_features, sam.lambda_delta, sam.lambda_mvg)
    assert weights == (1, 1, 5, 1e-3, 1e-8)
    assert (sam.steps, sam.tau, sam.lr) == (500, 0.225, 0.05)


def test_locality_can_be_asked_for() -> None:
    chosen = "refinement.locality={_target_: lsap.refinement.Locality, alpha: 20}"
    made = arguments(composed("invert", ["refinement=pti", chosen]).refinement)["locality"]
    assert (made.alpha, made.lambda_l2) == (20, 0.1)


def test_missing_files_of_a_refinement_are_listed(optimised: list[str], tmp_path: Path) -> None:
    for refinement, key in (("pti", r"perceptual\.checkpoint"), ("sam", r"refinement\.perceptual\.checkpoint")):
        config = composed("invert", [*optimised, f"weights={tmp_path}", f"refinement={refinement}"])
        with pytest.raises(MissingFile, match=rf"embedding=lsap_o_wplus refinement={refinement} on .*\n  {key}=\S+ \("):
            check(config)
    check(composed("invert", [*optimised, f"weights={tmp_path}", *PTI]))  # LPIPS has weight 0


def test_sam_without_a_predictor_says_what_to_do(start: Start, tmp_path: Path) -> None:
    with pytest.raises(
        MissingFile, match=r"needs a network of its own; train it: python -m lsap\.train .*refinement=sam"
    ):
        start(*SAM)
    with pytest.raises(MissingFile, match=r"refinement\.checkpoint=/nowhere"):
        start(*SAM, "refinement.checkpoint=/nowhere")
    assert not (tmp_path / "outputs").exists(), "found out before anything is done"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("refinement.rank=0", r"refinement\.rank=0: expected a whole number of at least 1"),
        ("refinement._target_=lsap.nope", "lsap.nope"),
    ],
)
def test_a_wrong_refinement_is_refused_before_the_embedding(
    start: Start, override: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises((BadValue, ImportError), match=message):
        start(*PTI, override)
    assert not (tmp_path / "outputs").exists()


# ---- two stages


def test_the_embedding_is_kept_beside_its_refinement(unbroken: Inverted) -> None:
    found = summary(unbroken)
    assert unbroken.folder.parts[-2] == "lsap_o_wplus+pti"
    before = json.loads((first_stage(unbroken) / "summary.json").read_text())
    assert (before["refinement"], found["refinement"]) == (None, "pti")
    assert before["same_images"] == found["same_images"]
    assert unbroken.row["mse"] < before["row"]["mse"]
    assert unbroken.row["nscd"] == before["row"]["nscd"], "the pivots stay"
    assert set(before["settings"]) < set(found["settings"])
    assert found["settings"]["refinement.steps"] == 2
    assert "lsap_o_wplus + pti on pictures" in (unbroken.folder / "report.html").read_text()


def test_what_it_takes_is_said_per_image(unbroken: Inverted) -> None:
    times = json.loads((unbroken.folder / "times.json").read_text())
    assert times["seconds_per_image"] == pytest.approx(times["seconds"] / 7, abs=0.01)
    files = list((unbroken.folder / "batches").glob("*.safetensors"))
    assert times["bytes_per_image"] == round(sum(file.stat().st_size for file in files) / 7)
    assert times["bytes_per_image"] == summary(unbroken)["bytes_per_image"]
    before = json.loads((first_stage(unbroken) / "summary.json").read_text())
    assert before["bytes_per_image"] < times["bytes_per_image"], "weights of every image's own"


def test_the_first_stage_is_found_when_it_is_finished(
    start: Start, unbroken: Inverted, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = unbroken.folder.parents[3]
    first = first_stage(unbroken)
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()}
    shorter = start(*PTI, "refinement.steps=1", to=outputs)
    assert shorter.folder != unbroken.folder
    assert summary(shorter)["settings"]["refinement.steps"] == 1
    assert before == {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()}
    assert first_stage(unbroken) == first, "no second one was made"
    capsys.readouterr()
    assert start(*PTI, to=outputs) == unbroken
    assert "finished before" in capsys.readouterr().out


def test_stored_inversions_draw_and_edit_the_same_to_the_bit(unbroken: Inverted, optimised: list[str]) -> None:
    parts = Parts(composed("invert", [*optimised, *PTI]), device_of("cpu"))
    store, before = Store.read(unbroken.folder), Store.read(first_stage(unbroken))
    chosen = chosen_images(parts.config, (32, 32))
    tuned, pivots = (s.load(s.batches[0], parts.generator) for s in (store, before))
    images = chosen.read(store.batches[0].names)[1]
    assert tuned is not None
    assert pivots is not None
    assert images is not None
    again = (
        parts.refinement().predict_step({"image": images, "names": list(pivots.names), "inversion": pivots}).inversion
    )
    assert again is not None
    edit = torch.randn(16)
    assert torch.equal(again.render(again.codes + edit), tuned.render(tuned.codes + edit))
    assert tuned.history == ("lsap_o_wplus", "pti")
    assert {"noise.conv4", "tuned.constant"} <= set(tuned.state), "noise maps of the embedding stay"


def test_sam_runs_over_an_embedding(start: Start, predictor: Path) -> None:
    run = start(*SAM, f"refinement.checkpoint={predictor}", "count=3", "refinement.segmenter.count=4")
    rows = Store.read(run.folder).rows()
    assert all(set(row["spaces"]) == {"W+", "F4"} for row in rows)
    assert rows[0]["mse"] > 0
    assert summary(run)["settings"]["refinement.predictor"]
    other = SmallPredictor(("W+", "F4")).stored("of another")
    foreign = write_predictor(predictor.with_name("o.safetensors"), other)
    with pytest.raises(BadValue, match="belongs to generator"):
        start(*SAM, f"refinement.checkpoint={foreign}")


def test_the_classes_are_those_of_the_yaml(optimised: list[str], predictor: Path) -> None:
    for chosen, kind in ((PTI, PivotalTuning), ([*SAM, f"refinement.checkpoint={predictor}"], SpatiallyAdaptive)):
        parts = Parts(composed("invert", [*optimised, *chosen]), device_of("cpu"))
        assert type(parts.refinement()) is kind
    assert {"tuned", "tuned_low_rank", "features"} <= set(RENDERERS)


def test_images_that_the_embedding_lost_are_lost_with_their_reason(start: Start, images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    for name in ("000.png", "001.png"):
        (folder / name).write_bytes((images / name).read_bytes())
    (folder / "0005.png").write_bytes(b"no picture")
    (folder / "zz.png").write_bytes(b"no picture")  # alone in the last batch
    found = summary(start(*PTI, f"images={folder}", "images_per_batch=3"))
    assert found["count"] == {"all": 4, "inverted": 2, "skipped": 2, "failed": 0}
    assert found["skipped"] == ["0005.png", "zz.png"]


def test_save_to_names_the_folder_of_the_last_stage(start: Start, optimised: list[str], tmp_path: Path) -> None:
    run = start(*PTI, "count=1", f"save_to={tmp_path}/mine")
    assert run.folder == tmp_path / "mine"
    parts = Parts(composed("invert", [*optimised, *PTI, f"outputs={tmp_path}/outputs", "count=1"]), device_of("cpu"))
    first, second = stages(parts, chosen_images(parts.config, (32, 32)))
    assert (first.path / "summary.json").is_file()
    assert not second.path.exists()
    assert (first.title, second.title) == ("lsap_o_wplus", "lsap_o_wplus + pti")


def test_a_sweep_over_refinements_ends_in_one_plot(command: Command, optimised: list[str], tmp_path: Path) -> None:
    swept = [*optimised, "count=2", "refinement=none,pti", "++refinement.lambda_lpips=0", "++refinement.steps=1"]
    outcome = command("invert", *swept, f"outputs={tmp_path}", "-m")
    assert outcome.code == 0, outcome.err
    (plot,) = (tmp_path / "church" / "inversions").glob("pictures-*.svg")
    assert "lsap_o_wplus λ=20 + pti" in plot.read_text()


# ---- kills, processes


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_equal_files(
    optimised: list[str],
    unbroken: Inverted,
    tmp_path: Path,
) -> None:
    line = [sys.executable, "-m", "lsap.invert", *optimised, *PTI, f"outputs={tmp_path}/killed"]
    random.seed(0)
    folder = tmp_path / "killed" / unbroken.folder.relative_to(unbroken.folder.parents[3])
    kills = 0
    for _ in range(3):
        process = subprocess.Popen(
            line, env=environment(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not (folder / "batches").exists():
            time.sleep(0.02)
        time.sleep(random.uniform(0.0, 0.5))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 1
    subprocess.run(line, env=environment(tmp_path), check=True, capture_output=True)
    assert Store.read(folder).checksums() == Store.read(unbroken.folder).checksums()


@pytest.mark.slow
def test_two_processes_give_the_files_of_one(optimised: list[str], unbroken: Inverted, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "lsap.invert", *optimised, *PTI, f"outputs={tmp_path}", "trainer.devices=2"]
    done = subprocess.run(line, env=environment(tmp_path), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / unbroken.folder.relative_to(unbroken.folder.parents[3])
    assert Store.read(folder).checksums() == Store.read(unbroken.folder).checksums()
