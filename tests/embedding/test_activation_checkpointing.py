"""Recomputed activations: the same outputs, gradients and statistics, and less memory."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from comparison import assert_close_l2
from lsap.embedding.activation_checkpointing import BLOCKS, recompute
from lsap.pretrained import PlainUnit
from lsap.stylegan2 import Generator


def tiny(size: int = 32) -> Generator:
    torch.manual_seed(1)
    generator = Generator(size, style_dim=16, mapping_layers=2, channels=dict.fromkeys((4, 8, 16, 32, 64), 16))
    return generator.double()


@pytest.mark.parametrize("noise", ["fixed", "random"])
def test_a_generator_gives_the_same_image_and_gradient(noise: str) -> None:
    plain = tiny()
    lean = recompute(copy.deepcopy(plain))
    results = []
    for generator in (plain, lean):
        codes = torch.randn(2, generator.n_latent, 16, dtype=torch.double, generator=torch.Generator().manual_seed(2))
        codes.requires_grad_()
        torch.manual_seed(3)
        image = generator(codes, noise=noise)
        image.square().mean().backward()
        results.append((image, codes.grad, {n: p.grad for n, p in generator.named_parameters() if p.grad is not None}))
    (image, grad, grads), (lean_image, lean_grad, lean_grads) = results
    torch.testing.assert_close(lean_image, image, rtol=0, atol=0)
    assert_close_l2(lean_grad, grad, 1e-12)
    assert lean_grads.keys() == grads.keys()
    for name, gradient in lean_grads.items():
        assert_close_l2(gradient, grads[name], 1e-12, name=name)


def test_batch_norms_that_learn_end_with_the_same_statistics() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(PlainUnit(4, 8, 2), PlainUnit(8, 8, 1)).double()
    lean = recompute(copy.deepcopy(plain))
    for _ in range(3):
        images = torch.randn(4, 4, 8, 8, dtype=torch.double)
        for body in (plain, lean):
            body(images).square().mean().backward()
    for (name, tensor), other in zip(plain.state_dict().items(), lean.state_dict().values(), strict=True):
        if not name.endswith("num_batches_tracked"):
            assert_close_l2(other, tensor, 1e-12, name=name)
    for ours, theirs in zip(lean.parameters(), plain.parameters(), strict=True):
        assert_close_l2(ours.grad, theirs.grad, 1e-12)


def test_frozen_batch_norms_are_left_as_they_are() -> None:
    body = nn.Sequential(PlainUnit(4, 8, 2)).eval().requires_grad_(False)
    before = copy.deepcopy(body.state_dict())
    image = torch.randn(1, 4, 8, 8, requires_grad=True)
    recompute(body)(image).sum().backward()
    assert image.grad is not None
    assert all(torch.equal(tensor, before[name]) for name, tensor in body.state_dict().items())
    assert all(norm.momentum == 0.1 for norm in body.modules() if isinstance(norm, nn.BatchNorm2d))


def test_less_is_kept_for_the_backward_pass() -> None:
    numbers = {}
    for name, generator in (("plain", tiny(64)), ("lean", recompute(tiny(64)))):
        seen: dict[int, int] = {}
        codes = torch.randn(1, generator.n_latent, 16, dtype=torch.double, requires_grad=True)

        def pack(tensor: Tensor, seen: dict[int, int] = seen) -> Tensor:
            seen[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            generator(codes)
        numbers[name] = sum(seen.values())
    assert numbers["lean"] < 0.5 * numbers["plain"]


def test_done_twice_is_done_once() -> None:
    for module in recompute(recompute(tiny())).modules():
        if isinstance(module, BLOCKS):
            assert isinstance(module.forward, partial)
            (inner,) = module.forward.args
            assert not isinstance(inner, partial)
