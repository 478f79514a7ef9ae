"""`docs/adding-a-method.md`: its classes and YAML files, written outside of lsap, work by the commands of the page."""

from __future__ import annotations

import csv
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import lsap
from commands import Command, Outcome
from lsap.checkpoints import fingerprint, read_direction
from lsap.demo.weights import load_generator
from lsap.inversion import RENDERERS
from lsap.pipelines.editing.setup import SHIPPED
from lsap.runs import Store
from pages import ROOT
from small_runs import TINY

PAGE = ROOT / "docs" / "adding-a-method.md"
MODULES = ("colour_match", "luminance", "mean_colour", "median_gap", "three_styles")
SHORTER = {"count=8": "count=3", "steps=100": "steps=3", "samples=512": "samples=200", "max_steps=1000": "max_steps=3"}
QUICK = {
    "train": TINY,
    "invert": ["space.samples=64", "images_per_batch=3", "trainer.accelerator=cpu", "trainer.devices=1"],
    "discover": ["space.samples=64", "measured_on=8", "shown=1", "accelerator=cpu"],
    "edit": ["accelerator=cpu"],
}


def page(language: str) -> list[str]:
    """The blocks of the page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def documented(verb: str, holding: str) -> list[str]:
    """The arguments of the page's command of a verb that holds a word, made shorter."""
    lines = [line for block in page("sh") for line in block.splitlines() if f"-m lsap.{verb} " in line]
    (line,) = [line for line in lines if holding in line]
    words = shlex.split(line)
    return [SHORTER.get(word, word) for word in words[words.index(f"lsap.{verb}") + 1 :]] + QUICK[verb]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder where commands are given, with the page's files in it, importable as `python -m` would have it."""
    for block in (*page("python"), *page("yaml")):
        named = re.search(r"^# (\S+\.(?:py|yaml))$", block, re.MULTILINE)
        assert named is not None
        path = tmp_path / named[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    forget()


def forget() -> None:
    """Be a process that has not imported the page's modules."""
    for name in MODULES:
        sys.modules.pop(name, None)
    RENDERERS.pop("colour", None)


def done(outcome: Outcome) -> str:
    assert outcome.code == 0, outcome.err
    return outcome.out


def mse(folder: Path) -> dict[str, float]:
    with (folder / "images.csv").open(encoding="utf-8") as file:
        return {row["name"]: float(row["mse"]) for row in csv.DictReader(file)}


def pixels(path: Path) -> NDArray[np.int16]:
    return np.asarray(Image.open(path)).astype(np.int16)


def test_the_page_shows_the_files_that_it_speaks_of() -> None:
    shown = {match for block in (*page("python"), *page("yaml")) for match in re.findall(r"^# (\S+)$", block, re.M)}
    assert {f"{name}.py" for name in MODULES} <= shown
    assert {
        "mine/refinement/colour.yaml", "mine/embedding/three_styles.yaml", "mine/embedding/mean_colour.yaml",
        "mine/finder/median_gap.yaml",
    } <= shown  # fmt: skip


def test_a_refinement_is_one_class_and_one_yaml(written: Path, command: Command) -> None:
    done(command("invert", *documented("invert", "refinement=colour")))
    refined = written / "coloured"
    (plain,) = (written / "outputs/demo/inversions/lsap_o_wplus").iterdir()
    before, after = mse(plain), mse(refined)
    assert len(after) == 3
    assert all(after[name] < 0.9 * before[name] for name in after), "least squares brings every image nearer"
    assert json.loads((refined / "summary.json").read_text())["refinement"] == "colour"
    assert torch.equal(Store.read(refined).codes()[1], Store.read(plain).codes()[1]), "codes stay"

    forget()
    edited = documented("edit", "direction=smile")
    refused = command("edit", *(word for word in edited if not word.startswith("imports=")))
    assert refused.code == 2
    assert "no renderer 'colour'" in refused.err
    assert "add imports=[colour_match]" in refused.err
    assert "colour_match" not in sys.modules, "only shown, not imported"

    done(command("edit", *edited))
    (edits,) = (written / "outputs/demo/edits").glob("*/*/images/smile")
    still, smiling = sorted(edits.iterdir(), key=lambda folder: float(folder.name))
    for picture in sorted((refined / "images").iterdir()):
        own, moved = pixels(picture), pixels(smiling / picture.name)
        assert np.array_equal(pixels(still / picture.name), own), "strength 0 is the refined inversion"
        assert np.abs(moved - own).max() > 8
        colours = np.abs(moved - own).mean()
        assert colours < np.abs(pixels(plain / "images" / picture.name) - own).mean(), "edits keep the fitted colours"


def test_a_module_that_is_not_there_is_named(written: Path, command: Command) -> None:
    outcome = command("edit", "imports=[color_match]", "inversions=coloured")
    assert outcome.code == 2
    assert "there is no module 'color_match'" in outcome.err
    (written / "broken.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name"):
        command("edit", "imports=[broken]", "inversions=coloured")


def test_an_embedding_is_one_class_and_one_yaml(written: Path, command: Command) -> None:
    done(command("invert", *documented("invert", "embedding=three_styles")))
    (folder,) = (written / "outputs/demo/inversions/three_styles").iterdir()
    _, codes = Store.read(folder).codes()
    assert [len(rows.unique(dim=0)) for rows in codes] == [3] * len(codes)
    assert not torch.equal(codes[0], codes[1])


def test_an_encoder_and_a_loss_are_two_classes_and_one_yaml(written: Path, command: Command) -> None:
    done(command("train", *documented("train", "mean_colour")))
    (run,) = (written / "outputs/demo/mean_colour").iterdir()
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        *_, row = (row for row in csv.DictReader(file) if row["val/image_loss"])
    image_loss = sum(float(row[f"val/{name}"]) for name in ("l2", "lpips", "id", "luminance"))
    assert float(row["val/image_loss"]) == pytest.approx(image_loss, rel=1e-5)
    forget()
    tiny = [word for word in TINY if not word.startswith(("max_steps=", "data.tests."))]
    done(command("invert", *documented("invert", "mean_colour"), *tiny))
    names, codes = Store.read(written / "by_colour").codes()
    assert codes.shape[:2] == (len(names), 10) == (3, 10)
    inverter = lsap.load(run, f"hydra.searchpath=[file://{written / 'mine'}]")
    assert inverter.embedding == "mean_colour"


def test_a_way_of_finding_directions_is_one_class_and_one_yaml(written: Path, command: Command) -> None:
    done(command("discover", *documented("discover", "+finder=median_gap")))
    owner = fingerprint(load_generator())
    found = read_direction(written / "gaps" / "smile.safetensors", owner)
    shipped = read_direction(SHIPPED["demo"] / "smile.safetensors", owner)
    assert torch.cosine_similarity(found.vector, shipped.vector, dim=0) > 0.7
    assert found.usable is not None
    done(command("invert", *documented("invert", "refinement=colour")))
    done(command("edit", *documented("edit", "gaps/smile")))
    (edits,) = (written / "outputs/demo/edits").glob("*/*/images/smile")
    assert len(list(edits.glob("*/*.png"))) == 3
    unknown = command("discover", "--config-dir", "mine", "+finder=median_gap", "method=median_gab")
    assert unknown.code == 2
    assert "method=median_gab" in unknown.err
