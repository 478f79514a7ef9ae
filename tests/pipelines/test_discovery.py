"""Directions found where the answer is known, labels from tables, and `python -m lsap.discover` end to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from commands import Command
from lsap.checkpoints import (
    CoordinateDirection,
    fingerprint,
    load_generator,
    read_codes,
    read_components,
    read_direction,
    write_direction,
)
from lsap.config.compose import composed
from lsap.data.faces import Points
from lsap.editing.directions import centred
from lsap.editing.discovery import GANSpace, InterFaceGAN, Samples, SeFa, Slope, read_labels
from lsap.editing.readers import LandmarkPose, Probe
from lsap.errors import BadValue, MissingFile
from lsap.pipelines.editing.discovery import discover
from lsap.stylegan2 import Generator
from readings import Averages

OWNER = "a" * 64


@pytest.fixture(scope="module")
def generator(generator_file: Path) -> Generator:
    return load_generator(generator_file)


def planted(count: int = 600, width: int = 24) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes of uneven spread, a normal, and the score along it."""
    rng = torch.Generator().manual_seed(3)
    w = torch.randn(count, width, generator=rng) * torch.linspace(0.5, 2, width)
    normal = torch.nn.functional.normalize(torch.randn(width, generator=rng), dim=0)
    return w, normal, w @ normal


# ---- InterFaceGAN


@pytest.mark.parametrize("kind", ["scores", "zeros and ones"])
def test_a_planted_boundary_is_found(kind: str, generator: Generator) -> None:
    w, normal, score = planted()
    labels = score if kind == "scores" else (score > 0.3).float()
    (found,) = InterFaceGAN(regularisation=100).find(generator, Samples(w, OWNER, {"smile": labels}, {}, "hand"))
    assert found.vector @ normal > 0.9
    assert found.vector.norm().item() == pytest.approx(1, rel=1e-5)
    assert "labels: hand" in found.origin
    assert "right of" in found.origin
    along = centred(w) @ found.vector.double()
    assert found.step == pytest.approx(along.std(correction=0).item(), rel=1e-4), "one unit is one deviation of samples"


def test_samples_without_a_label_take_no_part(generator: Generator) -> None:
    w, normal, score = planted()
    labels = torch.where(torch.arange(len(w)) % 3 == 0, score, torch.nan)
    poisoned = torch.where(labels.isnan()[:, None], 50 * torch.randn_like(w), w)
    (found,) = InterFaceGAN(regularisation=100).find(generator, Samples(poisoned, OWNER, {"smile": labels}))
    assert found.vector @ normal > 0.9


def test_a_conditional_boundary_is_at_a_right_angle_to_its_conditions(generator: Generator) -> None:
    w, normal, score = planted()
    rng = torch.Generator().manual_seed(4)
    other = torch.nn.functional.normalize(normal + torch.randn(24, generator=rng) * 0.3, dim=0)
    labels = {"smile": score, "age": w @ other, "pose": w[:, 0]}
    method = InterFaceGAN(conditions={"smile": ["age", "pose"]})
    found = {one.name: one for one in method.find(generator, Samples(w, OWNER, labels))}
    plain = {one.name: one for one in InterFaceGAN().find(generator, Samples(w, OWNER, labels))}
    assert abs(plain["smile"].vector @ plain["age"].vector) > 0.5
    for name in ("age", "pose"):
        assert abs(found["smile"].vector @ found[name].vector) < 1e-5
        assert torch.equal(found[name].vector, plain[name].vector)
    assert found["smile"].origin.endswith("at a right angle to age, pose")


def test_a_small_weight_of_the_loss_leads_to_the_difference_of_means(generator: Generator) -> None:
    w, _, score = planted()
    labels = (score > 0).float()
    (found,) = InterFaceGAN(regularisation=1e-4).find(generator, Samples(w, OWNER, {"smile": labels}))
    difference = w[labels == 1].mean(0) - w[labels == 0].mean(0)
    assert torch.cosine_similarity(found.vector, difference, dim=0) > 0.97, "up to the samples that were held out"


def test_the_same_samples_give_the_same_boundary(generator: Generator) -> None:
    w, _, score = planted()
    first, again = (InterFaceGAN(seed=2).find(generator, Samples(w, OWNER, {"smile": score}))[0] for _ in range(2))
    assert torch.equal(first.vector, again.vector)


def test_boundaries_that_cannot_be_found_are_refused(generator: Generator) -> None:
    w, _, score = planted(40)
    with pytest.raises(BadValue, match=r"interfacegan\.share=0\.7"):
        InterFaceGAN(share=0.7)
    with pytest.raises(BadValue, match=r"interfacegan\.conditions name 'agee', .*did you mean 'age'"):
        InterFaceGAN(conditions={"smile": ["agee"]}).find(generator, Samples(w, OWNER, {"smile": score, "age": score}))
    one = torch.zeros(40)
    one[0] = 1
    with pytest.raises(BadValue, match="1 samples with it and 39 without"):
        InterFaceGAN().find(generator, Samples(w, OWNER, {"smile": one}))
    with pytest.raises(BadValue, match="must vary over the samples"):
        InterFaceGAN().find(generator, Samples(w, OWNER, {"smile": torch.ones(40)}))


def test_the_slope_knows_its_attribute(generator: Generator) -> None:
    w, _, score = planted()
    (found,) = Slope().find(generator, Samples(w, OWNER, {"pose": score}, {"pose": "yaw"}, "a reader"))
    assert (found.name, found.attribute) == ("pose", "yaw")
    assert found.origin.endswith("labels: a reader")


# ---- GANSpace and SeFa


def test_components_are_the_axes_of_the_samples_by_falling_variance(generator: Generator) -> None:
    stds = torch.tensor([1.0, 5.0, 0.2, 3.0])
    w = torch.tensor([[1.0], [-1.0]]).repeat(8, 1) * torch.zeros(4)
    signs = torch.tensor([[(-1.0) ** (n >> axis) for axis in range(4)] for n in range(16)])  # all corners: uncorrelated
    w = w + 7 + signs * stds
    found = GANSpace(count=3).find(generator, Samples(w, OWNER))
    assert [one.name for one in found] == ["component_00", "component_01", "component_02"]
    for one, axis in zip(found, (1, 3, 0), strict=True):
        assert isinstance(one, CoordinateDirection)
        torch.testing.assert_close(one.vector, torch.eye(4)[axis])
        assert one.step == pytest.approx(stds[axis].item(), rel=1e-5)
        assert one.mean.tolist() == [7.0] * 4
    moved = found[0].moved(w[:1, None].repeat(1, 2, 1), -0.5)
    assert moved[0, 0, 1].item() == pytest.approx(7 - 0.5 * 5)


def test_components_are_stored_as_others_store_them(tmp_path: Path) -> None:
    w = planted()[0]
    components = GANSpace(count=4).components(w, OWNER)
    again = read_components(write_direction(components, tmp_path / "pca.safetensors"), OWNER)
    assert torch.equal(again.vectors, components.vectors)
    with pytest.raises(BadValue, match=r"ganspace\.count=9: 5 samples of 24 numbers have at most 4 components"):
        GANSpace(count=9).components(w[:5], OWNER)


def test_rows_of_components_must_be_there(generator: Generator) -> None:
    found = GANSpace(count=1, rows=(2, 4)).find(generator, Samples(planted()[0], OWNER))
    assert found[0].rows == (2, 3)
    with pytest.raises(BadValue, match=r"ganspace\.rows=\[2, 40\]: this generator has 8 rows"):
        GANSpace(count=1, rows=(2, 40)).find(generator, Samples(planted()[0], OWNER))


def test_sefa_finds_what_the_modulation_amplifies(generator_file: Path) -> None:
    """Modulation rows of unit length along known axes: the Gram matrix is diagonal, and counts them."""
    made = load_generator(generator_file)
    axes = torch.eye(16)
    pattern = [3] * 9 + [5] * 4 + [7] * 3
    for name in ("up8", "conv8"):
        made.blocks[name].affine.weight.data = torch.stack(
            [(number + 1.0) * axes[a] for number, a in enumerate(pattern)]
        )
    values, vectors = SeFa([1, 2]).eigenvectors(made)
    assert values[:4].tolist() == pytest.approx([18, 8, 6, 0], abs=1e-9), "lengths of rows do not count"
    for vector, axis in zip(vectors, (3, 5, 7), strict=False):
        torch.testing.assert_close(vector.float(), axes[axis])
    found = SeFa([1, 2], count=2).find(made, Samples(torch.randn(50, 16), OWNER))
    assert [one.name for one in found] == ["sefa_1-2_0", "sefa_1-2_1"]
    assert found[0].rows == (1, 2), "the rows that these convolutions read"
    with pytest.raises(BadValue, match="convolutions are numbered 0 to 6 in this generator"):
        SeFa([7]).eigenvectors(made)


# ---- labels and readers


def test_labels_come_from_a_table(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("name,smile, age\nb.png,1,\na.png,0,30.5\n")
    found = read_labels(table, ["a.png", "b.png", "c.png"])
    assert list(found) == ["smile", "age"]
    assert found["smile"][:2].tolist() == [0, 1]
    assert found["smile"].isnan().tolist() == [False, False, True]
    assert found["age"].isnan().tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,smile\na.png,1\n", "its first line must be name,ATTRIBUTE"),
        ("", "it is empty"),
        ("name,smile\na.jpg,1\n", "line 2: there is no sample 'a.jpg'; did you mean 'a.png'"),
        ("name,smile\na.png,1\na.png,0\n", "line 3: sample 'a.png' occurs twice"),
        ("name,smile\na.png,yes\n", "line 2: smile is 'yes'; write a number"),
    ],
)
def test_tables_that_are_not_understood_are_refused_by_line(text: str, message: str, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(text)
    with pytest.raises(BadValue, match=message):
        read_labels(table, ["a.png"])
    with pytest.raises(MissingFile, match="draw=500"):
        read_labels(tmp_path / "none.csv", ["a.png"])


def test_pose_is_where_the_nose_lies_between_the_ends_of_the_jaw() -> None:
    class Listed:
        def find(self, name: str, photo: Image.Image) -> list[Points]:
            points = np.zeros((68, 2))
            points[0], points[16], points[30] = (0, 0), (60, 80), (45, 60)  # three quarters along a tilted head
            return [] if name == "1" else [points]

    found = LandmarkPose(Listed())(torch.zeros(2, 3, 8, 8))
    assert found[0].tolist() == [0.5]
    assert found[1].isnan().all(), "no face"


def test_a_probe_reads_what_labels_follow_from(tmp_path: Path) -> None:
    colours = torch.rand(60, 3)
    labels = {"warmth": colours[:, 0] - colours[:, 2], "noise": torch.randn(60)}
    probe = Probe.fit(Averages(), colours, labels)
    assert probe.quality["warmth"] > 0.99
    assert probe.quality["noise"] < 0.2
    probe = Probe.load(probe.save(tmp_path / "probe.safetensors", OWNER), Averages(), OWNER)
    images = torch.tensor([[0.2, 0.5, 0.3], [0.9, 0.5, 0.3]])[:, :, None, None].expand(-1, -1, 4, 4)
    read = probe(images)[:, list(probe.names).index("warmth")]
    assert (read[1] - read[0]).item() == pytest.approx(0.7 / labels["warmth"].std(correction=0).item(), rel=0.02)
    with pytest.raises(BadValue, match="was fitted to judge aaaaaaaaaaaa, but this domain's is bbbb"):
        Probe.load(tmp_path / "probe.safetensors", Averages(), "b" * 64)
    with pytest.raises(BadValue, match="4 labels of 'warmth'"):
        Probe.fit(Averages(), colours[:4], {"warmth": labels["warmth"][:4]})


# ---- the command


@pytest.fixture(scope="module")
def own(generator_file: Path) -> list[str]:
    """A domain of one's own, small enough for tests."""
    return [
        "domain=church", f"generator.checkpoint={generator_file}", "generator.size=32", "view.size=32",
        "space.samples=256", "samples=200", "measured_on=12", "shown=2", "steps=3", "accelerator=cpu",
    ]  # fmt: skip


READER = "+domain.reader={_target_: readings.Colours}"


def test_directions_are_found_shown_and_kept(own: list[str], generator: Generator, tmp_path: Path) -> None:
    paths = discover(composed("discover", [*own, READER, "attributes={bright: brightness}", f"save_to={tmp_path}"]))
    assert paths == [tmp_path / "bright.safetensors"]
    found = read_direction(paths[0], fingerprint(generator))
    assert (found.name, found.attribute) == ("bright", "brightness")
    assert found.usable is not None
    assert found.usable[0] <= 0 <= found.usable[1]
    assert found.side_effects["brightness"] > 0, "the attribute grows"
    assert found.measured == "changes at strength 1, means of pixels, 12 samples"
    card = json.loads((tmp_path / "bright.json").read_text())
    assert card["generator"] == fingerprint(generator)
    assert card["command"].startswith("python -m lsap.discover")
    with Image.open(tmp_path / "bright.png") as sheet:
        assert sheet.width > 3 * 128


@pytest.mark.parametrize(
    ("method", "names"),
    [
        (["method=ganspace", "ganspace.count=2"], ["component_00", "component_01"]),
        (["method=sefa", "sefa.count=1", "sefa.layers=[0,1]"], ["sefa_0-1_0"]),
    ],
)
def test_methods_without_labels_need_no_reader(
    method: list[str], names: list[str], own: list[str], tmp_path: Path
) -> None:
    paths = discover(composed("discover", [*own, *method, f"save_to={tmp_path}"]))
    assert [path.stem for path in paths] == names
    again = discover(composed("discover", [*own, *method, f"save_to={tmp_path / 'again'}"]))
    assert [a.read_bytes() for a in paths] == [b.read_bytes() for b in again]


def test_samples_are_drawn_labelled_and_learned_from(own: list[str], generator: Generator, tmp_path: Path) -> None:
    (table,) = discover(composed("discover", [*own, "draw=60", f"save_to={tmp_path}"]))
    codes = read_codes(table.parent / "codes.safetensors", n_latent=8, style_dim=16, generator=fingerprint(generator))
    assert codes.names is not None
    names = codes.names
    assert codes.codes.shape == (60, 16)
    with Image.open(table.parent / names[7]) as picture, torch.no_grad():
        shown = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1) / 127.5 - 1
        assert (generator(codes.codes[7:8])[0].clamp(-1, 1) - shown).abs().max() < 0.01
    assert table.read_text().splitlines()[:2] == ["name,smile", "00000.png,"]
    table.write_text("name,tall\n" + "".join(f"{n},{int(c[3] > 0)}\n" for n, c in zip(names, codes.codes, strict=True)))
    discover(composed("discover", [*own, "draw=60", f"save_to={tmp_path}"]))
    assert "tall" in table.read_text(), "labels are never overwritten"
    paths = discover(composed("discover", [*own, "method=interfacegan", f"labels={table}", f"save_to={tmp_path}"]))
    found = read_direction(paths[0], fingerprint(generator))
    assert found.name == "tall"
    assert found.vector.abs().argmax() == 3
    assert "labels: labels.csv" in found.origin


def test_a_probe_is_fitted_where_it_is_asked_for(own: list[str], tmp_path: Path) -> None:
    (table,) = discover(composed("discover", [*own, "draw=30", f"save_to={tmp_path}"]))
    table.write_text("name,tall\n" + "".join(f"{n:05d}.png,{n}\n" for n in range(30)))
    with pytest.raises(MissingFile, match=r"probes look through the domain's judge, and \S+moco"):
        discover(composed("discover", [*own, f"labels={table}", "probe=true", "weights=/none", f"save_to={tmp_path}"]))
    judge = "judges.embedder={_target_: readings.Averages}"
    discover(composed("discover", [*own, judge, f"labels={table}", "probe=true", f"save_to={tmp_path}"]))
    assert Probe.load(tmp_path / "probe.safetensors", Averages(), fingerprint(Averages())).names == ("tall",)


def test_what_cannot_be_discovered_is_said_in_one_line(own: list[str], command: Command, tmp_path: Path) -> None:
    for arguments, message in (
        ([], "method=slope needs labels, and domain=church has no network that reads attributes: draw samples with"),
        ([READER, "attributes=[rednes]"], "nobody labels 'rednes'; did you mean 'redness'"),
        (["samples=0", "method=sefa"], "expected a whole number of at least 1"),
        (["name=one", "method=sefa"], "name=one, but 5 directions were found"),
        (["method=sefa", "probe=true"], "probe=true needs labels"),
        (["method=gan"], "method=gan: did you mean 'ganspace'"),
        (["labels=none.csv"], "labels=none.csv: there is no such file; make samples to label with draw=500"),
    ):
        found = command("discover", *own, *arguments)
        assert found.code == 2
        assert message in found.err
    missing = command("discover", "domain=church", "weights=none")
    assert "generator.checkpoint=none/stylegan2-church-config-f.pt" in missing.err
    assert not (tmp_path / "outputs").exists(), "nothing was written"
