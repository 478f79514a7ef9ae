"""A part of each kind added from outside of lsap, as docs/design.md says: encoder, loss, domain, metric, command.

Refinements, embeddings without training and ways of finding directions are those of `test_adding_a_method`.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from commands import Command
from lsap.config.compose import composed
from lsap.evaluation.metrics import image_values, mse

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
        self.heads = nn.ModuleList(nn.Linear(3, style_dim) for _ in range(n_latent))

    def rows(self, images, last):
        return [head(images.mean((2, 3))) for head in self.heads[: last + 1]]


class Brightness(Term):
    """Squared difference of mean brightness."""

    def forward(self, inputs: LossInputs) -> torch.Tensor:
        return (inputs.output.mean((1, 2, 3)) - inputs.images.mean((1, 2, 3))).square()


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
  brightness: {weight: "${lambda_brightness}", term: {_target_: parts.Brightness}}
"""
DOMAIN = """# @package _global_
defaults:
  - /base/photographs
  - _self_
domain: {name: pebbles, identity_weight: 0, needs: []}
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


def test_an_encoder_a_loss_and_a_domain_of_ones_own_train(
    mine: Path, command: Command, photographs: Callable[..., Path]
) -> None:
    ended = command(
        "train", "--config-dir", "mine", "domain=pebbles", "embedding=mean_colour", "lambda_lpips=0",
        f"data.root={photographs(mine / 'photographs', 6)}", "max_steps=4", "batch_size=2", "data.val_images=2",
        "space.samples=64", "data.num_workers=0", "stages.start=0", "stages.every=0", "trainer.accelerator=cpu",
        "trainer.devices=1",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    (run,) = (mine / "outputs/pebbles/mean_colour").iterdir()
    with (run / "metrics.csv").open() as file:
        values = [float(row["train/brightness"]) for row in csv.DictReader(file) if row.get("train/brightness")]
    assert values
    assert min(values) >= 0


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
