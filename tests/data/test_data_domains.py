"""A domain of one's own, whole: one YAML file or two overrides, a non-square picture, archives and a database."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from commands import Command
from image_files import in_archive, in_database

pytestmark = pytest.mark.slow

YAML = """# @package _global_
defaults:
  - /base/photographs
  - _self_

domain:
  name: banners
  needs:
    - {{key: generator.checkpoint, what: banner generator, source: trained by us}}
    - {{key: data.root, what: photographs of banners, source: taken by us}}
generator:
  _target_: lsap.checkpoints.load_generator
  checkpoint: {generator}
  size: 32
image_size: [16, 32] # half as high as wide
view:
  _target_: lsap.stylegan2.View
  size: 32
  rows: [8, 24]
encoders:
  progressive: lsap.embedding.SmallPyramidEncoder
data:
  root: {images}
  num_workers: 1
  published:
    train: [{{set: banners, count: 6, size: [20, 40]}}]
"""

TINY = [
    "lambda_lpips=0",
    "lambda_id=0",
    "backbone.checkpoint=random",
    "space.samples=64",
    "max_steps=2",
    "batch_size=2",
]


@pytest.fixture
def banners(tmp_path: Path, photographs: Callable[..., Path]) -> dict[str, bytes]:
    """Six pictures, twice as wide as high."""
    folder = photographs(tmp_path / "drawn", 6, (20, 40))
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_one_yaml_makes_a_domain(
    command: Command, tmp_path: Path, generator_file: Path, banners: dict[str, bytes]
) -> None:
    images = in_archive(tmp_path / "banners", banners)
    yaml = tmp_path / "mine" / "domain" / "banners.yaml"
    yaml.parent.mkdir(parents=True)
    yaml.write_text(YAML.format(generator=generator_file, images=images))
    chosen = ["--config-dir", str(tmp_path / "mine"), "domain=banners"]

    looked = command("check", *chosen)
    assert looked.code == 0, looked.err
    assert "banners train:" in looked.out
    assert "no warnings" in looked.out, "it says itself what is to be expected"

    trained = command("train", *chosen, *TINY)
    assert trained.code == 0, trained.err
    (metrics,) = (tmp_path / "outputs" / "banners" / "lsap_e").glob("*/metrics.json")
    row = json.loads(metrics.read_text())["splits"]["validation"]["lambda_0.5"]
    assert row["n"] == 1
    assert 0 < row["mse"] < 4


def test_two_overrides_make_a_domain(
    command: Command, tmp_path: Path, generator_file: Path, banners: dict[str, bytes]
) -> None:
    images = in_database(tmp_path / "banners", banners)
    tests = in_archive(tmp_path / "tests", dict(list(banners.items())[:3]))
    seen = ["generator.size=32", "view.size=32", "image_size=[32,32]"]  # another size than church's names itself
    encoder = "encoders.progressive=lsap.embedding.SmallPyramidEncoder"
    paths = [f"data.root={images}", f"generator.checkpoint={generator_file}", f"data.test_root={tests}"]
    trained = command("train", "domain=church", *paths, *seen, encoder, *TINY, "data.num_workers=0")
    assert trained.code == 0, trained.err
    (metrics,) = (tmp_path / "outputs" / "church" / "lsap_e").glob("*/metrics.json")
    assert json.loads(metrics.read_text())["splits"]["test"]["lambda_0.5"]["n"] == 3
