"""Less memory for more time: large blocks compute activations again in the backward pass instead of keeping them."""

from __future__ import annotations

import math
from functools import partial
from typing import TypeVar

from torch import nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import BasicBlock, Bottleneck

from lsap.pretrained import PlainUnit
from lsap.stylegan2.networks import StyledConv, ToRGB

BLOCKS = (StyledConv, ToRGB, PlainUnit, BasicBlock, Bottleneck)  # of generators, of encoders and of judges

Module = TypeVar("Module", bound=nn.Module)


def recompute(module: Module) -> Module:
    """Let every block of generators, encoders and judges inside a module keep its inputs only; returns the module.

    Outputs, gradients and random numbers are those without it. A block runs twice where gradients are asked for, so the
    momentum of its batch norms, if they learn, is set to the one of which two steps make the one that was asked for.
    """
    for block in module.modules():
        if isinstance(block, BLOCKS) and "forward" not in vars(block):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
            if any(parameter.requires_grad for parameter in block.parameters()):
                _expect_two_runs(block)
    return module


def _expect_two_runs(block: nn.Module) -> None:
    for norm in block.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.momentum is not None:
            norm.momentum = 1 - math.sqrt(1 - norm.momentum)
