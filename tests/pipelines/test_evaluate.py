"""`python -m lsap.evaluate` over small runs: numbers that can be worked out by hand, runs that cannot be compared."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor, nn

from commands import Command
from lsap.checkpoints import Codes, Direction, fingerprint, load_generator, save_directions, write_codes
from lsap.checkpoints.directions import SPREAD
from lsap.config.compose import composed
from lsap.embedding import Adversary
from lsap.errors import BadValue, MissingFile
from lsap.evaluation.columns import measures
from lsap.evaluation.protocols import saved
from lsap.inversion import FixedNoise, Inversion
from lsap.pipelines.build import Parts, trained
from lsap.pipelines.evaluation import evaluator as evaluator
from lsap.pipelines.evaluation.evaluate import evaluate
from lsap.pipelines.evaluation.evaluator import discriminator
from lsap.pipelines.evaluation.methods import embedding_config, paired
from lsap.pipelines.inversion import invert
from lsap.pipelines.training import train
from lsap.runs import Store
from lsap.stylegan2 import Generator
from readings import Colours

NAMES = [f"{number:03d}.png" for number in range(6)]


@pytest.fixture(scope="module")
def images(photographs: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photographs(tmp_path_factory.mktemp("images") / "six", len(NAMES), (32, 32))


@pytest.fixture(scope="module")
def generator(generator_file: Path) -> Generator:
    return load_generator(generator_file)


@pytest.fixture(scope="module")
def stored(
    generator: Generator, generator_file: Path, images: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """`stored("first", seed=1)` is a finished run of six images in batches of four, its codes random."""

    def make(name: str, seed: int = 1, lost: str | None = None, names: Sequence[str] = NAMES) -> Path:
        path = tmp_path_factory.mktemp("runs") / name
        store = Store.open(path, names, 4, {"domain": "church", "embedding": name})
        rng = torch.Generator().manual_seed(seed)
        for batch in store.pending():
            kept = tuple(one for one in batch.names if one != lost)
            codes = generator.sample_w(len(kept), rng)[:, None].repeat(1, generator.n_latent, 1)
            inversion = Inversion(kept, codes, fingerprint(generator), FixedNoise(generator), {}, (name,))
            rows = [{"name": n} if n in kept else {"name": n, "failed": "it gave NaN"} for n in batch.names]
            with torch.no_grad():
                store.write(batch, rows, inversion, inversion.render())
        kept_config = {
            "generator": {"_target_": "lsap.checkpoints.load_generator", "checkpoint": str(generator_file), "size": 32},
            "view": {"_target_": "lsap.stylegan2.View", "size": 32},
            "image_size": [32, 32],
            "images": str(images),
        }
        OmegaConf.save(OmegaConf.create(kept_config), path / "config.yaml")
        (path / "times.json").write_text('{"seconds_per_image": 0.25}')
        return path

    return make


@pytest.fixture(scope="module")
def first(stored: Callable[..., Path]) -> Path:
    return stored("first", 1)


@pytest.fixture(scope="module")
def second(stored: Callable[..., Path]) -> Path:
    return stored("second", 2)


@pytest.fixture(scope="module")
def direction(generator: Generator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A direction in a file, along which images get brighter."""
    w = generator.latent_avg[None].clone().requires_grad_()
    (slope,) = torch.autograd.grad(generator(w).mean(), w)
    one = Direction(
        name="light", vector=slope[0] / slope.norm(), generator=fingerprint(generator), step=0.5, unit=SPREAD,
        attribute="brightness",
    )  # fmt: skip
    return save_directions([one], tmp_path_factory.mktemp("directions") / "light.safetensors")


Start = Callable[..., Path]


@pytest.fixture
def start(tmp_path: Path, generator_file: Path, images: Path) -> Start:
    """`start(run, other)` evaluates runs of 32 px; judges are those of `readings`."""

    def configured(runs: Any, *overrides: str) -> DictConfig:
        typed = [
            "domain=church", "protocol=psp256", "protocol.size=[32,32]", f"generator.checkpoint={generator_file}",
            "generator.size=32", "view.size=32", "image_size=[32,32]", "space.samples=64", "accelerator=cpu",
            f"outputs={tmp_path / 'outputs'}", f"save_to={tmp_path / 'results'}", f"images={images}", "chunk=4",
            "+domain.reader={_target_: readings.Colours}", "weights=nowhere", "direction=[]",
        ]  # fmt: skip
        config = composed("evaluate", [*typed, *overrides])
        OmegaConf.set_struct(config, False)
        config.distance = {"_target_": "readings.Absolute"}
        config.embedder = {"_target_": "readings.Averages"}
        config.runs = runs
        return config

    def call(*runs: Path, named: dict[str, str] | None = None, of: Sequence[str] = ()) -> Path:
        return evaluate(configured(named or [str(run) for run in runs], *of))

    return call


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def per_image(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    with (folder / "images.csv").open() as opened:
        return {(row["method"], row["name"]): row for row in csv.DictReader(opened)}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGB")).astype(np.float64) / 127.5 - 1


# ---- numbers


def test_numbers_are_those_of_the_saved_files(start: Start, first: Path, second: Path, images: Path) -> None:
    folder = start(first, second)
    found, rows = results(folder), per_image(folder)
    for method, run in (("first", first), ("second", second)):
        errors = []
        for name in NAMES:
            error = ((pixels(run / "images" / name) - pixels(images / name)) ** 2).mean()
            row = rows[method, name]
            assert float(row["mse"]) == pytest.approx(error, rel=1e-5)
            assert float(row["psnr"]) == pytest.approx(10 * np.log10(4 / error), rel=1e-5)
            errors.append(error)
        told = found["table"][method]["mse"]
        assert told["mean"] == pytest.approx(np.mean(errors), rel=1e-5)
        assert told["std"] == pytest.approx(np.std(errors, ddof=1), rel=1e-5)
        assert told["low"] < told["mean"] < told["high"]
        assert told["n"] == len(NAMES)
        assert found["table"][method]["seconds"]["mean"] == 0.25
        assert {"lpips", "identity", "nscd", "nscd_raw", "diversity"} <= found["table"][method].keys()
    assert found["table"]["Generator’s own samples"]["mse"] is None
    assert found["table"]["Generator’s own samples"]["nscd"]["mean"] > 0
    assert found["protocol"] == "psp256"
    assert "fid" not in found["table"]["first"]
    assert any("FID" in note for note in found["not_measured"]), "what is missing is said, not invented"
    assert found["judges"]["identity"] == "mean colour"


def test_the_table_has_three_forms_with_one_content(start: Start, first: Path, second: Path) -> None:
    folder = start(first, second)
    table = results(folder)["table"]
    with (folder / "table.csv").open() as opened:
        lines = list(csv.DictReader(opened))
    assert {(line["method"], line["measure"]) for line in lines} == {(m, k) for m, row in table.items() for k in row}
    for line in lines:
        value = table[line["method"]][line["measure"]]
        assert line["mean"] == ("" if value is None else str(value["mean"]))
    text = (folder / "table.md").read_text()
    assert text.count("\n| ") == 1 + len(table) - 1 or text.startswith("| ")
    assert "95 % bootstrap interval" in text
    page = (folder / "report.html").read_text()
    for word in ("Fidelity against editability", "first: worst by MSE", "How it was made"):
        assert word in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "<script" not in page


def test_the_size_of_chunks_and_the_order_of_runs_change_nothing(start: Start, first: Path, second: Path) -> None:
    one = results(start(first, second, of=["chunk=1"]))["table"]
    other = results(start(second, first, of=["chunk=6", "workers=1"]))["table"]
    for method in ("first", "second"):
        assert one[method].keys() == other[method].keys()
        for key, value in one[method].items():
            for part, number in value.items():
                again = other[method][key][part]
                assert number is again is None or number == pytest.approx(again, rel=1e-5), (key, part)


# ---- folders of other tools


def test_a_folder_of_any_tool_is_paired_by_name(start: Start, first: Path, images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    for name in NAMES:  # as good as the images themselves, saved as JPEG
        Image.open(images / name).save(folder / f"{Path(name).stem}.jpg", quality=100, subsampling=0)
    found = results(start(first, folder))
    assert found["table"]["theirs"]["mse"]["mean"] < 1e-3 < found["table"]["first"]["mse"]["mean"]
    assert found["table"]["theirs"]["nscd"] is None, "no codes, no NSCD"
    alone = results(start(named={"what they made": str(folder)}))
    assert list(alone["table"]) == ["what they made"]
    assert "nscd" not in alone["table"]["what they made"]


def test_codes_beside_the_pictures_are_measured_and_edited(
    start: Start, first: Path, direction: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "theirs"
    shutil.copytree(first / "images", folder)
    names, codes = Store.read(first).codes()
    np.save(folder / "codes.npy", codes[np.argsort(names)].numpy())
    table = results(start(first, folder, of=[f"direction={direction}"]))["table"]
    for key in ("nscd", "diversity", "effect/light", "identity/light"):
        assert table["theirs"][key]["mean"] == pytest.approx(table["first"][key]["mean"], rel=1e-5)


def test_runs_of_different_images_are_refused_with_the_difference(
    start: Start, first: Path, stored: Callable[..., Path]
) -> None:
    lossy = stored("lossy", 3, lost="002.png")
    with pytest.raises(BadValue, match=r"lossy lacks 1 that first has \(002\.png; 002\.png: it gave NaN\).*the 5 that"):
        start(first, lossy)
    found = results(start(first, lossy, of=["common=true"]))
    assert {row["mse"]["n"] for name, row in found["table"].items() if row["mse"]} == {5}


def test_a_folder_of_runs_is_no_run(start: Start, first: Path, second: Path, tmp_path: Path) -> None:
    for run in (first, second):
        shutil.copytree(run, tmp_path / "inversions" / run.name)
    with pytest.raises(BadValue, match=r"inversions is no run; it holds: \S+/first, \S+/second$"):
        start(tmp_path / "inversions")


def test_what_was_not_measured_is_printed(
    start: Start, first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "inception.pth").write_bytes(b"<html>")
    start(first, of=[f"inception={tmp_path / 'inception.pth'}"])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("not measured: "))
    assert f"FID ({tmp_path / 'inception.pth'}: " in line


def test_columns_have_different_names() -> None:
    labels = [measure.label for measure in measures({}, ["pose", "age"])]
    assert len(set(labels)) == len(labels)


def test_identical_pictures_have_no_ratio_and_are_left_blank(start: Start, images: Path, tmp_path: Path) -> None:
    same = tmp_path / "same"
    shutil.copytree(images, same)
    row = results(start(same))["table"]["same"]
    assert row["mse"]["mean"] == 0.0
    assert "psnr" not in row


# ---- edits


def test_methods_are_edited_to_an_equal_effect(start: Start, first: Path, second: Path, direction: Path) -> None:
    folder = start(first, second, of=[f"direction={direction}", "effect=0.2", "matched=image"])
    rows = per_image(folder)
    assert [float(row["effect/light"]) for row in rows.values()] == pytest.approx([0.2] * 12, rel=0.02)
    strengths = {row["strength/light"] for row in rows.values()}
    assert len(strengths) > 6, "every image its own"
    found = results(folder)
    assert found["table"]["first"].keys() >= {"identity/light", "leakage/light", "effect/light"}
    assert "lec/light" not in found["table"]["first"], "no encoder, no LEC"
    assert any("no LEC" in note for note in found["not_measured"])
    scopes = {one["scope"] for one in found["correlations"]}
    assert scopes == {"first", "second", "all methods", "per image"}
    assert {one["predictor"] for one in found["correlations"]} == {
        "nscd", "w_cosine", "w_length", "s_cosine", "s_length",
    }  # fmt: skip
    assert all(one["low"] <= one["rho"] <= one["high"] for one in found["correlations"] if one["scope"] == "first")


def test_identity_under_edit_compares_the_photograph_with_the_edit(
    start: Start, first: Path, direction: Path, generator: Generator, images: Path
) -> None:
    rows = per_image(start(first, of=[f"direction={direction}", "strength=2", "effect=null"]))
    inversion = next(Store.read(first).inversions(generator))
    w = generator.latent_avg[None].clone().requires_grad_()
    (slope,) = torch.autograd.grad(generator(w).mean(), w)
    with torch.no_grad():
        edited = saved(generator(inversion.codes + 2 * 0.5 * slope[0] / slope.norm()))
    for name, picture in zip(inversion.names, edited, strict=True):
        photograph = torch.from_numpy(pixels(images / name)).mean((0, 1))
        cosine = torch.cosine_similarity(picture.mean((1, 2)).double(), photograph, dim=0)
        assert float(rows["first", name]["identity/light"]) == pytest.approx(cosine.item(), abs=1e-5)


def test_where_nobody_reads_the_effect_the_strength_is_fixed_and_said_to_be(
    start: Start, first: Path, direction: Path
) -> None:
    found = results(start(first, of=[f"direction={direction}", "~domain.reader"]))
    assert "fixed strength, as nobody can read the effect" in found["edits"]["light"]
    assert "effect/light" not in found["table"]["first"]


def test_an_edit_whose_effect_nobody_can_read_is_blank(
    start: Start, first: Path, second: Path, direction: Path, generator: Generator
) -> None:
    """Made at next to no strength it would come out as the edit that keeps identity best."""

    def evaluated(least: float, matched: str) -> Path:
        reader = f"+domain.reader={{_target_: readings.Bright, least: {least}}}"
        options = [f"direction={direction}", "effect=0.5", f"matched={matched}", reader]
        return start(first, second, of=options)

    with torch.no_grad():
        levels, others = (
            torch.cat([Colours()(each.render())[:, 0] for each in Store.read(run).inversions(generator)]).tolist()
            for run in (first, second)
        )
    none = max(levels) + 0.01
    folder = evaluated(none, "run")
    rows = per_image(folder)
    keys = [f"{key}/light" for key in ("strength", "identity", "effect", "leakage")]
    assert {rows["first", name].get(key, "") for name in NAMES for key in keys} == {""}
    told = "first: light, as its effect cannot be read on any of the images"
    assert told in results(folder)["not_measured"]
    assert (told.replace("first", "second") in results(folder)["not_measured"]) == (max(others) < none)
    assert results(folder)["not_measured"] == results(evaluated(none, "run"))["not_measured"], "also from what is kept"
    assert results(start(first, second, of=[f"direction={direction}", "effect=0.5"]))["not_measured"].count(told) == 0
    some = float(np.median(levels))
    rows = per_image(evaluated(some, "image"))
    dark = [name for name, level in zip(NAMES, levels, strict=True) if level < some]
    for name in NAMES:
        blank = {rows["first", name][key] == "" for key in keys}
        assert blank == {name in dark}, name


def test_more_than_one_effect_is_refused(start: Start, first: Path, direction: Path) -> None:
    with pytest.raises(BadValue, match="compared at one effect"):
        start(first, of=[f"direction={direction}", "effect=[1,2]"])


# ---- encoders, which can embed again


@pytest.fixture(scope="module")
def embedded(generator_file: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`embedded("lsap_e")` trains that encoder for four steps, inverts the six images and gives the folder."""

    def make(embedding: str) -> Path:
        typed = [
            "domain=church", f"embedding={embedding}", f"generator.checkpoint={generator_file}", f"data.root={images}",
            "generator.size=32", "view.size=32", "image_size=[32,32]", "trainer.accelerator=cpu", "trainer.devices=1",
            "space.samples=64", "data.num_workers=0", "backbone.checkpoint=random", "lambda_lpips=0", "lambda_id=0",
            "encoders.progressive=lsap.embedding.SmallPyramidEncoder", "max_steps=4", "batch_size=2",
            "encoders.iterated=lsap.embedding.SmallIterativeEncoder", "data.val_images=2", "stages.start=0.25",
            "stages.every=0.125", f"outputs={tmp_path_factory.mktemp(embedding)}",
        ]  # fmt: skip
        train(composed("train", typed))
        return invert(composed("invert", [*typed, f"images={images}", "images_per_batch=4"])).folder

    return make


@pytest.mark.parametrize("embedding", ["lsap_e", pytest.param("restyle_e4e", marks=pytest.mark.slow)])
def test_encoders_embed_their_edits_again(
    start: Start, embedded: Callable[[str], Path], direction: Path, embedding: str, generator: Generator, images: Path
) -> None:
    run = embedded(embedding)
    chosen = [f"direction={direction}", "strength=2", "lec_batch=2"]
    folder = start(run, of=chosen)
    assert [note for note in results(folder)["not_measured"] if "LEC" in note] == []
    table = results(folder)["table"][embedding]
    rows = per_image(folder)
    distances = [float(rows[embedding, name]["lec/light"]) for name in NAMES]
    assert min(distances) > 0
    assert table["lec_mean/light"]["mean"] == pytest.approx(np.mean(distances), rel=1e-5)
    assert table["lec/light"]["mean"] == pytest.approx(np.mean(distances), rel=1e-5), "three batches: none goes"
    config = embedding_config(Store.read(run))
    parts = Parts(config, torch.device("cpu"))
    _, file = trained(parts)
    w = generator.latent_avg[None].clone().requires_grad_()
    (slope,) = torch.autograd.grad(generator(w).mean(), w)
    shift = 2 * 0.5 * slope[0] / slope.norm()
    inversion = next(Store.read(run).inversions(generator))
    embed = parts.embedding().embed
    with torch.no_grad():
        found = embed(generator(inversion.codes + shift), inversion.names).inversion
    assert found is not None
    by_hand = (inversion.codes - (found.codes - shift)).flatten(1).norm(dim=1)
    assert distances[:4] == pytest.approx(by_hand.tolist(), rel=1e-4)
    if embedding == "lsap_e":
        file.write_bytes(file.read_bytes() + b" ")
        found_later = results(start(run, of=chosen))
        assert "lec/light" not in found_later["table"][embedding], "another encoder lies in its place: blank"
        assert any("no LEC" in note for note in found_later["not_measured"])


# ---- what is kept


def test_what_was_measured_is_not_measured_again(
    start: Start, first: Path, second: Path, direction: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = [f"direction={direction}", "effect=0.2"]
    before = results(start(first, of=chosen))

    def refuse(*_: Any) -> Tensor:
        raise AssertionError("measured again")

    with monkeypatch.context() as patch:
        patch.setattr(evaluator, "image_values", refuse)
        patch.setattr("lsap.pipelines.evaluation.edit_metrics.searched", refuse)
        after = results(start(first, of=chosen))
        with pytest.raises(AssertionError, match="measured again"):
            start(first, second, of=chosen)
        with pytest.raises(AssertionError, match="measured again"):
            start(first, of=[*chosen, "protocol.size=[16,16]"])
    assert before["table"] == after["table"]
    assert results(start(first, second, of=chosen))["table"]["first"] == before["table"]["first"]


def test_judges_are_hashed_once_and_photographs_seen_once_for_all_methods(
    start: Start, first: Path, second: Path, direction: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Features(nn.Module):
        """What stands in for Inception: the mean colour."""

        label, digest, num_features, seen = "FID", "none", 3, 0

        def forward(self, shown: Tensor) -> Tensor:
            type(self).seen += len(shown)
            return shown.mean((2, 3))

    hashed = []

    def mark(judge: nn.Module) -> str:
        hashed.append(type(judge).__name__)
        return fingerprint(judge)

    monkeypatch.setattr(evaluator, "fingerprint", mark)
    monkeypatch.setattr(evaluator.Evaluator, "_inception", Features())
    chosen = [f"direction={direction}", "effect=0.2"]
    both = results(start(first, second, of=chosen))["table"]
    assert hashed.count("Averages") == 1
    assert Features.seen == 3 * len(NAMES), "photographs, and the pictures of two methods"
    shutil.rmtree(start(second, of=chosen).parent)
    alone = results(start(second, of=chosen))["table"]
    assert alone["second"]["fid"]["mean"] == both["second"]["fid"]["mean"]
    assert both["first"]["fid"] != both["second"]["fid"]


@pytest.mark.parametrize(
    ("file", "told"), [("summary.json", "delete it, and"), ("times.json", "it and summary.json, and")]
)
def test_a_damaged_file_of_a_run_is_named(start: Start, stored: Callable[..., Path], file: str, told: str) -> None:
    run = stored("damaged")
    (run / file).write_text("{")
    with pytest.raises(BadValue, match=rf"{file} cannot be read .*{told} give the command that made the run again"):
        start(run)


def test_an_evaluation_that_was_stopped_goes_on(start: Start, first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, counted = evaluator.image_values, 0

    def stop(*arguments: Any) -> dict[str, Tensor]:
        nonlocal counted
        counted += 1
        if counted == 2:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(evaluator, "image_values", stop)
    with pytest.raises(KeyboardInterrupt):
        start(first, of=["chunk=2"])
    start(first, of=["chunk=2"])
    assert counted == 4, "three chunks, of which one was interrupted and done again"


# ---- dashboards


def test_a_dashboard_gets_means_panel_and_both_tables(
    start: Start, first: Path, direction: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: dict[str, Any] = {}

    class Recorded:
        def __init__(self, folder: Path, **settings: Any) -> None:
            logged.setdefault("ids", []).append(settings["run_id"])

        def log_metrics(self, values: dict[str, float]) -> None:
            logged["means"] = values

        def log_image(self, key: str, images: list[Image.Image]) -> None:
            logged[key] = images

        def log_table(self, key: str, columns: list[str], data: list[list[Any]]) -> None:
            logged[key] = [dict(zip(columns, line, strict=True)) for line in data]

    monkeypatch.setattr("lsap.pipelines.wandb_run.wandb_logger", Recorded)
    shown = ("logger=wandb", f"direction={direction}", "strength=1", "shown=2")
    table = results(start(first, of=shown))["table"]["first"]
    assert logged["means"]["evaluate/first/mse"] == table["mse"]["mean"]
    images = logged["evaluate/images"]
    assert [line["name"] for line in images] == NAMES
    assert [line["input"] is not None for line in images] == [True] * 2 + [False] * 4
    assert all(line["mse"] is not None for line in images)
    (line,) = logged["evaluate/table"]
    assert (line["method"], line["embedding"], line["lambda_nscd"]) == ("first", None, None)
    (panel,) = logged["evaluate/panel"]
    tile = 128  # input | inversion, edit
    assert panel.width > 3 * tile
    assert panel.height > 2 * tile
    start(first, of=shown)
    assert len(set(logged["ids"])) == 1, "the same evaluation goes on under its id"


# ---- settings


def test_domain_and_images_are_those_of_the_run(command: Command, first: Path, direction: Path, tmp_path: Path) -> None:
    done = command(
        "evaluate", f"runs=[{first}]", "protocol=psp256", "protocol.size=[32,32]", "space.samples=64",
        f"direction={direction}", "effect=1", "weights=nowhere",
    )  # fmt: skip
    assert done.code == 0, done.err
    (file,) = tmp_path.glob("outputs/church/evaluations/*/results.json")
    found = results(file.parent)
    assert (found["domain"], found["images compared"], found["settings"]["size"]) == ("church", 6, [32, 32])
    assert "lpips" not in found["table"]["first"], "its weights are not there"
    assert any(note.startswith("lpips, as nowhere/alexnet") for note in found["not_measured"])
    assert found["table"]["first"]["nscd"]["n"] == 6


@pytest.mark.parametrize(
    ("overrides", "error", "told"),
    [
        (["runs=null"], BadValue, "runs is not set"),
        (
            ["runs=[nowhere]"],
            MissingFile,
            "nowhere is no folder; make some with .*; or name a folder of pictures",
        ),
        (["chunk=0"], BadValue, "chunk=0"),
    ],
)
def test_what_cannot_work_is_said(overrides: list[str], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        evaluate(composed("evaluate", ["domain=church", "protocol=psp256", *overrides]))


@pytest.mark.parametrize(("domain", "protocol"), [("face", "psp256"), ("car", "psp192x256"), ("demo", "demo64")])
def test_every_domain_has_its_protocol(domain: str, protocol: str) -> None:
    usual = composed("evaluate", [f"domain={domain}"]).domain.get("protocol", "psp256")
    assert usual == protocol
    config = composed("evaluate", [f"domain={domain}", f"protocol={usual}"])
    plain = OmegaConf.to_container(config, resolve=True)
    assert plain["protocol"]["name"] == protocol
    if domain == "face":
        assert plain["embedder"]["_target_"].endswith("load_curricularface")
        assert plain["distance"]["net"] == "alex"


def test_a_discriminator_is_found_in_a_training_of_ours(tmp_path: Path) -> None:
    """Its checkpoints keep it beside the encoder, with its optimiser and pools."""
    torch.manual_seed(3)
    trained = Adversary(8, pool=4)
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"encoder.weight": torch.zeros(1)}, "adversary": trained.progress()}, path)
    codes = torch.randn(5, 8)
    assert torch.equal(discriminator(path, 8)(codes), trained.discriminator(codes))


# ---- as tools name their pictures and codes


def test_pictures_called_after_the_whole_name_of_an_image_are_paired() -> None:
    assert paired(["a.png.png", "a.jpg.png"], ["a.png", "a.jpg"]) == {"a.png": "a.png.png", "a.jpg": "a.jpg.png"}
    assert paired(["a.png.png"], ["in/a.png"]) == {"in/a.png": "a.png.png"}
    assert paired(["a.jpg", "b.jpg"], ["a.png", "b.png"]) == {"a.png": "a.jpg", "b.png": "b.jpg"}
    assert paired(["c.png.png"], ["a.png"]) == {}


def test_results_of_lsap_serve_as_pictures_of_another_tool(
    start: Start, first: Path, generator: Generator, tmp_path: Path
) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    store = Store.read(first)
    names, codes = store.codes()
    for name in names:
        shutil.copy(store.picture(name), folder / f"{name}.png")
    write_codes(folder / "codes.safetensors", Codes(codes, tuple(names)), fingerprint(generator))
    table = results(start(first, folder))["table"]
    for key in ("mse", "nscd"):
        assert table["theirs"][key]["mean"] == pytest.approx(table["first"][key]["mean"], rel=1e-5)


@pytest.mark.parametrize("where", ["", "latents"])
def test_codes_may_have_a_file_per_picture(start: Start, first: Path, tmp_path: Path, where: str) -> None:
    folder = tmp_path / "theirs"
    shutil.copytree(first / "images", folder)
    (folder / where).mkdir(exist_ok=True)
    for name, code in zip(*Store.read(first).codes(), strict=True):
        np.save(folder / where / f"{Path(name).stem}.npy", code.numpy())
    table = results(start(first, folder))["table"]
    assert table["theirs"]["nscd"]["mean"] == pytest.approx(table["first"]["nscd"]["mean"], rel=1e-5)


def test_codes_of_w_beside_pictures(start: Start, first: Path, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    shutil.copytree(first / "images", folder)
    names, codes = Store.read(first).codes()
    np.save(folder / "codes.npy", codes[np.argsort(names)][:, 0].numpy())
    with pytest.raises(BadValue, match=r"with codes_in=w"):
        start(first, folder)
    table = results(start(first, folder, of=["codes_in=w"]))["table"]
    assert table["theirs"]["nscd"]["mean"] == pytest.approx(table["first"]["nscd"]["mean"], rel=1e-5)


def test_codes_of_no_picture_are_said_and_left_out(
    start: Start, first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "theirs"
    shutil.copytree(first / "images", folder)
    names, codes = Store.read(first).codes()
    torch.save(dict(zip(names, codes, strict=True)) | {"other.png": codes[0]}, folder / "codes.pt")
    assert results(start(folder))["table"]["theirs"]["nscd"]["mean"] is not None
    assert "codes.pt: 1 of 7 codes belong to no image (other.png); left out" in capsys.readouterr().err
