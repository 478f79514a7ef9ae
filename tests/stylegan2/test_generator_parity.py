"""Parity of generator and discriminator with the published code, on weights filled by a recipe."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from comparison import assert_published
from golden import fill
from lsap.checkpoints import rosinality
from lsap.stylegan2 import Discriminator, Generator, freeze


def keep(into: dict[str, Tensor], name: str) -> Callable[[Tensor], Tensor]:
    """A tap that only looks."""

    def tap(x: Tensor) -> Tensor:
        into[name] = x.detach().clone()
        return x

    return tap


def rosinality_generator(spec: fill.Spec, size: int, built: int | None = None) -> Generator:
    """The case's generator; `built` keeps only its resolutions up to that, which give the same features there."""
    state = rosinality.rename(fill.state_dict(spec, "generator"))
    generator = Generator(built or size)
    wanted = generator.state_dict().keys() - {"latent_avg"}
    generator.load_state_dict({k: v for k, v in state.items() if k in wanted}, strict=False)
    assert built or wanted == state.keys()
    return freeze(generator)


def test_rosinality_256_parity_of_codes_features_and_images() -> None:
    spec = fill.load("stylegan2_rosinality_256")
    x = fill.inputs(spec)
    generator = rosinality_generator(spec, 256)
    generator.latent_avg.copy_(x["latent_avg"])
    w = generator.mapping(x["z"])
    assert_published(spec, "w", w, 1e-5)
    assert_published(spec, "latent_truncated", generator.truncate(w, 0.7), 1e-5)
    noise = [x[f"noise_{i}"] for i in range(13)]
    assert_published(spec, "image_explicit_noise", generator(x["w_plus"][:1], noise=noise), 1e-4)
    seen: dict[str, Tensor] = {}
    published = {"conv4": "act_conv1", "rgb4": "act_to_rgb1", "up8": "act_convs_0", "conv8": "act_convs_1"}
    small = rosinality_generator(spec, 256, built=8)
    seen["rgb8"] = small(w, taps={name: keep(seen, name) for name in published})
    for name, output in {**published, "rgb8": "act_to_rgbs_0"}.items():
        assert_published(spec, output, seen[name], 2e-5)


@pytest.mark.slow
def test_rosinality_256_parity_of_everything_else() -> None:
    spec = fill.load("stylegan2_rosinality_256")
    x = fill.inputs(spec)
    generator = rosinality_generator(spec, 256)
    generator.latent_avg.copy_(x["latent_avg"])
    w = generator.mapping(x["z"]).requires_grad_()
    seen: dict[str, Tensor] = {}
    image = generator(w, taps={"conv64": keep(seen, "conv64")})
    assert_published(spec, "image_w", image, 1e-4)
    assert_published(spec, "image_w_crop", image, 1e-4)
    assert_published(spec, "act_convs_7", seen["conv64"], 1e-4)
    image.square().mean().backward()
    assert_published(spec, "grad_w_of_mean_square", w.grad, 1e-4)
    with torch.no_grad():
        assert_published(spec, "image_w_plus", generator(x["w_plus"]), 1e-4)
        assert_published(spec, "image_truncated", generator(generator.truncate(w, 0.7)), 1e-4)
        mixed = torch.cat([w[:1].expand(5, -1), w[1:].expand(9, -1)])[None]
        assert_published(spec, "image_mixed", generator(mixed), 1e-4)


@pytest.mark.slow
def test_rosinality_512_parity() -> None:
    spec = fill.load("stylegan2_rosinality_512")
    x = fill.inputs(spec)
    generator = rosinality_generator(spec, 512)
    w = generator.mapping(x["z"])
    assert_published(spec, "w", w, 1e-5)
    image = generator(w)
    assert_published(spec, "image_w", image, 1e-4)
    assert_published(spec, "image_w_crop", image, 1e-4)
    assert_published(spec, "image_w_plus", generator(x["w_plus"]), 1e-4)


def nvidia_generator(spec: fill.Spec) -> Generator:
    """The NVIDIA names of the case, turned into ours: names, and noise as [1, 1, r, r]."""
    renamed = {}
    for name, tensor in fill.state_dict(spec, "G_ema").items():
        if name == "mapping.w_avg":
            renamed["latent_avg"] = tensor
        elif name == "synthesis.b4.const":
            renamed["constant"] = tensor[None]
        elif name.startswith("mapping."):
            renamed[name.replace("mapping.fc", "mapping.layers.")] = tensor
        elif not name.endswith("resample_filter"):
            _, block, layer, *rest = name.split(".")
            ours = {"conv0": "up", "conv1": "conv", "torgb": "rgb"}[layer] + block[1:]
            inner = ".".join(rest).replace("noise_const", "noise")
            renamed[f"blocks.{ours}.{inner}"] = tensor[None, None] if inner == "noise" else tensor
    generator = Generator(256, clamp=256)
    generator.load_state_dict(renamed)
    return freeze(generator)


def test_nvidia_ada_256_parity_of_codes_styles_and_one_image() -> None:
    spec = fill.load("stylegan2_ada_256")
    x = fill.inputs(spec)
    generator = nvidia_generator(spec)
    w = generator.mapping(x["z"])
    assert_published(spec, "w", w, 1e-5)
    assert_published(spec, "w_psi07", generator.truncate(w, 0.7), 1e-5)
    for ours, style in generator.styles(x["w_plus"]).items():
        kind = ours.rstrip("0123456789")
        theirs = {"up": "conv0", "conv": "conv1", "rgb": "torgb"}[kind]
        assert_published(spec, f"affine.b{ours[len(kind) :]}.{theirs}.affine", style, 1e-5)
    assert_published(spec, "image_w_plus_no_noise", generator(x["w_plus"][:1], noise="none"), 1e-4)


@pytest.mark.slow
def test_nvidia_ada_256_parity_of_the_other_images() -> None:
    spec = fill.load("stylegan2_ada_256")
    x = fill.inputs(spec)
    generator = nvidia_generator(spec)
    w = generator.mapping(x["z"])
    image = generator(w)
    assert_published(spec, "image_w", image, 1e-4)
    assert_published(spec, "image_w_crop", image, 1e-4)
    assert_published(spec, "image_w_plus", generator(x["w_plus"]), 1e-4)
    assert_published(spec, "image_psi07", generator(generator.truncate(w[:1], 0.7)), 1e-4)


def discriminator_64() -> tuple[fill.Spec, Discriminator, Tensor]:
    spec = fill.load("stylegan2_discriminator_64")
    state = {k: v for k, v in fill.state_dict(spec, "discriminator").items() if not k.endswith("kernel")}
    network = Discriminator(64)
    names = ["from_rgb.weight", "from_rgb.bias"]
    for block in range(4):
        parts = ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "skip.weight")
        names += [f"blocks.{block}.{part}" for part in parts]
    names += [f"{layer}.{kind}" for layer in ("last_conv", "last_linear", "logit") for kind in ("weight", "bias")]
    network.load_state_dict(dict(zip(names, state.values(), strict=True)))
    return spec, network, fill.inputs(spec)["images"]


def test_discriminator_parity_on_one_image() -> None:
    spec, network, images = discriminator_64()
    with torch.no_grad():
        assert_published(spec, "logits_1", network(images[:1]), 1e-4)


@pytest.mark.slow
def test_discriminator_parity_on_batches_and_of_gradients() -> None:
    spec, network, images = discriminator_64()
    with torch.no_grad():
        assert_published(spec, "logits_8", network(images), 1e-4)
        assert_published(spec, "logits_2", network(images[:2]), 1e-4)
        features = network.blocks(network.from_rgb(images))
        for count in (8, 2, 1):
            assert_published(spec, f"stddev_{count}", network.spread(features[:count]), 1e-4)
        loss = F.softplus(-network(images[:4])).mean() + F.softplus(network(images[4:])).mean()
        assert_published(spec, "d_loss", loss, 1e-4)
        assert_published(spec, "logits_4", network(images[:4]), 1e-4)
    # In float64: among 10^8 activations a few lie so near 0 that rounding flips their leaky ReLU, and one flip in an
    # early layer moves the gradient by 5e-4.
    network.double()
    leaf = images[:4].double().requires_grad_()
    logits = network(leaf)
    (gradient,) = torch.autograd.grad(logits.sum(), leaf, create_graph=True)
    assert_published(spec, "grad_images", gradient, 1e-4)
    r1 = gradient.square().sum((1, 2, 3)).mean()
    assert_published(spec, "r1", r1, 1e-4)
    (10 / 2 * 16 * r1).backward()  # the published weight, applied every 16th step
    assert_published(spec, "grad_r1_final_linear", network.last_linear.weight.grad, 1e-4)
    assert_published(spec, "grad_r1_first_conv", network.from_rgb.weight.grad, 1e-4)
