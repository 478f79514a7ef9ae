"""Codes and directions of other tools: every shape and container, and whose they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lsap.checkpoints import read_codes, read_components, read_direction, write_codes, write_direction, write_state
from lsap.checkpoints.codes import Codes
from lsap.errors import BadValue

FITS = {"n_latent": 6, "style_dim": 8}
OWNER, OTHER = "a" * 64, "b" * 64


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".safetensors"])
@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((8,), (1, 8)),
        ((1, 8), (1, 8)),
        ((6, 8), (1, 6, 8)),
        ((5, 6, 8), (5, 6, 8)),
        ((5, 1, 8), (5, 8)),
        ((1, 1, 6, 8), (1, 6, 8)),
    ],
)
def test_codes_of_every_shape_and_container(
    tmp_path: Path, suffix: str, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    values = torch.randn(shape)
    path = tmp_path / f"latents{suffix}"
    if suffix == ".npy":
        np.save(path, values.numpy().astype(np.float64))
    elif suffix == ".npz":
        np.savez(path, w=values.numpy())  # as NVIDIA's projector writes it
    elif suffix == ".pt":
        torch.save(values, path)
    else:
        write_state(path, {"anything": values}, {})
    found = read_codes(path, **FITS)
    assert found.codes.shape == expected
    assert torch.equal(found.codes.flatten(), values.flatten())
    assert found.names is None


def test_codes_in_a_checkpoint_are_found_by_name(tmp_path: Path) -> None:
    torch.save({"latents": torch.ones(2, 6, 8), "noise": torch.zeros(4), "step": 3}, tmp_path / "p.pt")
    assert read_codes(tmp_path / "p.pt", **FITS).codes.sum() == 96
    torch.save({"x": torch.ones(2, 6, 8), "y": torch.zeros(4)}, tmp_path / "q.pt")
    with pytest.raises(BadValue, match=r"q\.pt holds no codes: expected one tensor, .* it has x \[2, 6, 8\], y \[4\]"):
        read_codes(tmp_path / "q.pt", **FITS)


@pytest.mark.parametrize("shape", [(5, 8), (6, 7), (4, 18, 8), (2, 3, 6, 8)])
def test_codes_of_another_generator_are_refused_by_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "c.npy", np.zeros(shape, np.float32))
    with pytest.raises(BadValue, match=r"takes \[8\], \[6, 8\] or \[N, 6, 8\], and codes of W as \[N, 1, 8\]"):
        read_codes(tmp_path / "c.npy", **FITS)


def test_codes_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", np.full((6, 8), np.nan, np.float32))
    with pytest.raises(BadValue, match="not finite"):
        read_codes(tmp_path / "c.npy", **FITS)


def test_codes_know_their_images_and_their_generator(tmp_path: Path) -> None:
    path = write_codes(tmp_path / "c.safetensors", Codes(torch.ones(2, 6, 8), ("a.png", "ä.png")), OWNER)
    assert read_codes(path, **FITS, generator=OWNER).names == ("a.png", "ä.png")
    with pytest.raises(BadValue, match=r"c\.safetensors belongs to generator aaaaaaaaaaaa, but this one is bbbbbb"):
        read_codes(path, **FITS, generator=OTHER)
    write_state(path, {"codes": torch.ones(2, 6, 8)}, {"names": json.dumps(["one"])})
    with pytest.raises(BadValue, match="2 codes come with another number of names"):
        read_codes(path, **FITS)


# --- directions


@pytest.mark.parametrize("suffix", [".pt", ".npy"])
@pytest.mark.parametrize(("shape", "expected"), [((8,), (8,)), ((1, 8), (8,)), ((6, 8), (6, 8)), ((1, 6, 8), (6, 8))])
def test_interfacegan_directions_of_every_shape(
    tmp_path: Path, suffix: str, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    vector = torch.randn(shape)
    path = tmp_path / f"age{suffix}"
    if suffix == ".pt":
        torch.save(vector, path)
    else:
        np.save(path, vector.numpy())
    found = read_direction(path, OWNER)
    assert (found.name, found.generator, found.vector.shape) == ("age", OWNER, expected)
    assert torch.equal(found.vector.flatten(), vector.flatten())


def test_a_direction_that_was_bound_stays_bound(tmp_path: Path) -> None:
    torch.save(torch.randn(1, 8), tmp_path / "age.pt")
    path = write_direction(read_direction(tmp_path / "age.pt", OWNER), tmp_path / "age.safetensors")
    assert read_direction(path, OWNER).generator == OWNER
    with pytest.raises(BadValue, match=r"age\.safetensors belongs to generator aaaaaaaaaaaa, but this run uses bbbb"):
        read_direction(path, OTHER)


def test_what_is_no_direction_is_refused(tmp_path: Path) -> None:
    for values in (torch.zeros(1, 8), torch.full((8,), float("inf")), torch.randn(2, 3, 3, 8), torch.ones(1)):
        torch.save(values, tmp_path / "d.pt")
        with pytest.raises(BadValue, match=r"d\.pt holds no direction in 'd': expected finite numbers"):
            read_direction(tmp_path / "d.pt", OWNER)


def test_ganspace_components(tmp_path: Path) -> None:
    content = {"mean": torch.randn(1, 8), "comp": torch.randn(5, 1, 8), "std": torch.rand(5)}
    torch.save(content, tmp_path / "ffhq_pca.pt")
    found = read_components(tmp_path / "ffhq_pca.pt", OWNER)
    assert (found.mean.shape, found.vectors.shape, found.stds.shape) == ((8,), (5, 8), (5,))
    assert torch.equal(found.vectors[3], content["comp"][3, 0])
    again = read_components(write_direction(found, tmp_path / "pca.safetensors"), OWNER)
    assert torch.equal(again.vectors, found.vectors)
    with pytest.raises(BadValue, match="belongs to generator aaaa"):
        read_components(tmp_path / "pca.safetensors", OTHER)
    torch.save(content | {"std": torch.rand(4)}, tmp_path / "bad.pt")
    with pytest.raises(BadValue, match=r"\[5, 8\] components do not go with"):
        read_components(tmp_path / "bad.pt", OWNER)
    torch.save({"mean": content["mean"]}, tmp_path / "part.pt")
    with pytest.raises(BadValue, match=r"no GANSpace components \(mean, comp, std\); it has mean"):
        read_components(tmp_path / "part.pt", OWNER)
