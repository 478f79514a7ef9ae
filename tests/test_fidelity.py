"""The numbers of a table's row: right by hand, the same for any batching, and honest about what was not measured."""

from __future__ import annotations

import doctest
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from comparison import assert_close_l2
from lsap.alignment import NSCD, NormalizedStyleSpace
from lsap.errors import BadValue
from lsap.evaluation import fidelity
from lsap.evaluation.codes import CodeDiversity, LayerNSCD
from lsap.evaluation.fidelity import LPIPS, MSE, PSNR, Identity, evaluate, evaluate_mean_latent
from lsap.generator import Generator, View


class Corner:
    """A judge that sees two numbers of an image: its direction is that of the top left pixel's first two channels."""

    label = "identity (corner)"

    def embed(self, images: Tensor) -> Tensor:
        return nn.functional.normalize(images[:, :2, 0, 0], dim=1)


def absolute(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).abs().flatten(1).mean(1)


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
    metric = MSE()
    metric.update(torch.ones(1, 3, 4, 6), -torch.ones(1, 3, 4, 6))
    metric.update(torch.zeros(3, 3, 4, 6), torch.zeros(3, 3, 4, 6))
    assert metric.compute().item() == 1.0  # (4 + 0 + 0 + 0) / 4, and not the mean of two batches


def test_no_metric_depends_on_batches_or_processes() -> None:
    output, images = torch.rand(7, 3, 5, 8), torch.rand(7, 3, 5, 8)
    styles = [torch.randn(7, 4), torch.randn(7, 3)]
    mean = [torch.randn(4), torch.randn(3)]
    makers = (MSE, PSNR, lambda: LPIPS(absolute), lambda: Identity(Corner()))
    for make in (*makers, lambda: CodeDiversity([4, 3]), lambda: LayerNSCD(mean)):
        whole, parts, elsewhere = make(), make(), make()
        arguments = (styles,) if isinstance(whole, CodeDiversity | LayerNSCD) else (output, images)

        def cut(argument: Tensor | list[Tensor], rows: slice) -> Tensor | list[Tensor]:
            return argument[rows] if isinstance(argument, Tensor) else [part[rows] for part in argument]

        whole.update(*arguments)
        parts.update(*(cut(a, slice(0, 2)) for a in arguments))
        parts.update(*(cut(a, slice(2, 3)) for a in arguments))
        elsewhere.update(*(cut(a, slice(3, 7)) for a in arguments))
        parts.merge_state(elsewhere)  # what torchmetrics does with the sums of several processes
        assert_close_l2(parts.compute(), whole.compute(), 1e-5)


def test_identity_is_the_mean_cosine_of_the_judge() -> None:
    images = torch.zeros(2, 3, 2, 2)
    images[:, 0] = 1.0
    output = images.clone()
    output[1] = 0.0
    output[1, 1] = 5.0  # the second one's direction is at a right angle
    metric = Identity(Corner())
    metric.update(output, images)
    assert metric.compute().item() == pytest.approx(0.5)
    assert metric.label == "identity (corner)"


def test_a_judge_is_borrowed_and_never_saved_with_the_metric() -> None:
    judge = nn.PairwiseDistance()
    judge.weight = nn.Parameter(torch.ones(3))
    metric = LPIPS(judge)
    assert list(metric.parameters()) == []
    assert "weight" not in " ".join(metric.state_dict())


def test_a_judge_that_averages_over_the_batch_is_refused() -> None:
    metric = LPIPS(lambda x, y: (x - y).abs().mean())
    with pytest.raises(BadValue, match=r"one value per image is needed, shape \[2\]"):
        metric.update(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4))


def test_images_of_different_size_are_refused_by_name() -> None:
    with pytest.raises(BadValue, match=r"outputs are 3×4×4 .* images 3×8×8"):
        MSE().update(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 8, 8))


def test_diversity_is_zero_for_one_code_and_ignores_length() -> None:
    one = torch.tensor([0.6, 0.8])
    collapsed, spread = CodeDiversity([2]), CodeDiversity([2])
    collapsed.update([torch.stack([one, 3 * one, 0.1 * one])])
    spread.update([torch.stack([one, -2 * one])])
    assert collapsed.compute().item() == pytest.approx(0.0, abs=1e-7)
    assert spread.compute().item() == pytest.approx(1.0)  # opposite codes have no mean direction at all


def test_diversity_of_a_set_is_its_raw_nscd_to_its_own_mean() -> None:
    styles = [torch.randn(50, 6) + 1, torch.randn(50, 4) + 2]
    mean = [nn.functional.normalize(s, dim=1).mean(0) for s in styles]
    diversity, raw = CodeDiversity([6, 4]), NSCD(mean, anchor="raw")
    diversity.update(styles)
    raw.update(styles)
    assert_close_l2(diversity.compute(), raw.compute(), 1e-5)


def test_diversity_refuses_styles_of_another_space() -> None:
    with pytest.raises(BadValue, match=r"widths \[3\].*has \[2, 2\]"):
        CodeDiversity([2, 2]).update([torch.zeros(1, 3)])


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
        evaluate(find, generator, view, space, batches(images, size), distance=absolute, embedder=Corner())
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


def test_what_no_judge_measured_is_none(generator: Generator, space: NormalizedStyleSpace) -> None:
    images = generator(generator.sample_w(2))
    row = evaluate(lambda x: generator.sample_w(len(x)), generator, View(16), space, batches(images, 2))
    assert row["lpips"] is None
    assert row["identity"] is None
    assert row["mse"] > 0


def test_the_mean_latent_has_no_diversity_and_a_larger_error_than_the_truth(
    generator: Generator, space: NormalizedStyleSpace
) -> None:
    images = generator(generator.sample_w(6))
    row = evaluate_mean_latent(generator, View(16), space, batches(images, 4))
    by_hand = (images - generator(generator.latent_avg[None])).square().mean().item()
    assert row["mse"] == pytest.approx(by_hand, rel=1e-5)
    assert row["diversity"] == pytest.approx(0.0, abs=1e-6)
    assert row["n"] == 6


def test_the_synthetic_row_is_what_sampled_codes_measure(generator: Generator, space: NormalizedStyleSpace) -> None:
    row = fidelity.synthetic_row(space)
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
    evaluate(encoder, generator, View(16), space, batches(torch.zeros(2, 3, 16, 16), 2))
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
    evaluate(encoder, generator, View(16), space, images)
    assert [part.training for part in (encoder, encoder.norm, encoder.head)] == [True, False, True]


def test_nothing_to_evaluate_is_an_error(generator: Generator, space: NormalizedStyleSpace) -> None:
    with pytest.raises(BadValue, match="no image to evaluate"):
        evaluate(lambda x: x, generator, View(16), space, [])


def test_judges_name_their_columns() -> None:
    class Trunk:
        label = "LPIPS (demo trunk)"

        def __call__(self, x: Tensor, y: Tensor) -> Tensor:
            return absolute(x, y)

    assert fidelity.labels(distance=Trunk(), embedder=Corner()) == {
        "lpips": "LPIPS (demo trunk)",
        "identity": "identity (corner)",
    }
    assert fidelity.labels() == {}


def test_examples_in_docstrings_hold() -> None:
    result = doctest.testmod(fidelity)
    assert result.attempted > 0
    assert result.failed == 0
