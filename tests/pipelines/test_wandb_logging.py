"""What a run shows while it lasts: panels, the offline run of Weights & Biases, metrics.csv."""

from __future__ import annotations

import csv
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from PIL import Image
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers.logger import DummyLogger, Logger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lsap.config.compose import composed
from lsap.embedding import EncoderTraining
from lsap.errors import BadValue
from lsap.pipelines.training import train
from lsap.pipelines.wandb_run import sweep
from lsap.reports.panels import KEY, Panels
from lsap.reports.pictures import reconstruction_grid
from lsap.runs import MetricsFile
from lsap.runs.dashboard import logged_in, mode, note_logged, noted, own_run, wandb_logger
from lsap.stylegan2 import Generator, View, freeze
from wandb_files import end_of_process, records


class Guess(nn.Module):
    """An encoder whose codes would change from call to call if it were left in training mode."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.linear = nn.Linear(3, generator.style_dim)
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        codes: Tensor = self.dropout(self.linear(images.mean((2, 3))))
        return codes


class Tiny(LightningModule):
    """The least that can be validated and drawn: a 16-pixel generator under a linear encoder."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.generator = freeze(Generator(16, 8, 2, {4: 8, 8: 8, 16: 8}))
        self.view = View(16)
        self.encoder = Guess(self.generator)

    @property
    def inverter(self) -> nn.Module:
        return self.encoder

    def training_step(self, images: Tensor, _: int) -> Tensor:
        loss = self.encoder(images).square().mean()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, images: Tensor, _: int) -> None:
        self.log("val/loss", self.encoder(images).square().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.encoder.parameters(), lr=0.1)


class Album(DummyLogger):
    """A logger that takes pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures: list[tuple[str, int, Image.Image]] = []

    def log_image(self, key: str, images: list[Image.Image], step: int) -> None:
        self.pictures += [(key, step, image) for image in images]


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody is logged in to Weights & Biases, and nothing of a run outlives the test."""
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.setenv(name, "")  # recorded, so that what a logger sets is taken back afterwards
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no netrc"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield
    end_of_process()


def fit(module: LightningModule, loggers: list[Logger], panels: list[Panels], folder: Path, steps: int = 2) -> Trainer:
    images = DataLoader(list(torch.linspace(-1, 1, 4 * 3 * 16 * 16).view(4, 3, 16, 16)), batch_size=2)
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, logger=loggers, callbacks=[*panels], val_check_interval=1,
        log_every_n_steps=1, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        default_root_dir=folder, num_sanity_val_steps=1,
    )  # fmt: skip
    trainer.fit(module, images, images)
    return trainer


def history(folder: Path) -> dict[str, list[Any]]:
    """Everything that was logged to the offline runs below a folder, in order: name → values.

    Complete after `end_of_process` only: when `wandb.finish` returns, a service process may still be writing.
    """
    found: dict[str, list[Any]] = {}
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for record in records(path):
            for item in record.history.item:
                found.setdefault(item.key or "/".join(item.nested_key), []).append(json.loads(item.value_json))
    return found


def written(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# ---- panels


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers, which is not what is tested
def test_a_panel_follows_every_validation_and_shows_input_above_inversion(tmp_path: Path) -> None:
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    album, module = Album(), Tiny()
    fit(module, [album, MetricsFile(tmp_path / "metrics.csv")], [Panels(images)], tmp_path)
    assert [(key, step) for key, step, _ in album.pictures] == [(KEY, 0), (KEY, 1)]  # none for the sanity check
    module.encoder.eval()
    with torch.no_grad():
        expected = reconstruction_grid(images, {"inversion": module.view(module.generator(module.encoder(images)))})
    assert album.pictures[-1][2].tobytes() == expected.tobytes()


@pytest.mark.filterwarnings("ignore")
def test_edits_stand_below_the_inversion_that_they_move(tmp_path: Path) -> None:
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    album, module = Album(), Tiny()
    fit(module, [album], [Panels(images, {"stronger": lambda codes: 3 * codes})], tmp_path, steps=1)
    module.encoder.eval()
    with torch.no_grad():
        codes = module.encoder(images)
        rows = {"inversion": codes, "stronger": 3 * codes}
        expected = reconstruction_grid(images, {name: module.view(module.generator(c)) for name, c in rows.items()})
    assert album.pictures[-1][2].tobytes() == expected.tobytes()


@pytest.mark.filterwarnings("ignore")
def test_panels_leave_the_training_as_it_was(tmp_path: Path) -> None:
    ends = []
    for panels in ([], [Panels(torch.zeros(2, 3, 16, 16))]):
        module = Tiny()
        torch.manual_seed(7)
        fit(module, [Album()], panels, tmp_path, steps=4)
        ends.append((module.encoder.linear.weight.detach().clone(), torch.get_rng_state()))
    assert torch.equal(ends[0][0], ends[1][0])
    assert torch.equal(ends[0][1], ends[1][1])


@pytest.mark.parametrize("training", [True, False])
def test_drawing_a_panel_gives_the_mode_back_and_draws_no_random_number(training: bool) -> None:
    module = Tiny()
    module.encoder.train(training)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    before = torch.get_rng_state(), random.getstate()
    panels = Panels(torch.ones(2, 3, 16, 16), {"brighter": lambda codes: codes + 1})
    first, second = (torch.cat([*panels.drawn(trainer, module).values()]) for _ in range(2))
    assert torch.equal(first, second)  # dropout was off
    assert all(part.training is training for part in module.encoder.modules())
    after = torch.get_rng_state(), random.getstate()
    assert torch.equal(before[0], after[0])
    assert before[1] == after[1]


# ---- Weights & Biases


def test_a_key_or_a_netrc_entry_counts_as_logged_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nobody: None
) -> None:
    assert not logged_in()
    (tmp_path / "netrc").write_text("machine example.org login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert not logged_in()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password key\n")
    assert logged_in()
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_API_KEY", "key")
    assert logged_in()


@pytest.mark.filterwarnings("ignore")
def test_without_an_account_scalars_and_panels_are_kept_offline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nobody: None
) -> None:
    logger = wandb_logger(
        tmp_path, name="a run", project="lsap", entity=None, group="sweep", tags=["demo"], run_id="abcd1234"
    )
    assert f"wandb sync {tmp_path / 'wandb'}/offline-run-*" in capsys.readouterr().out
    fit(Tiny(), [logger], [Panels(torch.zeros(2, 3, 16, 16))], tmp_path)
    end_of_process()
    logged = history(tmp_path)
    assert len(logged["train/loss"]) == 2
    assert logged["val/loss"][0] > logged["val/loss"][1] > 0  # two different validations
    assert logged[f"{KEY}/_type"] == ["images/separated"] * 2
    run = tmp_path / "wandb" / "latest-run"
    pictures = [run / "files" / name for names in logged[f"{KEY}/filenames"] for name in names]
    sizes = {Image.open(picture).size for picture in pictures}
    assert len(pictures) == 2
    assert sizes == {(logged[f"{KEY}/width"][0], logged[f"{KEY}/height"][0])}
    described = next(record.run for record in records(run / "run-abcd1234.wandb") if record.HasField("run"))
    assert (described.run_id, described.project, described.run_group, list(described.tags)) == (
        "abcd1234", "lsap", "sweep", ["demo"],
    )  # fmt: skip


def test_offline_may_be_asked_for_where_somebody_is_logged_in(monkeypatch: pytest.MonkeyPatch, nobody: None) -> None:
    assert mode() == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "key")
    assert (mode(), mode(offline=True)) == ("online", "offline")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert (mode(), mode(offline=True)) == ("disabled", "offline")


def begun(folder: Path, run_id: str) -> Any:
    folder.mkdir()
    logger = wandb_logger(folder, name=run_id, project="lsap", entity=None, group=None, tags=[], run_id=run_id)
    logger.log_metrics({"value": 1.0})
    return logger.experiment


@pytest.mark.filterwarnings("ignore")
def test_runs_of_one_process_are_apart_and_a_failed_one_says_so(tmp_path: Path, nobody: None) -> None:
    with own_run():
        begun(tmp_path / "first", "aaaa0001")
    with pytest.raises(ZeroDivisionError), own_run():
        begun(tmp_path / "second", "aaaa0002").log({"value": 1 / 0})
    assert wandb.run is None
    outer = begun(tmp_path / "third", "aaaa0003")
    with own_run():
        assert wandb.run is outer
    assert wandb.run is outer, "a run that was there before is the caller's"
    end_of_process()
    codes = {}
    for path in sorted(tmp_path.rglob("*.wandb")):
        (code,) = (record.exit.exit_code for record in records(path) if record.HasField("exit"))
        codes[path.stem] = code
    assert codes == {"run-aaaa0001": 0, "run-aaaa0002": 1, "run-aaaa0003": 0}


def test_the_id_of_results_stays_and_what_was_logged_is_known(tmp_path: Path) -> None:
    first = noted(tmp_path)
    assert (len(first["id"]), first["logged"]) == (8, None)
    note_logged(tmp_path, "these results")
    assert noted(tmp_path) == {"id": first["id"], "logged": "these results"}


@pytest.mark.parametrize("text", ["{", '{"logged": null}'])
def test_a_damaged_note_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "wandb.json").write_text(text)
    with pytest.raises(BadValue, match=r"wandb\.json cannot be read .*delete it: the results are then logged as a new"):
        noted(tmp_path)


# ---- sweeps


def test_members_of_a_sweep_share_a_group_that_does_not_depend_on_where_it_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Swept:
        mode = RunMode.MULTIRUN

    def group(*typed: str) -> str | None:
        monkeypatch.setattr(sys, "argv", ["train.py", *typed])
        return sweep("train")

    assert group("-m", "lambda_nscd=0,0.5") is None, "not within Hydra"
    monkeypatch.setattr(HydraConfig, "initialized", staticmethod(lambda: True))
    monkeypatch.setattr(HydraConfig, "get", staticmethod(lambda: Swept))
    assert group("-m", "domain=demo", "lambda_nscd=0,0.5") == "train domain=demo lambda_nscd=0,0.5"
    elsewhere = ("logger=wandb", "trainer.accelerator=cpu", "outputs=o", "hydra/launcher=joblib", "hydra.launcher.n=2")
    assert group("-m", "lambda_nscd=0,0.5", *elsewhere) == "train lambda_nscd=0,0.5"
    long = [group("--multirun", f"seed={','.join(map(str, range(last)))}") for last in (60, 61)]
    assert len(set(long)) == 2
    assert all(len(name or "") <= 128 for name in long)
    Swept.mode = RunMode.RUN
    assert group("lambda_nscd=0") is None


@pytest.mark.slow
def test_a_resumed_run_keeps_its_id_and_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nobody: None) -> None:
    monkeypatch.setenv("LSAP_CACHE", str(tmp_path / "cache"))
    settings = (
        "logger=wandb", f"outputs={tmp_path}", "max_steps=20", "batch_size=2", "space.samples=100", "lambda_lpips=0",
        "data.train.count=24", "data.val_images=4", "data.tests.rich.count=2", "data.tests.plain.count=2",
        "data.tests.far.count=2", "trainer.accelerator=cpu", "trainer.val_check_interval=0.5",
    )  # fmt: skip
    config = composed("train", settings)
    step = EncoderTraining.training_step

    def interrupted(self: EncoderTraining, batch: dict[str, Tensor], index: int) -> Tensor:
        if self.batches_seen == 15:
            raise RuntimeError("the machine went down")
        return step(self, batch, index)

    monkeypatch.setattr(EncoderTraining, "training_step", interrupted)
    with pytest.raises(RuntimeError, match="the machine went down"):
        train(config)
    end_of_process()
    folder = next(tmp_path.glob("demo/lsap_e/*/run.json")).parent
    first = json.loads((folder / "run.json").read_text())
    assert (first["status"], first["step"]) == ("failed", 14)

    monkeypatch.setattr(EncoderTraining, "training_step", step)
    train(config)
    end_of_process()
    second = json.loads((folder / "run.json").read_text())
    identifier = second["notes"]["wandb_id"]
    assert (second["status"], identifier) == ("finished", first["notes"]["wandb_id"])
    runs = sorted(path.name.rsplit("-", 1)[1] for path in folder.glob("wandb/offline-run-*"))
    assert runs == [identifier, identifier]  # two sittings of one run
    logged = history(folder)
    assert len(logged["train/nscd"]) == 15 + 6  # step 14 came after the checkpoint and was taken again
    assert len(logged[f"{KEY}/filenames"]) == 2  # after 10 and after 20 steps
    rows = written(folder / "metrics.csv")
    assert [row["step"] for row in rows if row["train/l2"]] == [str(step) for step in range(20)]
    assert [row["step"] for row in rows if row["val/image_loss"]] == ["9", "19"]


# ---- metrics.csv


def test_a_metrics_file_holds_a_row_per_step_and_gaps_stay_empty(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    logger = MetricsFile(path)
    logger.log_metrics({"train/l2": 0.5, "epoch": 0}, step=9)
    logger.log_metrics({"val/l2": 0.25}, step=9)
    logger.log_metrics({"train/l2": 0.125}, step=19)
    assert not path.exists()  # not before it is saved
    logger.save()
    assert written(path) == [
        {"step": "9", "train/l2": "0.5", "val/l2": "0.25"},
        {"step": "19", "train/l2": "0.125", "val/l2": ""},
    ]


def test_a_resumed_metrics_file_keeps_rows_before_the_checkpoint_and_drops_later_ones(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    first = MetricsFile(path)
    for step in (9, 19, 29, 39):
        first.log_metrics({"loss": 1.0}, step=step)
    first.finalize("failed")
    second = MetricsFile(path, first_step=29)  # the checkpoint was written after step 28: step 29 is taken again
    second.log_metrics({"loss": 2.0, "new": 3.0}, step=29)
    second.save()
    assert [(row["step"], row["loss"], row["new"]) for row in written(path)] == [
        ("9", "1.0", ""),
        ("19", "1.0", ""),
        ("29", "2.0", "3.0"),
    ]


def test_a_run_from_the_start_drops_the_rows_of_an_earlier_attempt(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    first = MetricsFile(path)
    first.log_metrics({"loss": 1.0}, step=9)
    first.save()
    assert MetricsFile(path, first_step=0).rows == {}
