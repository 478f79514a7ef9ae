"""Edits as the published code makes them, and the record that holds a direction: shapes, rows, coordinates, files."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from comparison import assert_published
from golden import fill
from lsap.checkpoints import (
    CoordinateDirection,
    Direction,
    load_directions,
    read_card,
    read_components,
    read_direction,
    rosinality,
    save_directions,
)
from lsap.checkpoints.directions import LENGTH, SPREAD
from lsap.editing.directions import OutOfReach, Unreadable, conditional, matched_strength, matched_strengths
from lsap.editing.discovery import SeFa
from lsap.editing.effects import (
    FixedStrength,
    MatchedEach,
    MatchedOnAverage,
    beyond,
    incremental,
    side_effects,
    usable_range,
)
from lsap.errors import BadValue
from lsap.stylegan2 import Generator

CASE = "editing"
PUBLISHED = fill.CASES.parent / "directions"
OWNER, OTHER = "a" * 64, "b" * 64


# ---- parity with the published code


@pytest.fixture(scope="module")
def codes() -> dict[str, Tensor]:
    return fill.inputs(fill.load(CASE))


@pytest.mark.parametrize("name", ["age", "smile", "pose"])
def test_interfacegan_moves_codes_as_published(name: str, codes: dict[str, Tensor]) -> None:
    direction = read_direction(PUBLISHED / f"{name}.pt", OWNER)
    assert (direction.name, direction.unit, direction.step) == (name, LENGTH, 1.0)
    assert direction.vector.shape == ((18, 512) if name == "pose" else (512,))
    assert_published(CASE, f"interfacegan_{name}", direction.moved(codes["codes_18"], 1.5), 1e-5)


TUPLES = [
    (domain, name.replace(" ", "_"), tuple(numbers))
    for domain in ("cars", "ffhq")
    for name, numbers in fill.load(CASE)["directions"][f"{domain} (e4e)"].items()
]


@pytest.mark.parametrize(("domain", "name", "numbers"), TUPLES, ids=[name for _, name, _ in TUPLES])
def test_ganspace_leads_to_the_coordinate_as_published(
    domain: str, name: str, numbers: tuple[int, int, int, float], codes: dict[str, Tensor]
) -> None:
    component, first, end, strength = numbers
    before = codes["codes_16" if domain == "cars" else "codes_18"]
    direction = read_components(PUBLISHED / f"{domain}_pca.pt", OWNER).direction(component, (first, end))
    assert_published(CASE, f"ganspace_{domain}_{name}", direction.moved(before, strength) - before, 1e-5)


@pytest.mark.parametrize("domain", ["cars", "ffhq"])
def test_several_ganspace_edits_start_from_the_unedited_code_each(domain: str, codes: dict[str, Tensor]) -> None:
    first, second = [numbers for of, _, numbers in TUPLES if of == domain][:2]
    before = codes["codes_16" if domain == "cars" else "codes_18"][:1]
    components = read_components(PUBLISHED / f"{domain}_pca.pt", OWNER)
    moved = [components.direction(c, (start, end)).moved(before, s) - before for c, start, end, s in (first, second)]
    assert_published(CASE, f"ganspace_{domain}_two_edits", torch.cat(moved), 1e-5)


@pytest.fixture(scope="module")
def sefa_generator() -> Generator:
    """The generator of the case, of which only the modulation matters."""
    generator = Generator(256)
    generator.load_state_dict(rosinality.rename(fill.state_dict(fill.load(CASE), "generator")), strict=False)
    return generator


@pytest.mark.parametrize(("name", "layers"), [("all", None), ("2345", [2, 3, 4, 5])])
def test_sefa_finds_the_published_directions(name: str, layers: list[int] | None, sefa_generator: Generator) -> None:
    values, vectors = SeFa(layers).eigenvectors(sefa_generator)
    assert_published(CASE, f"sefa_{name}_eigenvalues", values[:10], 1e-5)
    assert_published(CASE, f"sefa_{name}_vectors", vectors[:5], 1e-4)


# ---- the record


def direction(*vector: float, **known: object) -> Direction:
    return Direction(**{"name": "smile", "vector": torch.tensor(vector), "generator": OWNER} | known)  # type: ignore[arg-type]


def test_only_the_rows_of_a_direction_move() -> None:
    codes = torch.zeros(2, 4, 3)
    moved = direction(1.0, 0.0, 2.0, rows=(1, 3), step=0.5).moved(codes, torch.tensor([1.0, -2.0]))
    assert moved[0].tolist() == [[0, 0, 0], [0.5, 0, 1], [0, 0, 0], [0.5, 0, 1]]
    assert moved[1, 1].tolist() == [-1, 0, -2]
    assert codes.abs().sum() == 0


def test_every_row_may_have_a_vector_of_its_own() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
    own = Direction(name="pose", vector=vectors, generator=OWNER)
    assert torch.equal(own.moved(torch.zeros(1, 3, 2), 3.0)[0], 3 * vectors)
    assert torch.equal(replace(own, rows=(2,)).moved(torch.zeros(1, 3, 2), 1.0)[0, :2], torch.zeros(2, 2))


def test_a_coordinate_is_reached_on_row_zero_whatever_is_moved() -> None:
    """By hand: mean 1 along the first axis, step 2; row 0 at 5 has the coordinate 2, so -1 is three steps of 2 away."""
    to = CoordinateDirection(
        name="cube",
        vector=torch.tensor([1.0, 0.0]),
        mean=torch.tensor([1.0, 9.0]),
        generator=OWNER,
        step=2.0,
        rows=(1, 2),
    )
    codes = torch.tensor([[[5.0, 7.0], [0.0, 0.0], [0.0, 0.0]]])
    assert to.coordinate(codes).tolist() == [2.0]
    assert to.moved(codes, -1.0)[0].tolist() == [[5, 7], [-6, 0], [-6, 0]]
    everywhere = replace(to, rows=None)
    assert everywhere.coordinate(everywhere.moved(codes, -1.0)).tolist() == [-1.0]
    assert torch.equal(everywhere.moved(everywhere.moved(codes, -1.0), -1.0), everywhere.moved(codes, -1.0)), (
        "a target, not an increment"
    )
    assert everywhere.moved(codes, 0.0)[0, 0].tolist() == [1.0, 7.0], "strength 0 is the mean, not the code"
    step = incremental(everywhere)
    assert type(step) is Direction
    assert step.unit == SPREAD
    assert torch.equal(step.moved(codes, 0.0), codes)


def test_codes_that_do_not_fit_are_refused_with_both_shapes() -> None:
    with pytest.raises(BadValue, match=r"'smile' has 3 numbers.*shape \[2, 8\]"):
        direction(1.0, 0.0, 0.0).moved(torch.zeros(2, 8), 1.0)
    rows = Direction(name="pose", vector=torch.ones(18, 4), generator=OWNER)
    with pytest.raises(BadValue, match="is for codes of 18 rows, but these have 16"):
        rows.moved(torch.zeros(2, 16, 4), 1.0)
    with pytest.raises(BadValue, match=r"moves rows of W\+ by themselves; it needs codes \[N, L, 4\], not w"):
        rows.moved(torch.zeros(2, 4), 1.0)
    with pytest.raises(BadValue, match=r"moves rows \[5\], but these codes have 4"):
        direction(1.0, rows=(5,)).moved(torch.zeros(1, 4, 1), 1.0)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"vector": torch.zeros(3)}, "not all zero"),
        ({"vector": torch.tensor([1.0, math.nan])}, "finite numbers"),
        ({"vector": torch.ones(1, 2, 3)}, r"got \[1, 2, 3\]"),
        ({"vector": torch.ones(2, 3), "rows": (2,)}, r"rows \[2\] are not rows"),
        ({"name": "../smile"}, "may hold letters, digits"),
    ],
)
def test_what_is_no_direction_is_refused(known: dict[str, object], message: str) -> None:
    with pytest.raises(BadValue, match=message):
        direction(1.0, 2.0, **known)


def test_a_file_gives_everything_back(tmp_path: Path) -> None:
    saved = [
        direction(
            1.0, 2.0, rows=(0, 3), step=0.25, unit=SPREAD, attribute="smile", change=0.5, usable=(-2.0, 3.5),
            side_effects={"age": -0.2}, measured="by hand", origin="a test", licence="MIT",
        ),
        CoordinateDirection(name="cube", vector=torch.tensor([0.0, 1.0]), mean=torch.ones(2), generator=OWNER),
        Direction(name="pose", vector=torch.ones(4, 2), generator=OWNER),
    ]  # fmt: skip
    path = save_directions(saved, tmp_path / "three.safetensors")
    found = load_directions(path, OWNER)
    assert list(found) == ["smile", "cube", "pose"]
    for one in saved:
        read = found[one.name]
        assert type(read) is type(one)
        assert {k: v for k, v in vars(read).items() if not isinstance(v, Tensor)} == {
            k: v for k, v in vars(one).items() if not isinstance(v, Tensor)
        }
        assert torch.equal(read.vector, one.vector)
    assert isinstance(found["cube"], CoordinateDirection)
    assert torch.equal(found["cube"].mean, torch.ones(2))
    assert path.read_bytes() == save_directions(saved, tmp_path / "again.safetensors").read_bytes()
    with pytest.raises(
        BadValue, match=r"three\.safetensors belongs to generator a{12}, but this run uses b{12}.*discover"
    ):
        load_directions(path, OTHER)
    with pytest.raises(BadValue, match=r"holds 3 directions \(smile, cube, pose\); say which"):
        read_direction(path, OWNER)


def test_the_card_of_a_file_is_plain_text(tmp_path: Path) -> None:
    card = read_card(save_directions([direction(1.0, usable=(-1.0, 1.0))], tmp_path / "one.safetensors"))
    assert card["generator"] == OWNER
    assert json.loads(card["directions"])["smile"]["usable"] == [-1.0, 1.0]


def test_components_that_do_not_exist_are_refused() -> None:
    components = read_components(PUBLISHED / "cars_pca.pt", OWNER)
    with pytest.raises(BadValue, match="no component 80; the file holds 0 to 79"):
        components.direction(80)
    with pytest.raises(BadValue, match="rows 6:3"):
        components.direction(0, (6, 3))


def test_conditions_need_one_vector_for_all_rows() -> None:
    rows = Direction(name="pose", vector=torch.ones(4, 2), generator=OWNER)
    with pytest.raises(BadValue, match="'pose' has a vector of its own for every row"):
        conditional(direction(1.0, 0.0), [rows], torch.randn(5, 2))


# ---- matched effect


CODES = torch.zeros(3, 2, 2)
SLOPES = torch.tensor([1.0, 2.0, 0.5])


def attributes(codes: Tensor) -> Tensor:
    """Three images that answer to the first axis by 1, 2 and ½, and to the second axis alike."""
    first = codes[:, 0, 0] * SLOPES[: len(codes)]
    return torch.stack([first, codes[:, 0, 0] * 0.1, codes[:, 0, 1]], 1)


def test_every_image_gets_the_strength_that_changes_it_by_the_target() -> None:
    way = MatchedEach([-1.0, 0.0, 1.0])
    found = way.strengths(CODES, direction(1.0, 0.0), 0, attributes)
    torch.testing.assert_close(found, torch.tensor([-1.0, 0.0, 1.0]) / SLOPES[:, None], rtol=2e-3, atol=0)


def test_a_run_gets_the_strength_that_changes_it_on_average() -> None:
    found = MatchedOnAverage([0.7]).strengths(CODES, direction(1.0, 0.0), 0, attributes)
    assert found.shape == (3, 1)
    torch.testing.assert_close(found, torch.full((3, 1), 0.7 / SLOPES.mean().item()), rtol=0.02, atol=0)


def test_what_is_out_of_reach_is_edited_up_to_the_limit_and_what_cannot_be_read_not_at_all() -> None:
    def partly(codes: Tensor) -> Tensor:
        values = codes[:, 0, :1] * torch.tensor([[1.0], [0.1], [math.nan]])
        return values

    found = MatchedEach([1.0], limit=3.0).strengths(CODES, direction(1.0, 0.0), 0, partly)
    assert found[:, 0].tolist() == pytest.approx([1.0, 3.0, 0.0], rel=2e-3)
    on_average = MatchedOnAverage([5.0], limit=3.0).strengths(CODES, direction(1.0, 0.0), 0, partly)
    assert on_average.tolist() == [[3.0]] * 3


def test_an_effect_that_nobody_can_read_has_no_strength() -> None:
    """Bisected as a number below the target it would become a strength of next to nothing, and a perfect edit."""

    def never(codes: Tensor) -> Tensor:
        return torch.full((len(codes), 1), math.nan)

    with pytest.raises(Unreadable, match=r"at strength -0\.5 the attribute cannot be read off any of the images"):
        MatchedOnAverage([-1.0]).strengths(CODES, direction(1.0, 0.0), 0, never)
    with pytest.raises(Unreadable, match=r"at strength 2 .*give strength= in place of effect="):
        matched_strength(lambda strength: strength if strength < 2 else math.nan, 2.5)
    with pytest.raises(Unreadable, match=r"at strength 0\.75"):
        matched_strength(lambda strength: strength if strength in (0.5, 1.0) else math.inf, 0.7)
    with pytest.raises(OutOfReach, match="a change of 9 is out of reach: at strength 3 it is 3"):
        matched_strength(lambda strength: strength, 9.0, limit=3.0)


def test_matching_each_tells_who_got_there() -> None:
    strengths, reached = matched_strengths(lambda s: s * torch.tensor([-1.0, 4.0]), -2.0, 2, limit=6.0)
    assert strengths.tolist() == pytest.approx([-6.0, -0.5], rel=2e-3), "the first one falls where it should grow"
    assert reached.tolist() == [False, True]


def test_a_fixed_strength_asks_nobody() -> None:
    assert FixedStrength([-1.0, 2.0]).strengths(CODES, direction(1.0, 0.0)).tolist() == [[-1.0, 2.0]] * 3


def test_side_effects_are_changes_at_strength_one_the_largest_first() -> None:
    found = side_effects(CODES, direction(1.0, 0.5, attribute="smile", step=2.0), attributes, ["smile", "age", "pose"])
    assert list(found.items()) == [("smile", pytest.approx(7 / 3, abs=1e-3)), ("pose", 1.0), ("age", 0.2)]
    none = side_effects(CODES, direction(0.1, 0.0), attributes, ["smile", "age", "pose"])
    assert set(none) == {"smile"}, "a hundredth is no side effect"


def test_the_usable_range_ends_where_samples_end() -> None:
    """Distance grows as |x|; nineteen of twenty samples lie below 1.9."""
    w = torch.linspace(-2, 2, 401)[:, None] * torch.tensor([1.0, 0.0])
    low, high = usable_range(w, direction(1.0, 0.0), lambda codes: codes[:, 0].abs())
    assert (low, high) == (-1.5, 1.5), "at 2 the median sample would lie at 2"


def test_the_usable_range_ends_where_the_attribute_stops_growing() -> None:
    w = torch.zeros(8, 2)
    found = usable_range(
        w, direction(1.0, 0.0), lambda codes: codes[:, 0] * 0, lambda codes: codes[:, 0].clamp(-1, 2.05)
    )
    assert found == (-1.0, 2.0), "the last step up would bring a tenth of the first"


def test_strengths_beyond_the_known_range_are_told() -> None:
    vector = torch.ones(3)
    ranged = Direction(name="smile", vector=vector, generator="g", usable=(-1.0, 2.0))
    assert beyond(ranged, [-1.0, 0.0, 2.0]) is None
    line = beyond(ranged, [-2.0, 0.0, 2.5])
    assert line is not None
    assert line.startswith("direction=smile: strength -2, 2.5 is outside of its usable range, -1 to 2")
    spread = Direction(name="age", vector=vector, generator="g", unit=SPREAD)
    assert beyond(spread, [3.0]) is None
    assert "-3 to 3" in str(beyond(spread, [3.5]))
    assert beyond(Direction(name="length", vector=vector, generator="g"), [50.0]) is None, "nothing is known of it"
