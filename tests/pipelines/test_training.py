"""Training end to end, through the real entry point, on a generator so small that a run takes about a second."""

from __future__ import annotations

import errno
import json
import logging
import re
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from pytorch_lightning import Trainer
from pytorch_lightning.plugins.environments import SLURMEnvironment
from torch import Tensor, nn

from commands import Command, after, killed_at, launch
from comparison import assert_close_l2
from lsap.checkpoints import read_card, read_state
from lsap.config.compose import composed
from lsap.embedding import EncoderTraining
from lsap.errors import BadValue, StoppedRun
from lsap.losses import L2, LossInputs
from lsap.pipelines import fit as fitting
from lsap.pipelines.build import Parts
from lsap.pipelines.run_identity.encoders import run_folder, training_folder
from lsap.pipelines.training import Trained, stored, train
from lsap.runs import AtomicCheckpoints, RunFolder
from small_runs import ON_ONE_CPU
from training_runs import WHOLE, assert_same_outcome, files, only_run, record, rows

Start = Callable[..., Trained]


@pytest.fixture
def start(training_domain: list[str], tmp_path: Path) -> Start:
    """`start("max_steps=4")` trains the tiny domain with overrides; `to=` is the folder of all runs."""

    def run(*overrides: str, to: Path = tmp_path / "outputs") -> Trained:
        return train(composed("train", [*training_domain, f"outputs={to}", *overrides]))

    return run


@pytest.fixture(scope="module")
def unbroken(training_domain: list[str], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Trained]:
    """The same training, run to its end without a break; each set of overrides once."""
    done: dict[Sequence[str], Trained] = {}

    def run(*overrides: str) -> Trained:
        if overrides not in done:
            outputs = tmp_path_factory.mktemp("unbroken")
            done[overrides] = train(composed("train", [*training_domain, f"outputs={outputs}", *overrides]))
        return done[overrides]

    return run


# ---- what a run leaves


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A few steps of the demo domain, with its judges and both of its test splits."""
    overrides = ["data.train.count=40", "data.val_images=4", "data.tests.rich.count=5", "data.tests.plain.count=3"]
    overrides += ["data.tests.far.count=2"]
    outputs = tmp_path_factory.mktemp("demo")
    more = ["max_steps=3", "batch_size=2", "space.samples=256", f"outputs={outputs}", *ON_ONE_CPU]
    return train(composed("train", [*overrides, *more]))


def test_a_run_leaves_everything_in_its_folder(demo: Trained) -> None:
    assert demo.folder.parent.name == "lsap_e"
    assert demo.folder.parent.parent.name == "demo"
    assert files(demo.folder) == WHOLE
    assert record(demo.folder) | {"settings": None} == {
        "settings": None,
        "status": "finished",
        "step": 3,
        "error": None,
        "notes": {},
    }
    config = OmegaConf.load(demo.folder / "config.yaml")
    assert (config.max_steps, config.optimizer.lr, config.domain.name) == (3, 1e-3, "demo")
    assert read_card(demo.folder / "encoder.safetensors")["domain"] == "demo"


def test_every_split_is_measured_beside_mean_and_samples(demo: Trained) -> None:
    metrics = json.loads((demo.folder / "metrics.json").read_text())
    assert metrics["splits"] == demo.splits
    assert {split: found["lambda_0.5"]["n"] for split, found in demo.splits.items()} == {
        "rich": 5, "plain": 3, "far": 2,
    }  # fmt: skip
    for found in demo.splits.values():
        assert list(found) == ["mean_latent", "synthetic", "lambda_0.5"]
        for name in ("mse", "lpips", "identity"):
            assert found["synthetic"][name] is None
            assert isinstance(found["mean_latent"][name], float)
        assert found["synthetic"]["nscd"] > found["mean_latent"]["nscd"] >= 0
        assert found["mean_latent"]["diversity"] == pytest.approx(0, abs=1e-6)
    assert "demo evaluation trunk" in metrics["labels"]["lpips"]
    assert metrics["images_per_second"] > 0
    assert metrics["peak_memory_mb"]["process"] > 100
    assert metrics["skipped_images"] == {}
    assert {"torch", "lightning", "lsap"} <= metrics["versions"].keys()


def test_the_curves_hold_every_term_of_every_step(demo: Trained) -> None:
    found = rows(demo.folder)
    assert [row["step"] for row in found] == ["0", "1", "2"]
    for row in found:
        terms = [float(row[f"train/{name}"]) for name in ("l2", "lpips", "id", "delta", "nscd")]
        assert float(row["train/loss"]) == pytest.approx(sum(terms), rel=1e-5)
        image = [float(row[f"val/{name}"]) for name in ("l2", "lpips", "id")]
        assert float(row["val/image_loss"]) == pytest.approx(sum(image), rel=1e-5)


def test_the_page_stands_alone(demo: Trained) -> None:
    page = (demo.folder / "report.html").read_text()
    assert "<img" in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)


def test_the_encoder_of_the_folder_gives_the_numbers_of_the_folder(demo: Trained) -> None:
    config = OmegaConf.load(demo.folder / "config.yaml")
    assert isinstance(config, type(OmegaConf.create({})))
    parts = Parts(config, torch.device("cpu"))
    encoder = parts.encoder()
    encoder.load_state_dict(read_state(demo.folder / "encoder.safetensors"))
    pictures = parts.data().tests["plain"].read(range(3))
    with torch.no_grad():
        output = parts.view(parts.generator(encoder.eval()(pictures)))
    assert (output - pictures).square().mean().item() == pytest.approx(
        demo.splits["plain"]["lambda_0.5"]["mse"], rel=1e-4
    )


def test_a_finished_run_says_so_and_stays_as_it_is(
    start: Start, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start("max_steps=2")
    before = {name: (first.folder / name).read_bytes() for name in files(first.folder)}
    capsys.readouterr()
    monkeypatch.setattr(EncoderTraining, "training_step", lambda *_: pytest.fail("it trains again"))
    again = start("max_steps=2", "logger=wandb", "data.num_workers=1", "trainer.recompute=true")  # no other run
    assert again == first
    assert "finished before: " in capsys.readouterr().out
    assert {name: (first.folder / name).read_bytes() for name in files(first.folder)} == before


def test_other_settings_weights_or_images_are_another_run(
    training_domain: list[str], generator_file: Path, photographs: Callable[..., Path], tmp_path: Path
) -> None:
    def folder(*more: str) -> Path:
        config = composed("train", [*training_domain, *more])
        parts = Parts(config, torch.device("cpu"))
        return training_folder(config, parts, parts.data().train).path

    elsewhere = photographs(tmp_path / "the same elsewhere", 12)
    assert folder() == folder(f"data.root={elsewhere}") == folder("trainer.recompute=true", "logger=wandb")
    others = ["lambda_nscd=0", "seed=1", f"init={generator_file}", f"data.root={photographs(tmp_path / 'more', 13)}"]
    others += ["trainer.precision=bf16-mixed", "trainer.accumulate_grad_batches=4", "trainer.gradient_clip_val=1"]
    others += ["data.val_images=4"]
    assert len({folder(), *map(folder, others)}) == 9
    assert folder("trainer.precision=bf16") == folder("trainer.precision=bf16-mixed")
    assert folder("trainer.gradient_clip_val=1") == folder("trainer.gradient_clip_val=1.0")
    assert folder("trainer.precision=32") == folder()


def test_a_run_is_named_by_the_knobs_that_were_turned() -> None:
    config = composed("train", ["lambda_nscd=0", "lr=0.002", "max_steps=5"])
    parts = Parts(config, torch.device("cpu"))
    found = training_folder(config, parts, parts.data().train)
    assert found.path == Path("outputs/demo/lsap_e/lambda_nscd=0.0,lr=0.002,max_steps=5")
    assert not [name for name in found.settings if name.startswith(("trainer", "data"))], "as all earlier records are"


def test_what_changes_the_weights_is_in_the_name_where_it_is_not_as_usual() -> None:
    def folder(*more: str) -> RunFolder:
        config = composed("train", more)
        parts = Parts(config, torch.device("cpu"))
        return training_folder(config, parts, parts.data().train)

    lean = folder("preset=low_memory")
    assert lean.path.name == "batch_size=2,trainer.accumulate_grad_batches=4"
    assert lean.settings["trainer.accumulate_grad_batches"] == 4
    assert folder("data.val_images=100").path.name == "data.val_images=100"
    assert folder("data.val_images=256").path.name == "default"


def test_a_run_that_was_finished_before_its_name_said_so_is_found(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = ["max_steps=1", "data.val_images=null"]
    with monkeypatch.context() as patch:  # version 0.1 recorded only the names of images
        patch.setattr("lsap.pipelines.run_identity.encoders.source_digest", lambda _: None)
        first = start(*usual).folder
    config = OmegaConf.load(first / "config.yaml")
    OmegaConf.update(config, "trainer.gradient_clip_val", 0.5)
    OmegaConf.save(config, first / "config.yaml")  # as it was written when the folder did not depend on it
    assert start(*usual, "trainer.gradient_clip_val=0.5").folder == first
    assert start(*usual, "trainer.gradient_clip_val=0.25").folder != first
    (first / "config.yaml").unlink()
    assert start(*usual, "trainer.gradient_clip_val=0.5").folder != first


def test_an_encoder_is_found_by_those_who_work_in_another_precision(
    start: Start, training_domain: list[str], tmp_path: Path
) -> None:
    def encoder(*more: str) -> Path:
        config = composed("train", [*training_domain, "max_steps=1", f"outputs={tmp_path}/outputs", *more])
        parts = Parts(config, torch.device("cpu"))
        return run_folder(config, parts, parts.data().train).path

    full = start("max_steps=1").folder
    assert encoder() == encoder("trainer.precision=bf16-mixed") == full
    half = start("max_steps=1", "trainer.precision=bf16-mixed").folder
    assert half != full
    assert (encoder(), encoder("trainer.precision=bf16-mixed")) == (full, half)


def test_a_weight_of_zero_builds_no_term_and_loads_no_judge(start: Start, tmp_path: Path) -> None:
    missing = [f"{name}.checkpoint={tmp_path}/none.pth" for name in ("perceptual", "similarity")]
    found = start("max_steps=1", "lambda_nscd=0", "lambda_delta=0", *missing)
    row = found.splits["validation"]["lambda_0"]
    assert (row["lpips"], row["identity"]) == (None, None)
    assert row["nscd"] > 0, "what is not trained for is still measured"
    assert {name for name in rows(found.folder)[0] if name.startswith("train/")} == {
        "train/l2",
        "train/loss",
        "train/stage",
    }


def test_weights_of_the_objective_follow_the_lambdas(training_domain: list[str]) -> None:
    config = composed("train", [*training_domain, "lambda_l2=0.5", "lambda_nscd=0"])
    assert Parts(config, torch.device("cpu")).objective().weights == {"l2": 0.5, "delta": 2e-5}


def test_training_lowers_the_error_of_the_mean_latent(start: Start) -> None:
    found = start("max_steps=40", "lambda_nscd=0", "trainer.val_check_interval=0.5", "lr=0.003")
    table = found.splits["validation"]
    assert table["lambda_0"]["mse"] < 0.98 * table["mean_latent"]["mse"]


def test_without_validation_everything_is_trained_on_and_measured(start: Start) -> None:
    found = start("max_steps=4", "data.val_images=0")
    assert found.splits["validation"]["lambda_0.5"]["n"] == 12
    assert files(found.folder) == WHOLE - {"checkpoints/best.ckpt"}


def test_a_folder_of_test_images_is_what_is_measured(
    start: Start, photographs: Callable[..., Path], tmp_path: Path
) -> None:
    found = start("max_steps=1", f"data.test_root={photographs(tmp_path / 'test', 5)}")
    assert {name: table["lambda_0.5"]["n"] for name, table in found.splits.items()} == {"test": 5}


def test_a_run_can_start_from_another_encoder(start: Start) -> None:
    first = start("max_steps=2")
    second = start("max_steps=1", "lr=1e-12", f"init={first.folder / 'encoder.safetensors'}")
    ours, theirs = (read_state(found.folder / "encoder.safetensors") for found in (first, second))
    for name, tensor in ours.items():
        assert_close_l2(tensor, theirs[name], 1e-6, floor=1e-2, name=name)


# ---- forms of the same computation


@pytest.mark.parametrize("option", ["recompute", "channels_last"])
def test_other_forms_of_the_computation_end_with_the_same_weights(start: Start, unbroken: Start, option: str) -> None:
    ours, theirs = (
        read_state(found.folder / "encoder.safetensors") for found in (start(f"trainer.{option}=true"), unbroken())
    )
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert_close_l2(tensor, theirs[name], 1e-3, name=name)


def test_the_preset_of_low_memory_keeps_the_images_of_a_step() -> None:
    paper, lean = (composed("train", ["domain=face", *more]) for more in ([], ["preset=low_memory"]))
    assert lean.batch_size * lean.trainer.accumulate_grad_batches == paper.batch_size
    assert lean.trainer.recompute
    assert not paper.trainer.recompute


def test_rows_come_in_by_steps_of_the_optimiser_however_many_batches_make_one(start: Start, unbroken: Start) -> None:
    plain, accumulated = (
        [(row["step"], row["train/stage"]) for row in rows(found.folder)]
        for found in (unbroken(), start("batch_size=1", "trainer.accumulate_grad_batches=2"))
    )
    assert plain == accumulated
    assert [float(stage) for _, stage in plain] == [0, 0, 1, 2, 3, 4, 5, 6]


class Normalised(nn.Module):
    """With a batch norm that trains beside one that does not."""

    def __init__(self, trained: bool) -> None:
        super().__init__()
        self.judge, self.norm = nn.BatchNorm2d(3).eval(), nn.BatchNorm2d(3).train(trained)


@pytest.mark.parametrize(("gpus", "devices", "shared"), [(2, 2, True), (2, 1, False), (0, 2, False), (0, 1, False)])
@pytest.mark.parametrize("trained", [True, False])
def test_batch_norms_of_several_gpus_have_one_statistic_and_others_say_that_they_have_not(
    training_domain: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path,
    gpus: int, devices: int, shared: bool, trained: bool,
) -> None:  # fmt: skip
    class Asked(Exception):
        """By the Trainer's constructor."""

    def trainer(**settings: Any) -> None:
        assert settings["sync_batchnorm"] is shared
        assert settings["accelerator"] == ("cuda" if gpus else "cpu")
        raise Asked

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(fitting, "Trainer", trainer)
    config = composed("train", [*training_domain, "trainer.accelerator=auto", f"trainer.devices={devices}"])
    folder = RunFolder(tmp_path, "church", "lsap_e", {}, {})
    module: Any = Normalised(trained)
    data: Any = SimpleNamespace(val_indices=[])
    with caplog.at_level(logging.WARNING), pytest.raises(Asked):
        fitting.fit(config, folder, "new", module, data, fitting.TrainingPlan("a run", 8, 2, "val/loss"))
    assert len(caplog.messages) == (gpus == 0 and devices == 2 and trained)
    assert all("batch norms see each process's own share" in line for line in caplog.messages)


def test_devices_are_those_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(**changed: Any) -> None:
        fitting.check_trainer(OmegaConf.merge(composed("train").trainer, changed))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for accepted in ("auto", 1, 4, "4"):
        check(devices=accepted)
    for of_gpus in ([0, 1], "0,1", -1, "-1", 0):
        with pytest.raises(BadValue, match=r"without a CUDA device, expected auto or a number of at least 1$"):
            check(devices=of_gpus)
    with pytest.raises(BadValue, match=r"trainer\.accelerator=gpu: no CUDA device is available; use auto or cpu"):
        check(accelerator="gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for accepted in ("auto", -1, "-1", 1, 2, [1], "1,", [0, 1], "0,1"):
        check(devices=accepted, accelerator="gpu")
    for missing in (3, [2], "0,2"):
        with pytest.raises(BadValue, match="2 GPUs are available"):
            check(devices=missing)
    for wrong in ([], [0, 0], "0;1", 0):
        with pytest.raises(BadValue, match="or a list of GPUs as"):
            check(devices=wrong)
    for wrong in ("[true]", "true", "null", "1.0"):
        with pytest.raises(BadValue, match="or a list of GPUs as"):
            composed("train", [f"trainer.devices={wrong}"])
    check(devices=4, accelerator="cpu")


@pytest.mark.parametrize("precision", [16, "32", 64, "bf16", "16-true", "bf16-mixed"])
def test_precisions_are_what_lightning_takes(precision: int | str) -> None:
    settings = composed("train").trainer
    settings.precision = precision
    fitting.check_trainer(settings)
    Trainer(accelerator="cpu", precision=precision, logger=False, enable_checkpointing=False)  # type: ignore[arg-type]


# ---- killed and started again

ACCUMULATED = ["trainer.accumulate_grad_batches=2"]
NO_VALIDATION = ["data.val_images=0"]


# (what is called for the n-th time when the process dies); 8 steps, validated after 2 4 6 8, saved after 2 3 4 6 8
KILLS: list[tuple[object, str, int]] = [
    (EncoderTraining, "training_step", 2),  # before anything was saved
    (EncoderTraining, "training_step", 4),  # just after a checkpoint without validation
    (EncoderTraining, "training_step", 6),
    (EncoderTraining, "validation_step", 3),  # in the second validation: batches of 2 and 1
    (AtomicCheckpoints, "save_checkpoint", 2),  # the best one is written, the last one not
]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a process that has used CUDA cannot be forked")
@pytest.mark.parametrize(("owner", "name", "calls"), KILLS, ids=[f"{name}-{calls}" for _, name, calls in KILLS])
def test_a_killed_run_ends_as_one_never_killed(
    start: Start, unbroken: Start, tmp_path: Path, owner: object, name: str, calls: int
) -> None:
    killed_at(start, owner, name, calls)
    outputs = tmp_path / "outputs"
    assert record(only_run(outputs))["status"] == "running"
    assert_same_outcome(start().folder, unbroken().folder)
    assert files(only_run(outputs)) == WHOLE, "pieces of files are left"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a process that has used CUDA cannot be forked")
@pytest.mark.parametrize(
    "more",
    [
        pytest.param(ACCUMULATED, id="accumulated"),
        pytest.param(NO_VALIDATION, id="no validation", marks=pytest.mark.slow),
    ],
)
def test_killed_twice_it_still_ends_the_same(start: Start, unbroken: Start, more: list[str]) -> None:
    killed_at(lambda: start(*more), EncoderTraining, "training_step", 10 if more == ACCUMULATED else 5)
    killed_at(lambda: start(*more), EncoderTraining, "training_step", 2)  # with half of the gradients, if accumulated
    assert_same_outcome(start(*more).folder, unbroken(*more).folder)


def test_under_slurm_a_new_run_does_not_start_from_what_lightning_kept_of_another(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    Path("hpc_ckpt_1.ckpt").write_bytes(b"of another run")
    asked: list[bool] = []

    class Environment(SLURMEnvironment):
        def __init__(self, auto_requeue: bool = True) -> None:
            asked.append(auto_requeue)
            super().__init__(auto_requeue)

    monkeypatch.setattr("lsap.pipelines.fit.SLURMEnvironment", Environment)
    assert record(start("max_steps=2").folder)["status"] == "finished"
    assert asked == [False], "Lightning would write more of them"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a process that has used CUDA cannot be forked")
def test_killed_while_it_measures_it_does_not_train_again(start: Start, unbroken: Start) -> None:
    import lsap.pipelines.training as verb

    killed_at(start, verb, "evaluate_mean_latent", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EncoderTraining, "training_step", lambda *_: pytest.fail("it trains again"))
        found = start()
    assert_same_outcome(found.folder, unbroken().folder)
    assert json.loads((found.folder / "metrics.json").read_text())["images_per_second"] is None


def test_an_error_in_the_middle_is_recorded_and_the_run_goes_on_from_there(
    start: Start, unbroken: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("a bug")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EncoderTraining, "training_step", after(6, EncoderTraining.training_step, then=fail))
        with pytest.raises(ZeroDivisionError):
            start()
    folder = only_run(tmp_path / "outputs")
    assert (record(folder)["status"], record(folder)["step"]) == ("failed", 4)
    assert record(folder)["error"] == "ZeroDivisionError: a bug"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            EncoderTraining,
            "training_step",
            after(5, EncoderTraining.training_step, then=lambda: pytest.fail("too much")),
        )
        again = start()  # four of eight steps are left
    assert f"resuming {folder}: 4 of 8 steps are done" in capsys.readouterr().out
    assert_same_outcome(again.folder, unbroken().folder)


def test_ctrl_c_is_no_error_and_says_how_to_go_on(
    command: Command, training_domain: list[str], unbroken: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(EncoderTraining, "training_step", after(6, EncoderTraining.training_step, then=interrupt))
            outcome = command("train", *training_domain)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert outcome.code == 130
    assert "stopped; start the same command again to go on" in outcome.err
    assert "Traceback" not in outcome.err
    assert command("train", *training_domain).code == 0
    assert_same_outcome(only_run(tmp_path / "outputs"), unbroken().folder)


# ---- what stops a run


def test_a_loss_that_is_not_a_number_stops_the_run(
    start: Start, unbroken: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def poisoned(self: L2, fit: LossInputs) -> Tensor:
        nonlocal calls
        calls += torch.is_grad_enabled()  # training, not validation
        return (fit.output - fit.images).square().mean((1, 2, 3)) * (float("nan") if calls == 6 else 1.0)

    with monkeypatch.context() as patch:
        patch.setattr(L2, "forward", poisoned)
        with pytest.raises(
            StoppedRun, match=r"the loss became nan in step 5 \(term l2\); the last good checkpoint is kept"
        ):
            start()
    folder = only_run(tmp_path / "outputs")
    assert record(folder)["status"] == "failed"
    kept = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert (kept["global_step"], kept["batches_seen"]) == (4, 4)
    assert all(tensor.isfinite().all() for tensor in kept["state_dict"].values())
    assert_same_outcome(start().folder, unbroken().folder)


def test_weights_that_are_not_numbers_are_never_saved(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def steep(self: L2, fit: LossInputs) -> Tensor:
        """Finite values with a slope that is not: the weights break before the loss does."""
        return (fit.output - fit.images).square().mean((1, 2, 3)) + 0 * (fit.w_plus - fit.w_plus.detach()).square().sum(
            (1, 2)
        ).sqrt()

    with monkeypatch.context() as patch:
        patch.setattr(L2, "forward", steep)
        with pytest.raises(StoppedRun, match="not finite"):
            start("max_steps=2", "trainer.val_check_interval=0.5")
    assert not (only_run(tmp_path / "outputs") / "checkpoints" / "last.ckpt").exists()


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_corrupt_image_is_named_skipped_and_counted(
    start: Start, training_photographs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, workers: int
) -> None:
    folder = shutil.copytree(training_photographs, tmp_path / "photos")
    broken = folder / "007.png"
    broken.write_bytes(broken.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        found = start(f"data.root={folder}", f"data.num_workers={workers}")
    if workers == 0:
        (said,) = (text for text in caplog.messages if "007.png" in text)
        assert said.startswith("007.png cannot be read")
    metrics = json.loads((found.folder / "metrics.json").read_text())
    assert metrics["skipped_images"] == {"train": ["007.png"]}
    kept = torch.load(found.folder / "checkpoints" / "last.ckpt", weights_only=True)["ImageDataModule"]
    assert kept == {"skipped": {"train": ["007.png"]}}, "a resumed run would not count it"


def test_a_corrupt_image_stops_a_strict_run(start: Start, training_photographs: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(training_photographs, tmp_path / "photos")
    (folder / "007.png").write_bytes(b"no picture")
    with pytest.raises(BadValue, match=r"007\.png cannot be read .* data\.strict=false"):
        start(f"data.root={folder}", "data.strict=true")
    assert record(only_run(tmp_path / "outputs"))["status"] == "failed"


def test_a_full_disk_stops_the_run_and_loses_nothing(
    start: Start, unbroken: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Path.write_bytes
    written = 0

    def full(self: Path, data: bytes) -> int:
        nonlocal written
        written += "last" in self.name
        if written >= 3:
            whole(self, bytes(data)[:1000])
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(StoppedRun, match=r"no room left on the disk for last\.ckpt in .* MB needed, .* free"):
            start()
    folder = only_run(tmp_path / "outputs")
    kept = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 3
    assert not [name for name in files(folder) if "unfinished" in name]
    assert_same_outcome(start().folder, unbroken().folder)


def test_a_checkpoint_cut_short_is_named(start: Start, unbroken: Start, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EncoderTraining, "training_step", after(6, EncoderTraining.training_step, then=raise_system_exit))
        with pytest.raises(SystemExit):
            start()
    last = only_run(tmp_path / "outputs") / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:5000])
    with pytest.raises(
        BadValue, match=r"last\.ckpt cannot be read .* damaged. Delete it to start this run from its beg"
    ):
        start()
    last.unlink()
    assert_same_outcome(start().folder, unbroken().folder)


def test_a_damaged_best_checkpoint_is_named_and_can_be_done_without(start: Start, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lsap.pipelines.training.evaluate_mean_latent", after(1, lambda *_: None, then=raise_system_exit))
        with pytest.raises(SystemExit):
            start()
    best = only_run(tmp_path / "outputs") / "checkpoints" / "best.ckpt"
    best.write_bytes(best.read_bytes()[:5000])
    with pytest.raises(
        BadValue, match=r"best\.ckpt is damaged; delete it to end this run with the weights of its last"
    ):
        start()
    best.unlink()
    found = start()
    last = torch.load(best.with_name("last.ckpt"), weights_only=True)["state_dict"]
    assert all(
        torch.equal(t, last[f"encoder.{n}"]) for n, t in read_state(found.folder / "encoder.safetensors").items()
    )


def test_damaged_numbers_of_a_finished_run_are_one_line(unbroken: Start, tmp_path: Path) -> None:
    text = (unbroken().folder / "metrics.json").read_text()
    (tmp_path / "metrics.json").write_text(text[:20])
    with pytest.raises(BadValue, match=r"metrics\.json cannot be read .*; delete the folder to train again"):
        stored(tmp_path)


def test_too_little_memory_names_what_needs_less(
    start: Start, unbroken: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with monkeypatch.context() as patch:
        patch.setattr(EncoderTraining, "training_step", after(6, EncoderTraining.training_step, then=full))
        with pytest.raises(
            StoppedRun, match=r"^batch_size=2: .* stays in last\.ckpt and trainer\.recompute=true"
        ) as said:
            start()
    assert "a smaller batch_size= or preset=low_memory is another run" in str(said.value)
    assert record(only_run(tmp_path / "outputs"))["status"] == "failed"
    assert_same_outcome(start().folder, unbroken().folder)


def raise_system_exit() -> None:
    """What a scheduler's signal handler may do."""
    raise SystemExit(1)


# ---- sweeps


def test_a_sweep_trains_each_of_its_members(command: Command, training_domain: list[str], tmp_path: Path) -> None:
    outcome = command("train", "-m", *training_domain, "max_steps=1", "lambda_nscd=0,-1,0.5")
    assert outcome.code == 2
    assert outcome.out.count("done: ") == 2, "the wrong member does not keep the others from running"
    assert "error: lambda_nscd=-1: " in outcome.err
    assert sorted(record(p.parent)["settings"]["lambda_nscd"] for p in tmp_path.rglob("run.json")) == [0.0, 0.5]


# ---- real processes


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], [*ACCUMULATED, "data.num_workers=2"]], ids=["plain", "accumulated, two workers"])
def test_a_command_killed_from_outside_ends_as_one_never_killed(
    start: Start, training_domain: list[str], unbroken: Start, tmp_path: Path, more: list[str]
) -> None:
    more = [*more, "max_steps=300", "trainer.save_every=0.05"]
    command_line = [*training_domain, "outputs=outputs", *more]
    victim = launch(command_line, tmp_path)
    deadline = time.monotonic() + 300
    while victim.poll() is None and time.monotonic() < deadline:
        if list(tmp_path.glob("outputs/*/*/*/checkpoints/last.ckpt")):
            break
        time.sleep(0.02)
    victim.kill()
    victim.communicate()
    assert victim.returncode == -signal.SIGKILL
    found = record(only_run(tmp_path / "outputs"))
    assert found["status"] == "running"
    assert 0 < found["step"] < 300
    again = launch(command_line, tmp_path)
    assert again.wait(timeout=600) == 0, again.communicate()[1]
    assert_same_outcome(only_run(tmp_path / "outputs"), unbroken(*more).folder)


@pytest.mark.slow
def test_two_processes_leave_one_set_of_files(
    start: Start, training_domain: list[str], photographs: Callable[..., Path], tmp_path: Path
) -> None:
    test = photographs(tmp_path / "test", 5)
    arguments = [a for a in training_domain if not a.startswith("trainer.devices")] + [
        f"data.test_root={test}",
        "outputs=outputs",
    ]
    run = launch([*arguments, "trainer.devices=2"], tmp_path)
    out, err = run.communicate(timeout=600)
    assert run.returncode == 0, err
    assert out.count("done: ") == 1
    folder = only_run(tmp_path / "outputs")
    assert files(folder) == WHOLE
    row = json.loads((folder / "metrics.json").read_text())["splits"]["test"]["lambda_0.5"]
    assert row["n"] == 5, "no image is counted twice"
    alone = start(f"data.test_root={test}", to=tmp_path / "alone").folder
    assert [r["step"] for r in rows(folder)] == [r["step"] for r in rows(alone)]
    # before the first step both have the same weights; noise maps are drawn per process, so losses agree roughly
    first, second = (float(rows(f)[0]["train/delta"]) for f in (folder, alone))
    assert first == pytest.approx(second, rel=0.5)
    again = launch([*arguments, "trainer.devices=2"], tmp_path)
    out, err = again.communicate(timeout=600)
    assert again.returncode == 0, err
    assert "finished before" in out
