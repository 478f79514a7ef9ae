"""The paper's Property 1 and Proposition 3 as tests, and where they end."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lsap.alignment import normalize, style_layers
from lsap.stylegan2 import Generator, StyledLayer, freeze


@pytest.fixture
def generator() -> Generator:
    """In float64, with more code dimensions than any layer has channels, as at the finer layers of real generators."""
    generator = Generator(32, 32, 3, {4: 16, 8: 16, 16: 12, 32: 8}, mapping_lr=1.0).double()
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(parameter, 0.2)
    return freeze(generator)


def difference(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def affine(generator: Generator, layer: StyledLayer) -> tuple[Tensor, Tensor]:
    """A [width, C] and b [width] of a layer's style A w + b (Eq. 7), read off by probing."""
    codes = torch.cat([torch.zeros(1, generator.style_dim), torch.eye(generator.style_dim)]).double()
    styles = generator.styles(codes, [layer.name])[layer.name]
    return (styles[1:] - styles[0]).T, styles[0]


# --- Property 1: the length of a style


@pytest.mark.parametrize("factor", [0.1, 3.0, 100.0])
def test_rescaling_a_convolution_style_leaves_the_image_unchanged(generator: Generator, factor: float) -> None:
    styles = generator.styles(generator.sample_w(2))
    image = generator.synthesis(styles)
    for layer in generator.layers:
        if layer.demodulates:
            scaled = generator.synthesis({**styles, layer.name: factor * styles[layer.name]})
            assert difference(scaled, image) < 1e-6, layer.name
    together = {n: factor * s if not n.startswith("rgb") else s for n, s in styles.items()}
    assert difference(generator.synthesis(together), image) < 1e-6


def test_rescaling_a_torgb_style_changes_the_image(generator: Generator) -> None:
    """Its limit: ToRGB is not demodulated, the last one of the published style space included."""
    styles = generator.styles(generator.sample_w(2))
    image = generator.synthesis(styles)
    for layer in generator.layers:
        if not layer.demodulates:
            scaled = generator.synthesis({**styles, layer.name: 3 * styles[layer.name]})
            assert difference(scaled, image) > 1e-2, layer.name
    assert style_layers(generator)[-1] == "rgb32"


def test_turning_a_convolution_style_around_changes_the_image(generator: Generator) -> None:
    """The factor must be positive: opposite styles are opposite points of the normalised space."""
    styles = generator.styles(generator.sample_w(2))
    turned = generator.synthesis({**styles, "conv8": -styles["conv8"]})
    assert difference(turned, generator.synthesis(styles)) > 1e-2


# --- Proposition 3: codes whose styles differ only in length


def test_z_and_twice_z_are_the_same_code(generator: Generator) -> None:
    """In Z it holds for all layers at once, because of the pixel norm."""
    z = torch.randn(4, 32).double()
    w, doubled = generator.mapping(z), generator.mapping(2 * z)
    assert difference(doubled, w) < 1e-6
    assert difference(generator(doubled), generator(w)) < 1e-6


def test_one_layer_at_a_time_has_another_w_of_the_same_direction(generator: Generator) -> None:
    """In W, Eqs. 8 to 11: w' = a w + y with A y = (a - 1) b, solved by least squares."""
    w, factor = generator.sample_w(1)[0], 2.5
    for layer in generator.layers:
        matrix, bias = affine(generator, layer)
        y = torch.linalg.lstsq(matrix, (factor - 1) * bias[:, None]).solution[:, 0]
        other = factor * w + y
        style = generator.styles(w[None], [layer.name])
        scaled = generator.styles(other[None], [layer.name])
        assert difference(scaled[layer.name], factor * style[layer.name]) < 1e-8, layer.name
        assert difference(normalize(scaled)[layer.name], normalize(style)[layer.name]) < 1e-8
        assert difference(other, w) > 0.1


def test_no_single_w_rescales_all_layers_at_once(generator: Generator) -> None:
    """A finding, not the paper's claim: over all layers Eq. 8 has many more equations than unknowns.

    The best y in the least-squares sense misses by a tenth of the right-hand side or more, so distinct w generally have
    distinct normalised styles and Corollary 1 does not follow for W from one layer at a time.
    """
    factor = 2.5
    parts = [affine(generator, layer) for layer in generator.layers if layer.demodulates]
    matrix, bias = torch.cat([a for a, _ in parts]), torch.cat([b for _, b in parts])
    assert matrix.shape[0] > 2 * matrix.shape[1]
    y = torch.linalg.lstsq(matrix, (factor - 1) * bias[:, None]).solution[:, 0]
    assert difference(matrix @ y, (factor - 1) * bias) > 0.1
    w = generator.sample_w(1)
    before = normalize(generator.styles(w))
    after = normalize(generator.styles(factor * w + y))
    assert max(difference(after[n], before[n]) for n in before if not n.startswith("rgb")) > 0.01
