"""The StyleGAN2 discriminator (arXiv:1912.04958, residual architecture)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lsap.errors import BadValue
from lsap.stylegan2 import ops
from lsap.stylegan2.layers import EqualConv, EqualLinear
from lsap.stylegan2.networks import PUBLISHED_CHANNELS


class ResidualBlock(nn.Module):
    """Half the resolution: two convolutions beside a linear skip, their sum scaled back to unit variance."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = EqualConv(inputs, inputs, 3)
        self.conv2 = EqualConv(inputs, outputs, 3, half=True, gain=1 / math.sqrt(2))
        self.skip = EqualConv(inputs, outputs, 1, half=True, activate=False, gain=1 / math.sqrt(2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(self.conv1(x)) + self.skip(x)
        return out


class Discriminator(nn.Module):
    """Images [N, 3, size, size] in [-1, 1] -> logits [N, 1]: how real they look.

    Args:
        size: pixels of the image, a power of two from 8 to 1024.
        channels: features at each resolution; the published configuration f by default.
        minibatch_std: images that are compared with one another to see a lack of variety; the batch must be a multiple
            of it or smaller. 1 compares none.
    """

    def __init__(self, size: int, channels: Mapping[int, int] | None = None, *, minibatch_std: int = 4) -> None:
        super().__init__()
        channels = dict(PUBLISHED_CHANNELS if channels is None else channels)
        if size not in {2**e for e in range(3, 11)} or minibatch_std < 1:
            raise BadValue(
                f"Discriminator(size={size}, minibatch_std={minibatch_std}): size must be a power of two "
                "from 8 to 1024 and minibatch_std at least 1"
            )
        self.size, self.minibatch_std = size, minibatch_std
        resolutions = [2**e for e in range(size.bit_length() - 1, 2, -1)]
        self.from_rgb = EqualConv(3, channels[size], 1)
        self.blocks = nn.Sequential(*(ResidualBlock(channels[r], channels[r // 2]) for r in resolutions))
        self.last_conv = EqualConv(channels[4] + 1, channels[4], 3)
        self.last_linear = EqualLinear(channels[4] * 16, channels[4], gain=ops.GAIN)
        self.logit = EqualLinear(channels[4], 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.blocks(self.from_rgb(images))
        spread = self.spread(features).to(features.dtype)
        spread = spread[:, None, None, None].expand(-1, 1, *features.shape[2:])
        features = self.last_conv(torch.cat([features, spread], 1))
        out: Tensor = self.logit(ops.leaky(self.last_linear(features.flatten(1))))
        return out

    def spread(self, features: Tensor) -> Tensor:
        """Standard deviation over the images of a group, averaged over features and pixels, for each image [N].

        Raises:
            BadValue: a batch that does not divide into groups.
        """
        count = len(features)
        group = min(count, self.minibatch_std)
        if count % group:
            raise BadValue(f"a batch of {count} images does not divide into groups of {group} (minibatch_std)")
        groups = ops.full(features).unflatten(0, (group, count // group))
        deviation = torch.sqrt(groups.var(0, correction=0) + ops.TINY).mean((1, 2, 3))
        return deviation.repeat(group)
