"""The generator, its discriminator and view: answers worked out by hand, properties and errors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from comparison import assert_close_l2
from lsap.errors import BadValue
from lsap.stylegan2 import PUBLISHED_CHANNELS, Discriminator, Generator, View, freeze, ops, styled_layers

CHANNELS = {4: 16, 8: 16, 16: 12, 32: 8}


@pytest.fixture
def generator() -> Generator:
    """32 px, with noise and biases that show."""
    generator = Generator(32, 24, 2, CHANNELS, mapping_lr=1.0)
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(parameter, 0.1)
        if name.endswith("bias") and "affine" not in name:
            torch.nn.init.normal_(parameter, std=0.1)
    torch.nn.init.normal_(generator.latent_avg, std=0.1)
    return freeze(generator)


def relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def keep(into: dict[str, Tensor], name: str) -> Callable[[Tensor], Tensor]:
    """A tap that only looks."""

    def tap(x: Tensor) -> Tensor:
        into[name] = x.detach().clone()
        return x

    return tap


# --- layers, codes, styles


def test_layers_name_rows_and_widths_of_a_published_generator() -> None:
    layers = {layer.name: layer for layer in styled_layers(1024, PUBLISHED_CHANNELS)}
    assert list(layers)[:6] == ["conv4", "rgb4", "up8", "conv8", "rgb8", "up16"]
    assert (layers["up1024"].row, layers["conv1024"].row, layers["rgb1024"].row) == (15, 16, 17)
    assert layers["rgb8"].row == layers["up16"].row == 3  # a ToRGB shares its row with the next up convolution
    assert (layers["up1024"].width, layers["up1024"].channels) == (64, 32)
    assert [layer.name for layer in layers.values() if not layer.demodulates] == [f"rgb{2**e}" for e in range(2, 11)]


def test_a_code_reaches_exactly_the_layers_of_its_row(generator: Generator) -> None:
    codes = torch.randn(1, generator.n_latent, 24)
    changed = codes.clone()
    changed[:, 3] += 1
    before, after = generator.styles(codes), generator.styles(changed)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"rgb8", "up16"}


def test_w_is_w_plus_with_equal_rows_and_forward_is_synthesis_of_styles(generator: Generator) -> None:
    w = torch.randn(3, 24)
    image = generator(w)
    assert image.shape == (3, 3, 32, 32)
    assert_close_l2(generator(w[:, None].repeat(1, generator.n_latent, 1)), image, 1e-5)
    assert_close_l2(generator.synthesis(generator.styles(w)), image, 1e-5)
    assert list(generator.styles(w, ["rgb32", "conv4"])) == ["conv4", "rgb32"]


def test_truncation_moves_codes_towards_the_mean(generator: Generator) -> None:
    w = torch.randn(2, generator.n_latent, 24)
    assert torch.equal(generator.truncate(w, 1.0), w)
    assert_close_l2(generator.truncate(w, 0.0), generator.latent_avg.expand_as(w), 1e-5)
    assert_close_l2(generator.truncate(w, 0.25), 0.25 * w + 0.75 * generator.latent_avg, 1e-5)


def test_samples_repeat_by_their_own_stream(generator: Generator) -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    a = generator.sample_w(4, torch.Generator().manual_seed(1))
    assert torch.equal(torch.rand(1), expected)  # the global stream was left alone
    assert torch.equal(a, generator.sample_w(4, torch.Generator().manual_seed(1)))
    half = generator.sample_w(4, torch.Generator().manual_seed(1), psi=0.5)
    assert_close_l2(half, (a + generator.latent_avg) / 2, 1e-5)


# --- noise and taps


def test_noise_modes(generator: Generator) -> None:
    w = torch.randn(2, 24)
    fixed, none = generator(w), generator(w, noise="none")
    maps = [generator.get_buffer(f"blocks.{layer.name}.noise") for layer in generator.layers if layer.demodulates]
    assert torch.equal(generator(w), fixed)
    assert torch.equal(generator(w, noise=maps), fixed)
    assert relative(none, fixed) > 1e-3
    assert_close_l2(generator(w, noise=[torch.zeros_like(m) for m in maps]), none, 1e-5)
    torch.manual_seed(3)
    first = generator(w, noise="random")
    assert relative(generator(w, noise="random"), first) > 1e-3
    torch.manual_seed(3)
    assert torch.equal(generator(w, noise="random"), first)


def test_taps_read_add_and_scale_by_name(generator: Generator) -> None:
    w = torch.randn(2, 24)
    seen: dict[str, Tensor] = {}
    names = [layer.name for layer in generator.layers]
    image = generator(w, taps={name: keep(seen, name) for name in names})
    assert list(seen) == names
    assert torch.equal(image, generator(w))
    assert seen["up16"].shape == (2, 12, 16, 16)
    assert torch.equal(seen["rgb32"], image)
    brighter = generator(w, taps={"rgb32": lambda x: x + 0.5})
    assert_close_l2(brighter, image + 0.5, 1e-5)
    after: dict[str, Tensor] = {}
    doubled = generator(w, taps={"conv8": lambda x: 2 * x, "up16": keep(after, "up16")})
    assert relative(doubled, image) > 1e-2
    assert relative(after["up16"], seen["up16"]) > 1e-2  # what the tap returned went on


def test_silencing_features_leaves_the_biases_alone(generator: Generator) -> None:
    """With every feature scaled to zero the image is the sum of the ToRGB biases, upsampled."""
    taps = {layer.name: torch.zeros_like for layer in generator.layers if layer.demodulates}
    image = generator(torch.randn(1, 24), taps=taps)
    centre = image[0, :, 15:17, 15:17].mean((1, 2))
    biases = sum(generator.get_parameter(f"blocks.rgb{r}.bias") for r in (4, 8, 16, 32))
    assert isinstance(biases, Tensor)
    assert_close_l2(centre, biases, 1e-5)


# --- the two forms of the modulated convolution


def test_shared_and_per_sample_convolutions_agree_in_values_and_gradients(generator: Generator) -> None:
    codes = torch.randn(3, generator.n_latent, 24)
    assert_close_l2(generator.use(ops.per_sample)(codes), generator.use(ops.shared)(codes), 1e-5)
    # Gradients in float64: in float32 a feature within rounding of 0 may fall on either side of the leaky ReLU.
    generator.double().requires_grad_(True)
    codes = codes.double()
    results = []
    for form in (ops.shared, ops.per_sample):
        generator.use(form).zero_grad()
        leaf = codes.clone().requires_grad_()
        image = generator(leaf)
        image.square().mean().backward()
        assert leaf.grad is not None
        gradients = {n: p.grad.clone() for n, p in generator.named_parameters() if p.grad is not None}
        results.append((image.detach(), leaf.grad, gradients))
    (image_a, code_a, weights_a), (image_b, code_b, weights_b) = results
    assert_close_l2(image_a, image_b, 1e-12)
    assert_close_l2(code_a, code_b, 1e-12)
    assert weights_a.keys() == weights_b.keys()
    assert "blocks.up16.weight" in weights_a
    for name, gradient in weights_a.items():
        assert_close_l2(gradient, weights_b[name], 1e-11, name=name)


def test_one_modulated_convolution_by_hand() -> None:
    """1x1 image, 1x1 kernel: demodulated, sum_i W_i s_i x_i / sqrt(sum_i (W_i s_i)^2)."""
    x = torch.tensor([[1.0, 2.0]])[:, :, None, None]
    weight = torch.tensor([[3.0, 1.0]])[:, :, None, None]
    style = torch.tensor([[1.0, 4.0]])
    gain = ops.demodulation(weight, style)
    torch.testing.assert_close(gain, torch.tensor([[1 / 5.0]]))
    for form in (ops.shared, ops.per_sample):
        out = form(x, weight, style, gain, torch.tensor([0.5]), ops.correlate)
        torch.testing.assert_close(out.flatten(), torch.tensor([(3 + 8) / 5 + 0.5]))


def test_doubling_spreads_one_pixel_as_1_3_3_1() -> None:
    image = torch.zeros(1, 1, 3, 3)
    image[0, 0, 1, 1] = 1
    line = torch.tensor([0.0, 1, 3, 3, 1, 0]) / 4
    torch.testing.assert_close(ops.double(image, ops.blur_kernel(1, 4.0))[0, 0], torch.outer(line, line))


# --- gradients, precision


def test_frozen_weights_get_no_gradient_and_codes_do(generator: Generator) -> None:
    w = torch.randn(2, 24, requires_grad=True)
    generator(w).mean().backward()
    assert all(p.grad is None and not p.requires_grad for p in generator.parameters())
    assert w.grad is not None
    assert w.grad.abs().min() > 0
    assert not generator.training


def test_it_trains_in_bfloat16_and_channels_last() -> None:
    generator = Generator(8, 16, 2, CHANNELS, mapping_lr=1.0).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(generator.parameters(), 0.02)
    z, target = torch.randn(4, 16), torch.rand(4, 3, 8, 8)
    losses = []
    for _ in range(8):
        with torch.autocast("cpu", torch.bfloat16):
            image = generator(generator.mapping(z))
        assert image.dtype == torch.float32
        loss = (image - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_half_precision_keeps_styles_exact(generator: Generator) -> None:
    w = torch.randn(2, 24)
    with torch.autocast("cpu", torch.bfloat16):
        styles, image = generator.styles(generator.mapping(w)), generator(generator.mapping(w))
    for name, style in generator.styles(generator.mapping(w)).items():
        assert torch.equal(styles[name], style)
    assert 0 < relative(image, generator(generator.mapping(w))) < 0.03


def test_clamping_bounds_every_layer() -> None:
    generator = freeze(Generator(8, 8, 1, CHANNELS, clamp=0.25))
    seen: dict[str, Tensor] = {}
    image = generator(torch.randn(2, 8), taps={n: keep(seen, n) for n in ("conv4", "up8", "conv8")})
    assert all(features.abs().max() == 0.25 for features in seen.values())
    assert image.abs().max() <= 0.5  # two ToRGBs of at most 0.25 each


# --- bad input


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(2, 5), r"codes have shape \[2, 5\]; this generator takes w \[N, 24\] or w_plus \[N, 8, 24\]"),
        (torch.zeros(2, 14, 24), r"14 rows, but this generator \(32 px\) takes 8. 14 rows belong to 256 px"),
        (torch.zeros(2, 7, 24), "No StyleGAN2 has that many"),
    ],
)
def test_codes_of_another_generator_are_refused(generator: Generator, codes: Tensor, message: str) -> None:
    with pytest.raises(BadValue, match=message):
        generator(codes)


def test_unknown_layers_and_wrong_styles_are_refused(generator: Generator) -> None:
    w = torch.randn(1, 24)
    with pytest.raises(BadValue, match=r"taps name a layer 'conv_8'.*did you mean 'conv8'"):
        generator(w, taps={"conv_8": torch.relu})
    styles = generator.styles(w)
    with pytest.raises(BadValue, match="the style of up32 has 3 channels; this generator takes 12"):
        generator.synthesis({**styles, "up32": torch.ones(1, 3)})
    del styles["conv4"]
    with pytest.raises(BadValue, match="styles lack layer 'conv4'"):
        generator.synthesis(styles)


def test_wrong_noise_is_refused(generator: Generator) -> None:
    w = torch.randn(1, 24)
    with pytest.raises(BadValue, match="2 noise maps were given; this generator takes 7"):
        generator(w, noise=[torch.zeros(1, 1, 4, 4)] * 2)
    with pytest.raises(BadValue, match=r"noise map of up8 has shape \[1, 1, 4, 4\]; it takes \[N or 1, 1, 8, 8\]"):
        generator(w, noise=[torch.zeros(1, 1, 4, 4)] * 7)
    with pytest.raises(BadValue, match="noise='fixd'"):
        generator(w, noise="fixd")  # type: ignore[arg-type]


def test_impossible_generators_are_refused() -> None:
    with pytest.raises(BadValue, match="48 px cannot be built"):
        Generator(48)
    with pytest.raises(BadValue, match=r"no entry for \[64\] px"):
        Generator(64, 8, 1, CHANNELS)


# --- view


def test_view_averages_and_cuts_the_band() -> None:
    image = torch.arange(16.0).view(1, 1, 4, 4)
    torch.testing.assert_close(View(2)(image), torch.tensor([[[[2.5, 4.5], [10.5, 12.5]]]]))
    torch.testing.assert_close(View(2, (1, 2))(image), torch.tensor([[[[10.5, 12.5]]]]))
    assert torch.equal(View(4)(image), image)
    assert View(256, (32, 224))(torch.zeros(1, 3, 512, 512)).shape == (1, 3, 192, 256)


def test_view_never_enlarges() -> None:
    with pytest.raises(BadValue, match="64x64 px cannot be pooled to 256 px"):
        View(256)(torch.zeros(1, 3, 64, 64))
    with pytest.raises(BadValue, match=r"rows 32\.\.224 lie outside an image of 64 rows"):
        View(64, (32, 224))


# --- discriminator


def test_spread_sees_the_variety_of_strided_groups() -> None:
    network = Discriminator(8, {4: 4, 8: 4}, minibatch_std=2)
    features = torch.tensor([0.0, 5.0, 2.0, 5.0]).view(4, 1, 1, 1).expand(4, 3, 2, 2)
    # Groups are images {0, 2} and {1, 3}: deviations 1 and (nearly) 0.
    assert_close_l2(network.spread(features), torch.tensor([1.0, 1e-4, 1.0, 1e-4]), 1e-5)
    with pytest.raises(BadValue, match="3 images does not divide into groups of 2"):
        network(torch.zeros(3, 3, 8, 8))
