"""The wheel: what is built from the repository runs from an empty folder, YAML files, page and weights included."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ("generator", "identity", "identity_reader", "reader", "trunk")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the wheel's files, as an installation would have them."""
    folder = tmp_path_factory.mktemp("wheel")
    at_hand = importlib.util.find_spec("hatchling") is not None
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    done = subprocess.run([*build, *(["--no-build-isolation"] if at_hand else [])], capture_output=True, text=True)
    if done.returncode and not at_hand:
        pytest.skip(f"neither hatchling nor a package index is at hand: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("lsap-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def python(installed: Path, folder: Path, *arguments: str) -> str:
    """What a Python process prints that finds the wheel's files first, in a folder of its own."""
    environment = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_everything_that_runs_travels(installed: Path) -> None:
    packed = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    ours = {path for path in packed if not path.startswith("lsap-")}
    code = {str(p.relative_to(ROOT / "src")) for p in (ROOT / "src" / "lsap").rglob("*") if p.is_file()}
    yaml = {str(Path("lsap") / p.relative_to(ROOT)) for p in (ROOT / "conf").rglob("*.yaml")}
    experiments = {str(Path("lsap") / p.relative_to(ROOT)) for p in (ROOT / "experiments").rglob("*") if p.is_file()}
    assert ours == {path for path in code if "__pycache__" not in path} | yaml | experiments
    assert {f"lsap/reports/templates/{name}" for name in ("page.html.jinja", "blocks.html.jinja", "page.css")} <= ours
    assert {f"lsap/demo/weights/{name}.safetensors" for name in WEIGHTS} <= ours


def test_shipped_weights_stay_small(installed: Path) -> None:
    total = sum(path.stat().st_size for path in (installed / "lsap" / "demo" / "weights").glob("*.safetensors"))
    assert 1_000_000 < total <= 12_000_000


def test_commands_find_their_configuration(installed: Path, tmp_path: Path) -> None:
    where = python(
        installed, tmp_path, "-c", "import lsap, lsap.cli; print(lsap.__file__, lsap.config.compose.config_dir())"
    )
    assert where.split() == [str(installed / "lsap" / "__init__.py"), str(installed / "lsap" / "conf")]
    plan = python(installed, tmp_path, "-m", "lsap.train", "--cfg", "job", "domain=car")
    assert "_target_: lsap.checkpoints.load_generator" in plan
    assert "name: car" in plan
    assert not list(tmp_path.iterdir())


def test_an_installed_lsap_trains(installed: Path, tmp_path: Path) -> None:
    small = ["max_steps=1", "batch_size=2", "space.samples=64", "data.train.count=8", "data.val_images=2"]
    tests = [
        "data.tests.rich.count=2",
        "data.tests.plain.count=2",
        "data.tests.far.count=2",
        "trainer.accelerator=cpu",
        "trainer.devices=1",
    ]
    said = python(installed, tmp_path, "-m", "lsap.train", *small, *tests)
    assert "done: outputs/demo/lsap_e/" in said
    (page,) = tmp_path.glob("outputs/demo/lsap_e/*/report.html")
    assert "<style>" in page.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]
