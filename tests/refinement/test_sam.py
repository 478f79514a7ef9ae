"""SAM: parity with the published predictor, choice and priors; segments, features, images that are independent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from comparison import assert_close_l2, assert_published
from golden import fill
from lsap.checkpoints import rosinality
from lsap.checkpoints.sam import StoredPredictor, read_predictor, write_predictor
from lsap.errors import BadValue, MissingFile
from lsap.inversion import FixedNoise, Inversion, OwnNoise, restored
from lsap.losses import Delta, LossInputs, learning_rate
from lsap.refinement import (
    LabelMaps,
    LatentPrior,
    PastedFeatures,
    PublishedPredictor,
    SmallPredictor,
    SpatiallyAdaptive,
    Superpixels,
    load_predictor,
    segmenter,
)
from lsap.refinement.segments import chosen, masks, resolutions, segment_means
from lsap.stylegan2 import Generator, Tap, View, freeze

SPACES = ("W+", "F4", "F6", "F8", "F10")
SIZES = {"F4": 16, "F6": 32, "F8": 64, "F10": 128}


# ---- parity with the published code


@pytest.fixture(scope="module")
def published() -> tuple[fill.Spec, dict[str, Tensor]]:
    spec = fill.load("sam_inversion")
    return spec, fill.inputs(spec)


@pytest.fixture(scope="module")
def recipe(published: tuple[fill.Spec, dict[str, Tensor]]) -> Generator:
    generator = Generator(256)
    generator.load_state_dict(rosinality.rename(fill.state_dict(published[0], "generator")), strict=False)
    return freeze(generator)


def blown_up(cells: Tensor) -> Tensor:
    return cells.repeat_interleave(32, -1).repeat_interleave(32, -2)


def test_choice_and_masks_agree_with_the_published_ones(published: tuple[fill.Spec, dict[str, Tensor]]) -> None:
    spec, x = published
    labels = blown_up(x["segments_8x8"]).floor().long()
    maps = {space: blown_up(x[f"map_8x8_{space}"]) for space in SPACES}
    means, _ = segment_means(labels, torch.cat(list(maps.values()))[:, 0])
    assert_published(spec, "segment_means", means, 1e-5)
    subset = [0, 1, 2, 4]  # the toolbox leaves F8 out
    for tau in (0.225, 0.25):
        assert fill.check(spec, f"choice_tau{tau}", chosen(means, tau)).max_abs == 0
        fewer = torch.tensor(subset)[chosen(means[subset], tau)]
        assert fill.check(spec, f"choice_subset_tau{tau}", fewer).max_abs == 0
        found, shares = masks(labels[None], maps, SIZES, tau, square=256, first=0)
        for space, mask in found.items():
            assert_published(spec, f"mask_tau{tau}_{space}", mask, 1e-5)
        assert shares.sum() == pytest.approx(1)


@pytest.mark.slow
def test_images_with_features_agree_with_the_published_ones(
    published: tuple[fill.Spec, dict[str, Tensor]], recipe: Generator
) -> None:
    spec, x = published
    seen: dict[str, Tensor] = {}

    def added(space: str) -> Tap:
        def tap(features: Tensor) -> Tensor:
            seen[space] = features + x[f"soft_mask_{space}"] * x[f"feature_{space}"]
            return seen[space]

        return tap

    def drawn(where: str, spaces: tuple[str, ...] = SPACES[1:]) -> Tensor:
        return recipe(x["w_plus"], taps={f"{where}{SIZES[space]}": added(space) for space in spaces})

    assert_published(spec, "image_plain", drawn("after", ()), 1e-4)
    assert_published(spec, "image_ganinverter", drawn("up"), 1e-4)
    assert_published(spec, "image_official_F6_only", drawn("after", ("F6",)), 1e-4)
    assert_published(spec, "image_official", drawn("after"), 1e-4)
    # Published edits paste what stood there, masked already; ours keep it unmasked, so that no edit changes nothing.
    state = {f"features.{space}": features for space, features in seen.items()}
    state |= {f"mask.{space}": x[f"soft_mask_{space}"] for space in SIZES}
    edited = PastedFeatures(recipe, SPACES[1:])(x["w_plus"] + x["edit"], state)
    assert_published(spec, "image_official_edit", edited, 1e-4)


@pytest.mark.slow
def test_priors_and_rate_agree_with_the_published_ones(
    published: tuple[fill.Spec, dict[str, Tensor]], recipe: Generator
) -> None:
    spec, x = published
    w = recipe.mapping(x["z"])
    assert_published(spec, "mean_w", w.mean(0), 1e-5)
    center, covariance = LatentPrior.fitted(w.double())
    assert_published(spec, "mean_v", center, 1e-5)
    assert_published(spec, "cov_v", covariance, 1e-5)
    prior = LatentPrior(recipe, samples=1000)
    prior.center, prior.precision = center, torch.linalg.inv(covariance)
    assert_published(spec, "mvg", prior(x["w_plus_mvg"].double())[0], 1e-3)
    codes = x["w_plus_mvg"]
    delta = Delta()(LossInputs(codes, codes, codes, None, 13))
    assert_published(spec, "delta", delta[0], 1e-5)
    rates = torch.tensor([learning_rate(step / 1001, 0.05) for step in range(0, 1001, 50)])
    assert_published(spec, "lr_schedule", rates, 1e-6)


@pytest.mark.slow
def test_the_published_predictor_is_loaded_and_agrees(tmp_path: Path) -> None:
    spec = fill.load("sam_predictor")
    x = fill.inputs(spec)
    file = tmp_path / "invertibility_faces_sg2.pt"
    torch.save({name: fill.state_dict(spec, name) for name in spec["models"]}, file)
    predictor = load_predictor(file)
    assert isinstance(predictor, PublishedPredictor)
    assert predictor.spaces == SPACES
    with torch.no_grad():
        features = predictor.base(x["image"])
        assert_published(spec, "features", features, 1e-4)
        for space in SPACES:
            assert_published(spec, f"map_{space}", predictor.heads[space](features), 1e-4)
        features = predictor.base(x["image_car"])
        assert_published(spec, "features_car", features, 1e-4)
        assert_published(spec, "map_car_F6", predictor.heads["F6"](features), 1e-4)


# ---- segments


def test_the_most_editable_space_that_is_good_enough_is_chosen() -> None:
    means = torch.tensor([[0.1, 0.3, 0.3, 0.3], [0.5, 0.2, 0.3, 0.4], [0.0, 0.1, 0.2, 0.9]])
    assert chosen(means, 0.2).tolist() == [0, 1, 2, 2], "W+ wins though F4 fails; the last where none passes"


def test_means_are_those_inside_the_segments() -> None:
    labels = torch.tensor([[7, 7], [7, 2]])
    means, numbers = segment_means(labels, torch.tensor([[[1.0, 2.0], [3.0, 10.0]]]))
    assert means.tolist() == [[10.0, 2.0]]
    assert numbers.tolist() == [[1, 1], [1, 0]]


def test_outside_of_a_band_nothing_is_chosen() -> None:
    bad = {"W+": torch.ones(1, 1, 16, 32), "F4": torch.ones(1, 1, 16, 32)}
    found, shares = masks(torch.zeros(1, 16, 32).long(), bad, {"F4": 32}, 0.2, square=32, first=8)
    assert found["F4"].shape == (1, 1, 32, 32)
    assert found["F4"][0, 0, :, 5].tolist() == [0] * 8 + [1] * 16 + [0] * 8
    assert shares.tolist() == [[0, 1]]


def test_superpixels_keep_to_edges() -> None:
    images = torch.full((2, 3, 32, 32), -0.9)
    images[:, :, :, 16:] = 0.9
    labels = Superpixels(8)(images, ["a", "b"])
    assert labels.shape == (2, 32, 32)
    assert 4 <= labels[0].unique().numel() <= 12
    assert not set(labels[0, :, :16].unique().tolist()) & set(labels[0, :, 16:].unique().tolist())
    with pytest.raises(BadValue, match=r"segmenter\.count=0"):
        Superpixels(0)


def test_label_maps_are_found_by_the_images_names(tmp_path: Path) -> None:
    labels = np.zeros((8, 8), np.uint8)
    labels[:, 4:] = 3
    Image.fromarray(labels).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "colours.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    read = segmenter(tmp_path)
    assert isinstance(read, LabelMaps)
    found = read(torch.zeros(1, 3, 4, 6), ["a.jpg"])
    assert found[0].tolist() == [[0, 0, 0, 3, 3, 3]] * 4
    with pytest.raises(MissingFile, match=r"b\.png: there is no map of segments for image b\.png"):
        read(torch.zeros(1, 3, 4, 4), ["b.png"])
    with pytest.raises(BadValue, match="a picture of colours"):
        read(torch.zeros(1, 3, 4, 4), ["colours"])
    with pytest.raises(BadValue, match="cannot be read as a picture"):
        read(torch.zeros(1, 3, 4, 4), ["broken"])
    with pytest.raises(MissingFile, match=r"segmenter\.folder=/nowhere"):
        segmenter("/nowhere")
    assert isinstance(segmenter(), Superpixels)


def test_spaces_scale_with_the_generator() -> None:
    sizes = {64: {"F4": 16, "F6": 32}, 256: SIZES}
    for size, expected in sizes.items():
        assert resolutions(Generator(size, 8, 1, dict.fromkeys((4, 8, 16, 32, 64, 128, 256), 4)), SPACES) == expected
    with pytest.raises(BadValue, match="there is no latent space 'F5'"):
        resolutions(Generator(8, 8, 1, {4: 4, 8: 4}), ["F5"])


# ---- the predictor's files


def test_a_predictor_of_ours_is_kept_and_belongs_to_its_generator(tmp_path: Path) -> None:
    predictor = SmallPredictor(("W+", "F4")).eval()
    write_predictor(tmp_path / "p.safetensors", predictor.stored("one"))
    again = load_predictor(tmp_path / "p.safetensors", "one")
    images = torch.rand(2, 3, 16, 24)
    assert again.spaces == ("W+", "F4")
    for space, errors in again(images).items():
        assert errors.shape == (2, 1, 16, 24)
        assert (errors >= 0).all()
        assert torch.equal(errors, predictor(images)[space])
    with pytest.raises(BadValue, match="this predictor belongs to generator one, but this run uses another"):
        load_predictor(tmp_path / "p.safetensors", "another")


def test_other_files_are_no_predictors(tmp_path: Path) -> None:
    torch.save({"g_ema": torch.zeros(1)}, tmp_path / "g.pt")
    with pytest.raises(BadValue, match=r"g\.pt: this is no invertibility predictor \(it holds g_ema\)"):
        read_predictor(tmp_path / "g.pt")
    torch.save({"sd_base": {"a": torch.zeros(1)}, "W+": {}}, tmp_path / "half.pt")
    with pytest.raises(BadValue, match=r"half\.pt: these weights are not those of an invertibility predictor"):
        load_predictor(tmp_path / "half.pt")
    write_predictor(tmp_path / "new.safetensors", StoredPredictor("huge", ("W+",), {"a": torch.zeros(1)}))
    with pytest.raises(BadValue, match="there is no predictor 'huge' here"):
        load_predictor(tmp_path / "new.safetensors")


# ---- inversion


class Plain(nn.Module):
    """A perceptual distance that everybody can compute."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x - y).diff(dim=-1).square().mean((1, 2, 3))


class Halves(nn.Module):
    """Predicts that W+ inverts the left half well, F4 the right one; `lost` are images that F4 has to invert whole."""

    spaces = ("W+", "F4", "F6")

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        right = torch.zeros_like(images[:, :1])
        right[..., images.shape[-1] // 2 :] = 1
        return {"W+": right, "F4": torch.zeros_like(right), "F6": torch.zeros_like(right)}


def quarters(images: Tensor, names: Any) -> Tensor:
    labels = torch.zeros(len(images), *images.shape[-2:]).long()
    labels[..., images.shape[-1] // 2 :] = 1
    return labels


Make = Callable[..., SpatiallyAdaptive]


@pytest.fixture
def generator() -> Generator:
    torch.manual_seed(3)
    return freeze(Generator(64, style_dim=8, mapping_layers=2, channels=dict.fromkeys((4, 8, 16, 32, 64), 8)))


@pytest.fixture
def make(generator: Generator) -> Make:
    def build(**settings: Any) -> SpatiallyAdaptive:
        given = {"view": View(32), "distance": Plain(), "predictor": Halves(), "segmenter": quarters, "samples": 200}
        return SpatiallyAdaptive(generator, "f", **given | {"steps": 20} | settings)

    return build


@pytest.fixture
def begun(generator: Generator) -> Inversion:
    codes = generator.sample_w(4)[:, None] + 0.1 * torch.randn(4, generator.n_latent, 8)
    return Inversion(tuple("abcd"), codes, "f", FixedNoise(generator), {}, ("some",))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(4, 3, 32, 32) * 2 - 1


def refined(run: SpatiallyAdaptive, inversion: Inversion, images: Tensor) -> Inversion:
    found = run.predict_step({"image": images, "names": list(inversion.names), "inversion": inversion}).inversion
    assert found is not None
    return found


def mse(inversion: Inversion, images: Tensor) -> Tensor:
    output = nn.functional.avg_pool2d(inversion.render(), 2)
    return (output - images).square().mean((1, 2, 3))


def test_codes_and_features_lower_the_error_together(make: Make, begun: Inversion, images: Tensor) -> None:
    before = begun.codes.clone()
    shares: list[float] = []
    run = make(steps=60)
    run.watch = lambda share, losses: shares.append(share)
    found = run.refine(begun, images)
    assert found.inversion is not None
    assert (mse(found.inversion, images) < 0.8 * mse(begun, images)).all()
    assert torch.equal(begun.codes, before), "the inversion that it was given stays"
    assert not torch.equal(found.inversion.codes, before)
    assert found.inversion.history == ("some", "sam")
    assert found.notes["a"]["spaces"] == {"W+": 0.5, "F4": 0.5, "F6": 0.0}
    assert shares[-1] == 1
    only_codes = refined(make(steps=60, tau=2.0), begun, images)
    assert mse(found.inversion, images).mean() < mse(only_codes, images).mean(), "features help"


def test_features_stay_where_their_mask_is(make: Make, begun: Inversion, images: Tensor) -> None:
    state = refined(make(), begun, images).state
    assert state["features.F4"].shape == (4, 8, 16, 16)
    assert state["features.F4"][..., 10:].any()
    assert not state["features.F4"][..., :4].any()
    assert not (state["features.F4"] * (state["mask.F4"] == 0)).any()
    assert not state["features.F6"].any()
    assert not state["mask.F6"].any()


def test_saved_and_reloaded_it_draws_and_edits_the_same_to_the_bit(
    make: Make, generator: Generator, begun: Inversion, images: Tensor
) -> None:
    found = refined(make(), begun, images)
    again = restored(found.tensors(), found.card(), generator)
    edited = found.codes + 0.5 * torch.randn(8)
    assert torch.equal(again.render(), found.render())
    assert torch.equal(again.render(edited), found.render(edited))
    assert {tensor.dtype for tensor in found.state.values()} == {torch.float16}
    moved = (found.render(edited) - found.render()).abs().mean((0, 1, 2))
    free = (generator(edited) - generator(found.codes)).abs().mean((0, 1, 2))
    assert_close_l2(moved[:12], free[:12], 1e-3)  # edits act where codes draw
    assert moved[40:].mean() < 0.98 * free[40:].mean(), "and less where coarse features were put in their place"


def test_what_is_kept_draws_what_was_optimised(make: Make, begun: Inversion, images: Tensor) -> None:
    run = make()
    placed, _ = run.placed(images, begun.names)
    with torch.enable_grad():
        running, _ = run.optimised(begun, images, placed, False)
    with torch.no_grad():
        last = run.drawn(running, {"F4": running.variables[1]}, {})
    assert_close_l2(refined(make(), begun, images).render(), last, 1e-3)


def test_a_batch_of_four_agrees_with_four_single_runs(generator: Generator, make: Make, begun: Inversion) -> None:
    generator.double()
    four = Inversion(begun.names, begun.codes.double(), "f", FixedNoise(generator))
    images = torch.rand(4, 3, 32, 32, dtype=torch.float64) * 2 - 1
    run = make(steps=12)
    whole = refined(run, four, images)
    for place in range(4):
        alone = refined(run, four.select([place]), images[place : place + 1])
        assert_close_l2(alone.codes[0], whole.codes[place], 1e-6)
        for name, tensor in alone.state.items():
            assert_close_l2(tensor[0], whole.state[name][place], 1e-6, name=name)


def test_noise_maps_of_the_embedding_are_used(
    make: Make, generator: Generator, begun: Inversion, images: Tensor
) -> None:
    layers = [layer for layer in generator.layers if layer.demodulates]
    for layer in layers:
        nn.init.constant_(generator.blocks[layer.name].noise_strength, 0.3)  # type: ignore[arg-type]
    maps = {f"noise.{layer.name}": torch.randn(4, 1, layer.resolution, layer.resolution).half() for layer in layers}
    noisy = Inversion(begun.names, begun.codes, "f", OwnNoise(generator), maps)
    still = refined(make(steps=1), noisy, images)  # the first update has rate 0
    assert_close_l2(still.render(), noisy.render(), 1e-3)
    assert not torch.allclose(still.render(), begun.render(), atol=0.1)


def test_an_image_that_breaks_leaves_alone(make: Make, begun: Inversion, images: Tensor) -> None:
    whole = refined(make(), begun, images)
    images[1] = float("nan")
    found = make().refine(begun, images)
    assert found.failed == {"b": "not a number in step 0 (l2, lpips)"}
    assert found.inversion is not None
    assert found.inversion.names == ("a", "c", "d")
    assert_close_l2(found.inversion.render(), whole.render()[[0, 2, 3]], 1e-3)
    assert make().refine(begun.select([1]), images[1:2]).inversion is None


def test_likely_codes_are_cheaper_than_unlikely_ones(generator: Generator) -> None:
    prior = LatentPrior(generator, 500)
    near = generator.sample_w(3, torch.Generator().manual_seed(1))[:, None].expand(-1, 4, -1)
    values = prior(torch.cat([near, near + 2]))
    assert values[:3].max() < values[3:].min()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "refinement.steps=0: expected a whole number"),
        ({"tau": 0}, "refinement.tau=0: expected a number above 0"),
        ({"lambda_features": -1}, "refinement.lambda_features=-1: expected a number"),
        ({"lambda_l2": -1}, "lambda_l2=-1: expected a number"),
        (
            {"predictor": SmallPredictor(("W+", "F10"))},
            r"speaks of W\+, F10; a generator of 64 px needs W\+",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str, make: Make) -> None:
    with pytest.raises(BadValue, match=message):
        make(**settings)


def test_what_was_refined_is_not_refined_again(make: Make, begun: Inversion, images: Tensor) -> None:
    found = refined(make(), begun, images)
    with pytest.raises(BadValue, match=r"drawn by 'features' \(some \+ sam\); start from the embedding"):
        make().refine(found, images)
