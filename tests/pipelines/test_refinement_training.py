"""A refinement's own network, trained by `python -m lsap.train refinement=sam`, found again; what it learns from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn

from commands import Command
from lsap.checkpoints import fingerprint, load_generator, read_state
from lsap.checkpoints.sam import read_predictor
from lsap.config.compose import composed
from lsap.errors import BadValue, MissingFile
from lsap.pipelines.build import Parts
from lsap.pipelines.devices import device_of
from lsap.pipelines.inversion import invert
from lsap.pipelines.refinement_training import train_refinement, training_data
from lsap.pipelines.training import run as train
from lsap.refinement import InvertibilityTraining, SmallPredictor, SpaceErrors, StoredExamples
from lsap.refinement.space_errors import ERRORS
from lsap.runs import Store
from lsap.stylegan2 import Generator, View, freeze

TRAINING = [
    "refinement=sam", "refinement.training.network._target_=lsap.refinement.SmallPredictor",
    "refinement.training.examples.images=7", "refinement.training.examples.images_per_batch=3",
    "refinement.training.examples.steps=3", "+refinement.training.examples.samples=64",
    "refinement.training.max_steps=6", "refinement.training.batch_size=2", "refinement.training.val_images=2",
    "refinement.training.optimizer.lr=0.01", "trainer.save_every=0.3", "trainer.val_check_interval=0.5",
]  # fmt: skip
DEMO_TRUNK = ["perceptual._target_=lsap.demo.weights.load_perceptual", "~perceptual.net", "~perceptual.checkpoint"]

Start = Callable[..., Path]


@pytest.fixture(scope="module")
def settings(own: list[str]) -> list[str]:
    """The tiny domain, with a perceptual distance that needs no file."""
    return [*own, *DEMO_TRUNK, *TRAINING]


@pytest.fixture
def start(settings: list[str], tmp_path: Path) -> Start:
    def run(*overrides: str, to: Path = tmp_path / "outputs") -> Path:
        return train_refinement(composed("train", [*settings, f"outputs={to}", *overrides]))

    return run


@pytest.fixture(scope="module")
def unbroken(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training, run to its end without a break."""
    return train_refinement(composed("train", [*settings, f"outputs={tmp_path_factory.mktemp('unbroken')}"]))


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def examples_of(folder: Path) -> Path:
    (found,) = (folder.parents[1] / "sam-examples").iterdir()
    return found


def assert_same_outcome(folder: Path, other: Path) -> None:
    ours, theirs = (read_state(f / "predictor.safetensors") for f in (folder, other))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (folder / "metrics.csv").read_text() == (other / "metrics.csv").read_text()
    assert Store.read(examples_of(folder)).checksums() == Store.read(examples_of(other)).checksums()


# ---- the verb


def test_a_training_leaves_a_predictor_of_its_generator(unbroken: Path, generator_file: Path) -> None:
    found = read_predictor(unbroken / "predictor.safetensors")
    assert (found.kind, found.spaces) == ("small", ("W+", "F4"))
    assert found.generator == fingerprint(load_generator(generator_file, size=32))
    metrics = json.loads((unbroken / "metrics.json").read_text())
    assert (metrics["training_images"], metrics["held_out_images"]) == (5, 2)
    assert metrics["last"]["val/loss"] > 0
    assert unbroken.parts[-3:-1] == ("refinements", "sam")
    assert {path.name for path in unbroken.iterdir()} >= {"report.html", "config.yaml", "metrics.csv", "checkpoints"}
    rows = Store.read(examples_of(unbroken)).rows()
    assert len(rows) == 7
    assert set(rows[0]["errors"]) == {"W+", "F4"}


def test_finished_it_says_so_and_does_nothing(start: Start, unbroken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(unbroken.parents[2])
    assert start(to=unbroken.parents[3]) == unbroken
    assert "finished before" in capsys.readouterr().out
    assert files(unbroken.parents[2]) == before


def test_another_training_shares_the_examples(start: Start, unbroken: Path) -> None:
    before = files(examples_of(unbroken))
    other = start("refinement.training.max_steps=2", to=unbroken.parents[3])
    assert other != unbroken
    assert files(examples_of(unbroken)) == before


def test_inverting_finds_the_own_training(settings: list[str], unbroken: Path, images: Path) -> None:
    chosen = ["embedding=stylegan2_w", "lambda_lpips=0", "lambda_l2=1", "steps=2", f"images={images}", "count=2"]
    more = ["refinement.steps=2", "refinement.samples=64", f"outputs={unbroken.parents[3]}"]
    run = invert(composed("invert", [*settings, *chosen, *more]))
    assert json.loads((run.folder / "summary.json").read_text())["refinement"] == "sam"
    other = [f"outputs={unbroken.parents[3]}", "refinement.training.max_steps=77"]
    with pytest.raises(
        MissingFile, match=r"has not been trained with these settings .*lsap\.train domain=church refin"
    ):
        invert(composed("invert", [*settings, *chosen, *other]))


def test_the_command_that_is_printed_is_the_one_that_trains(
    command: Command,
    settings: list[str],
    images: Path,
) -> None:
    chosen = ["embedding=stylegan2_w", "lambda_lpips=0", "lambda_l2=1", f"images={images}", "count=2"]
    said = command("invert", *settings, *chosen)
    assert said.code == 2
    assert "python -m lsap.train domain=church refinement=sam" in said.err
    assert "refinement.training.max_steps=6" in said.err
    assert "count=2" not in said.err
    assert f"images={images}" not in said.err


# ---- breaks


def test_broken_while_it_trains_it_ends_the_same(start: Start, unbroken: Path) -> None:
    step = InvertibilityTraining.training_step
    calls = 0

    def breaks(self: InvertibilityTraining, batch: Any, number: int) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise ZeroDivisionError("a bug")
        return step(self, batch, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InvertibilityTraining, "training_step", breaks)
        with pytest.raises(ZeroDivisionError):
            start()
    assert_same_outcome(start(), unbroken)


def test_broken_while_it_makes_examples_it_makes_the_others_only(start: Start, unbroken: Path) -> None:
    refine = SpaceErrors.refine
    worked: list[int] = []

    def breaks(self: SpaceErrors, *given: Any) -> Any:
        worked.append(len(given[1]))
        if len(worked) == 2:
            raise ZeroDivisionError("a bug")
        return refine(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SpaceErrors, "refine", breaks)
        with pytest.raises(ZeroDivisionError):
            start()
        assert_same_outcome(start(), unbroken)
    assert worked == [3, 3, 3, 1], "the first batch once, the one that broke again"


# ---- refusals


def test_a_refinement_without_a_network_of_its_own_is_refused(command: Command) -> None:
    said = command("train", "refinement=pti")
    assert said.code == 2
    assert "refinement=pti trains nothing beforehand" in said.err
    assert "python -m lsap.invert refinement=pti" in said.err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["refinement.training.max_steps=0"], r"refinement\.training\.max_steps=0"),
        (["refinement.training.examples.images=0"], r"refinement\.training\.examples\.images=0"),
        (["refinement.training.optimizer.lr=-1"], r"refinement\.training\.optimizer\.lr=-1: expected a number above 0"),
        (["seed=-1"], "seed=-1"),
        (["refinement.training.examples.steps=0"], r"refinement\.steps=0"),
    ],
)
def test_numbers_that_cannot_work_are_refused(start: Start, overrides: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(BadValue, match=message):
        start(*overrides)
    assert not list((tmp_path / "outputs").rglob("*.safetensors"))


def test_files_that_are_missing_are_listed(own: list[str], tmp_path: Path) -> None:
    config = composed("train", [*own, "refinement=sam", f"weights={tmp_path}"])
    with pytest.raises(MissingFile, match=r"refinement=sam on .*\n  refinement\.perceptual\.checkpoint=\S+vgg16"):
        train(config)


# ---- what it learns from


class Plain(nn.Module):
    """A perceptual distance that everybody can compute, and that says where."""

    def spatial(self, x: Tensor, y: Tensor) -> Tensor:
        return (x - y).square().mean(1, keepdim=True)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.spatial(x, y).mean((1, 2, 3))


@pytest.fixture
def generator() -> Generator:
    torch.manual_seed(3)
    return freeze(Generator(64, style_dim=8, mapping_layers=2, channels=dict.fromkeys((4, 8, 16, 32, 64), 8)))


def errors_of(generator: Generator, count: int, **settings: Any) -> Tensor:
    given: dict[str, Any] = {"view": View(64), "distance": Plain(), "steps": 40, "samples": 100}
    maker = SpaceErrors(generator, "f", **given | settings)
    pictures = torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    found = maker.predict_step({"image": pictures, "names": list("abc")[:count]})
    assert found.inversion is not None
    assert list(found.notes["a"]["errors"]) == ["W+", "F4", "F6"]
    return found.inversion.state[ERRORS]


def test_finer_features_leave_smaller_errors(generator: Generator) -> None:
    errors = errors_of(generator, 2)
    assert errors.shape == (2, 3, 64, 64)
    assert errors.dtype == torch.float16
    means = errors.float().mean((2, 3))
    assert (means[:, 0] > means[:, 1]).all()
    assert (means[:, 1] > means[:, 2]).all()


def test_an_image_that_breaks_is_left_out_of_all_spaces(generator: Generator) -> None:
    maker = SpaceErrors(generator, "f", view=View(64), distance=Plain(), steps=2, samples=100)
    pictures = torch.rand(3, 3, 64, 64)
    pictures[1] = float("nan")
    found = maker.predict_step({"image": pictures, "names": ["a", "b", "c"]})
    assert found.inversion is not None
    assert found.inversion.names == ("a", "c")
    assert list(found.failed) == ["b"]


def test_a_distance_that_cannot_say_where_is_refused(generator: Generator) -> None:
    for distance in (None, nn.Identity()):
        with pytest.raises(BadValue, match="it needs a perceptual distance"):
            SpaceErrors(generator, "f", view=View(64), distance=distance)


def test_maps_stay_with_their_images_when_these_are_mirrored(settings: list[str], unbroken: Path) -> None:
    config = composed("train", [*settings, f"outputs={unbroken.parents[3]}"])
    parts = Parts(config, device_of("cpu"))
    data = training_data(parts)
    assert data is not None
    source = data.train
    assert isinstance(source, StoredExamples)
    store = Store.read(examples_of(unbroken))
    stored = {name: inv for inv in store.inversions(parts.generator) for name in inv.names}
    for batch, _ in zip(data.train_dataloader(), range(4), strict=False):
        for image, index in zip(batch["image"], batch["index"].tolist(), strict=True):
            name = source.names[index]
            maps = stored[name].state[ERRORS][stored[name].names.index(name)].float()
            plain = source.read([index])[0]
            flipped = not torch.equal(image, plain)
            assert torch.equal(image, plain.flip(-1) if flipped else plain)
            assert torch.equal(image[3:], maps.flip(-1) if flipped else maps)


def test_the_predictor_learns_where_errors_are() -> None:
    generator = Generator(32, style_dim=8, mapping_layers=1, channels=dict.fromkeys((4, 8, 16, 32), 4))
    module = InvertibilityTraining(generator, SmallPredictor, optimizer=lambda p: torch.optim.SGD(p, 0.05, 0.9))
    pictures = torch.rand(8, 3, 32, 32) * 2 - 1
    bright = (pictures.mean(1, keepdim=True) + 1) / 4
    batch = {"image": torch.cat([pictures, bright, bright / 2], 1)}
    optimizer = module.make_optimizer(module.network.parameters())
    losses = []
    for _ in range(60):
        terms = module.terms(batch, True)
        loss = torch.stack(list(terms.values())).sum()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert list(terms) == ["W+", "F4"]
    assert losses[-1] < 0.3 * losses[0]


def test_rates_fall_and_new_parts_of_the_published_network_learn_faster() -> None:
    module = InvertibilityTraining(
        Generator(32, style_dim=8, mapping_layers=1, channels=dict.fromkeys((4, 8, 16, 32), 4)),
        lambda spaces: build(spaces),
        optimizer=lambda groups: torch.optim.SGD(groups, 1e-4),
    )
    module.trainer = Trainer(max_steps=10, accelerator="cpu", logger=False, enable_checkpointing=False)
    made = module.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-4, 1e-3])
    for _ in range(5):
        optimizer.step()
        schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-4 * 0.5**0.9, 1e-3 * 0.5**0.9])


def build(spaces: Any) -> SmallPredictor:
    """A small predictor that calls its last layer new."""
    made = SmallPredictor(spaces)
    made.new_parts = lambda: [made.base.last]  # type: ignore[method-assign, list-item]
    return made
