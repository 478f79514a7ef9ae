"""A sweep as jobs of a real SLURM, one machine is enough; skipped where none takes jobs."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lsap.config.compose import composed
from lsap.pipelines.training import train
from training_runs import assert_same_outcome, only_run, record

Own = list[str]
ON_SLURM = ["hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=30", "outputs=outputs"]


def missing() -> str | None:
    """Why there is no SLURM to try it on; None where there is one."""
    if shutil.which("sbatch") is None:
        return "there is no sbatch on this machine"
    if subprocess.run(["sinfo", "--noheader"], capture_output=True, check=False, timeout=60).returncode:
        return "sbatch is here, but no controller answers sinfo"
    if importlib.util.find_spec("hydra_plugins.hydra_submitit_launcher") is None:
        return "hydra-submitit-launcher is not installed (the extra cluster)"
    return None


@pytest.fixture(scope="module", autouse=True)
def _slurm() -> None:
    if reason := missing():
        pytest.skip(reason)


pytestmark = pytest.mark.slow


def started(arguments: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    """`python -m lsap.train -m …` in a folder, its members as jobs."""
    return subprocess.Popen(
        [sys.executable, "-m", "lsap.train", "-m", *ON_SLURM, *arguments],
        cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


def test_members_are_jobs_and_those_that_failed_are_named(training_domain: Own, tmp_path: Path) -> None:
    settings = [*training_domain, "max_steps=1"]
    sweep = started([*settings, "lambda_nscd=0,-1,0.5"], tmp_path)
    _, err = sweep.communicate(timeout=1800)
    assert sweep.returncode == 2, err
    assert "error: 1 of 3 members of this sweep failed" in err
    assert err.rstrip().endswith("lambda_nscd=-1: expected a number of at least 0")
    runs = sorted(tmp_path.glob("outputs/*/*/*/run.json"))
    assert [record(run.parent)["status"] for run in runs] == ["finished"] * 2
    before = [run.stat().st_mtime_ns for run in runs]
    sweep = started([*settings, "lambda_nscd=0,1,0.5"], tmp_path)
    assert sweep.wait(timeout=1800) == 0, sweep.communicate()[1]
    assert [run.stat().st_mtime_ns for run in runs] == before, "what was finished is not trained again"
    assert len(list(tmp_path.glob("outputs/*/*/*/run.json"))) == 3


def test_a_job_that_is_requeued_goes_on_from_its_last_checkpoint(
    training_domain: Own,
    tmp_path: Path,
) -> None:
    more = ["max_steps=300", "trainer.save_every=0.05"]
    sweep = started([*training_domain, *more, "lambda_nscd=0.5"], tmp_path)
    until(lambda: list(tmp_path.glob("outputs/*/*/*/checkpoints/last.ckpt")))
    (pickle,) = tmp_path.glob("outputs/multirun/.submitit/*/*_submitted.pkl")
    job = re.sub("_submitted.pkl$", "", pickle.name)
    subprocess.run(["scontrol", "requeue", job], check=True)
    until(lambda: record(only_run(tmp_path / "outputs"))["status"] == "finished")
    assert sweep.wait(timeout=600) == 0, sweep.communicate()[1]
    unbroken = train(composed("train", [*training_domain, *more, "lambda_nscd=0.5", f"outputs={tmp_path}/unbroken"]))
    assert_same_outcome(only_run(tmp_path / "outputs"), unbroken.folder)


def until(condition: Callable[[], object], seconds: float = 1200) -> None:
    """Wait for a condition; fail where it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.1)
