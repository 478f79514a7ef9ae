"""Directions: found where the answer is known, applied and undone, matched in effect, bound to their generator."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from comparison import assert_close_l2
from lsap.checkpoints import Direction, load_directions, save_directions
from lsap.editing.directions import (
    apply,
    check_generator,
    conditional,
    data_direction,
    matched_strength,
)
from lsap.errors import BadValue, MissingFile


def along(*vector: float, name: str = "smile", std: float = 1.0, generator: str = "a" * 64) -> Direction:
    unit = torch.tensor(vector) / math.hypot(*vector)
    return Direction(name=name, vector=unit, step=std, change=1.0, generator=generator)


def test_direction_is_the_mean_path_of_the_codes() -> None:
    value = torch.linspace(-1, 1, 501, dtype=torch.float64)
    path = torch.tensor([0.0, 3.0, 0.0, 4.0], dtype=torch.float64)
    w = 2 + value[:, None] * path
    found = data_direction("smile", w, value, "a" * 64)
    assert_close_l2(found.vector, torch.tensor([0.0, 0.6, 0.0, 0.8]), 1e-6)
    assert found.change == pytest.approx(0.2, rel=1e-6)  # five units of length for one of the attribute
    assert found.step == pytest.approx(5 * value.std(correction=0).item(), rel=1e-6)


def test_independent_factors_cancel_out_of_a_direction() -> None:
    value, other = torch.randn(20_000), torch.randn(20_000)
    w = torch.stack([value, 10 * other, value], 1)
    found = data_direction("pose", w, value, "g")
    torch.testing.assert_close(found.vector, torch.tensor([0.5**0.5, 0.0, 0.5**0.5]), rtol=0, atol=0.1)


def test_direction_stays_where_codes_vary_and_prediction_would_leave() -> None:
    """Codes on a thin sheet: the best predictor points across it, the edit must run along it."""
    value, hidden = torch.randn(5000), torch.randn(5000)
    w = torch.stack([value + hidden, 0.1 * hidden], 1)  # value = w0 - 10 w1, exactly
    found = data_direction("smile", w, value, "g")
    assert found.vector[0] > 0.99
    predictor = torch.linalg.lstsq(w, value[:, None]).solution[:, 0]
    assert predictor[1].abs() > 5 * predictor[0].abs()


def test_moving_by_the_direction_changes_the_attribute_as_promised() -> None:
    value = torch.randn(400)
    w = value[:, None] * torch.tensor([1.0, -2.0, 2.0])
    found = data_direction("age", w, value, "g")
    moved = apply(w, found, 2.0)
    change = ((moved - w) @ torch.tensor([1.0, -2.0, 2.0]) / 9).mean().item()
    assert change == pytest.approx(2.0 * found.step * (found.change or 0), rel=1e-4)


def test_nothing_is_learned_from_what_does_not_vary() -> None:
    w = torch.randn(10, 3)
    with pytest.raises(BadValue, match="'glasses': the attribute must vary"):
        data_direction("glasses", w, torch.full((10,), 0.7), "g")
    with pytest.raises(BadValue, match="finite"):
        data_direction("glasses", w, torch.full((10,), torch.nan), "g")
    with pytest.raises(BadValue, match=r"\[10, 3\] and \[9\]"):
        data_direction("glasses", w, torch.randn(9), "g")
    with pytest.raises(BadValue, match="do not move with the attribute"):
        data_direction("glasses", torch.ones(10, 3), torch.randn(10), "g")


def test_a_conditional_direction_is_at_a_right_angle_to_the_others() -> None:
    w = torch.randn(2000, 3) * torch.tensor([1.0, 2.0, 5.0])
    pose, age, again = along(1, 1, 1, name="pose"), along(1, 0, 0, name="age"), along(2, 0, 0, name="age_again")
    pure = conditional(pose, [age, again], w)
    torch.testing.assert_close(pure.vector, torch.tensor([0.0, 0.5**0.5, 0.5**0.5]))
    assert pure.change == pytest.approx((2 / 3) ** 0.5)  # the cosine between old and new
    assert pure.step == pytest.approx((29 / 2) ** 0.5, rel=0.05)  # variances 4 and 25, half of each
    assert conditional(pose, [], w).vector.tolist() == pytest.approx(pose.vector.tolist())


def test_a_direction_inside_the_span_of_the_others_is_refused() -> None:
    with pytest.raises(BadValue, match="'pose' lies in the span of age, smile"):
        conditional(along(3, 4, 0, name="pose"), [along(1, 0, 0, name="age"), along(1, 1, 0)], torch.randn(9, 3))


@pytest.mark.parametrize("shape", [(4, 3), (4, 10, 3)])
def test_an_edit_of_strength_zero_changes_nothing_and_an_edit_undone_restores(shape: tuple[int, ...]) -> None:
    codes = torch.randn(*shape)
    kept = codes.clone()
    direction = along(1, 2, 2, std=0.5)
    assert torch.equal(apply(codes, direction, 0.0), codes)
    moved = apply(codes, direction, 3.0)
    assert_close_l2(moved - codes, (1.5 * direction.vector).expand(shape), 1e-5)
    assert_close_l2(apply(moved, direction, -3.0), codes, 1e-5)
    assert torch.equal(codes, kept)


def test_every_code_may_have_its_own_strength() -> None:
    codes = torch.zeros(2, 4, 3)
    moved = apply(codes, along(0, 0, 1), torch.tensor([1.0, -2.0]))
    assert moved[0, :, 2].tolist() == [1.0] * 4
    assert moved[1, :, 2].tolist() == [-2.0] * 4


def test_codes_of_another_width_are_refused() -> None:
    with pytest.raises(BadValue, match=r"'smile' has 3 numbers.*\[2, 8\]"):
        apply(torch.zeros(2, 8), along(1, 0, 0), 1.0)


@pytest.mark.parametrize("target", [0.3, -0.3, 2.5])
def test_matched_strength_inverts_the_change(target: float) -> None:
    strength = matched_strength(lambda s: math.tanh(s / 2) * 3, target, tolerance=1e-4)
    assert strength == pytest.approx(2 * math.atanh(target / 3), rel=1e-3)


def test_no_change_needs_no_strength() -> None:
    assert matched_strength(lambda s: s, 0.0) == 0.0


def test_a_change_out_of_reach_is_said_with_what_was_reached() -> None:
    with pytest.raises(BadValue, match=r"change of 2 is out of reach: at strength 4 it is 0\.8"):
        matched_strength(lambda s: 0.2 * s, 2.0, limit=4.0)
    with pytest.raises(BadValue, match="out of reach"):
        matched_strength(lambda s: -s, 1.0)  # the attribute falls where it should grow


def test_directions_are_read_back_as_they_were_saved(tmp_path: Path) -> None:
    saved = [along(3, 4, name="smile", std=0.25), along(-1, 0, name="pose", std=1.5)]
    path = save_directions(saved, tmp_path / "directions.safetensors")
    found = load_directions(path, "a" * 64)
    assert list(found) == ["smile", "pose"]
    for direction in saved:
        read = found[direction.name]
        assert torch.equal(read.vector, direction.vector)
        assert (read.step, read.change, read.generator) == (direction.step, direction.change, direction.generator)


def test_directions_of_another_generator_are_refused_naming_both(tmp_path: Path) -> None:
    path = save_directions([along(1, 0)], tmp_path / "directions.safetensors")
    with pytest.raises(BadValue, match=r"directions\.safetensors belongs to generator a{12}.*this run uses b{12}"):
        load_directions(path, "b" * 64)
    with pytest.raises(BadValue, match=r"'smile' belongs to generator a{12}.*b{12}"):
        check_generator([along(1, 0)], "b" * 64)
    with pytest.raises(BadValue, match=r"different generators, a{12} and b{12}"):
        save_directions([along(1, 0), along(0, 1, name="pose", generator="b" * 64)], tmp_path / "two.safetensors")
    assert not (tmp_path / "two.safetensors").exists()


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"none\.safetensors does not exist"):
        load_directions(tmp_path / "none.safetensors")
    path = save_directions([along(1, 0)], tmp_path / "cut.safetensors")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(BadValue, match=r"cut\.safetensors holds no directions"):
        load_directions(path)
