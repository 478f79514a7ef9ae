"""HFGI: parity with the published networks and chains, residuals that are kept and re-aligned, and their training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from comparison import assert_close_l2, assert_published
from golden import fill
from lsap.checkpoints import fingerprint, load_generator, read_card, rosinality, write_state
from lsap.checkpoints.hfgi import card, read_consultation
from lsap.config.compose import composed
from lsap.embedding import Ranger
from lsap.errors import BadValue, MissingFile
from lsap.inversion import FixedNoise, Inversion, OwnNoise, restored
from lsap.pipelines.inversion import invert
from lsap.pipelines.refinement_training import train_refinement
from lsap.pipelines.training import train
from lsap.refinement import (
    ConsultationTraining,
    Consulted,
    DistortionConsultation,
    PublishedConsultation,
    SmallConsultation,
    load_consultation,
)
from lsap.refinement.consultation import consulted_channels, consulted_layer
from lsap.refinement.hfgi import RESIDUAL, aligned, consulted, seen, square
from lsap.runs import Store
from lsap.stylegan2 import Generator, View, freeze

CHANNELS = dict.fromkeys((4, 8, 16, 32), 8)
CASE = "hfgi"


class Plain(nn.Module):
    """A perceptual distance that everybody can compute: the mean absolute difference of neighbouring pixels."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x - y).diff(dim=-1).abs().mean((1, 2, 3))


@pytest.fixture
def generator() -> Generator:
    torch.manual_seed(3)
    small = freeze(Generator(32, style_dim=8, mapping_layers=2, channels=CHANNELS))
    for layer in small.layers:
        if layer.demodulates:
            nn.init.constant_(small.blocks[layer.name].noise_strength, 0.1)  # type: ignore[arg-type]
    return small


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Small networks that change something, as a training leaves them."""
    torch.manual_seed(4)
    network = SmallConsultation(8)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.1)
    return write_state(tmp_path / "consultation.safetensors", network.state_dict(), card("small") | {"generator": "f"})


@pytest.fixture
def refined(generator: Generator, file: Path) -> Callable[..., Inversion]:
    """`refined(inversion, images)` by these networks, through Lightning's door."""

    def run(inversion: Inversion, images: Tensor, view: View | None = None) -> Inversion:
        network = load_consultation(file, 8, "f")
        module = DistortionConsultation(generator, "f", view=view or View(32), network=network, file=file)
        batch = {"image": images, "names": list(inversion.names), "inversion": inversion}
        found = module.predict_step(batch).inversion
        assert found is not None
        return found

    return run


@pytest.fixture
def inversion(generator: Generator) -> Inversion:
    codes = generator.sample_w(3)[:, None] + 0.1 * torch.randn(3, generator.n_latent, 8)
    return Inversion(tuple("abc"), codes, "f", FixedNoise(generator), {}, ("some",))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 32, 32) * 2 - 1


# ---- parity with the published networks


@pytest.fixture(scope="module")
def published() -> PublishedConsultation:
    spec = fill.load(CASE)
    network = PublishedConsultation()
    state = {
        f"{part}.{name}": t for part in ("residue", "grid_align") for name, t in fill.state_dict(spec, part).items()
    }
    network.load_state_dict(state)
    return freeze(network)


@torch.no_grad()
def test_networks_agree_with_the_published_ones(published: PublishedConsultation) -> None:
    x = fill.inputs(CASE)
    residual, image = x["six_channels"].split(3, 1)
    assert_published(CASE, "aligned_six", published.align(residual, image), 1e-4)
    gates, additions = published.conditions(x["image"])
    assert_published(CASE, "residue_scale", gates, 1e-4)
    assert_published(CASE, "residue_shift", additions, 1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_inversion_and_edit_agree_with_the_published_chains(published: PublishedConsultation) -> None:
    spec, x = fill.load(CASE), fill.inputs(CASE)
    generator = Generator(512)
    generator.load_state_dict(rosinality.rename(fill.state_dict(spec, "decoder")), strict=False)
    freeze(generator)
    view, codes = View(256), x["w_plus"]
    plain = generator(codes)
    assert_published(spec, "image_initial", plain, 1e-4)
    told = generator(codes, taps={consulted_layer(generator): lambda f: f * (1 + x["scale"]) + x["shift"]})
    assert_published(spec, "image_conditions", told, 1e-4)
    first = seen(plain, view)
    assert_published(spec, "initial_256", first, 1e-4)
    residual = x["image"] - first
    own = aligned(published, residual, first, view)
    assert_published(spec, "residual_aligned", own, 1e-4)
    assert_published(spec, "res_loss_l1", (own - residual).abs().mean(), 1e-4)
    image = consulted(generator, published, own, codes, view)
    for output in ("image_inversion", "image_inversion_ganinverter"):
        assert_published(spec, output, image, 1e-4)
    edited = codes + x["edit"]
    moved = aligned(published, residual, seen(generator(edited), view), view)
    assert_published(spec, "residual_aligned_edit", moved, 1e-4)
    assert_published(spec, "image_edit", consulted(generator, published, moved, edited, view), 1e-4)


def test_a_published_checkpoint_gives_the_networks_and_not_the_encoder(
    published: PublishedConsultation, tmp_path: Path
) -> None:
    state = published.state_dict()
    content = {"state_dict": state | {"encoder.input_layer.0.weight": torch.zeros(2)}, "latent_avg": torch.zeros(18, 8)}
    torch.save(content | {"opts": {}}, tmp_path / "hfgi.pt")
    found = load_consultation(tmp_path / "hfgi.pt", 512, "any generator")
    assert isinstance(found, PublishedConsultation)
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.state_dict().items())
    converted = write_state(tmp_path / "e.safetensors", state, {"kind": "lsap encoder"})
    assert read_consultation(converted).state.keys() == state.keys()


# ---- where it enters


@pytest.mark.parametrize(("size", "layer"), [(16, "up8"), (64, "up16"), (128, "up32"), (256, "up64"), (1024, "up64")])
def test_the_layer_follows_the_generators_size(size: int, layer: str) -> None:
    with torch.device("meta"):
        generator = Generator(size)
    assert (consulted_layer(generator), consulted_channels(generator)) == (layer, 512)


def test_cars_are_laid_into_the_square_that_the_generator_draws() -> None:
    view = View(32, (4, 28))
    picture = torch.rand(2, 3, 24, 32)
    laid = square(picture, view)
    assert laid.shape == (2, 3, 32, 32)
    assert torch.equal(laid[:, :, 4:28], picture)
    assert not laid[:, :, :4].any()
    assert not laid[:, :, 28:].any()


# ---- what it does to an inversion


def test_the_residual_is_what_the_plain_image_lacks_and_codes_stay(
    refined: Callable[..., Inversion], inversion: Inversion, images: Tensor
) -> None:
    plain = inversion.render()
    better = refined(inversion, images)
    assert better.history == ("some", "hfgi")
    assert torch.equal(better.codes, inversion.codes)
    assert torch.equal(better.state[RESIDUAL], (images - plain.clamp(-1, 1)).half())
    assert not torch.allclose(better.render(), plain, atol=1e-2), "the networks say something"
    assert not inversion.state
    assert torch.equal(inversion.render(), plain)


@torch.no_grad()
def test_edited_codes_have_the_residual_aligned_to_the_edited_image(
    refined: Callable[..., Inversion], inversion: Inversion, images: Tensor, generator: Generator, file: Path
) -> None:
    better = refined(inversion, images)
    codes = inversion.codes + 0.5 * torch.randn_like(inversion.codes)
    network, view = load_consultation(file, 8), View(32)
    residual = better.state[RESIDUAL].float()

    def told(beside: Tensor) -> Tensor:
        moved = aligned(network, residual, seen(generator(beside), view), view)
        return consulted(generator, network, moved, codes, view)

    assert torch.equal(better.render(codes), told(codes))
    assert not torch.allclose(better.render(codes), told(inversion.codes), atol=1e-3)


@torch.no_grad()
def test_images_do_not_know_of_their_batch_mates(
    refined: Callable[..., Inversion], inversion: Inversion, images: Tensor
) -> None:
    better = refined(inversion, images)
    for place in range(3):
        assert_close_l2(better.select([place]).render(), better.render()[place : place + 1], 1e-4)


def test_stored_and_read_again_it_draws_the_same_to_the_bit(
    refined: Callable[..., Inversion], inversion: Inversion, images: Tensor, generator: Generator
) -> None:
    better = refined(inversion, images)
    again = restored(better.tensors(), better.card(), generator)
    codes = better.codes + 0.3
    assert torch.equal(again.render(codes), better.render(codes))


def test_noise_maps_of_the_images_own_are_kept(
    refined: Callable[..., Inversion], inversion: Inversion, images: Tensor, generator: Generator
) -> None:
    shapes = {layer.name: layer.resolution for layer in generator.layers if layer.demodulates}
    noise = {f"noise.{name}": torch.randn(3, 1, side, side) for name, side in shapes.items()}
    noisy = Inversion(inversion.names, inversion.codes, "f", OwnNoise(generator), noise, ("some",))
    better = refined(noisy, images)
    assert torch.equal(better.state[RESIDUAL], (images - noisy.render().clamp(-1, 1)).half())
    silent = better.with_stage("x", state={name: torch.zeros_like(each) for name, each in noise.items()})
    assert not torch.allclose(silent.render(), better.render(), atol=1e-3)


def test_a_band_of_rows_is_refined_as_well(
    refined: Callable[..., Inversion], inversion: Inversion, images: Tensor, generator: Generator
) -> None:
    view = View(32, (4, 28))
    better = refined(inversion, images[:, :, 4:28], view)
    assert better.state[RESIDUAL].shape == (3, 3, 24, 32)
    assert better.render().shape == (3, 3, 32, 32)
    again = restored(better.tensors(), better.card(), generator)
    assert torch.equal(again.render(), better.render())


# ---- what is refused


def test_a_file_that_went_or_changed_is_named(
    refined: Callable[..., Inversion], inversion: Inversion, images: Tensor, generator: Generator, file: Path
) -> None:
    better = refined(inversion, images)
    write_state(file, SmallConsultation(8).state_dict(), card("small"))
    with pytest.raises(BadValue, match=r"consultation\.safetensors holds other networks of HFGI .* or invert again"):
        restored(better.tensors(), better.card(), generator)
    file.unlink()
    with pytest.raises(MissingFile, match=r"consultation\.safetensors is not there; .* put it back"):
        restored(better.tensors(), better.card(), generator)


def test_networks_of_another_generator_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="belong to generator f, but this run uses g; train some for it"):
        load_consultation(file, 8, "g")
    with pytest.raises(BadValue, match="not those of HFGI for a layer of 16 features"):
        load_consultation(file, 16)
    other = write_state(tmp_path / "other.safetensors", {"weight": torch.zeros(1)}, {})
    with pytest.raises(BadValue, match=r"holds no networks of HFGI \(no residue\.…; it holds weight\)"):
        load_consultation(other, 8)


def test_what_was_refined_already_is_refused(
    refined: Callable[..., Inversion], inversion: Inversion, images: Tensor
) -> None:
    with pytest.raises(BadValue, match=r"refinement=hfgi refines what an embedding made, .* drawn by 'hfgi'"):
        refined(refined(inversion, images), images)


# ---- training


class Lost(nn.Module):
    """An encoder that answers the code of every image but for what the last pixels say: always the same one."""

    def __init__(self, codes: Tensor) -> None:
        super().__init__()
        self.register_buffer("codes", codes)

    def forward(self, images: Tensor) -> Tensor:
        codes: Tensor = self.get_buffer("codes")
        return codes.expand(len(images), -1, -1)


@pytest.fixture
def training(generator: Generator) -> Callable[..., ConsultationTraining]:
    def build(**settings: Any) -> ConsultationTraining:
        torch.manual_seed(0)
        encoder = Lost(generator.latent_avg.expand(1, generator.n_latent, -1).clone())
        chosen = {"distance": Plain(), "embedder": None, "lambda_id": 0.0, "optimizer": Ranger} | settings
        return ConsultationTraining(generator, View(32), encoder, SmallConsultation, **chosen)

    return build


def test_it_learns_to_draw_what_the_encoder_lost(training: Callable[..., ConsultationTraining], images: Tensor) -> None:
    module = training(optimizer=lambda p: torch.optim.Adam(p, 3e-3)).train()
    images = images.mean((2, 3), keepdim=True).expand_as(images).contiguous()  # another grey every time
    optimizer = module.configure_optimizers()
    losses = []
    for step in range(25):
        torch.manual_seed(step)
        terms = module.terms({"image": images}, True)
        loss = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(terms["l2"].item())
    assert set(terms) == {"l2", "lpips", "residual"}
    assert losses[-1] < 0.5 * losses[0]
    assert all(p.grad is None for p in module.generator.parameters())
    tensors, texts = module.product()
    assert texts == {"format": "lsap consultation", "kind": "small"}
    assert {name.split(".")[0] for name in tensors} == {"residue", "grid_align"}


def test_residuals_are_moved_in_their_share_of_batches(
    training: Callable[..., ConsultationTraining], images: Tensor
) -> None:
    def residual(share: float) -> float:
        torch.manual_seed(1)
        return training(share=share, distortion=0.5).terms({"image": images}, False)["residual"].item()

    assert residual(0.0) == 0, "at first the small aligner moves nothing"
    assert residual(1.0) > 0


def test_held_out_images_are_always_judged_alike(
    training: Callable[..., ConsultationTraining], images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = training()
    found: list[dict[str, Tensor]] = []
    monkeypatch.setattr(ConsultationTraining, "log_dict", lambda _, values, **__: found.append(values))
    for seed in (1, 2):
        torch.manual_seed(seed)
        module.validation_step({"image": images}, 4)
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"share": 1.5}, r"refinement\.training\.share=1\.5: expected a number from 0 to 1"),
        ({"distortion": -1}, r"refinement\.training\.distortion=-1: expected a number from 0 to 1"),
        ({"lambda_residual": -1}, r"refinement\.training\.lambda_residual=-1: expected a number of at least 0"),
        ({"lambda_id": 0.1}, "there is no judge of it; set it to 0"),
        ({"distance": None}, "LPIPS has a weight here"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    training: Callable[..., ConsultationTraining], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadValue, match=said):
        training(**settings)


def test_the_renderer_says_what_it_is_built_with(generator: Generator, file: Path) -> None:
    mark = fingerprint(load_consultation(file, 8))
    drawn = Consulted(generator, str(file), mark, 32, [4, 28])
    assert drawn.settings == {"file": str(file), "network": mark, "size": 32, "rows": [4, 28], "own_noise": False}


# ---- from the command line


@pytest.mark.slow
def test_trained_over_an_encoder_it_refines_that_encoders_inversions(
    generator_file: Path, photographs: Callable[..., Path], tmp_path: Path
) -> None:
    images = photographs(tmp_path / "photos", 8)
    own = [
        "domain=church", f"generator.checkpoint={generator_file}", f"data.root={images}", "generator.size=32",
        "view.size=32", "image_size=[32,32]", "encoders.progressive=lsap.embedding.SmallPyramidEncoder",
        "backbone.checkpoint=random", "lambda_lpips=0", "lambda_id=0", "space.samples=64", "data.num_workers=0",
        "data.val_images=2", "max_steps=2", "batch_size=2", "trainer.accelerator=cpu", "trainer.devices=1",
        f"outputs={tmp_path}/outputs",
    ]  # fmt: skip
    hfgi = [
        "refinement=hfgi", "refinement.training.network._target_=lsap.refinement.SmallConsultation",
        "refinement.training.lambda_lpips=0", "refinement.training.lambda_id=0", "refinement.training.max_steps=3",
        "refinement.training.batch_size=2",
    ]  # fmt: skip
    asked = composed("invert", [*own, *hfgi, f"images={images}", "images_per_batch=4"])
    with pytest.raises(MissingFile, match=r"has not been trained .* python -m lsap\.train"):
        invert(asked)
    train(composed("train", own))
    with pytest.raises(MissingFile, match=r"train it: python -m lsap\.train .*refinement=hfgi"):
        invert(asked)
    folder = train_refinement(composed("train", [*own, *hfgi]))
    assert read_card(folder / "consultation.safetensors")["kind"] == "small"
    found = invert(asked)
    assert found.finished
    store = Store.read(found.folder)
    (first, *_) = store.inversions(load_generator(generator_file))
    assert first.history == ("lsap_e", "hfgi")
    assert first.renderer.settings["file"] == str((folder / "consultation.safetensors").resolve())
    mark = fingerprint(load_consultation(folder / "consultation.safetensors", 16))
    assert store.plan.settings["refinement.network"] == mark[:12]
