"""e4e's latent discriminator: a small network that learns to tell an encoder's codes from the generator's own w.

Published with e4e (Tov et al. 2021); LSAP_E puts alignment in its place.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsap.seeds import derive
from lsap.values import COUNT, POSITIVE, WEIGHT, require


class LatentDiscriminator(nn.Module):
    """Three hidden layers from a code to a logit. Parameter names are the published ones.

    Args:
        style_dim: width of a code.
    """

    def __init__(self, style_dim: int = 512) -> None:
        super().__init__()
        hidden = [layer for _ in range(3) for layer in (nn.Linear(style_dim, style_dim), nn.LeakyReLU(0.2))]
        self.mlp = nn.Sequential(*hidden, nn.Linear(style_dim, 1))

    def forward(self, codes: Tensor) -> Tensor:
        """Codes [..., C] → logits [...], high where a code looks like the generator's own; never in half precision."""
        with torch.autocast(codes.device.type, enabled=False):
            logits: Tensor = self.mlp(codes.float())
        return logits.squeeze(-1)


class CodePool:
    """Codes of earlier batches, shown again in place of new ones, so that a discriminator is not led by the last batch.

    Until it is full the pool keeps every code and hands it out. From then on it tosses a coin for each: either the code
    is handed out and forgotten, or a random kept one is handed out and the code takes its place.

    Args:
        size: codes kept.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.kept: list[Tensor] = []

    def exchange(self, codes: Tensor, rng: random.Random) -> Tensor:
        """Hand codes in and get as many out.

        Args:
            codes: [N, C], or [N, R, C], of whose R rows one is taken at random for each.
            rng: where coins, places and rows come from.

        Returns:
            [N, C].
        """
        return torch.stack([self._exchange(code, rng) for code in codes])

    def _exchange(self, code: Tensor, rng: random.Random) -> Tensor:
        if code.ndim == 2:
            code = code[rng.randint(0, len(code) - 1)]
        if len(self.kept) < self.size:
            self.kept.append(code.clone())  # not a view, which would keep the whole batch
            return code
        if rng.uniform(0, 1) <= 0.5:
            return code
        place = rng.randint(0, self.size - 1)
        found, self.kept[place] = self.kept[place], code.clone()
        return found


class Adversary(nn.Module):
    """A latent discriminator and how it learns: its pools, its loss with R1, and its optimiser (Adam).

    Its parameters take gradients only while it learns; to everybody else it is frozen, so that an encoder's loss may
    lead through it.

    Args:
        style_dim: width of a code.
        lr: learning rate.
        r1: weight of the gradient penalty on the generator's codes (Mescheder et al. 2018); 0 leaves it out.
        r1_every: the penalty is paid once in so many batches, as a step of its own, and counts as many times.
        pool: codes kept of each side; see `CodePool`.

    Raises:
        BadValue: a setting that cannot work, by its key.
    """

    def __init__(
        self, style_dim: int = 512, *, lr: float = 2e-5, r1: float = 10.0, r1_every: int = 16, pool: int = 50
    ) -> None:
        super().__init__()
        POSITIVE.require("adversary.lr", lr)
        WEIGHT.require("adversary.r1", r1)
        require(COUNT, {"r1_every": r1_every, "pool": pool}, "adversary.")
        self.discriminator = LatentDiscriminator(style_dim).requires_grad_(False)
        self.r1, self.r1_every = r1, r1_every
        self.pools = {"real": CodePool(pool), "fake": CodePool(pool)}
        self.optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=lr)

    def learn(self, real: Tensor, fake: Tensor, *, batch: int, seed: int) -> Tensor:
        """One step, and every `r1_every` batches one more for the penalty.

        Args:
            real: w [N, C], the generator's own.
            fake: rows [N, R, C] of an encoder's codes.
            batch: the number of this batch, from which all randomness of the pools follows, with the seed.
            seed: of the run.

        Returns:
            The loss before the step, scalar: 2 ln 2 = 1.386 where the two cannot be told apart.
        """
        rngs = {side: random.Random(derive(seed, "pool", side, batch)) for side in self.pools}
        real = self.pools["real"].exchange(real.detach().float(), rngs["real"])
        fake = self.pools["fake"].exchange(fake.detach().float(), rngs["fake"])
        self.discriminator.requires_grad_(True)
        try:
            with torch.enable_grad():
                loss = discrimination(self.discriminator, real, fake)
                self._step(loss)
                if self.r1 > 0 and batch % self.r1_every == 0:
                    self._step(self.r1 / 2 * self.r1_every * r1_penalty(self.discriminator, real))
        finally:
            self.discriminator.requires_grad_(False)
        return loss.detach()

    def _step(self, loss: Tensor) -> None:
        """Descend; by `autograd.grad`, which no wrapper for several devices or half precision has a part in."""
        parameters = list(self.discriminator.parameters())
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)  # R1 does not see the last bias
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = torch.zeros_like(parameter) if gradient is None else gradient
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def progress(self) -> dict[str, Any]:
        """Everything that goes on in a later process: weights, optimiser, pools; plain containers and tensors."""
        pools = {side: torch.stack(pool.kept) for side, pool in self.pools.items() if pool.kept}
        weights = dict(self.discriminator.state_dict())
        return {"discriminator": weights, "optimizer": self.optimizer.state_dict(), "pools": pools}

    def resume(self, progress: Mapping[str, Any]) -> None:
        """Go on from what `progress` gave; to be called when the module is on the device that it will train on."""
        self.discriminator.load_state_dict(progress["discriminator"])
        self.optimizer.load_state_dict(progress["optimizer"])
        device = next(self.discriminator.parameters()).device
        for side, pool in self.pools.items():
            pool.kept = [code.to(device) for code in progress["pools"].get(side, ())]


def discrimination(discriminator: LatentDiscriminator, real: Tensor, fake: Tensor) -> Tensor:
    """The logistic loss of a discriminator on codes [N, C] of both sides, scalar."""
    return F.softplus(-discriminator(real)).mean() + F.softplus(discriminator(fake)).mean()


def r1_penalty(discriminator: LatentDiscriminator, real: Tensor) -> Tensor:
    """The mean squared length of the logit's gradient by codes [N, C], scalar; differentiable."""
    codes = real.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(codes).sum(), codes, create_graph=True)
    return gradient.square().sum(1).mean()
