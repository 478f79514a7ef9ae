"""Sweeps: how members are called, what is told of those that failed, and that the others are kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from commands import Command
from lsap.cli.sweeps import SILENT, Failed, Sweep, members_of
from training_runs import record

Own = list[str]


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("lambda_nscd=0,0.5 max_steps=3", ["lambda_nscd=0", "lambda_nscd=0.5"]),
        ("embedding=psp,e4e seed=range(2)", [f"embedding={e} seed={s}" for e in ("psp", "e4e") for s in (0, 1)]),
        (
            "hydra/launcher=joblib lambda_nscd=1,2 lambda_nscd=3",
            ["hydra/launcher=joblib lambda_nscd=1,2 lambda_nscd=3"],
        ),
        ("+more.a=1,2 'x=a\\,b'", ["+more.a=1", "+more.a=2"]),
        ("lr=interval(0,1)", []),
        ("embedding=glob(*)", []),
    ],
)
def test_members_are_called_by_what_is_swept(typed: str, names: list[str]) -> None:
    assert list(members_of([word.strip("'") for word in typed.split()])) == names


def told(number: int, folder: Path, *overrides: str) -> DictConfig:
    """What Hydra says of a member, or of the whole sweep."""
    found = {"overrides": {"task": list(overrides)}, "sweep": {"dir": str(folder)}, "job": {"num": number}}
    return OmegaConf.create({"hydra": found})


def ended(value: object) -> JobReturn:
    found = JobReturn(status=JobStatus.COMPLETED)
    found.return_value = value
    return found


def test_members_that_failed_and_those_that_left_no_word_are_named(tmp_path: Path) -> None:
    sweep = Sweep()
    sweep.on_multirun_start(told(0, tmp_path, "lambda_nscd=0,1,2"))
    sweep.on_job_end(told(0, tmp_path, "lambda_nscd=0"), ended(None))
    sweep.on_job_end(told(1, tmp_path, "lambda_nscd=1"), ended(Failed("the disk is full")))
    failures = sweep.failures()
    assert failures == {"lambda_nscd=1": Failed("the disk is full"), "lambda_nscd=2": Failed(SILENT)}
    assert sweep.summary(failures).splitlines() == [
        "2 of 3 members of this sweep failed; the others are done and stay. Started again, only these are run:",
        "  lambda_nscd=1",
        "    the disk is full",
        "  lambda_nscd=2",
        f"    {SILENT}",
    ]
    sweep.tidy()
    assert list(tmp_path.iterdir()) == []


def test_runs_outside_of_a_sweep_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Sweep().on_job_end(told(0, tmp_path), ended(None))
    assert list(tmp_path.iterdir()) == []


def test_all_failed_members_are_named_and_the_others_completed_later(
    command: Command,
    training_domain: Own,
    tmp_path: Path,
) -> None:
    outcome = command("train", "-m", *training_domain, "max_steps=1", "lambda_nscd=-1,0.5,-2")
    assert outcome.code == 2
    last = outcome.err[outcome.err.index("error: 2 of 3 members") :].splitlines()
    assert [line.strip() for line in last[1::2]] == ["lambda_nscd=-1", "lambda_nscd=-2"]
    assert "expected a number of at least 0" in last[2]
    assert not list((tmp_path / "outputs" / "multirun").glob("members-*"))
    outcome = command("train", "-m", *training_domain, "max_steps=1", "lambda_nscd=1,0.5,2")
    assert outcome.code == 0, outcome.err
    assert (outcome.out.count("done: "), outcome.out.count("finished before: ")) == (2, 1)


def test_a_mistake_of_ours_within_a_sweep_is_shown_where_it_happened(
    command: Command,
    training_domain: Own,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr("lsap.pipelines.training.check", broken)
    outcome = command("train", "-m", *training_domain, "seed=0,1")
    assert outcome.code == 1
    assert "in broken" in outcome.err
    assert "error: 2 of 2 members of this sweep failed" in outcome.err
    assert outcome.err.count("ZeroDivisionError: by nothing, a mistake of lsap's own") == 4


def test_settings_that_do_not_compose_are_refused_before_any_member_runs(
    command: Command, training_domain: Own
) -> None:
    outcome = command("train", "-m", *training_domain, "preset=paper,papre")
    assert outcome.code == 2
    assert outcome.err.strip().splitlines()[-1].startswith("error: preset=papre: there is no such preset")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [["joblib", "hydra.launcher.n_jobs=2"], ["submitit_local"]], ids=lambda x: x[0])
def test_members_of_other_processes_are_kept_and_named_too(
    training_domain: Own,
    tmp_path: Path,
    launcher: list[str],
) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{launcher[0].split('_')[0]}_launcher")
    settings = [f"hydra/launcher={launcher[0]}", *launcher[1:], *training_domain, "max_steps=1", "outputs=outputs"]

    def sweep(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lsap.train", "-m", *settings, *more],
            cwd=tmp_path, text=True, capture_output=True, check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip

    found = sweep("lambda_nscd=0,-1,0.5")
    assert found.returncode == 2, found.stderr
    assert "error: 1 of 3 members of this sweep failed" in found.stderr
    assert found.stderr.rstrip().endswith("lambda_nscd=-1: expected a number of at least 0")
    runs = sorted(tmp_path.glob("outputs/*/*/*/run.json"))
    assert [record(run.parent)["status"] for run in runs] == ["finished"] * 2
    before = [run.stat().st_mtime_ns for run in runs]
    found = sweep("lambda_nscd=0,1,0.5")
    assert found.returncode == 0, found.stderr
    assert [run.stat().st_mtime_ns for run in runs] == before
    assert len(list(tmp_path.glob("outputs/*/*/*/run.json"))) == 3
