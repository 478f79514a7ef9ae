"""A part of each kind added from outside of lsap, as docs/design.md says: encoder, loss, domain, metric, command.

Refinements, embeddings without training and ways of finding directions are those of `test_adding_a_method`.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import lsap
from commands import Command
from lsap.checkpoints import SPREAD, Direction, fingerprint, load_generator, read_card, save_directions
from lsap.config.compose import composed
from lsap.evaluation.metrics import image_values, mse
from lsap.runs import Store

PARTS = '''
import torch
from torch import nn

from lsap.embedding import RowEncoder
from lsap.losses import LossInputs, Term


class MeanColour(RowEncoder):
    """Codes as a linear function of an image's mean colour."""

    kind = "mean colour"

    def __init__(self, n_latent, *, style_dim, latent_avg=None):
        super().__init__()
        self.set_rows(n_latent, style_dim, latent_avg)
        self.residue = nn.Linear(3, n_latent * style_dim)

    def rows(self, images, last):
        return list(self.residue(images.mean((2, 3))).unflatten(1, (-1, self.style_dim)).unbind(1))[: last + 1]


class Brightness(Term):
    """Squared difference of mean brightness, as the view shows it."""

    compares_images = True

    def __init__(self, gain, *, view, mean):
        super().__init__()
        assert view.size == 32 and mean.shape == (16,)
        self.gain = gain

    def forward(self, inputs: LossInputs) -> torch.Tensor:
        return self.gain * (inputs.output.mean((1, 2, 3)) - inputs.images.mean((1, 2, 3))).square()


def greet(config):
    print(f"hello {config.who}")
'''
EMBEDDING = """# @package _global_
defaults:
  - /embedding/lsap_e
  - _self_
embedding: {name: mean_colour}
encoder: {_target_: parts.MeanColour}
lambda_brightness: 0.5
objective:
  brightness:
    weight: ${lambda_brightness}
    term: {_target_: parts.Brightness, gain: 2.0}
    borrows: {view: view, mean: latent_avg}
"""
DOMAIN = """# @package _global_
defaults:
  - /base/photographs
  - _self_
domain: {name: pebbles, identity_weight: 0, needs: [{key: perceptual.checkpoint, what: AlexNet, source: torchvision}]}
generator: {_target_: lsap.checkpoints.load_generator, checkpoint: GENERATOR, size: 32}
view: {size: 32}
image_size: [32, 32]
similarity: {_target_: lsap.checkpoints.load_moco, checkpoint: null}
backbone: {checkpoint: random}
"""
COMMAND = """from lsap.cli import command

main = command("greet", "parts:greet")

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def mine(tmp_path: Path, generator_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the parts, importable, and their YAML below `mine/`."""
    files = {
        "parts.py": PARTS,
        "hello.py": COMMAND,
        "mine/embedding/mean_colour.yaml": EMBEDDING,
        "mine/domain/pebbles.yaml": DOMAIN.replace("GENERATOR", str(generator_file)),
        "mine/greet.yaml": "defaults: [base/hydra_quiet, _self_]\nwho: world\ndebug: false\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "parts", raising=False)
    return tmp_path


OWN = ["--config-dir", "mine", "imports=[parts]"]


def of_training(photographs: Path) -> list[str]:
    """The settings of three steps of training, which later commands need to find it."""
    return [
        *OWN, "domain=pebbles", "embedding=mean_colour", "lambda_lpips=0", "max_steps=3", "batch_size=2",
        f"data.root={photographs}", "data.val_images=2", "space.samples=64", "data.num_workers=0", "stages.start=0",
        "stages.every=0", "trainer.accelerator=cpu", "trainer.devices=1",
    ]  # fmt: skip


def test_an_encoder_of_ones_own_inverts_loads_edits_and_is_evaluated(
    mine: Path, command: Command, photographs: Callable[..., Path], generator_file: Path
) -> None:
    settings = of_training(photographs(mine / "photographs", 6, (32, 32)))
    ended = command("train", *settings)
    assert ended.code == 0, ended.err
    (run,) = (mine / "outputs/pebbles/mean_colour").iterdir()
    card = read_card(run / "encoder.safetensors")
    assert (card["encoder"], card["rows"]) == ("mean colour", "8")

    ended = command("invert", *settings, f"images={mine / 'photographs'}", "images_per_batch=3", "save_to=inverted")
    assert ended.code == 0, ended.err
    _, codes = Store.read(mine / "inverted").codes()

    folders = f"hydra.searchpath=[file://{mine}/mine]"
    by_name = lsap.load("pebbles", folders, f"checkpoint={run}/encoder.safetensors", embedding="mean_colour")
    inverter = lsap.load(run, folders)
    assert (by_name.domain, by_name.embedding) == (inverter.domain, inverter.embedding) == ("pebbles", "mean_colour")
    inversion = inverter.embed(mine / "photographs", warn=False)
    torch.testing.assert_close(inversion.codes, codes)

    owner = load_generator(generator_file)
    vector = torch.nn.functional.normalize(torch.ones(owner.style_dim), dim=0)
    light = Direction(name="light", vector=vector, generator=fingerprint(owner), step=0.5, unit=SPREAD)
    file = save_directions([light], mine / "light.safetensors")
    assert not torch.equal(inverter.edit(inversion, file, 2).render(), inversion.render())

    edited = command("edit", *OWN, "inversions=inverted", f"direction={file}", "strength=[0,2]", "accelerator=cpu")
    assert edited.code == 0, edited.err
    ended = command(
        "evaluate", *OWN, "runs=[inverted]", f"direction={file}", "strength=2", "protocol=psp256",
        "protocol.size=[32,32]", "chunk=4", "lec_batch=2", "space.samples=64", "accelerator=cpu", "save_to=table",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    found = json.loads((mine / "table/results.json").read_text())
    assert found["table"]["mean_colour"]["lec/light"]["mean"] > 0, found["not_measured"]

    with (run / "metrics.csv").open() as table:
        *_, row = (row for row in csv.DictReader(table) if row["val/image_loss"])
    assert 0 < float(row["val/brightness"]) < float(row["val/image_loss"])
    image_loss = sum(float(row[f"val/{name}"]) for name in ("l2", "brightness"))
    assert float(row["val/image_loss"]) == pytest.approx(image_loss, rel=1e-5), "a loss of one's own chooses, too"


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ("borrows.view=veiw", "borrows: a run has no part 'veiw'; did you mean 'view'"),
        ("borrows.mean=__class__", "borrows: a run has no part '__class__'"),
        ("~borrows.mean", "objective.brightness.term (parts.Brightness) does not take these: "),
        ("+borrows.distance=perceptual", "perceptual.checkpoint=weights/alexnet"),
    ],
)
def test_what_a_loss_of_ones_own_cannot_borrow_is_named(
    mine: Path, command: Command, photographs: Callable[..., Path], changed: str, line: str
) -> None:
    sign, key = ("", changed) if changed[0].isalpha() else (changed[0], changed[1:])
    settings = of_training(photographs(mine / "photographs", 6, (32, 32)))
    ended = command("train", *settings, f"{sign}objective.brightness.{key}")
    assert ended.code == 2
    assert line in ended.err


def test_class_paths_of_version_0_1_work_in_ones_own_yaml(mine: Path) -> None:
    file = mine / "mine/domain/pebbles.yaml"
    file.write_text(file.read_text().replace("lsap.checkpoints.", "lsap.formats."))
    config = composed("train", ["domain=pebbles"], [f"file://{mine}/mine"])
    assert config.generator._target_ == "lsap.checkpoints.load_generator"
    assert config.similarity._target_ == "lsap.checkpoints.load_moco"


def test_without_its_yaml_the_missing_choice_is_named(mine: Path, command: Command) -> None:
    ended = command("train", "domain=pebbles")
    assert ended.code == 2
    assert "domain=pebbles: there is no such domain" in ended.err


def test_a_metric_of_ones_own_is_one_function() -> None:
    def largest(output: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        return (output - images).abs().flatten(1).amax(1)

    output, images = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    output[1, 0, 2, 2] = 0.5
    found = image_values({"mse": mse, "largest": largest}, output, images)
    assert found["largest"].tolist() == [0, 0.5]
    assert found["mse"][1].item() == pytest.approx(0.25 / 48)


def test_a_command_of_ones_own_is_one_module_and_one_yaml(mine: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        typed = [sys.executable, "-m", "hello", "--config-dir", "mine", *arguments]
        return subprocess.run(typed, cwd=mine, capture_output=True, text=True, env=os.environ)

    assert run("who=reader").stdout == "hello reader\n"
    refused = run("whom=reader")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: unknown setting 'whom'")
