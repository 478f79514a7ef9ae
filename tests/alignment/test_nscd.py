"""NSCD as function, loss and metric: answers that can be worked out by hand, gradients, batching, errors."""

from __future__ import annotations

import doctest
import math

import pytest
import torch
from torch import Tensor

from comparison import assert_close_l2
from lsap.alignment import NSCD, nscd
from lsap.errors import BadValue

WIDTHS = (5, 3, 4)


@pytest.fixture
def mean() -> list[Tensor]:
    """Raw means, shorter than 1 as means of unit vectors are."""
    return [0.8 * torch.nn.functional.normalize(torch.randn(width), dim=0) for width in WIDTHS]


def random_styles(count: int) -> list[Tensor]:
    return [torch.randn(count, width) for width in WIDTHS]


def test_nscd_is_zero_along_the_mean_one_across_and_two_opposite_it() -> None:
    mean = [torch.tensor([0.3, 0.4]), torch.tensor([0.0, 0.7])]
    styles = [
        torch.tensor([[3.0, 4.0], [-4.0, 3.0], [-6.0, -8.0]]),
        torch.tensor([[0.0, 2.0], [5.0, 0.0], [0.0, -1.0]]),
    ]
    assert nscd(styles, mean).tolist() == [0.0, 1.0, 2.0]
    assert nscd(styles, mean, reduction="sum").tolist() == [0.0, 2.0, 4.0]


def test_sixty_degrees_in_one_of_two_layers() -> None:
    mean = [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])]
    styles = [torch.tensor([[1.0, math.sqrt(3)]]), torch.tensor([[0.0, 9.0]])]
    torch.testing.assert_close(nscd(styles, mean, reduction="none"), torch.tensor([[0.5, 0.0]]))
    torch.testing.assert_close(nscd(styles, mean), torch.tensor([0.25]))


def test_raw_anchor_is_one_minus_the_dot_product_with_the_mean(mean: list[Tensor]) -> None:
    styles = random_styles(6)
    expected = torch.stack([1 - (s / s.norm(dim=1, keepdim=True)) @ m for s, m in zip(styles, mean, strict=True)], 1)
    assert_close_l2(nscd(styles, mean, reduction="none", anchor="raw"), expected, 1e-5)
    torch.testing.assert_close(nscd([m[None] for m in mean], mean, anchor="raw"), torch.tensor([0.2]))  # never below
    unit = nscd(styles, mean, reduction="none")
    assert_close_l2(expected, 0.8 * unit + 0.2, 1e-5)  # the same number on another scale


def test_unit_anchor_ignores_the_length_of_the_mean_and_both_that_of_styles(mean: list[Tensor]) -> None:
    styles = random_styles(4)
    longer = [s * torch.rand(4, 1).add(0.1) * 50 for s in styles]
    for anchor in ("unit", "raw"):
        assert_close_l2(nscd(longer, mean, anchor=anchor), nscd(styles, mean, anchor=anchor), 1e-5)
    assert_close_l2(nscd(styles, [3 * m for m in mean]), nscd(styles, mean), 1e-5)


def test_nscd_grows_as_codes_turn_away(mean: list[Tensor]) -> None:
    away = [torch.randn(width) for width in WIDTHS]
    steps = [nscd([(m + t * a)[None] for m, a in zip(mean, away, strict=True)], mean).item() for t in (0, 0.1, 0.3, 1)]
    assert steps == sorted(steps)
    assert steps[0] == 0
    assert steps[-1] > 0.1


@pytest.mark.parametrize("anchor", ["unit", "raw"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_nscd_gradient_matches_finite_differences(mean: list[Tensor], anchor: str, reduction: str) -> None:
    styles = [s.double().requires_grad_() for s in random_styles(2)]
    anchors = [m.double() for m in mean]

    def loss(*layers: Tensor) -> Tensor:
        return nscd(layers, anchors, reduction=reduction, anchor=anchor)  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(loss, styles)


def test_gradient_at_the_mean_itself_is_zero_not_nan(mean: list[Tensor]) -> None:
    styles = [m[None].clone().requires_grad_() for m in mean]
    nscd(styles, mean).sum().backward()
    assert all(torch.equal(s.grad, torch.zeros_like(s)) for s in styles)


def test_half_precision_styles_are_compared_in_float32(mean: list[Tensor]) -> None:
    styles = [s.bfloat16() for s in random_styles(3)]
    out = nscd(styles, mean)
    assert out.dtype == torch.float32
    assert torch.equal(out, nscd([s.float() for s in styles], mean))


@pytest.mark.parametrize("sizes", [[12], [1] * 12, [5, 7], [11, 1]])
@pytest.mark.parametrize("anchor", ["unit", "raw"])
def test_metric_equals_one_shot_whatever_the_batching(mean: list[Tensor], sizes: list[int], anchor: str) -> None:
    styles = random_styles(12)
    metric = NSCD(mean, anchor=anchor)  # type: ignore[arg-type]
    for parts in zip(*(s.split(sizes) for s in styles), strict=True):
        metric.update(parts)
    expected = nscd(styles, mean, anchor=anchor).mean()  # type: ignore[arg-type]
    assert_close_l2(metric.compute(), expected, 1e-5)
    metric.reset()
    metric.update([s[:1] for s in styles])
    torch.testing.assert_close(metric.compute(), nscd([s[:1] for s in styles], mean, anchor=anchor)[0])  # type: ignore[arg-type]


def test_metric_keeps_its_own_mean_and_stays_out_of_checkpoints(mean: list[Tensor]) -> None:
    metric = NSCD(mean)
    styles = random_styles(2)
    before = nscd(styles, mean).mean()
    mean[0].zero_()
    metric.update(styles)
    assert_close_l2(metric.compute(), before, 1e-5)
    assert metric.state_dict() == {}


def test_docstring_examples_hold() -> None:
    import sys

    result = doctest.testmod(sys.modules[NSCD.__module__])
    assert result.attempted >= 6
    assert result.failed == 0


def test_other_layers_and_widths_are_refused(mean: list[Tensor]) -> None:
    styles = random_styles(2)
    with pytest.raises(BadValue, match="styles of 2 layers came with a mean of 3 layers; the codes belong to another"):
        nscd(styles[:2], mean)
    with pytest.raises(ValueError, match="layer 1 has 9 channels, but its mean has 3"):
        NSCD(mean).update([styles[0], torch.randn(2, 9), styles[2]])
    with pytest.raises(BadValue, match="reduction='max'; accepted: 'mean', 'sum', 'none'"):
        nscd(styles, mean, reduction="max")  # type: ignore[arg-type]
    with pytest.raises(BadValue, match="anchor='mean'; accepted: 'unit', 'raw'"):
        nscd(styles, mean, anchor="mean")  # type: ignore[arg-type]
