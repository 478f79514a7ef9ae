"""`python -m lsap.invert` through its real entry point, on a generator so small that a run takes about a second."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from pytorch_lightning import LightningModule, Trainer
from safetensors import safe_open
from torch import Tensor

from commands import Command, environment
from comparison import assert_close_l2
from lsap.checkpoints import read_codes
from lsap.config.checks import check_inversion as check
from lsap.config.compose import composed
from lsap.embedding import OptimisationInW, OptimisationInWPlus
from lsap.errors import BadValue, MissingFile, StoppedRun
from lsap.pipelines import inversion as verb
from lsap.pipelines.build import Parts, training_command
from lsap.pipelines.devices import device_of
from lsap.pipelines.images import chosen_images
from lsap.pipelines.inversion import Inverted, invert, stored
from lsap.pipelines.plan_work import Clock
from lsap.pipelines.run_identity.inversions import run_folder
from lsap.pipelines.training import train
from lsap.runs import Store
from small_runs import DOMAINS, ENCODER

OPTIMISATIONS = {"stylegan2_w": 0, "stylegan2_wplus": 0, "lsap_o_w": 5, "lsap_o_wplus": 20}
Start = Callable[..., Inverted]


@pytest.fixture
def start(optimised: list[str], tmp_path: Path) -> Start:
    """`start("steps=4")` inverts the seven photographs; `to=` is the folder of all runs."""

    def run(*overrides: str, to: Path = tmp_path / "outputs") -> Inverted:
        return invert(composed("invert", [*optimised, f"outputs={to}", *overrides]))

    return run


@pytest.fixture(scope="module")
def unbroken(optimised: list[str], tmp_path_factory: pytest.TempPathFactory) -> Inverted:
    """The same, run to its end without a break."""
    return invert(composed("invert", [*optimised, f"outputs={tmp_path_factory.mktemp('unbroken')}"]))


def summary(run: Inverted) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.folder / "summary.json").read_text())
    return found


# ---- configuration


@pytest.mark.parametrize(
    ("domain", "embedding"),
    [*((domain, "lsap_o_w") for domain in DOMAINS), *(("demo", name) for name in OPTIMISATIONS if name != "lsap_o_w")],
)
def test_every_optimisation_composes_on_every_domain_with_the_papers_weights(embedding: str, domain: str) -> None:
    config = composed("invert", [f"domain={domain}", f"embedding={embedding}"])
    OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    found = {name: config[f"lambda_{name}"] for name in ("lpips", "nscd", "l2", "id", "noise")}
    assert found == {"lpips": 1.0, "nscd": OPTIMISATIONS[embedding], "l2": 0.0, "id": 0.0, "noise": 1e5}, "Eq. 17"
    assert config.objective.nscd.term.reduction == "mean"
    assert (config.steps, config.optimisation.lr) == (1000, 0.1)


def test_the_loss_looks_through_vgg_where_the_judge_is_a_published_one(tmp_path: Path) -> None:
    config = composed("invert", ["domain=church", "embedding=lsap_o_w", f"weights={tmp_path}", f"images={tmp_path}"])
    assert config.perceptual.net == "alex", "tables go on using the domain's"
    with pytest.raises(MissingFile, match=r"embedding\.perceptual\.checkpoint=\S+vgg16-397923af\.pth \(VGG-16 trunk"):
        check(config)
    elsewhere = composed(
        "invert", ["domain=demo", "embedding=lsap_o_w", "embedding.perceptual.checkpoint=/none", "weights=/none"]
    )
    check(elsewhere)  # the demo has one trunk, and it is shipped


def test_both_spaces_are_built(optimised: list[str]) -> None:
    for embedding, kind in (("lsap_o_w", OptimisationInW), ("lsap_o_wplus", OptimisationInWPlus)):
        parts = Parts(composed("invert", [*optimised, f"embedding={embedding}"]), device_of("cpu"))
        made = parts.embedding()
        assert type(made) is kind
        assert isinstance(made, OptimisationInW | OptimisationInWPlus)
        assert set(made.objective.weights) == {"l2", "nscd"}


def test_cars_are_kept_as_the_rows_that_hold_the_picture(own: list[str]) -> None:
    banded = composed("invert", [*own, "embedding=lsap_o_w", "view.size=16", "+view.rows=[2,14]", "image_size=[12,16]"])
    parts = Parts(banded, device_of("cpu"))
    assert parts.view_size == (12, 16)
    square = torch.arange(32.0).view(1, 1, 32, 1).expand(1, 3, 32, 32)
    assert parts.picture_rows(square)[0, 0, :, 0].tolist() == list(range(4, 28))


# ---- one run


def test_a_run_leaves_images_codes_numbers_and_a_page(unbroken: Inverted, images: Path) -> None:
    folder, found = unbroken.folder, summary(unbroken)
    assert unbroken.finished
    assert found["count"] == {"all": 7, "inverted": 7, "skipped": 0, "failed": 0}
    assert {path.name for path in (folder / "images").iterdir()} == {path.name for path in images.iterdir()}
    codes = read_codes(folder / "codes.safetensors", n_latent=8, style_dim=16)
    assert codes.codes.shape == (7, 8, 16)
    assert codes.names == tuple(sorted(path.name for path in images.iterdir()))
    assert found["row"]["n"] == 7
    assert found["row"]["mse"] > 0
    assert found["synthetic"]["nscd"] > 0
    lines = (folder / "images.csv").read_text().splitlines()
    assert lines[0].startswith("name,mse,lpips,identity,nscd,nscd_raw,loss,steps")
    assert len(lines) == 8
    page = (folder / "report.html").read_text()
    assert "lsap_o_wplus on pictures" in page
    assert page.count("data:image/png") == 2 * 7 + 2 * 4
    assert (folder / "inversions.png").stat().st_size > 1000
    assert json.loads((folder / "times.json").read_text())["images_per_hour"] > 0


def test_the_means_are_those_of_the_rows_and_nobody_is_dropped(unbroken: Inverted) -> None:
    rows = Store.read(unbroken.folder).rows()
    assert [row["steps"] for row in rows] == [3] * 7, "the last batch of one included"
    assert unbroken.row["mse"] == pytest.approx(sum(row["mse"] for row in rows) / 7, rel=1e-6)
    layers = unbroken.row["nscd_layers"].values()
    assert unbroken.row["nscd"] == pytest.approx(sum(layers) / len(layers), rel=1e-5)


def test_the_stored_inversion_draws_what_was_measured(unbroken: Inverted, optimised: list[str]) -> None:
    parts = Parts(composed("invert", optimised), device_of("cpu"))
    store = Store.read(unbroken.folder)
    inversion = store.load(store.batches[0], parts.generator)
    assert inversion is not None
    inversion.check_generator(parts.fingerprint)
    images = chosen_images(composed("invert", optimised), (32, 32)).read(store.batches[0].names)[1]
    assert images is not None
    measured, drawn = verb.measure(parts, inversion, images)
    for row in store.rows(store.batches[0]):
        assert measured[row["name"]]["mse"] == row["mse"], (
            "equal to the bit: noise maps are rounded before they are drawn"
        )
    assert drawn.shape == (3, 3, 32, 32)


def test_started_again_it_says_that_it_is_done(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    first = start("count=1")
    before = Store.read(first.folder).checksums()
    capsys.readouterr()
    again = start("count=1")
    assert "finished before" in capsys.readouterr().out
    assert again == first
    assert Store.read(first.folder).checksums() == before


def test_a_damaged_summary_is_one_line(unbroken: Inverted, tmp_path: Path) -> None:
    text = (unbroken.folder / "summary.json").read_text()
    (tmp_path / "summary.json").write_text(text[:20])
    with pytest.raises(BadValue, match=r"summary\.json cannot be read .*; delete it and give the command again"):
        stored(tmp_path)


def test_changed_settings_have_a_folder_of_their_own(optimised: list[str]) -> None:
    def folder(*overrides: str) -> str:
        config = composed("invert", [*optimised, *overrides])
        parts = Parts(config, device_of("cpu"))
        return str(run_folder(parts, chosen_images(config, (32, 32))).path)

    assert folder() == folder("trainer.devices=2", "outputs=outputs", "lambda_nscd=20.0"), "these change nothing"
    changed = ["lambda_nscd=5", "seed=1", "steps=4", "count=2", "images_per_batch=2", "optimisation.lr=0.05"]
    assert len({folder(), *(folder(change) for change in changed)}) == 1 + len(changed)


def test_short_settings_make_a_readable_folder() -> None:
    config = composed("invert", ["embedding=lsap_o_w", "lambda_nscd=1", "split=plain", "space.samples=64"])
    parts = Parts(config, device_of("cpu"))
    path = run_folder(parts, chosen_images(config, (64, 64))).path
    expected = "outputs/demo/inversions/lsap_o_w/lambda_nscd=1.0,space.samples=64,split=plain"
    assert path.as_posix() == expected


def test_changed_settings_are_refused_in_the_same_folder(start: Start, tmp_path: Path) -> None:
    start("count=1", f"save_to={tmp_path}/mine")
    with pytest.raises(BadValue, match=r"holds inversions of other settings: lambda_nscd: 20.0 → 5.0"):
        start("count=1", f"save_to={tmp_path}/mine", "lambda_nscd=5")


def test_a_count_above_the_number_of_images_is_said(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    start("count=100", "steps=1")
    assert "count=100: there are 7 images; all of them are used" in capsys.readouterr().err


def test_one_file_can_be_inverted(start: Start, images: Path) -> None:
    run = start(f"images={images}/003.png")
    assert summary(run)["count"]["all"] == 1
    assert [path.name for path in (run.folder / "images").iterdir()] == ["003.png"]


def test_a_split_of_the_domain_can_be_named(tmp_path: Path) -> None:
    config = composed("invert", ["split=plain", "count=3", "embedding=lsap_o_w"])
    chosen = chosen_images(config, (64, 64))
    assert chosen.names == tuple(f"plain-test-0000{number}" for number in range(3))
    with pytest.raises(BadValue, match="domain=demo has no such split; did you mean 'plain'"):
        chosen_images(composed("invert", ["split=plein"]), (64, 64))
    with pytest.raises(BadValue, match="give one of both"):
        chosen_images(composed("invert", ["split=plain", f"images={tmp_path}"]), (64, 64))


# ---- images and memory that fail


def test_an_unreadable_image_is_named_counted_and_skipped(
    start: Start, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    for name in ("000.png", "001.png", "002.png"):
        (folder / name).write_bytes((images / name).read_bytes())
    (folder / "0005.png").write_bytes(b"no picture")
    (folder / "zz.png").write_bytes(b"no picture")  # alone in the last batch
    run = start(f"images={folder}", "images_per_batch=2")
    found = summary(run)
    assert found["count"] == {"all": 5, "inverted": 3, "skipped": 2, "failed": 0}
    assert found["skipped"] == ["0005.png", "zz.png"]
    said = capsys.readouterr()
    assert "0005.png cannot be read" in said.err
    assert "3 of 5 images, 2 skipped" in said.out
    assert "0005.png: cannot be read" in (run.folder / "report.html").read_text()
    assert run.row["n"] == 3


def test_an_image_that_breaks_is_left_out_alone(
    start: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = start("count=3").folder
    read = verb.Chosen.read

    def spoilt(self: Any, names: Sequence[str]) -> tuple[list[str], Tensor | None, dict[str, str]]:
        kept, found, skipped = read(self, names)
        assert found is not None
        found[kept.index("001.png")] = float("nan")
        return kept, found, skipped

    monkeypatch.setattr(verb.Chosen, "read", spoilt)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verb, "inversion_report", lambda *_: None)  # which would read the spoilt image
        run = start("count=3", "steps=3", f"save_to={whole.parent}/spoilt")
    found = summary(run)
    assert found["failed"] == {"001.png": "not a number in step 0 (l2)"}
    assert found["count"]["inverted"] == 2
    assert "001.png: not a number in step 0 (l2); it is left out" in capsys.readouterr().err
    names, codes = Store.read(run.folder).codes()
    assert names == ["000.png", "002.png"]
    untouched = Store.read(whole).codes()[1]
    assert_close_l2(codes, untouched[[0, 2]], 1e-3)


def test_a_batch_that_is_too_large_names_the_setting(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried …")

    monkeypatch.setattr(OptimisationInWPlus, "values", full)
    with pytest.raises(StoppedRun, match="images_per_batch=3: so many at once do not fit into memory"):
        start()


def test_a_scheduler_that_asks_to_stop_is_obeyed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "received_sigterm", True)
    with pytest.raises(StoppedRun, match="asked to stop; give the same command again"):
        start("images_per_batch=2")
    monkeypatch.undo()
    assert summary(start("images_per_batch=2"))["count"]["inverted"] == 7, "its locks were given back"


def test_nothing_but_unreadable_images_is_an_error(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "none"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"no picture")
    with pytest.raises(BadValue, match=r"none of 1 images could be inverted; a\.png"):
        start(f"images={folder}")


def test_a_file_that_is_no_image_is_told_which_are(start: Start, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(BadValue, match=r"notes\.txt is a file; .* or one image \(\.bmp, \.jpeg, .*\.webp\)"):
        start(f"images={tmp_path / 'notes.txt'}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("images_per_batch=0", "images_per_batch=0: expected a whole number of at least 1"),
        ("lambda_nscd=-1", "lambda_nscd=-1: expected a number of at least 0"),
        ("steps=0", "steps=0"),
        ("seed=-1", "seed=-1"),
        ("images=/nowhere", "/nowhere"),
        ("init=/nowhere", "init=/nowhere"),
    ],
)
def test_settings_that_cannot_work_are_refused(override: str, message: str, start: Start, tmp_path: Path) -> None:
    with pytest.raises((BadValue, MissingFile), match=message):
        start(override)


# ---- encoders


@pytest.mark.slow
def test_a_trained_encoder_is_found_by_its_settings(own: list[str], images: Path, tmp_path: Path) -> None:
    settings = [*own, *ENCODER, f"outputs={tmp_path}"]
    wanted = composed("invert", [*settings, f"images={images}"])
    with pytest.raises(
        MissingFile, match=r"has not been trained with these settings .* python -m lsap\.train domain=church"
    ):
        invert(wanted)
    assert not (tmp_path / "church" / "inversions").exists()
    trained = train(composed("train", settings))
    run = invert(wanted)
    assert summary(run)["count"]["inverted"] == 7
    assert run.folder.parent.name == "lsap_e"
    file = tmp_path / "encoder.safetensors"  # a run's folder may hold an equals sign, which would need quotes
    file.write_bytes((trained.folder / "encoder.safetensors").read_bytes())
    direct = invert(composed("invert", [*settings, f"images={images}", f"checkpoint={file}"]))
    assert direct.folder != run.folder
    assert direct.row == run.row
    first = composed("invert", [
        *own, f"outputs={tmp_path}", "embedding=lsap_o_wplus", "lambda_lpips=0", "lambda_l2=1", "steps=1",
        f"images={images}", "init=encoder", f"checkpoint={file}", "images_per_batch=7",
    ])  # fmt: skip
    started = invert(first)
    assert_close_l2(Store.read(started.folder).codes()[1], Store.read(run.folder).codes()[1], 1e-4)


def test_an_optimisation_may_go_on_from_stored_codes(start: Start, unbroken: Inverted, tmp_path: Path) -> None:
    codes = unbroken.folder / "codes.safetensors"
    quoted = tmp_path / "codes.safetensors"
    quoted.write_bytes(codes.read_bytes())
    run = start(f"init={quoted}", "steps=1")  # the first update has rate 0
    assert torch.equal(Store.read(run.folder).codes()[1], Store.read(unbroken.folder).codes()[1])
    other = tmp_path / "other"
    other.mkdir()
    (other / "new.png").write_bytes((Path(composed_images(unbroken)) / "000.png").read_bytes())
    with pytest.raises(BadValue, match=r"no code for new\.png"):
        start(f"init={quoted}", f"images={other}")


def composed_images(run: Inverted) -> str:
    return str(OmegaConf.load(run.folder / "config.yaml").images)


def test_the_training_command_is_that_of_the_settings() -> None:
    assert training_command(composed("invert", ["domain=car"])) == "python -m lsap.train domain=car embedding=lsap_e"


# ---- sweeps, kills, processes


def test_a_sweep_ends_in_one_plot(command: Command, optimised: list[str], tmp_path: Path) -> None:
    outcome = command("invert", *optimised, "count=1", "lambda_nscd=0,5", f"outputs={tmp_path}", "-m")
    assert outcome.code == 0, outcome.err
    (plot,) = (tmp_path / "church" / "inversions").glob("pictures-*.svg")
    text = plot.read_text()
    for weight in ("λ=0", "λ=5"):
        assert weight in text
    page = plot.with_suffix(".html").read_text()
    assert "Fidelity against NSCD" in page
    assert str(plot.with_suffix(".html")) in outcome.out


def test_mixed_precision_is_passed_on(start: Start, unbroken: Inverted) -> None:
    rough = start("trainer.precision=bf16-mixed", "images_per_batch=7")
    assert Store.read(rough.folder).plan.settings["precision"] == "bf16-mixed"
    assert rough.row["mse"] == pytest.approx(unbroken.row["mse"], rel=0.05)
    assert rough.row["mse"] != unbroken.row["mse"]


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_equal_files(
    optimised: list[str], unbroken: Inverted, tmp_path: Path
) -> None:
    line = [sys.executable, "-m", "lsap.invert", *optimised, f"outputs={tmp_path}/killed"]
    random.seed(0)
    folder = tmp_path / "killed" / unbroken.folder.relative_to(unbroken.folder.parents[3])
    kills = 0
    for _ in range(5):
        process = subprocess.Popen(
            line, env=environment(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not (folder / "plan.json").exists():
            time.sleep(0.02)
        time.sleep(random.uniform(0.1, 1.5))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 1
    subprocess.run(line, env=environment(tmp_path), check=True, capture_output=True)
    assert Store.read(folder).checksums() == Store.read(unbroken.folder).checksums()


@pytest.mark.slow
def test_two_processes_give_the_files_of_one(optimised: list[str], unbroken: Inverted, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "lsap.invert", *optimised, f"outputs={tmp_path}", "trainer.devices=2"]
    done = subprocess.run(line, env=environment(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / unbroken.folder.relative_to(unbroken.folder.parents[3])
    assert Store.read(folder).checksums() == Store.read(unbroken.folder).checksums()
    assert (folder / "summary.json").read_bytes() == (unbroken.folder / "summary.json").read_bytes()


def test_batch_files_hold_codes_and_noise_maps(unbroken: Inverted) -> None:
    with safe_open(unbroken.folder / "batches" / "00000.safetensors", "pt") as stored:
        assert {"codes", "state/noise.conv4", "state/noise.conv32"} <= set(stored.keys())
        assert json.loads(stored.metadata()["renderer"]) == {"key": "own_noise", "settings": {}}


class Slow(LightningModule):
    """Takes a fifth of a second for a batch, whatever it is."""

    def predict_step(self, batch: dict[str, Any], _: int = 0) -> None:
        time.sleep(0.2)


class Ticking(Clock):
    """Keeps what the clock says of every batch."""

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, _: int = 0
    ) -> None:
        self.kept.append(self.times(batch))


class Three:
    """Three batches of one image, each read in a tenth of a second."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for name in "abc":
            time.sleep(0.1)
            yield {"names": [name], "reading": 0.1}


def test_no_second_is_counted_twice() -> None:
    clock = Ticking()
    trainer = Trainer(
        accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, callbacks=[clock],
    )  # fmt: skip
    began = time.perf_counter()
    trainer.predict(Slow(), Three())
    took = time.perf_counter() - began
    assert 0.89 < sum(each["seconds"] for each in clock.kept) <= took
    assert [each["images"] for each in clock.kept] == [1, 1, 1]


def test_a_file_that_was_named_is_missed_together_with_the_others(command: Command) -> None:
    found = command("invert", "domain=church", "embedding=lsap_e", "checkpoint=mine.pt", "images=photographs")
    assert found.code == 2
    assert "generator.checkpoint=" in found.err
    assert "checkpoint=mine.pt (an encoder; named by you)" in found.err


def test_the_advice_to_train_is_a_command_that_training_takes(command: Command) -> None:
    """An encoder that an optimisation starts from has none of the optimisation's settings, but its seed."""
    found = command("invert", "embedding=lsap_o_w", "init=encoder", "steps=3", "patience=9", "lambda_nscd=3", "seed=4")
    assert found.code == 2
    assert "train it: python -m lsap.train domain=demo embedding=lsap_e seed=4;" in found.err
    found = command("invert", "embedding=lsap_e", "lambda_nscd=3", "max_steps=7", "split=plain", "count=2")
    assert "train it: python -m lsap.train domain=demo embedding=lsap_e lambda_nscd=3 max_steps=7;" in found.err


def test_to_name_the_split_that_is_taken_anyway_changes_nothing() -> None:
    def named(*settings: str) -> str:
        config = composed("invert", ["embedding=stylegan2_w", *settings])
        parts = Parts(config, device_of("cpu"))
        return run_folder(parts, chosen_images(config, parts.view_size)).path.name

    assert named() == named("split=rich") == "default"
    assert named("split=plain") == "split=plain"
