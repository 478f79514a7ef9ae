"""Directions in the files of other tools: several in one, stacks, eigenvectors, components, and what is refused."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lsap.checkpoints import read_components, read_direction, read_directions, save_directions
from lsap.errors import BadValue

OWNER = "a" * 64
FITS = {"n_latent": 6, "style_dim": 8}


def write(path: Path, content: Any) -> Path:
    """A file of that name, by the library that its suffix belongs to."""
    if path.suffix == ".npz":
        np.savez(path, **{name: np.asarray(value) for name, value in content.items()})
    elif path.suffix == ".npy":
        np.save(path, content)
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    return path


def vectors(*names: str) -> dict[str, Tensor]:
    return {name: torch.randn(1, 8) for name in names}


@pytest.mark.parametrize("suffix", [".pt", ".npz", ".pkl"])
def test_one_of_several_is_taken_by_name_or_number(tmp_path: Path, suffix: str) -> None:
    held = vectors("Eyeglasses", "Smiling", "Young person")
    plain = {name: tensor.numpy() for name, tensor in held.items()}
    path = write(tmp_path / f"boundaries{suffix}", held if suffix == ".pt" else plain)
    found = read_direction(path, OWNER, "Smiling", **FITS)
    assert found.name == "Smiling"
    assert torch.equal(found.vector, held["Smiling"][0])
    assert torch.equal(read_direction(path, OWNER, "0", **FITS).vector, held["Eyeglasses"][0])
    assert read_direction(path, OWNER, "Young person", **FITS).name == "Young_person"
    for which, told in (
        (None, r"holds 3 directions \(Eyeglasses, Smiling, Young person\); say which: .*:Eyeglasses"),
        ("smile", r"holds no direction 'smile'; did you mean 'Smiling'"),
        ("3", "holds no direction '3'; accepted: Eyeglasses"),
    ):
        with pytest.raises(BadValue, match=told):
            read_direction(path, OWNER, which, **FITS)
    assert list(read_directions(path, OWNER, **FITS)) == list(held)


@pytest.mark.parametrize(
    ("shape", "count", "each"),
    [((5, 8), 5, [8]), ((5, 1, 8), 5, [8]), ((6, 8), 1, [6, 8]), ((4, 6, 8), 4, [6, 8]), ((1, 48), 1, [6, 8])],
)
def test_stacks_hold_as_many_directions_as_their_shape_says(
    tmp_path: Path, shape: tuple[int, ...], count: int, each: list[int]
) -> None:
    values = torch.randn(shape)
    path = write(tmp_path / "stack.npy", values.numpy())
    found = read_directions(path, OWNER, **FITS)
    assert [list(one.vector.shape) for one in found.values()] == [each] * count
    assert torch.equal(torch.stack([one.vector for one in found.values()]).flatten(), values.flatten())


def test_a_number_takes_a_row_of_what_would_be_one_direction_of_w_plus(tmp_path: Path) -> None:
    values = torch.randn(6, 8)
    found = read_direction(write(tmp_path / "rows.pt", values), OWNER, "3", **FITS)
    assert (found.name, torch.equal(found.vector, values[3])) == ("rows_3", True)


def test_eigenvectors_are_columns(tmp_path: Path) -> None:
    """`factor.pt` of rosinality's closed-form factorisation."""
    eigenvectors = torch.randn(8, 8)
    path = write(tmp_path / "factor.pt", {"eigvec": eigenvectors, "ckpt": "stylegan2.pt"})
    assert torch.equal(read_direction(path, OWNER, "2", **FITS).vector, eigenvectors[:, 2])
    with pytest.raises(BadValue, match="holds 8 directions"):
        read_direction(path, OWNER, **FITS)


def test_what_lies_beside_a_direction_is_left_alone(tmp_path: Path) -> None:
    held = {"boundary": torch.randn(1, 8), "intercept": torch.zeros(1), "samples": torch.randn(9, 3)}
    assert torch.equal(read_direction(write(tmp_path / "b.pt", held), OWNER, **FITS).vector, held["boundary"][0])


@pytest.mark.parametrize(
    "held",
    [
        torch.nn.Parameter(torch.randn(1, 8)),
        torch.randn(1, 8, dtype=torch.float64),
        torch.randn(1, 8).half(),
        torch.ones(8, dtype=torch.int64),
        [torch.randn(1, 8)],
    ],
)
def test_every_type_of_numbers_becomes_float32_without_gradient(tmp_path: Path, held: Any) -> None:
    found = read_direction(write(tmp_path / "d.pt", held), OWNER, **FITS)
    assert (found.vector.dtype, found.vector.requires_grad, found.vector.shape) == (torch.float32, False, (8,))


def test_only_the_direction_that_is_asked_for_has_to_be_sound(tmp_path: Path) -> None:
    path = write(tmp_path / "some.pt", {"bad": torch.zeros(1, 8), "nan": torch.full((8,), torch.nan)} | vectors("good"))
    assert read_direction(path, OWNER, "good", **FITS).name == "good"
    for which in ("bad", "nan"):
        with pytest.raises(BadValue, match=f"no direction in '{which}': expected finite numbers .* not all zero"):
            read_direction(path, OWNER, which, **FITS)


@pytest.mark.parametrize(
    ("held", "told"),
    [
        (torch.randn(1, 512), r"'d' is \[512\], but this generator takes \[8\] in W, \[6, 8\] or \[48\] in W\+"),
        (torch.randn(1, 6048), "directions in S are not read"),
        (torch.tensor(3.0), "holds no direction: expected a tensor"),
        ({"steps": 3}, "holds no direction: expected a tensor"),
        (torch.randn(3, 3, 3, 8), r"expected finite numbers .*found \[3, 3, 3, 8\]"),
        (torch.randn(1, 8, dtype=torch.complex64), "holds no direction"),
    ],
)
def test_what_fits_no_generator_of_this_width_is_refused(tmp_path: Path, held: Any, told: str) -> None:
    with pytest.raises(BadValue, match=told):
        read_direction(write(tmp_path / "d.pt", held), OWNER, **FITS)


def ganspace() -> Mapping[str, np.ndarray]:
    """What GANSpace caches of a model whose latent space is W."""
    rng = np.random.default_rng(0)
    comp = rng.normal(size=(5, 1, 8)).astype(np.float32)
    shared = {"mean": np.ones((1, 8), np.float32), "stdev": np.arange(1, 6, dtype=np.float32)}
    lat = {"lat_comp": comp} | {f"lat_{name}": value for name, value in shared.items()}
    return lat | {"act_comp": comp + 1, "act_mean": shared["mean"], "act_stdev": shared["stdev"]}


def test_components_of_ganspace_are_those_of_its_latent_space(tmp_path: Path) -> None:
    held = ganspace()
    found = read_components(write(tmp_path / "stylegan2-ffhq.npz", held), OWNER)
    assert np.array_equal(found.vectors, held["lat_comp"][:, 0])
    assert (found.stds.tolist(), found.mean.tolist()) == ([1, 2, 3, 4, 5], [1.0] * 8)
    with pytest.raises(BadValue, match="components hold values that are not finite"):
        read_components(write(tmp_path / "nan.npz", {**held, "lat_stdev": np.full(5, np.nan)}), OWNER)


def test_text_is_no_file_of_numbers(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("1,2,3\n")
    with pytest.raises(BadValue, match=r"d\.csv is a text file; numbers are read from \.safetensors"):
        read_direction(tmp_path / "d.csv", OWNER, **FITS)


def test_directions_are_shown_without_their_numbers(tmp_path: Path) -> None:
    one = read_direction(write(tmp_path / "age.pt", torch.randn(8)), OWNER)
    assert "tensor" not in repr(one)
    path = save_directions([one], tmp_path / "ours.safetensors")
    assert read_direction(path, OWNER, "0").name == "age"
