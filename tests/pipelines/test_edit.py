"""`python -m lsap.edit` over small stored runs: pictures are what the renderer draws, and work is never done twice."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from commands import Command
from comparison import assert_close_l2
from lsap.checkpoints import (
    Components,
    Direction,
    fingerprint,
    load_directions,
    load_generator,
    read_codes,
    save_directions,
    save_generator,
    write_direction,
    write_state,
)
from lsap.checkpoints.directions import SPREAD
from lsap.checkpoints.hfgi import card
from lsap.config.compose import composed
from lsap.errors import BadValue, MissingFile
from lsap.inversion import RENDERERS, Inversion, Renderer, renderer
from lsap.pipelines.editing import setup as editors
from lsap.pipelines.editing.edit import edit
from lsap.pipelines.editing.setup import label, numbers
from lsap.refinement import PastedFeatures, SmallConsultation
from lsap.refinement.hfgi import RESIDUAL
from lsap.refinement.tuned import Tuned
from lsap.runs import Store
from lsap.stylegan2 import Generator
from readings import Colours

NAMES = [f"{number:03d}.png" for number in range(5)]
State = Callable[[Renderer, Generator, int], dict[str, Tensor]]


def no_state(drawer: Renderer, generator: Generator, count: int) -> dict[str, Tensor]:
    """What `generator` needs."""
    return {}


def own_noise(drawer: Renderer, generator: Generator, count: int) -> dict[str, Tensor]:
    """What `own_noise` needs."""
    convolutions = [layer for layer in generator.layers if layer.demodulates]
    return {f"noise.{c.name}": torch.randn(count, 1, c.resolution, c.resolution) for c in convolutions}


def differences(drawer: Renderer, generator: Generator, count: int) -> dict[str, Tensor]:
    """Weights of every image's own."""
    assert isinstance(drawer, Tuned)
    return drawer.packed({name: 0.2 * torch.randn(count, *weight.shape) for name, weight in drawer.weights.items()})


def features(drawer: Renderer, generator: Generator, count: int) -> dict[str, Tensor]:
    """Features of every image's own in its left half."""
    assert isinstance(drawer, PastedFeatures)
    state = {}
    for space, size in drawer.sizes.items():
        channels = next(layer.channels for layer in generator.layers if layer.name == f"conv{size}")
        state[f"features.{space}"] = torch.randn(count, channels, size, size)
        state[f"mask.{space}"] = (torch.arange(size) < size // 2).float().expand(count, 1, size, size).contiguous()
    return state


def residuals(drawer: Renderer, generator: Generator, count: int) -> dict[str, Tensor]:
    """What every image's reconstruction lacks."""
    return {RESIDUAL: (0.3 * torch.randn(count, 3, 32, 32)).half()}


STATES: Mapping[str, State] = {
    "generator": no_state, "own_noise": own_noise, "tuned": differences, "tuned_low_rank": differences,
    "features": features, "hfgi": residuals,
}  # fmt: skip
SETTINGS: Mapping[str, Mapping[str, Any]] = {"features": {"spaces": ["F4"]}}


def consultation(folder: Path) -> dict[str, Any]:
    """Networks of HFGI in a file, and the settings that name it."""
    network = SmallConsultation(16)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    file = write_state(folder / "consultation.safetensors", network.state_dict(), card("small"))
    return {"file": str(file), "network": fingerprint(network), "size": 32, "rows": [0, 32]}


@pytest.fixture(scope="module")
def generator(generator_file: Path) -> Generator:
    made = load_generator(generator_file)
    for block in made.blocks.values():
        if hasattr(block, "noise_strength"):
            block.noise_strength.data.fill_(0.3)
    return made


@pytest.fixture(scope="module")
def file(generator: Generator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generator, with noise that can be seen."""
    return save_generator(generator, tmp_path_factory.mktemp("noisy") / "noisy.safetensors")


@pytest.fixture(scope="module")
def stored(
    generator: Generator, file: Path, photographs: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """`stored("own_noise")` is a finished run of five images, in batches of two, drawn by that renderer."""

    def make(key: str = "generator", lost: str | None = None) -> Path:
        folder = tmp_path_factory.mktemp("run")
        images = photographs(folder / "photographs", len(NAMES))
        path = folder / "inversions" / "tiny"
        store = Store.open(path, NAMES, 2, {"domain": "church", "embedding": "tiny"})
        rng = torch.Generator().manual_seed(1)
        settings = consultation(folder) if key == "hfgi" else SETTINGS.get(key, {})
        for batch in store.pending():
            kept = [name for name in batch.names if name != lost]
            w = generator.sample_w(len(kept), rng)
            drawer = renderer(key, settings, generator)
            state = STATES[key](drawer, generator, len(kept))
            codes = w[:, None].repeat(1, generator.n_latent, 1)
            inversion = (
                Inversion(tuple(kept), codes, fingerprint(generator), drawer, state, ("tiny",)) if kept else None
            )
            rows = [{"name": n} if n in kept else {"name": n, "skipped": "cut short"} for n in batch.names]
            with torch.no_grad():
                store.write(batch, rows, inversion, inversion.render() if inversion else None)
        kept_config = {
            "generator": {"_target_": "lsap.checkpoints.load_generator", "checkpoint": str(file), "size": 32},
            "view": {"_target_": "lsap.stylegan2.View", "size": 32},
            "image_size": [32, 32],
            "images": str(images),
        }
        OmegaConf.save(OmegaConf.create(kept_config), path / "config.yaml")
        return path

    return make


@pytest.fixture(scope="module")
def run(stored: Callable[..., Path]) -> Path:
    return stored()


def brighter(generator: Generator) -> Tensor:
    """The unit vector in W along which the mean image gets brighter fastest."""
    w = generator.latent_avg[None].clone().requires_grad_()
    (slope,) = torch.autograd.grad(generator(w).mean(), w)
    return slope[0] / slope.norm()


@pytest.fixture(scope="module")
def smile(generator: Generator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A direction in a file, along which images get brighter."""
    one = Direction(
        name="smile", vector=brighter(generator), generator=fingerprint(generator), step=0.5, unit=SPREAD,
        attribute="brightness", usable=(-1.0, 2.0),
    )  # fmt: skip
    return save_directions([one], tmp_path_factory.mktemp("directions") / "smile.safetensors")


Start = Callable[..., Path]


@pytest.fixture
def start(run: Path, smile: Path, tmp_path: Path) -> Start:
    """`start("strength=1")` edits the run along the file's direction."""

    def call(*overrides: str, of: Path = run, direction: str = str(smile)) -> Path:
        base = [f"inversions={of}", f"direction={direction}", f"outputs={tmp_path}", "accelerator=cpu"]
        return edit(composed("edit", [*base, *overrides]))

    return call


@pytest.fixture
def reading(file: Path) -> list[str]:
    """The settings of the run as a user would type them, and a reader of attributes."""
    return [
        "domain=church", f"generator.checkpoint={file}", "generator.size=32", "view.size=32", "image_size=[32,32]",
        "+domain.reader={_target_: readings.Colours}",
    ]  # fmt: skip


def picture(path: Path) -> Tensor:
    with Image.open(path) as opened:
        found: Tensor = to_tensor(opened) * 2 - 1
    return found


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "edits.csv").open() as opened:
        return list(csv.DictReader(opened))


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


# ---- one run


def test_every_picture_is_what_the_renderer_draws(start: Start, run: Path, generator: Generator) -> None:
    folder = start("strength=-1:1:3")
    names, codes = Store.read(run).codes()
    step = 0.5 * brighter(generator)
    for text, strength in (("-1", -1.0), ("0", 0.0), ("+1", 1.0)):
        with torch.no_grad():
            expected = generator(codes + strength * step)
        found = read_codes(folder / "codes" / "smile" / f"{text}.safetensors", n_latent=8, style_dim=16)
        assert found.names == tuple(names)
        assert_close_l2(found.codes, codes + strength * step, 1e-5)
        for place, name in enumerate(names):
            shown = picture(folder / "images" / "smile" / text / name)
            assert (shown - expected[place].clamp(-1, 1)).abs().max() < 0.01
            if strength == 0:
                assert torch.equal(shown, picture(Store.read(run).picture(name))), "strength 0 is the inversion"


def test_strips_grid_and_animation_show_every_step(start: Start) -> None:
    folder = start("strength=-2:2:4", "shown=2")
    with Image.open(folder / "strips" / "smile" / "000.png") as strip:
        assert strip.width > (2 + 4) * 128, "input, inversion and four steps"
    with Image.open(folder / "smile.png") as sheet:
        assert 2 * 128 < sheet.height < 3 * 128
    for file in (folder / "smile.gif", folder / "animations" / "smile" / "001.gif"):
        with Image.open(file) as animation:
            assert animation.n_frames == 4 + 2, "there and back"
            assert animation.info["loop"] == 0
    assert len(list((folder / "animations" / "smile").iterdir())) == 2


def test_the_input_is_left_out_where_it_is_gone(start: Start, stored: Callable[..., Path], capsys: Any) -> None:
    path = stored()
    shutil.rmtree(path.parents[1] / "photographs")
    folder = start("strength=1", of=path)
    assert "strips are drawn without the input" in capsys.readouterr().out
    with Image.open(folder / "strips" / "smile" / "000.png") as strip:
        assert 2 * 128 < strip.width < 3 * 128


def test_started_again_it_goes_on_and_ends_alike(start: Start, run: Path, capsys: Any) -> None:
    first = start("strength=[1,2]")
    before = (first / "checksums.json").read_text()
    capsys.readouterr()
    assert start("strength=[1,2]") == first
    assert "finished before" in capsys.readouterr().out
    (first / "summary.json").unlink()
    (first / "batches" / "00001.json").unlink()
    start("strength=[1,2]")
    assert f"resuming {first}: 2 of 3 batches are done" in capsys.readouterr().out
    (first / "summary.json").unlink()
    shutil.rmtree(first / "images" / "smile" / "+2")
    for number in range(3):
        (first / "batches" / f"0000{number}.json").unlink()
    start("strength=[1,2]")
    assert (first / "checksums.json").read_text() == before
    assert start("strength=[1,2,3]") != first


def test_images_without_an_inversion_are_named_and_not_edited(start: Start, stored: Callable[..., Path]) -> None:
    folder = start("strength=1", of=stored(lost="004.png"))
    assert (summary(folder)["images"], summary(folder)["lost"]) == (4, 1)
    assert table(folder)[-1] == {
        "name": "004.png", "direction": "", "step": "", "strength": "", "change": "", "leakage": "",
        "skipped": "cut short", "failed": "",
    }  # fmt: skip
    assert not (folder / "images" / "smile" / "+1" / "004.png").exists()


def test_several_directions_start_from_the_unedited_code_each(
    start: Start, run: Path, smile: Path, tmp_path: Path
) -> None:
    (one,) = load_directions(smile).values()
    rows = Direction(name="top", vector=torch.eye(16)[3], generator=one.generator, rows=(0, 1))
    top = save_directions([rows], tmp_path / "top.safetensors")
    folder = start("strength=2", direction=f"[{smile},{top}]")
    codes = Store.read(run).codes()[1]
    moved = read_codes(folder / "codes" / "top" / "+2.safetensors", n_latent=8, style_dim=16).codes - codes
    assert moved[:, :2, 3].tolist() == [pytest.approx([2.0, 2.0])] * 5
    assert moved[:, 2:].abs().max() == 0
    assert (folder / "smile.gif").exists()
    assert (folder / "top.gif").exists()


@pytest.mark.parametrize("key", sorted(STATES))
def test_edits_go_through_the_inversions_own_renderer(
    key: str, start: Start, stored: Callable[..., Path], generator: Generator
) -> None:
    path = stored(key)
    folder = start("strength=1.5", of=path)
    for inversion in Store.read(path).inversions(generator):
        codes = read_codes(folder / "codes" / "smile" / "+1.5.safetensors", n_latent=8, style_dim=16)
        assert codes.names is not None
        places = [codes.names.index(name) for name in inversion.names]
        with torch.no_grad():
            expected = inversion.render(codes.codes[places]).clamp(-1, 1)
            plain = generator(codes.codes[places]).clamp(-1, 1)
        assert (key == "generator") == torch.allclose(plain, expected, atol=1e-3), "its state can be seen"
        for name, image in zip(inversion.names, expected, strict=True):
            assert (picture(folder / "images" / "smile" / "+1.5" / name) - image).abs().max() < 0.01


def test_the_renderers_of_embeddings_are_all_tried_here() -> None:
    ours = {key for key, cls in RENDERERS.items() if cls.__module__ == "lsap.inversion"}  # type: ignore[attr-defined]
    assert ours <= set(STATES) <= set(RENDERERS)


# ---- matched effect


def test_a_matched_run_changes_the_attribute_by_the_target_on_average(start: Start, reading: list[str]) -> None:
    folder = start("effect=[-0.2,0.2]", *reading)
    found = summary(folder)["edits"]["smile"]
    assert found["way"] == "effect, on average"
    assert summary(folder)["reader"] == "means of pixels"
    for step, target in (("-0.2", -0.2), ("+0.2", 0.2)):
        assert found["steps"][step]["change"] == pytest.approx(target, rel=0.03)
    strengths = {row["strength"] for row in table(folder) if row["step"] == "+0.2"}
    assert len(strengths) == 1, "one strength for the whole run"
    assert json.loads((folder / "matched.json").read_text())["smile"][1] == pytest.approx(
        float(strengths.pop()), rel=1e-5
    )


@pytest.mark.parametrize("text", ["{", '{"smile": [1.0]}'])
def test_damaged_strengths_are_named_and_are_searched_again_without_them(
    start: Start, reading: list[str], tmp_path: Path, text: str
) -> None:
    settings = ["effect=[-0.5,1.0]", *reading, f"save_to={tmp_path / 'here'}"]
    before = summary(start(*settings))
    (tmp_path / "here" / "summary.json").unlink()
    (tmp_path / "here" / "batches" / "00000.json").unlink()
    (tmp_path / "here" / "matched.json").write_text(text)
    with pytest.raises(
        BadValue, match=r"matched\.json cannot be read .*; delete it, and the strengths are searched again"
    ):
        start(*settings)
    (tmp_path / "here" / "matched.json").unlink()
    assert summary(start(*settings)) == before


def test_matched_images_change_by_the_target_each(start: Start, reading: list[str]) -> None:
    folder = start("effect=0.1", "matched=image", *reading)
    rows = table(folder)
    assert [float(row["change"]) for row in rows] == pytest.approx([0.1] * 5, rel=0.01)
    assert len({row["strength"] for row in rows}) == 5, "every image its own strength"
    assert summary(folder)["edits"]["smile"]["steps"]["+0.1"]["short"] == 0
    assert all(float(row["leakage"]) >= 0 for row in rows)


def test_an_effect_that_nobody_reads_is_a_fixed_strength_and_says_so(start: Start, capsys: Any) -> None:
    folder = start("effect=1")
    assert "nobody here can read what it changes; the numbers are taken as strengths" in capsys.readouterr().out
    found = summary(folder)["edits"]["smile"]
    assert found["way"] == "fixed strength, as nobody can read the effect"
    assert found["steps"]["+1"] == {"strength": 1.0, "change": None, "leakage": None}
    assert summary(folder)["reader"] is None


def test_an_effect_that_can_be_read_on_no_image_is_refused_and_one_on_some_left_blank(
    start: Start, run: Path, generator: Generator, reading: list[str]
) -> None:
    bright = "+domain.reader={_target_: readings.Bright, least: %s}"
    with pytest.raises(BadValue, match=r"direction=smile: at strength 0\.5 the attribute cannot be read off any"):
        start("effect=1.0", *reading[:-1], bright % 99)
    with torch.no_grad():
        read = [Colours()(inversion.render())[:, 0] for inversion in Store.read(run).inversions(generator)]
    levels = torch.cat(read).sort().values.tolist()
    folder = start("effect=1.0", "matched=image", *reading[:-1], bright % ((levels[1] + levels[2]) / 2))
    with (folder / "edits.csv").open() as opened:
        rows = list(csv.DictReader(opened))
    assert [row["change"] for row in rows].count("") == 2
    assert {float(row["strength"]) == 0 for row in rows if row["change"] == ""} == {True}


def test_matched_ganspace_counts_from_where_codes_are(
    start: Start, generator: Generator, reading: list[str], tmp_path: Path
) -> None:
    w = generator.sample_w(40, torch.Generator().manual_seed(5))
    components = Components(w.mean(0), torch.eye(16)[:2], torch.tensor([1.0, 0.5]), fingerprint(generator))
    path = write_direction(components, tmp_path / "pca.safetensors")
    folder = start("effect=0", *reading, "+domain.edits={pca_1: brightness}", direction=f"{path}:1")
    assert [float(row["change"]) for row in table(folder)] == [0.0] * 5, "no effect is no edit"
    folder = start("strength=0.5", direction=f"{path}:1:2:4")
    codes = read_codes(folder / "codes" / "pca_1_2_4" / "+0.5.safetensors", n_latent=8, style_dim=16).codes
    assert ((codes[:, 0, 1] - components.mean[1]) / 0.5 - 0.5).abs().max() > 0.1, "row 0 stays where it was"
    shift = codes[:, 2:4, 1] - codes[:, :1, 1]
    assert_close_l2(shift[:, 0], 0.25 - (codes[:, 0, 1] - components.mean[1]), 1e-5)


# ---- names, strengths, errors


def test_names_are_looked_for_among_ones_own_then_published_ones(start: Start, smile: Path, tmp_path: Path) -> None:
    own = tmp_path / "church" / "directions"
    own.mkdir(parents=True)
    shutil.copy(smile, own / "happy.safetensors")
    folder = start(direction="happy")
    assert list(summary(folder)["edits"]["smile"]["steps"]) == ["-1", "-0.5", "0", "+0.5", "+1", "+1.5", "+2"], (
        "its usable range in seven steps"
    )
    with pytest.raises(
        MissingFile, match="direction=hapy: there is no such direction of domain=church; did you mean 'happy'"
    ):
        start(direction="hapy")


def test_a_published_edit_has_its_published_strength(generator: Generator, tmp_path: Path) -> None:
    vectors = torch.nn.functional.normalize(torch.randn(80, 16), dim=1)
    components = Components(torch.zeros(16), vectors, torch.ones(80), fingerprint(generator))
    write_direction(components, tmp_path / "directions" / "car" / "cars_pca.pt")
    config = composed("edit", ["domain=car", f"weights={tmp_path}", "direction=cube"])
    found = editors.directions(config, Fake(generator))  # type: ignore[arg-type]
    assert (found[0].direction.name, found[0].direction.rows, found[0].strength) == ("cube", (3, 4, 5), 25.0)
    assert editors.strength_rule(config, found[0], readable=False).steps == [25.0]
    config.direction = "grass"
    config.weights = str(tmp_path / "none")
    with pytest.raises(MissingFile, match=r"lsap\.assets domain=car method=editing fetch=true gets it"):
        editors.directions(config, Fake(generator))  # type: ignore[arg-type]


class Fake:
    """What choosing a direction asks of the parts of a run."""

    def __init__(self, generator: Generator) -> None:
        self.generator, self.fingerprint = generator, fingerprint(generator)


def test_every_published_edit_is_one_that_assets_can_fetch() -> None:
    files = {entry.file for entry in composed("assets").files}
    published = composed("edit").published
    assert {f"directions/{edit.file}" for edits in published.values() for edit in edits.values()} <= files


def test_a_direction_of_another_generator_is_refused_with_both_names(start: Start, tmp_path: Path) -> None:
    other = save_directions(
        [Direction(name="smile", vector=torch.ones(16), generator="b" * 64)], tmp_path / "b.safetensors"
    )
    with pytest.raises(
        BadValue, match=r"b\.safetensors belongs to generator b{12}, but this run uses [0-9a-f]{12}.*discover"
    ):
        start(direction=str(other))
    assert not (tmp_path / "church").exists(), "nothing was written"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("-3:3:7", [-3, -2, -1, 0, 1, 2, 3]),
        ("0:1:3", [0, 0.5, 1]),
        ("1:-1:2", [1, -1]),
        (2, [2]),
        ("-1.5", [-1.5]),
        ([0.5, -2], [0.5, -2]),
    ],
)
def test_strengths_are_read(value: Any, expected: list[float]) -> None:
    assert numbers("strength", value) == expected
    assert [label(step) for step in (-1.5, 0.0, 2.0)] == ["-1.5", "0", "+2"]


@pytest.mark.parametrize(
    "value", ["-3:3", "a:3:7", "-3:3:7:1", "-3:3:1.5", "much", [], [1, 1], "1:1:4", "0:1:1", True, "nan", "0:inf:3"]
)
def test_strengths_that_cannot_be_read_are_refused(value: Any) -> None:
    with pytest.raises(BadValue, match=r"^strength="):
        numbers("strength", value)


def test_a_reader_that_needs_the_extra_says_so(
    command: Command, run: Path, smile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lsap.data.landmarks.find_spec", lambda name: None)
    found = command("edit", f"inversions={run}", f"direction={smile}", "reader=landmarks")
    assert found.err.startswith("error: reader=landmarks: finding faces needs ")
    assert found.err.endswith("pip install 'lsap[faces]'\n")


def test_the_command_line_reads_a_range_of_strengths() -> None:
    assert composed("edit", ["strength=-3:3:7"]).strength == "-3:3:7"


def test_mistakes_are_one_line_each(command: Command, run: Path, smile: Path, stored: Callable[..., Path]) -> None:
    unfinished = stored()
    (unfinished / "batches" / "00001.json").unlink()
    for arguments, message in (
        (["direction=smile"], "inversions is not set"),
        (["inversions=nowhere"], "inversions=nowhere is no folder; make some with python -m lsap.invert"),
        ([f"inversions={run}/x/y"], "is no folder; make some"),
        ([f"inversions={run.parent}/nowhere"], f"nowhere is no folder; there are: {run}"),
        ([f"inversions={run.parent}"], f"{run.parent} is no run; it holds: {run}"),
        ([f"inversions={run}/images"], "images holds no inversions (it has no plan.json)"),
        ([f"inversions={unfinished}"], "1 of its batches are not done"),
        ([f"inversions={run}", "domain=car"], "domain=car, but"),
        ([f"inversions={run}", f"direction={smile}", "strength=1", "effect=1"], "strength and effect are both given"),
        ([f"inversions={run}", f"direction={smile}", "matched=each"], "matched=each: accepted: image, run"),
        ([f"inversions={run}", f"direction=[{smile},{smile}]"], "expected at least one direction, and each once"),
        ([f"inversions={run}", "direction=none.pt"], "none.pt does not exist"),
        ([f"inversions={run}", f"direction={smile.parent}"], "is a folder; name a file of directions in it"),
        (
            [f"inversions={run}", f"direction={smile}:age"],
            "holds no direction 'age'; accepted: smile",
        ),
        ([f"inversions={run}", "direction=smile:3"], "only a file is followed by ':'"),
        ([f"inversions={run}", f"direction={smile}", "reader=none"], "reader=none: there is no such file"),
        ([f"inversions={run}", f"direction={smile}", f"reader={smile}"], "probes look through the domain's judge"),
        ([f"inversions={run}", f"direction={smile}", "shown=0"], "expected a whole number of at least 1"),
    ):
        found = command("edit", *arguments)
        assert found.code == 2, arguments
        assert message in found.err, arguments
        assert len(found.err.strip().splitlines()) == 1


def test_values_of_a_run_are_taken(run: Path) -> None:
    """What is not taken: `test_hostile_runs`."""
    config = composed("edit", [f"inversions={run}"])
    _, whole = editors.stored_run(config)
    assert whole.generator._target_ == "lsap.checkpoints.load_generator"
    assert whole.generator.size == 32
    assert whole.view._target_ == "lsap.stylegan2.View"


@pytest.mark.slow
def test_the_demo_finds_a_direction_where_there_is_no_file_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from lsap.demo.networks import AttributeReader
    from lsap.demo.weights import load_generator as load_demo
    from lsap.demo.weights import load_trunk

    monkeypatch.setattr(editors, "SAMPLES", 128)
    monkeypatch.setattr(editors, "SHIPPED", {})
    monkeypatch.setattr("lsap.demo.weights.load_reader", lambda: AttributeReader(load_trunk()))
    made = load_demo()
    store = Store.open(tmp_path / "run", ["a"], 1, {"domain": "demo"})
    for batch in store.pending():
        codes = made.sample_w(1, torch.Generator().manual_seed(0))[:, None].repeat(1, made.n_latent, 1)
        inversion = Inversion(("a",), codes, fingerprint(made), renderer("generator", {}, made))
        with torch.no_grad():
            store.write(batch, [{"name": "a"}], inversion, inversion.render())
    base = [f"inversions={tmp_path / 'run'}", f"outputs={tmp_path}", "accelerator=cpu", "direction=pose"]
    folder = edit(composed("edit", [*base, "effect=[-0.5,0.4]"]))
    assert "no file; found now on 128 samples" in capsys.readouterr().out
    steps = summary(folder)["edits"]["pose"]["steps"]
    assert [steps[text]["change"] for text in ("-0.5", "+0.4")] == pytest.approx([-0.5, 0.4], rel=0.03)


# ---- directions of other tools, and edits that go too far


def test_one_of_several_directions_of_a_file_is_edited(start: Start, run: Path, tmp_path: Path) -> None:
    held = {"Eyeglasses": torch.randn(1, 16), "Smiling": torch.randn(1, 16)}
    torch.save(held, tmp_path / "boundaries:2.pt")  # a name of a file may hold a colon
    folder = start("strength=1", direction=f'"{tmp_path}/boundaries:2.pt:Smiling"')
    _, codes = Store.read(run).codes()
    found = read_codes(folder / "codes" / "Smiling" / "+1.safetensors", n_latent=8, style_dim=16)
    assert_close_l2(found.codes, codes + held["Smiling"], 1e-5)


def test_components_are_taken_by_number(start: Start, run: Path, tmp_path: Path) -> None:
    comp = torch.randn(5, 1, 16).numpy()
    np.savez(tmp_path / "pca.npz", lat_comp=comp, lat_mean=np.zeros((1, 16)), lat_stdev=np.ones(5))
    folder = start("strength=1", direction=f"{tmp_path}/pca.npz:3")
    assert load_directions(folder / "directions.safetensors")["pca_3"].vector.tolist() == comp[3, 0].tolist()
    for spec, told in (
        ("pca.npz", r"a file of components \(here 0 to 4\) takes FILE:COMPONENT"),
        ("pca.npz:9", "holds the components 0 to 4"),
        ("pca.npz:3:2:99", "this generator has 8 rows"),
    ):
        with pytest.raises(BadValue, match=told):
            start("strength=1", direction=f"{tmp_path}/{spec}")


def test_a_flat_direction_moves_the_rows_of_w_plus(start: Start, run: Path, tmp_path: Path) -> None:
    vector = torch.randn(8, 16)
    np.save(tmp_path / "flat.npy", vector.reshape(1, -1).numpy())
    folder = start("strength=1", direction=f"{tmp_path}/flat.npy")
    _, codes = Store.read(run).codes()
    found = read_codes(folder / "codes" / "flat" / "+1.safetensors", n_latent=8, style_dim=16)
    assert_close_l2(found.codes, codes + vector, 1e-5)
    torch.save(torch.randn(1, 512), tmp_path / "wide.pt")
    with pytest.raises(BadValue, match=r"'wide' is \[512\], but this generator takes \[16\] in W"):
        start("strength=1", direction=f"{tmp_path}/wide.pt")


def test_strengths_outside_of_the_usable_range_are_said(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    start("strength=50", "shown=1")
    told = "direction=smile: strength 50 is outside of its usable range, -1 to 2"
    assert capsys.readouterr().err.count(told) == 1


@pytest.mark.parametrize(("matched", "where"), [("run", ""), ("image", " on 5 of 5 images")])
def test_effects_out_of_reach_are_said_with_what_was_reached(
    start: Start, reading: list[str], capsys: pytest.CaptureFixture[str], matched: str, where: str
) -> None:
    folder = start(*reading, "effect=[0.01,50]", f"matched={matched}", "shown=1")
    change = summary(folder)["edits"]["smile"]["steps"]["+50"]["change"]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "out of reach" in line]
    assert line == (
        f"direction=smile: effect 50 is out of reach{where}; {change:.3g} was reached on average, with strengths of -3 "
        "to 3 tried"
    )
