"""NSCD of codes from a file: the numbers are those by hand, whatever the container, beside the generator's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from commands import Command
from lsap.alignment import NormalizedStyleSpace, nscd
from lsap.checkpoints import fingerprint, load_generator, write_codes
from lsap.checkpoints.codes import Codes
from lsap.stylegan2 import Generator

FEW = "space.samples=500"


@pytest.fixture(scope="module")
def generator(generator_file: Path) -> Generator:
    return load_generator(generator_file)


def test_scores_are_those_of_the_function(
    command: Command, generator: Generator, generator_file: Path, tmp_path: Path
) -> None:
    codes = torch.randn(5, generator.n_latent, generator.style_dim)
    np.save(tmp_path / "latents.npy", codes.numpy())
    out = command("nscd", "codes=latents.npy", f"generator={generator_file}", FEW, "save_to=scores.json")
    assert out.code == 0, out.err
    found = json.loads((tmp_path / "scores.json").read_text())
    space = NormalizedStyleSpace(generator, samples=500)
    styles = space.styles(codes)
    expected = nscd(styles, space.mean)
    assert [image["nscd"] for image in found["images"]] == pytest.approx(expected.tolist(), rel=1e-5)
    row = found["rows"]["latents.npy"]
    assert row["nscd"] == pytest.approx(expected.mean().item(), rel=1e-5)
    assert row["nscd_raw"] == pytest.approx(nscd(styles, space.mean, anchor="raw").mean().item(), rel=1e-5)
    assert row["n"] == 5
    assert 0 < row["diversity"] < 1
    synthetic = found["rows"]["synthetic"]
    assert (synthetic["nscd"], synthetic["nscd_raw"]) == pytest.approx(tuple(space.synthetic.values()), rel=1e-5)
    assert found["generator"] == fingerprint(generator)
    assert set(found["layers"]) == set(space.names)
    assert f"{row['nscd']:.4f}" in out.out
    assert "synthetic" in out.out


def test_every_container_and_shape_gives_one_score(
    command: Command, generator: Generator, generator_file: Path, tmp_path: Path
) -> None:
    w = generator.sample_w(1, torch.Generator().manual_seed(3))
    np.save(tmp_path / "w.npy", w[0].numpy())
    torch.save(w.expand(generator.n_latent, -1).clone(), tmp_path / "w_plus.pt")
    codes = Codes(w[:, None].expand(1, generator.n_latent, -1), ("face.png",))
    write_codes(tmp_path / "lsap.safetensors", codes, fingerprint(generator))
    scores = []
    for name in ("w.npy", "w_plus.pt", "lsap.safetensors"):
        out = command("nscd", f"codes={name}", f"generator={generator_file}", FEW, "save_to=s.json")
        assert out.code == 0, out.err
        result = json.loads((tmp_path / "s.json").read_text())
        assert result["rows"][name]["diversity"] is None, "one code has none"
        scores.append(result["images"][0])
    assert scores[0]["nscd"] == scores[1]["nscd"] == scores[2]["nscd"]
    assert [score["name"] for score in scores] == ["0", "0", "face.png"]


def test_the_generators_own_samples_score_as_the_synthetic_row(
    command: Command, generator: Generator, generator_file: Path, tmp_path: Path
) -> None:
    samples = generator.sample_w(2000, torch.Generator().manual_seed(11))
    torch.save(samples[:, None], tmp_path / "own.pt")
    command("nscd", "codes=own.pt", f"generator={generator_file}", "space.samples=5000", "save_to=s.json")
    rows = json.loads((tmp_path / "s.json").read_text())["rows"]
    for key in ("nscd", "nscd_raw", "diversity"):
        assert rows["own.pt"][key] == pytest.approx(rows["synthetic"][key], rel=0.05)


def test_the_demos_generator_is_the_default(command: Command, tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", np.random.default_rng(0).normal(size=(10, 128)).astype(np.float32))
    out = command("nscd", "codes=c.npy", FEW)
    assert out.code == 0, out.err
    assert "c.npy" in out.out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("codes=null",), "codes is not set: name a file"),
        (("codes=none.npy",), "none.npy does not exist"),
        (("codes=wide.npy",), "wide.npy holds codes of shape [3, 18, 512]; this generator takes [16], [8, 16]"),
        (("codes=other.safetensors",), "other.safetensors belongs to generator 000000000000, but this one is"),
        (("codes=wide.npy", "save_to=a.csv"), "save_to=a.csv: the results are written as JSON"),
    ],
)
def test_wrong_files_are_one_line(
    command: Command, generator_file: Path, tmp_path: Path, settings: tuple[str, ...], message: str
) -> None:
    np.save(tmp_path / "wide.npy", np.zeros((3, 18, 512), np.float32))
    write_codes(tmp_path / "other.safetensors", Codes(torch.zeros(1, 8, 16), None), "0" * 64)
    out = command("nscd", *settings, f"generator={generator_file}", FEW)
    assert (out.code, out.err.count("\n")) == (2, 1)
    assert message in out.err


def test_codes_of_w_are_scored_one_by_one(command: Command, generator_file: Path, tmp_path: Path) -> None:
    rows = load_generator(generator_file).n_latent
    np.save(tmp_path / "w.npy", np.random.default_rng(0).normal(size=(rows, 16)).astype(np.float32))
    typed = ("codes=w.npy", f"generator={generator_file}", FEW, "save_to=s.json")
    one = command("nscd", *typed)
    assert "is read as one code of W+" in one.err
    assert len(json.loads((tmp_path / "s.json").read_text())["images"]) == 1
    several = command("nscd", *typed, "codes_in=w")
    assert several.err == ""
    assert len(json.loads((tmp_path / "s.json").read_text())["images"]) == rows
