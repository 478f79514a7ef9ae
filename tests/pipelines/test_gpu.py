"""On a CUDA device: the numbers of a processor, in every form of the computation, and the commands from end to end.

    pytest -m gpu

Convolutions may use TF32 there, as PyTorch does unless told otherwise; the tolerances below are relative L2 distances.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from commands import Command
from lsap.alignment import NormalizedStyleSpace, nscd
from lsap.checkpoints import read_state
from lsap.demo.weights import load_generator
from lsap.embedding.activation_checkpointing import recompute
from lsap.inversion import Inversion
from lsap.runs import Store
from lsap.stylegan2 import Generator, freeze, ops

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
GPU = torch.device("cuda")
Form = Callable[[Generator], Callable[[Tensor], Tensor]]


def distance(ours: Tensor, theirs: Tensor) -> float:
    """Relative L2."""
    ours, theirs = ours.detach().cpu().double(), theirs.detach().cpu().double()
    return float((ours - theirs).norm() / theirs.norm())


@pytest.fixture
def exact() -> Iterator[None]:
    """Convolutions and products in full single precision."""
    before = (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture(scope="module")
def codes() -> Tensor:
    """Rows of W+, some of each image's own."""
    generator = load_generator()
    w = generator.sample_w(2 * generator.n_latent, torch.Generator().manual_seed(0))
    return w.detach().view(2, generator.n_latent, -1)


def image_and_gradient(draw: Callable[[Tensor], Tensor], codes: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    leaf = codes.clone().to(device).requires_grad_()
    image = draw(leaf)
    image.float().square().mean().backward()
    assert leaf.grad is not None
    assert image.device.type == device.type
    return image, leaf.grad


@pytest.fixture(scope="module")
def expected(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Image and gradient on the processor."""
    return image_and_gradient(freeze(load_generator()), codes, torch.device("cpu"))


def in_bf16(generator: Generator) -> Callable[[Tensor], Tensor]:
    def draw(codes: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            return generator(codes)

    return draw


FORMS: dict[str, tuple[Form, float]] = {
    "as written": (lambda generator: generator, 1e-5),
    "per sample": (lambda generator: generator.use(ops.per_sample), 1e-5),
    "channels last": (lambda generator: generator.to(memory_format=torch.channels_last), 1e-5),
    "recomputed": (recompute, 1e-5),
    "compiled": (lambda generator: torch.compile(generator), 1e-4),
    "bf16": (in_bf16, 3e-2),
}


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("form", FORMS)
def test_every_form_draws_the_image_of_a_processor(form: str, codes: Tensor, expected: tuple[Tensor, Tensor]) -> None:
    made, tolerance = FORMS[form]
    image, gradient = image_and_gradient(made(freeze(load_generator()).to(GPU)), codes, GPU)
    found = distance(image, expected[0]), distance(gradient, expected[1])
    print(f"{form}: image {found[0]:.1e}, gradient {found[1]:.1e}")
    assert found[0] < tolerance
    assert found[1] < 5 * tolerance


def test_tf32_stays_within_a_thousandth(codes: Tensor, expected: tuple[Tensor, Tensor]) -> None:
    image, _ = image_and_gradient(freeze(load_generator()).to(GPU), codes, GPU)
    print(f"TF32: image {distance(image, expected[0]):.1e}")
    assert distance(image, expected[0]) < 2e-3


def test_a_generator_of_the_published_size_agrees() -> None:
    torch.manual_seed(1)
    generator = freeze(Generator(1024))
    codes = generator.sample_w(1, torch.Generator().manual_seed(0)).detach()
    with torch.no_grad():
        here = generator(codes)
        there = generator.to(GPU)(codes.to(GPU))
    assert distance(there, here) < 5e-3


@pytest.mark.usefixtures("exact")
def test_nscd_and_its_gradient_agree(codes: Tensor) -> None:
    found = []
    for device in (torch.device("cpu"), GPU):
        space = NormalizedStyleSpace(freeze(load_generator()).to(device), samples=5000)
        leaf = codes.clone().to(device).requires_grad_()
        value = nscd(space.styles(leaf), space.mean)
        value.sum().backward()
        assert leaf.grad is not None
        found.append((value, leaf.grad, torch.cat(space.mean)))
    for theirs, ours in zip(*found, strict=True):
        assert distance(ours, theirs) < 1e-4


# ---- commands

TINY = [
    "domain=demo", "data.train.count=64", "data.val_images=4", "data.tests.rich.count=6", "data.tests.plain.count=6",
    "data.tests.far.count=6", "space.samples=256", "batch_size=4", "data.num_workers=0", "max_steps=6",
]  # fmt: skip


def run(command: Command, verb: str, *arguments: str) -> None:
    outcome = command(verb, *arguments)
    assert outcome.code == 0, outcome.err


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


@pytest.mark.parametrize("embedding", ["psp", "e4e", "lsap_e", "restyle_e4e"])
def test_an_encoder_trains_as_on_a_processor(embedding: str, command: Command, tmp_path: Path) -> None:
    """Six steps from the same start. A GPU adds up in another order, so that weights agree to rounding."""
    states = []
    for accelerator in ("cpu", "gpu"):
        options = [f"embedding={embedding}", f"trainer.accelerator={accelerator}", f"outputs={accelerator}"]
        run(command, "train", *TINY, *options)
        states.append(read_state(only(tmp_path, f"{accelerator}/demo/*/*/encoder.safetensors")))
    there = json.loads(only(tmp_path, "gpu/demo/*/*/metrics.json").read_text())
    assert there["peak_memory_mb"]["cuda"] > 0
    cpu, gpu = states
    apart = sorted(distance(gpu[name], cpu[name]) for name in cpu if cpu[name].double().norm() > 1e-3)
    print(f"{embedding}: median {apart[len(apart) // 2]:.1e}, worst {apart[-1]:.1e}")
    assert all(math.isfinite(value) for value in apart)
    assert apart[len(apart) // 2] < 1e-2


@pytest.mark.parametrize(
    "option",
    ["trainer.precision=bf16-mixed", "trainer.channels_last=true", "preset=low_memory", "trainer.recompute=true"],
)
def test_a_training_takes_every_option(option: str, command: Command, tmp_path: Path) -> None:
    run(command, "train", *TINY, "trainer.accelerator=gpu", option)
    metrics = json.loads(only(tmp_path, "outputs/demo/lsap_e/*/metrics.json").read_text())
    found = [split["lambda_0.5"]["mse"] for split in metrics["splits"].values()]
    assert found
    assert all(0 < mse < 10 for mse in found)


REFINEMENTS = {
    "none": [],
    "pti": ["refinement.steps=4"],
    "hfgi": ["refinement.training.max_steps=4", "refinement.training.batch_size=4"],
    "sam": [
        "refinement.steps=4", "refinement.samples=64", "refinement.segmenter.count=4",
        "refinement.training.max_steps=4", "refinement.training.batch_size=4", "refinement.training.val_images=2",
        "refinement.training.examples.images=8", "refinement.training.examples.steps=4",
        "refinement.training.examples.feature_steps=4",
    ],
}  # fmt: skip


@pytest.mark.parametrize("refinement", REFINEMENTS)
@pytest.mark.parametrize("embedding", ["lsap_e", "lsap_o_wplus"])
def test_the_whole_way_and_back_on_a_processor(
    embedding: str, refinement: str, command: Command, tmp_path: Path
) -> None:
    """Train, invert, refine, edit and measure; what was stored is drawn alike without a GPU."""
    if (embedding, refinement) == ("lsap_o_wplus", "hfgi"):
        pytest.skip("HFGI is trained over an encoder")
    plan = [*TINY, f"embedding={embedding}", "trainer.accelerator=gpu"]
    if embedding == "lsap_e":
        run(command, "train", *plan)
    else:
        plan.append("steps=6")
    chosen = [f"refinement={refinement}", *REFINEMENTS[refinement]]
    if refinement in ("hfgi", "sam"):
        run(command, "train", *TINY, "embedding=lsap_e", "trainer.accelerator=gpu", *chosen)
    run(command, "invert", *plan, *chosen, "count=6", "images_per_batch=3", "split=rich")
    name = embedding if refinement == "none" else f"{embedding}+{refinement}"
    folder = only(tmp_path, f"outputs/demo/inversions/{name}/*")
    pictures = []
    for device in (torch.device("cpu"), GPU):
        store = Store.read(folder)
        inversion = store.load(store.batches[0], freeze(load_generator()).to(device))
        assert isinstance(inversion, Inversion)
        with torch.no_grad():
            pictures.append(inversion.render())
    assert pictures[1].device.type == "cuda"
    assert distance(pictures[1], pictures[0]) < 5e-3
    run(command, "edit", f"inversions='{folder}'", "direction=smile", "strength=1", "accelerator=gpu")
    run(command, "evaluate", f"runs={{one: '{folder}'}}", "direction=[smile]", "strength=1", "accelerator=gpu")
