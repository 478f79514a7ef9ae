"""ReStyle: parity of encoders and loops, passes that see the one before, gradients that add up, files, inversion."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet34

from comparison import assert_close_l2, assert_published
from golden import fill
from lsap.checkpoints import rosinality, write_state
from lsap.config.compose import composed
from lsap.embedding import (
    AdversarialRestyleTraining,
    Iterated,
    IterativeEncoder,
    IterativeResNetEncoder,
    RestyleTraining,
    RowEncoder,
    SmallIterativeEncoder,
)
from lsap.embedding.iterated import first_image
from lsap.errors import BadValue
from lsap.evaluation.fidelity import evaluate
from lsap.evaluation.metrics import image_metrics
from lsap.pipelines.build import Parts, trained
from lsap.pipelines.run_identity.inversions import identity
from lsap.pipelines.training import start_from, training_module
from lsap.stylegan2 import Generator, View, freeze

FACES, CARS = "encoder_restyle_e4e_256", "encoder_restyle_e4e_cars_512"
ENCODERS: dict[str, type[IterativeEncoder | IterativeResNetEncoder]] = {
    FACES: IterativeEncoder, CARS: IterativeResNetEncoder,
}  # fmt: skip
ROWS = {FACES: 14, CARS: 16}


# ---- parity with the published encoders and loops


@pytest.mark.slow
@pytest.mark.parametrize(("case", "size", "view"), [(FACES, 256, View(256)), (CARS, 512, View(256, (32, 224)))])
@torch.no_grad()
def test_passes_agree_with_the_published_loop(case: str, size: int, view: View) -> None:
    spec, x = fill.load(case), fill.inputs(case)
    with torch.device("meta"):
        encoder = ENCODERS[case](ROWS[case])
    encoder.load_state_dict(fill.state_dict(spec, "encoder") | {"latent_avg": x["latent_avg"]}, assign=True)
    generator = Generator(size)
    generator.load_state_dict(rosinality.rename(fill.state_dict(spec, "decoder")), strict=False)
    run = Iterated(encoder, freeze(generator), view, iterations=3).eval()
    assert_published(spec, "average_image", first_image(x["latent_avg"], generator, view)[0], 1e-4)
    if "six_channels" in x:
        assert_published(spec, "codes", encoder.offsets(x["six_channels"]), 1e-4)
    scale = size // view.size
    rows = slice(view.first * scale, (view.first + view.height) * scale)
    for number, codes in enumerate(run.passes(x["image"]), 1):
        assert_published(spec, f"latent_iter{number}", codes[0], 1e-3)
        assert_published(spec, f"image_iter{number}", generator(codes)[0, :, rows], 1e-3)


@pytest.mark.parametrize("case", ENCODERS)
def test_published_weights_load_by_name(case: str) -> None:
    with torch.device("meta"):
        ours = ENCODERS[case](ROWS[case]).state_dict()
    tensors = fill.load(case)["models"]["encoder"]["tensors"]
    assert ours.keys() - tensors.keys() == {"latent_avg"}
    assert all(list(ours[name].shape) == entry.get("shape", []) for name, entry in tensors.items())


# ---- encoders


@torch.no_grad()
def test_the_published_encoders_read_every_row_off_the_coarse_map() -> None:
    encoder = IterativeResNetEncoder(4, style_dim=16).eval()
    assert encoder.coarse(torch.zeros(1, 6, 192, 256)).shape == (1, 512, 12, 16)
    assert encoder(torch.zeros(1, 6, 96, 128)).shape == (1, 4, 16)
    with pytest.raises(BadValue, match="up to 256 x 256 pixels, got 384 x 512"):
        encoder(torch.zeros(1, 6, 384, 512))


def test_the_body_starts_from_imagenets_and_the_reconstructions_channels_stay() -> None:
    encoder = IterativeResNetEncoder(1, style_dim=16)
    own = encoder.conv1.weight.detach().clone()
    imagenet = resnet34(weights=None).state_dict()
    encoder.start_backbone(imagenet)
    assert torch.equal(encoder.conv1.weight[:, :3], imagenet["conv1.weight"])
    assert torch.equal(encoder.conv1.weight[:, 3:], own[:, 3:])
    found = encoder.state_dict()
    assert torch.equal(found["body.3.downsample.0.weight"], imagenet["layer2.0.downsample.0.weight"])
    assert torch.equal(found["body.15.conv2.weight"], imagenet["layer4.2.conv2.weight"])
    with pytest.raises(BadValue, match=r"not those of a ResNet-34 .* begins with input_layer\.0\.weight"):
        encoder.start_backbone({"input_layer.0.weight": torch.zeros(64, 3, 3, 3)})


def test_the_body_for_faces_starts_from_arcfaces() -> None:
    tensors = fill.load("arcface_irse50")["models"]["facenet"]["tensors"]
    encoder = IterativeEncoder(1, style_dim=16)
    own = encoder.input_layer[0].weight.detach().clone()
    encoder.start_backbone({name: torch.full(entry.get("shape", []), 0.25) for name, entry in tensors.items()})
    first = encoder.input_layer[0].weight
    assert (first[:, :3] == 0.25).all()
    assert torch.equal(first[:, 3:], own[:, 3:])
    assert all((p == 0.25).all() for name, p in encoder.named_parameters() if name.startswith("body"))


# ---- passes


@pytest.fixture
def generator() -> Generator:
    torch.manual_seed(3)
    made = Generator(32, style_dim=16, mapping_layers=2, channels=dict.fromkeys((4, 8, 16, 32), 8))
    nn.init.normal_(made.latent_avg)
    return freeze(made)


@pytest.fixture
def encoder(generator: Generator) -> SmallIterativeEncoder:
    """With large last layers, so that every pass changes something."""
    made = SmallIterativeEncoder(8, style_dim=16, latent_avg=generator.latent_avg).eval()
    for head in made.heads:
        nn.init.normal_(head.linear.weight, std=0.1)
    return made


@torch.no_grad()
def test_a_pass_sees_the_reconstruction_of_the_one_before(generator: Generator, encoder: SmallIterativeEncoder) -> None:
    images, view = torch.rand(2, 3, 32, 32) * 2 - 1, View(32)
    run = Iterated(encoder, generator, view, iterations=3)
    codes = encoder.latent_avg.expand(2, -1, -1)
    expected = []
    for _ in range(3):
        codes = codes + encoder.offsets(torch.cat([images, view(generator(codes))], 1))
        expected.append(codes)
    found = run.passes(images)
    assert len(found) == 3
    for ours, theirs in zip(found, expected, strict=True):
        assert_close_l2(ours, theirs, 1e-5)
    assert torch.equal(run(images), found[-1])
    assert not torch.allclose(found[-1], found[-2], atol=1e-2)
    assert torch.equal(run.latent_avg, encoder.latent_avg)


@torch.no_grad()
def test_all_passes_together_are_in_the_mode_of_their_encoder(
    generator: Generator, encoder: SmallIterativeEncoder
) -> None:
    assert not Iterated(encoder, generator, View(32)).training
    assert Iterated(encoder.train(), generator, View(32)).training
    assert not generator.training


def test_rows_beyond_the_stage_move_together(generator: Generator, encoder: SmallIterativeEncoder) -> None:
    codes = Iterated(encoder, generator, View(32))(torch.rand(2, 3, 32, 32), stage=2)
    away = codes - encoder.latent_avg
    assert_close_l2(away[:, 3:], away[:, :1].expand(-1, 5, -1), 1e-5)
    assert not torch.allclose(away[:, 1], away[:, 0], atol=1e-3)


@pytest.mark.parametrize("iterations", [0, -1, 2.5, True, None])
def test_a_number_of_passes_that_is_none_is_refused(
    generator: Generator, encoder: SmallIterativeEncoder, iterations: Any
) -> None:
    with pytest.raises(BadValue, match=rf"iterations={iterations}: expected a whole number of at least 1"):
        Iterated(encoder, generator, View(32), iterations=iterations)


# ---- training


Own = Callable[..., list[str]]


@pytest.fixture(scope="module")
def own(generator_file: Path, photographs: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Own:
    """`own("restyle_lsap")`: overrides for a training in a domain of one's own."""
    images = photographs(tmp_path_factory.mktemp("photos"), 12)

    def overrides(embedding: str, *more: str) -> list[str]:
        return [
            "domain=church", f"embedding={embedding}", f"generator.checkpoint={generator_file}", f"data.root={images}",
            "generator.size=32", "view.size=32", "image_size=[32,32]",
            "encoders.iterated=lsap.embedding.SmallIterativeEncoder", "backbone.checkpoint=random", "lambda_lpips=0",
            "lambda_id=0", "space.samples=64", "data.num_workers=0", "data.val_images=3", *more,
        ]  # fmt: skip

    return overrides


class Strategy:
    """What a training step needs of Lightning's."""

    def backward(self, loss: Tensor, optimizer: None) -> None:
        loss.backward()


class Alone:
    """A Trainer for a single step."""

    accumulate_grad_batches = 1
    strategy = Strategy()


@pytest.fixture
def build(own: Own, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`build("restyle_lsap")`: a training module whose step can be called by itself."""
    monkeypatch.setattr(RestyleTraining, "trainer", Alone())
    monkeypatch.setattr(RestyleTraining, "log", lambda *_, **__: None)
    monkeypatch.setattr(RestyleTraining, "log_dict", lambda *_, **__: None)

    def make(embedding: str, *more: str) -> Any:
        config = composed("train", own(embedding, *more))
        return training_module(config, Parts(config, torch.device("cpu")))

    return make


def one_by_one(module: RestyleTraining, images: Tensor) -> Iterator[Tensor]:
    """The losses of a batch's passes, each with the codes and the image before it taken as they are."""
    codes = module.encoder.latent_avg.expand(len(images), -1, -1)
    output = module.view(module.generator(codes))
    for _ in range(module.iterations):
        moved = codes + module.encoder.offsets(torch.cat([images, output], 1), module.stage)
        fit = module.drawn(images, moved, stage=module.stage, noise="random")
        yield torch.stack(list(module.objective(fit).values())).sum()
        codes, output = moved.detach(), fit.output.detach()


def test_the_gradients_of_all_passes_add_up(build: Callable[..., Any]) -> None:
    module = build("restyle_lsap", "iterations=3", "lambda_delta=0.1", "stages.start=0", "stages.every=0")
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    torch.manual_seed(0)
    wanted = torch.autograd.grad(torch.stack(list(one_by_one(module, images))).sum(), list(module.encoder.parameters()))
    torch.manual_seed(0)
    module.training_step({"image": images}, 0).backward()
    assert module.batches_seen == 1
    for ours, theirs in zip(module.encoder.parameters(), wanted, strict=True):
        assert ours.grad is not None
        assert_close_l2(ours.grad, theirs, 1e-4)
    module.optimizer_zero_grad(0, 0, None)
    assert all(p.grad is not None for p in module.encoder.parameters()), "Lightning asks for it before the last pass"
    before = [p.grad.clone() for p in module.encoder.parameters()]
    torch.manual_seed(0)
    module.training_step({"image": images}, 1).backward()
    for parameter, first in zip(module.encoder.parameters(), before, strict=True):
        assert_close_l2(parameter.grad, first, 1e-4)  # a fresh start


def test_what_inverts_still_does_so_in_evaluation_mode_after_it_was_measured(build: Callable[..., Any]) -> None:
    more = ["encoders.iterated=lsap.embedding.IterativeResNetEncoder", "iterations=1"]
    module = build("restyle_lsap", *more)
    module.encoder.eval()
    found = module.inverter
    norm = module.encoder.bn1
    before = norm.running_mean.clone()
    batch = {"image": torch.rand(2, 3, 32, 32)}
    evaluate(found, module.generator, module.view, module.space, [batch], image_metrics())
    with torch.no_grad():
        alone, beside = found(batch["image"][:1]), found(batch["image"])
    assert not any(part.training for part in (found, *module.encoder.modules(), *module.generator.modules()))
    assert torch.equal(norm.running_mean, before), "pictures that are drawn afterwards teach nothing"
    assert_close_l2(alone[0], beside[0], 1e-4)  # nor do they depend on one another


def test_the_discriminator_learns_once_from_all_passes(
    build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = build("restyle_e4e", "iterations=3", "stages.start=0", "stages.every=1")
    assert isinstance(module, AdversarialRestyleTraining)
    told: list[Tensor] = []
    monkeypatch.setattr(type(module), "teach", lambda _, rows: told.append(rows))
    module.batches_seen = 2
    module.training_step({"image": torch.rand(2, 3, 32, 32)}, 0)
    (rows,) = told
    assert rows.shape == (2, 3 * (module.stages.stage(2) + 1), 16)
    assert not rows.requires_grad


# ---- files, and how it is used


def test_a_published_checkpoint_loads_mean_latent_included(tmp_path: Path) -> None:
    published = IterativeResNetEncoder(8, style_dim=16)
    state = {f"encoder.{name}": tensor for name, tensor in published.state_dict().items() if name != "latent_avg"}
    mean = torch.randn(8, 16)
    opts = {"encoder_type": "ResNetProgressiveBackboneEncoder", "n_iters_per_batch": 5, "start_from_latent_avg": False}
    torch.save({"state_dict": state, "latent_avg": mean, "opts": opts}, tmp_path / "restyle.pt")
    with torch.device("meta"):
        ours: RowEncoder = IterativeResNetEncoder(8, style_dim=16)
    ours.to_empty(device="cpu")
    start_from(ours, str(tmp_path / "restyle.pt"))
    found = ours.state_dict()
    assert torch.equal(found.pop("latent_avg"), mean), "passes start there whatever the options say"
    assert all(torch.equal(tensor, published.state_dict()[name]) for name, tensor in found.items())
    with pytest.raises(BadValue, match=r"holds the encoder 'restyle_e4e' \(ResNetProgressiveBackboneEncoder\)"):
        start_from(SmallLikePSP(), str(tmp_path / "restyle.pt"))


class SmallLikePSP(SmallIterativeEncoder):
    """Asks for the weights of another rule."""

    kind = "psp"

    def __init__(self) -> None:
        super().__init__(8, style_dim=16)


@pytest.mark.parametrize("embedding", ["restyle_e4e", "restyle_lsap"])
def test_what_inverts_takes_all_passes(own: Own, tmp_path: Path, embedding: str) -> None:
    made = SmallIterativeEncoder(8, style_dim=16, latent_avg=torch.randn(16))
    file = write_state(
        tmp_path / "encoder.safetensors", made.state_dict(), {"embedding": embedding, "encoder": made.kind}
    )
    config = composed("invert", own(embedding, f"checkpoint={file}", "iterations=2"))
    parts = Parts(config, torch.device("cpu"))
    run, path = trained(parts)
    assert (path, isinstance(run, Iterated)) == (file, True)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = Iterated(made.eval(), parts.generator, parts.view, iterations=2)(images)
        assert torch.equal(run(images), expected)
        found = parts.embedding().embed(images, ["a", "b"]).inversion
        assert found is not None
        assert torch.equal(found.codes, expected)


def test_other_passes_are_another_inversion(own: Own, tmp_path: Path) -> None:
    made = SmallIterativeEncoder(8, style_dim=16)
    card = {"embedding": "restyle_lsap", "encoder": made.kind}
    file = write_state(tmp_path / "encoder.safetensors", made.state_dict(), card)
    settings = []
    for passes in (5, 3):
        config = composed("invert", own("restyle_lsap", f"checkpoint={file}", f"iterations={passes}"))
        config.images = config.data.root
        parts = Parts(config, torch.device("cpu"))
        settings.append(identity(parts)[0])
    assert [each["iterations"] for each in settings] == [5, 3]
    assert json.dumps(settings[0], sort_keys=True) != json.dumps(settings[1], sort_keys=True)
