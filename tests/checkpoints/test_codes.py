"""Codes and directions of other tools: every shape and container, and whose they are."""

from __future__ import annotations

import json
import pickle
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


# --- as other tools leave them


def singles(count: int = 3) -> list[torch.Tensor]:
    return [torch.randn(1, 6, 8) for _ in range(count)]


@pytest.mark.parametrize("suffix", [".pt", ".npz", ".pkl"])
@pytest.mark.parametrize("shape", [(1, 6, 8), (6, 8), (8,), (1, 8)])
def test_codes_by_name_keep_their_names(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    held = {f"{number}.png": torch.randn(shape) for number in range(12)}
    path = tmp_path / f"codes{suffix}"
    if suffix == ".pt":
        torch.save(held, path)
    elif suffix == ".npz":
        np.savez(path, **{name: code.numpy() for name, code in held.items()})
    else:
        path.write_bytes(pickle.dumps({name: code.numpy() for name, code in held.items()}))
    found = read_codes(path, **FITS)
    assert found.names == tuple(held)
    assert torch.equal(found.codes, torch.stack([code.reshape(shape[-2:]) for code in held.values()]).squeeze(1))


def test_the_projector_of_rosinality_names_its_images(tmp_path: Path) -> None:
    latent = torch.randn(6, 8)
    record = {"img": torch.randn(1, 3, 4, 4), "latent": latent, "noise": [torch.randn(1, 1, 4, 4)]}
    torch.save({"1.png": record}, tmp_path / "project.pt")
    found = read_codes(tmp_path / "project.pt", **FITS)
    assert (found.names, torch.equal(found.codes[0], latent)) == (("1.png",), True)
    torch.save({"1.png": record, "2.png": record}, tmp_path / "two.pt")
    assert read_codes(tmp_path / "two.pt", **FITS).names == ("1.png", "2.png")
    torch.save([record, record], tmp_path / "list.pt")
    assert read_codes(tmp_path / "list.pt", **FITS).codes.shape == (2, 6, 8)


def test_a_list_of_single_codes(tmp_path: Path) -> None:
    held = singles()
    torch.save(held, tmp_path / "list.pt")
    assert torch.equal(read_codes(tmp_path / "list.pt", **FITS).codes, torch.cat(held))
    torch.save({"latents": held, "names": ["a", "b", "c"]}, tmp_path / "named.pt")
    assert read_codes(tmp_path / "named.pt", **FITS).names == ("a", "b", "c")
    for content, told in (
        ([held[0], torch.randn(8)], r"codes of W and W\+ lie together \(0 \[1, 6, 8\], 1 \[1, 8\]\)"),
        ([torch.randn(3, 6, 8)] * 2, r"one code for each name, \[8\] or \[6, 8\]; it has 0 \[3, 6, 8\]"),
        ({"latents": held, "names": ["a"]}, "3 codes come with another number of names"),
        ({"latents": held, "names": ["a", "b", "a"]}, "the name 'a' occurs twice"),
        ({"a": torch.randn(18, 512), "b": torch.randn(18, 512)}, r"it has a \[18, 512\], b \[18, 512\]"),
        ([], "it has nothing"),
    ):
        torch.save(content, tmp_path / "wrong.pt")
        with pytest.raises(BadValue, match=told):
            read_codes(tmp_path / "wrong.pt", **FITS)


def test_as_many_rows_as_the_generator_has_are_one_code_and_said_to_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    w = torch.randn(6, 8)
    np.save(tmp_path / "w.npy", w.numpy())
    assert read_codes(tmp_path / "w.npy", **FITS).codes.shape == (1, 6, 8)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "w.npy: [6, 8] is read as one code of W+; if it holds 6 codes of W, give codes_in=w" in said
    assert read_codes(tmp_path / "w.npy", **FITS, codes_in="w_plus").codes.shape == (1, 6, 8)
    assert torch.equal(read_codes(tmp_path / "w.npy", **FITS, codes_in="w").codes, w)
    np.savez(tmp_path / "w.npz", codes=w.numpy(), names=np.array(list("abcdef")))
    found = read_codes(tmp_path / "w.npz", **FITS)
    assert (found.names, torch.equal(found.codes, w)) == (tuple("abcdef"), True), "six names, so six codes"
    np.save(tmp_path / "five.npy", w[:5].numpy())
    assert read_codes(tmp_path / "five.npy", **FITS, codes_in="w").codes.shape == (5, 8)
    assert capsys.readouterr().err == ""
    with pytest.raises(BadValue, match=r"\[5, 8\]; this generator takes .*\[N, 8\] with codes_in=w"):
        read_codes(tmp_path / "five.npy", **FITS)
    with pytest.raises(BadValue, match="codes_in=wplus: did you mean 'w_plus'"):
        read_codes(tmp_path / "five.npy", **FITS, codes_in="wplus")


def test_a_folder_holds_a_file_for_every_image(tmp_path: Path) -> None:
    held = singles()
    np.save(tmp_path / "a.png.npy", held[0].numpy())
    np.save(tmp_path / "b.npy", held[1][0].numpy())
    torch.save(held[2], tmp_path / "c.pt")
    (tmp_path / "a.png").touch()
    found = read_codes(tmp_path, **FITS)
    assert (found.names, torch.equal(found.codes, torch.cat(held))) == (("a.png", "b", "c"), True)
    torch.save(torch.randn(8), tmp_path / "c.pt")
    with pytest.raises(BadValue, match=r"codes of W and W\+ lie together"):
        read_codes(tmp_path, **FITS)
    torch.save(torch.randn(4, 6, 8), tmp_path / "c.pt")
    with pytest.raises(BadValue, match="c holds 4 codes; expected one"):
        read_codes(tmp_path, **FITS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadValue, match=r"empty holds no file of codes \(\.safetensors \.npy \.npz \.pt\)"):
        read_codes(tmp_path / "empty", **FITS)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_codes_come_as_float32_without_gradient(tmp_path: Path, kind: torch.dtype) -> None:
    torch.save(torch.nn.Parameter(torch.ones(2, 6, 8, dtype=kind)), tmp_path / "c.pt")
    found = read_codes(tmp_path / "c.pt", **FITS).codes
    assert (found.dtype, found.requires_grad) == (torch.float32, False)
    np.save(tmp_path / "flat.npy", np.ones((2, 48)))
    assert read_codes(tmp_path / "flat.npy", **FITS).codes.shape == (2, 6, 8)


def test_text_and_complex_numbers_are_no_codes(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("1,2\n")
    with pytest.raises(BadValue, match=r"c\.csv is a text file; numbers are read from .*numpy\.save"):
        read_codes(tmp_path / "c.csv", **FITS)
    torch.save(torch.ones(6, 8, dtype=torch.complex64), tmp_path / "c.pt")
    with pytest.raises(BadValue, match=r"c\.pt holds no codes"):
        read_codes(tmp_path / "c.pt", **FITS)


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
