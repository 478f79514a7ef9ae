"""The numbers of a table's row: right by hand, the same for any batching, and honest about what was not measured."""

from __future__ import annotations

import doctest
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor, distributed, nn

import metric_sets
from lsap.alignment import NSCD, NormalizedStyleSpace
from lsap.errors import BadValue
from lsap.evaluation import metrics
from lsap.evaluation.fidelity import evaluate, evaluate_mean_latent
from lsap.evaluation.metrics import Identity, code_values, image_metrics, image_values, labels, mse, psnr
from lsap.evaluation.rows import by_name, synthetic_row
from lsap.evaluation.set_metrics import SetMetrics
from lsap.stylegan2 import Generator, View
from metric_sets import Corner, absolute, share, styles_and_space


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(1)
    made = Generator(16, style_dim=12, mapping_layers=2, channels={4: 8, 8: 8, 16: 8}, mapping_lr=1.0)
    made.latent_avg.copy_(made.mapping(torch.randn(256, 12)).mean(0).detach())
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def space(generator: Generator) -> NormalizedStyleSpace:
    return NormalizedStyleSpace(generator, samples=200)


def batches(images: Tensor, size: int) -> Iterator[dict[str, Tensor]]:
    return ({"image": part} for part in images.split(size))


def test_mse_of_images_two_apart_is_four_and_counts_images_not_batches() -> None:
    styles, space = styles_and_space(4)
    found = SetMetrics(space, ["mse"])
    for first, end, value in ((0, 1, 1.0), (1, 4, 0.0)):
        images = torch.full((end - first, 3, 4, 6), value)
        found.update(image_values({"mse": mse}, images, -images), [style[first:end] for style in styles])
    row = found.compute()
    assert row["mse"] == 1.0, "(4 + 0 + 0 + 0) / 4, and not the mean of two batches"
    assert row["n"] == 4


def test_a_set_does_not_depend_on_batches() -> None:
    rng = torch.Generator().manual_seed(5)
    output, images = torch.rand(2, 7, 3, 5, 8, generator=rng)
    styles, space = styles_and_space(7)
    every = image_metrics(absolute, Corner()) | {"psnr": psnr}
    cut = SetMetrics(space, (*every, "nscd", "nscd_raw"))
    for first, end in ((0, 2), (2, 3), (3, 7)):
        some = [style[first:end] for style in styles]
        values = image_values(every, output[first:end], images[first:end])
        cut.update(values | code_values(some, space.mean), some)
    assert cut.compute() == share(slice(0, 7)).compute()


def test_a_set_does_not_depend_on_processes(tmp_path: Path) -> None:
    """Two processes of a gloo group; the second time one of them has no image."""
    group = f"file://{tmp_path}/group"
    code = f"""
import torch.distributed as dist
from metric_sets import share
dist.init_process_group("gloo", init_method="{group}", rank=1, world_size=2)
for end in (4, 0):
    share(slice(0, end)).compute()
dist.barrier()
dist.destroy_process_group()
"""
    alone = share(slice(0, 7)).compute()
    with subprocess.Popen([sys.executable, "-c", code], cwd=Path(metric_sets.__file__).parent) as other:
        distributed.init_process_group("gloo", init_method=group, rank=0, world_size=2)
        try:
            assert [share(slice(end, 7)).compute() for end in (4, 0)] == [alone, alone]
            distributed.barrier()  # neither process leaves while the other still waits for it
        finally:
            distributed.destroy_process_group()
    assert other.returncode == 0


def test_images_without_a_value_do_not_count() -> None:
    _, space = styles_and_space(1)
    found = SetMetrics(space, ["identity", "psnr", "lpips"])
    found.update({"identity": torch.tensor([0.5, torch.nan, 0.7]), "psnr": torch.full((3,), torch.nan)})
    found.update(styles=[m[None] for m in space.mean])
    row = found.compute()
    assert (row["identity"], row["psnr"], row["lpips"], row["n"]) == (pytest.approx(0.6), None, None, 1)


def test_rows_by_name_have_every_column_and_no_nan() -> None:
    values = {"mse": torch.tensor([1 / 3, 2.0]), "psnr": torch.tensor([torch.nan, 7.0])}
    assert by_name(["a", "b"], values, ("mse", "lpips")) == {
        "a": {"mse": 0.3333333, "lpips": None, "psnr": None},
        "b": {"mse": 2.0, "lpips": None, "psnr": 7.0},
    }


def test_equal_images_have_no_finite_psnr() -> None:
    images = torch.rand(2, 3, 4, 4)
    other = images.clone()
    other[1] += 0.2
    assert psnr(other, images).tolist() == [pytest.approx(torch.nan, nan_ok=True), pytest.approx(20.0, rel=1e-4)]


def test_identity_is_the_cosine_of_the_embeddings() -> None:
    images = torch.zeros(2, 3, 2, 2)
    images[:, 0] = 1.0
    output = images.clone()
    output[1] = 0.0
    output[1, 1] = 5.0  # the second one's direction is at a right angle
    metric = Identity(Corner())
    assert metric(output, images).tolist() == pytest.approx([1.0, 0.0])
    assert metric.label == "identity (corner)"


def test_a_metric_that_averages_over_the_batch_is_refused() -> None:
    every = image_metrics(lambda x, y: (x - y).abs().mean())
    with pytest.raises(BadValue, match=r"lpips: .*one value per image is needed, shape \[2\]"):
        image_values(every, torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4))


def test_images_of_different_size_are_refused_by_name() -> None:
    with pytest.raises(BadValue, match=r"outputs are 3×4×4 .* images 3×8×8"):
        image_values({"mse": mse}, torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 8, 8))


def of_styles(*layers: Tensor) -> float:
    """The diversity of styles, one [N, C_l] per layer."""
    mean = [torch.ones(layer.shape[1]) for layer in layers]
    names = [str(number) for number in range(len(layers))]
    found = SetMetrics(cast(NormalizedStyleSpace, SimpleNamespace(mean=mean, names=names)))
    found.update(styles=layers)
    return float(found.compute()["diversity"])


def test_diversity_is_zero_for_one_code_and_ignores_length() -> None:
    one = torch.tensor([0.6, 0.8])
    assert of_styles(torch.stack([one, 3 * one, 0.1 * one])) == pytest.approx(0.0, abs=1e-7)
    assert of_styles(torch.stack([one, -2 * one])) == pytest.approx(1.0), "opposite codes have no mean direction at all"
    assert of_styles(torch.tensor([[1.0, 0.0], [0.0, 3.0]])) == pytest.approx(0.5), "at a right angle"


def test_diversity_of_a_set_is_its_raw_nscd_to_its_own_mean() -> None:
    styles = [torch.randn(50, 6) + 1, torch.randn(50, 4) + 2]
    mean = [nn.functional.normalize(s, dim=1).mean(0) for s in styles]
    raw = NSCD(mean, anchor="raw")
    raw.update(styles)
    assert of_styles(*styles) == pytest.approx(raw.compute().item(), rel=1e-5, abs=1e-6)


def test_styles_of_another_space_are_refused() -> None:
    _, space = styles_and_space(1)
    with pytest.raises(BadValue, match="the style of layer 0 has 3 channels, but its mean has 4"):
        SetMetrics(space).update(styles=[torch.zeros(1, 3), torch.zeros(1, 3)])


def test_a_perfect_inversion_has_no_error_and_every_image_counts_once(
    generator: Generator, space: NormalizedStyleSpace
) -> None:
    codes = generator.sample_w(5)
    images = generator(codes)
    view = View(16)

    def find(batch: Tensor) -> Tensor:
        nearest = torch.stack([(images - one).flatten(1).norm(dim=1).argmin() for one in batch])
        return codes[nearest][:, None].expand(-1, generator.n_latent, -1)

    rows = [
        evaluate(find, generator, view, space, batches(images, size), image_metrics(absolute, Corner()))
        for size in (5, 2)  # the last batch of the second is smaller
    ]
    assert rows[0]["n"] == rows[1]["n"] == 5
    assert rows[0]["mse"] < 1e-10
    assert rows[0]["lpips"] < 1e-5
    assert rows[0]["identity"] == pytest.approx(1.0)
    for key in ("nscd", "nscd_raw", "diversity"):
        assert rows[0][key] == pytest.approx(rows[1][key], rel=1e-5)
    assert tuple(rows[0]["nscd_layers"]) == tuple(space.names)
    layers = rows[0]["nscd_layers"].values()
    assert sum(layers) / len(layers) == pytest.approx(rows[0]["nscd"], rel=1e-5)


def test_what_was_not_measured_is_none(generator: Generator, space: NormalizedStyleSpace) -> None:
    images = generator(generator.sample_w(2))
    row = evaluate(
        lambda x: generator.sample_w(len(x)), generator, View(16), space, batches(images, 2), image_metrics()
    )
    assert row["lpips"] is None
    assert row["identity"] is None
    assert row["mse"] > 0


def test_the_mean_latent_has_no_diversity_and_a_larger_error_than_the_truth(
    generator: Generator, space: NormalizedStyleSpace
) -> None:
    images = generator(generator.sample_w(6))
    row = evaluate_mean_latent(generator, View(16), space, batches(images, 4), image_metrics())
    by_hand = (images - generator(generator.latent_avg[None])).square().mean().item()
    assert row["mse"] == pytest.approx(by_hand, rel=1e-5)
    assert row["diversity"] == pytest.approx(0.0, abs=1e-6)
    assert row["n"] == 6


def test_the_synthetic_row_is_what_sampled_codes_measure(generator: Generator, space: NormalizedStyleSpace) -> None:
    row = synthetic_row(space)
    samples = generator.mapping(torch.randn(4000, 12))
    measured = {name: NSCD(space.mean, anchor=anchor) for name, anchor in (("nscd", "unit"), ("nscd_raw", "raw"))}
    for name, metric in measured.items():
        metric.update(space.styles(samples))
        assert row[name] == pytest.approx(metric.compute().item(), rel=0.1)
    assert row["nscd"] == pytest.approx(sum(row["nscd_layers"].values()) / len(space.names), rel=1e-5)
    assert row["diversity"] == row["nscd_raw"]
    assert row["mse"] is row["lpips"] is row["identity"] is None
    assert row["n"] == 200


def test_evaluation_mode_is_on_meanwhile_and_then_put_back(generator: Generator, space: NormalizedStyleSpace) -> None:
    class Noisy(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            assert not self.training
            return generator.latent_avg.expand(len(images), -1)

    encoder = Noisy().train()
    evaluate(encoder, generator, View(16), space, batches(torch.zeros(2, 3, 16, 16), 2), image_metrics())
    assert encoder.training


def test_every_part_of_an_encoder_goes_back_to_its_own_mode(generator: Generator, space: NormalizedStyleSpace) -> None:
    class Held(nn.Module):
        """In training itself, as new modules are, over parts that are not."""

        def __init__(self) -> None:
            super().__init__()
            self.norm, self.head = nn.BatchNorm2d(3).eval(), nn.BatchNorm2d(3)

        def forward(self, images: Tensor) -> Tensor:
            assert not any(part.training for part in self.modules())
            return generator.latent_avg.expand(len(images), -1)

    encoder = Held()
    images = batches(torch.zeros(2, 3, 16, 16), 2)
    evaluate(encoder, generator, View(16), space, images, image_metrics())
    assert [part.training for part in (encoder, encoder.norm, encoder.head)] == [True, False, True]


def test_nothing_to_evaluate_is_an_error(generator: Generator, space: NormalizedStyleSpace) -> None:
    with pytest.raises(BadValue, match="no image to evaluate"):
        evaluate(lambda x: x, generator, View(16), space, [], image_metrics())


def test_networks_name_their_columns() -> None:
    class Trunk:
        label = "LPIPS (demo trunk)"

        def __call__(self, x: Tensor, y: Tensor) -> Tensor:
            return absolute(x, y)

    assert labels(image_metrics(Trunk(), Corner())) == {
        "lpips": "LPIPS (demo trunk)",
        "identity": "identity (corner)",
    }
    assert labels(image_metrics(absolute)) == {"lpips": "LPIPS"}
    assert labels(image_metrics()) == {}


def test_examples_in_docstrings_hold() -> None:
    result = doctest.testmod(metrics)
    assert result.attempted > 0
    assert result.failed == 0
