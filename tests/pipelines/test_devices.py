"""Where things are computed, as far as that shows without a GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from pytorch_lightning import Callback, Trainer
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lsap.inversion import FixedNoise, Inversion
from lsap.pipelines import plan_work
from lsap.pipelines.devices import device_of, own_device, process_count
from lsap.refinement.tuned import TUNED, TunedWhole, tunable
from lsap.stylegan2 import Generator


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """A machine with two GPUs that are only counted; the list of those that were made the current one."""
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    return current


@pytest.mark.parametrize(
    ("devices", "variables", "number"),
    [
        ("auto", {}, 0),
        ("auto", {"LOCAL_RANK": "1"}, 1),
        (2, {"SLURM_LOCALID": "1"}, 1),
        (-1, {"LOCAL_RANK": "1", "SLURM_LOCALID": "0"}, 1),
        ([1], {}, 1),
        ("1,", {}, 1),
        ([1, 0], {"LOCAL_RANK": "1"}, 0),
        (
            1,
            {"SLURM_LOCALID": "1"},
            0,
        ),  # two commands side by side under one scheduler, each with a GPU of its own choice
    ],
)
def test_every_process_works_on_the_gpu_that_lightning_gives_it(
    devices: Any, variables: dict[str, str], number: int, two_gpus: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = OmegaConf.create({"accelerator": "auto", "devices": devices, "num_nodes": 1})
    assert process_count(settings) == (1 if devices in (1, [1], "1,") else 2)
    assert own_device(settings) == torch.device("cuda", number)
    assert two_gpus == [torch.device("cuda", number)]


def test_a_processor_is_asked_for_by_name(two_gpus: list[torch.device]) -> None:
    assert own_device(OmegaConf.create({"accelerator": "cpu", "devices": 2, "num_nodes": 1})) == torch.device("cpu")
    assert two_gpus == []
    assert device_of("gpu").type == "cuda"


class Bar(Callback):
    """A progress bar of nothing."""

    def __init__(self, *_: object) -> None:
        self.within = self.stop = lambda *_: None


class Elsewhere(nn.Module):
    """A module that says where it was moved last."""

    at = torch.device("cpu")

    def to(self, device: torch.device) -> Elsewhere:  # type: ignore[override]
        self.at = device
        return self


def test_what_a_stage_shares_is_back_on_its_device_after_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning leaves a module on the CPU, and pages are written with the generator in it."""
    module = Elsewhere()
    generator = small().to("meta")
    stage: Any = SimpleNamespace(title="a stage", before=None, generator=generator, module=lambda: module)
    store: Any = SimpleNamespace(let_go=lambda: None, report_resumed=lambda: None)

    def predict(trainer: Trainer, worked: Elsewhere, pending: object, return_predictions: bool) -> None:
        worked.to(torch.device("cpu"))

    monkeypatch.setattr(Trainer, "predict", predict)
    monkeypatch.setattr(plan_work, "PlanProgress", Bar)
    settings = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "precision": "32-true"}
    config = OmegaConf.create({"trainer": settings, "images_per_batch": 2})
    chosen: Any = SimpleNamespace(label="images")
    plan_work.work(config, stage, chosen, store, plan_work.Clock())
    assert module.at == torch.device("meta")


def small() -> Generator:
    return Generator(16, style_dim=8, mapping_layers=1, channels=dict.fromkeys((4, 8, 16), 4))


def test_an_inversion_is_drawn_where_its_generator_is() -> None:
    """Tensors that only know their shape and device; an operation on two devices fails as it would on a GPU."""
    with FakeTensorMode():
        with torch.device("cuda"):
            generator = small()
        drawn = TunedWhole(generator)
        plain = Inversion(("a", "b"), torch.empty(2, generator.n_latent, 8), "mark", FixedNoise(generator))
        state = {TUNED + name: torch.empty(2, *weight.shape).half() for name, weight in tunable(generator).items()}
        for inversion in (plain, plain.with_stage("tuned", renderer=drawn, state=state)):
            assert inversion.render().device.type == "cuda"
            assert inversion.codes.device.type == "cpu"


def test_tuned_weights_follow_their_generator() -> None:
    generator = small()
    drawn = TunedWhole(generator)
    generator.to("meta")
    assert {weight.device.type for weight in drawn.weights.values()} == {"meta"}
