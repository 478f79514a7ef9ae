"""Encoders: published numbers and names, rows and stages, where they start, how the schedule runs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from comparison import assert_close_l2, assert_published
from golden import fill
from lsap.embedding import ProgressiveStages, PyramidEncoder, SmallPyramidEncoder
from lsap.errors import BadValue

# The full-size encoder


@pytest.fixture(scope="module")
def published() -> PyramidEncoder:
    """The case's encoder: 220 million weights, filled without being initialised first."""
    spec = fill.load("encoder_e4e_256")
    with torch.device("meta"):
        encoder = PyramidEncoder(14)
    latent_avg = fill.inputs(spec)["latent_avg"]
    encoder.load_state_dict(fill.state_dict(spec, "encoder") | {"latent_avg": latent_avg}, assign=True)
    return encoder.eval()


@torch.no_grad()
@pytest.mark.parametrize(
    ("output", "image", "stage"),
    [
        ("codes_stage0", "image", 0),
        ("codes_stage3", "image", 3),
        ("codes_inference", "image", None),
        ("codes_car_inference", "image_car", None),
    ],
)
def test_codes_agree_with_the_published_encoder(
    published: PyramidEncoder, output: str, image: str, stage: int | None
) -> None:
    spec = fill.load("encoder_e4e_256")
    images = fill.inputs(spec)[image]
    w_plus = published(images, stage)
    assert_published(spec, output, w_plus - published.latent_avg, 1e-4)
    if output == "codes_inference":
        assert_published(spec, "w_plus_inference", w_plus, 1e-4)


def test_published_encoder_weights_load_by_name() -> None:
    with torch.device("meta"):
        ours = PyramidEncoder(14).state_dict()
    tensors = fill.load("encoder_e4e_256")["models"]["encoder"]["tensors"]
    assert ours.keys() - tensors.keys() == {"latent_avg"}
    assert all(list(ours[name].shape) == entry.get("shape", []) for name, entry in tensors.items())


def test_backbone_starts_from_arcface_and_its_output_layer_is_left_aside() -> None:
    tensors = fill.load("arcface_irse50")["models"]["facenet"]["tensors"]
    face = {name: torch.full(entry.get("shape", []), 0.25) for name, entry in tensors.items()}
    encoder = PyramidEncoder(1)
    head = encoder.styles[0].linear.weight.detach().clone()
    encoder.start_backbone(face)
    assert all(
        torch.all(p == 0.25) for name, p in encoder.named_parameters() if name.startswith(("input_layer", "body"))
    )
    assert torch.equal(encoder.styles[0].linear.weight, head)


def test_backbone_of_another_network_is_refused() -> None:
    with torch.device("meta"):
        encoder = PyramidEncoder(1)
    with pytest.raises(
        BadValue, match=r"not those of an IR-SE-50 body.*input_layer\.0\.weight.*begins with conv1\.weight"
    ):
        encoder.start_backbone({"conv1.weight": torch.zeros(1)})


def test_images_that_would_not_shrink_to_one_pixel_are_refused() -> None:
    with torch.device("meta"):
        encoder = PyramidEncoder(1)
        with pytest.raises(BadValue, match="up to 256 x 256 pixels, got 384 x 512"):
            encoder(torch.zeros(1, 3, 384, 512))


# Rows, stages and the mean latent; the small encoder stands for both


@pytest.fixture
def small() -> SmallPyramidEncoder:
    """With large last layers, so that rows differ."""
    encoder = SmallPyramidEncoder(10, latent_avg=torch.randn(128)).eval()
    for head in encoder.heads:
        torch.nn.init.normal_(head.linear.weight)
    return encoder


@torch.no_grad()
def test_rows_beyond_the_stage_are_the_base(small: SmallPyramidEncoder) -> None:
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    whole = small(images)
    for stage in (0, 2, 5, 8, 9):
        codes = small(images, stage)
        assert codes.shape == (2, 10, 128)
        assert_close_l2(codes[:, : stage + 1], whole[:, : stage + 1], 1e-5)
        assert torch.equal(codes[:, stage + 1 :], codes[:, :1].expand(-1, 9 - stage, -1))
    assert not torch.allclose(whole[:, 1:], whole[:, :1].expand(-1, 9, -1), atol=0.1)


def test_heads_beyond_the_stage_take_no_gradient(small: SmallPyramidEncoder) -> None:
    small(torch.rand(1, 3, 64, 64), stage=3).sum().backward()
    assert [head.linear.weight.grad is not None for head in small.heads] == [True] * 4 + [False] * 6


@torch.no_grad()
def test_mean_latent_is_added_to_every_row(small: SmallPyramidEncoder) -> None:
    images = torch.rand(1, 3, 64, 64)
    assert_close_l2(small(images) - small.offsets(images), small.latent_avg.expand(1, 10, 128), 1e-5)


@pytest.mark.parametrize("shape", [(128,), (1, 128), (10, 128)])
def test_mean_latent_may_be_one_row_or_all(shape: tuple[int, ...]) -> None:
    mean = torch.randn(shape)
    assert torch.equal(SmallPyramidEncoder(10, latent_avg=mean).latent_avg, mean.expand(10, 128))


@pytest.mark.parametrize("shape", [(512,), (14, 128), (10, 1)])
def test_mean_latent_of_another_generator_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadValue, match=r"this encoder takes \[128\] or \[10, 128\].*another generator"):
        SmallPyramidEncoder(10, latent_avg=torch.zeros(shape))


# The small encoder


def test_small_encoder_starts_near_the_mean_latent_with_every_row_alike() -> None:
    encoder = SmallPyramidEncoder(10, latent_avg=torch.randn(128))
    offsets = encoder.offsets(torch.rand(8, 3, 64, 64) * 2 - 1)
    assert 1e-4 < offsets.std() < 0.1


def test_small_encoder_has_the_size_that_the_demo_can_train() -> None:
    assert 1.0e6 < sum(p.numel() for p in SmallPyramidEncoder(10).parameters()) < 1.6e6


@torch.no_grad()
def test_an_image_is_embedded_alike_in_any_batch_and_either_mode(small: SmallPyramidEncoder) -> None:
    images = torch.rand(3, 3, 64, 64) * 2 - 1
    alone = torch.cat([small(image[None]) for image in images])
    assert_close_l2(small(images), alone, 1e-4)
    assert torch.equal(small.train()(images), small.eval()(images))


def test_small_encoder_learns_to_tell_images_apart() -> None:
    encoder = SmallPyramidEncoder(10)
    images, wanted = torch.rand(4, 3, 64, 64) * 2 - 1, torch.randn(4, 10, 128)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=3e-3)
    losses: list[Tensor] = []
    for _ in range(25):
        loss = (encoder(images) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    assert losses[-1] < 0.3 * losses[0]


def test_small_encoder_has_no_pretrained_start() -> None:
    with pytest.raises(BadValue, match=r"use backbone\.checkpoint=random"):
        SmallPyramidEncoder(10).start_backbone({})


@torch.no_grad()
@pytest.mark.parametrize("size", [32, 128])
def test_small_encoder_takes_other_sizes(small: SmallPyramidEncoder, size: int) -> None:
    assert small(torch.zeros(1, 3, size, size)).shape == (1, 10, 128)


# The schedule


@pytest.mark.parametrize("every", [2000, 100])
@pytest.mark.parametrize(("size", "n_latent"), [(256, 14), (512, 16), (1024, 18)])
def test_stages_agree_with_the_published_schedule(size: int, n_latent: int, every: int) -> None:
    spec = fill.load("progressive_schedule")
    stages = ProgressiveStages(n_latent, max_steps=200_000, every=every)
    expected = fill.expected(spec)[f"stage_{size}_every{every}"]
    assert [stages.stage(step) for step in spec["steps"]] == expected.tolist()


def test_short_schedules_are_fractions_of_the_run() -> None:
    stages = ProgressiveStages(10, max_steps=2000, start=0.05, every=0.05)
    assert [stages.begins(row) for row in range(10)] == [0, 100, 200, 300, 400, 500, 600, 700, 800, 900]
    assert [stages.stage(step) for step in (0, 99, 100, 899, 900, 5000)] == [0, 0, 1, 8, 9, 9]


def test_a_run_of_any_length_trains_every_row_by_its_half() -> None:
    for steps in (3, 10, 333, 12345):
        stages = ProgressiveStages(10, max_steps=steps, start=0.05, every=0.05)
        trained = [stages.stage(step) for step in range(steps)]
        assert trained == sorted(trained)
        assert stages.stage(steps // 2) == 9


def test_all_rows_at_once() -> None:
    assert ProgressiveStages(10, max_steps=100, start=0, every=0).stage(0) == 9


@pytest.mark.parametrize("setting", ["start", "every"])
def test_a_schedule_cannot_run_backwards(setting: str) -> None:
    with pytest.raises(BadValue, match=rf"stages\.{setting}=-1"):
        ProgressiveStages(10, max_steps=100, **{setting: -1})
