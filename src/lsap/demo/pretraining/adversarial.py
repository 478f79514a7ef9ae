"""The generator's second phase: a discriminator asks for what regression blurs."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from lsap.demo import factors, portraits
from lsap.demo.pretraining.regression import GeneratorPretraining

if TYPE_CHECKING:
    from pytorch_lightning.core.optimizer import LightningOptimizer

    from lsap.demo.pretraining.projected import ProjectedDiscriminator
    from lsap.stylegan2 import Discriminator, Generator


class GeneratorAdversarial(GeneratorPretraining):
    """Adversarial training (non-saturating loss, lazy R1, averaged weights) beside the regression.

    Unsure of a detail, regression draws the mean of all that it might be, which is blurred; the discriminator, which
    sees portraits of strangers, tells that from a portrait. The regression goes on at a weight of its own and keeps
    factors and codes together, so it may be faint. A portrait has nothing that its factors do not say, so the noise
    inputs stay at zero.
    """

    automatic_optimization = False
    updates = 2  # optimiser steps per batch: discriminator, generator
    betas = (0.0, 0.99)

    def __init__(
        self,
        generator: Generator,
        discriminator: ProjectedDiscriminator | Discriminator,
        *,
        regression: float = 1.0,
        r1: float = 0.0,
        r1_every: int = 8,
        alone: int = 300,
        averaging: float = 0.998,
        lr_discriminator: float = 0.002,
        **settings: Any,
    ) -> None:
        """
        Args:
            generator: trained in place; start it from finished weights.
            discriminator: trained beside it.
            regression: weight of the first phase's loss beside the adversarial one.
            r1: weight of the squared gradient of the logits of real portraits (halved, as published); for StyleGAN2's
                discriminator, whose gain nothing else bounds.
            r1_every: batches between two of them; each then counts that many times.
            alone: batches over which the discriminator learns alone, two steps each: warm-started samples differ so
                little from portraits that at first it sees nothing, and would lead the generator nowhere.
            averaging: decay of the running mean of the generator's weights, which is what is kept.
            lr_discriminator: learning rate of the discriminator.
        """
        super().__init__(generator, **settings)
        self.discriminator = discriminator
        self.average = copy.deepcopy(generator).requires_grad_(False)
        self.regression = regression
        self.r1, self.r1_every, self.alone, self.averaging = r1, r1_every, alone, averaging
        self.lr_discriminator = lr_discriminator

    def on_train_start(self) -> None:
        """Finished weights are loaded after construction: the average starts where the generator starts."""
        super().on_train_start()
        if self.global_step == 0:
            self.average.load_state_dict(self.generator.state_dict())

    @property
    def product(self) -> Generator:
        return self.average if self.global_step else self.generator

    def configure_optimizers(self) -> Any:
        drawn = [*self.generator.parameters(), *self.guess.parameters()]
        return [
            torch.optim.Adam(self.discriminator.parameters(), lr=self.lr_discriminator, betas=self.betas),
            torch.optim.Adam(drawn, lr=self.lr, betas=self.betas),
        ]

    def training_step(self, step: int, _: int) -> None:
        critic, painter = cast("list[LightningOptimizer]", self.optimizers())
        for optimizer, rate in ((critic, self.lr_discriminator), (painter, self.lr)):
            for group in optimizer.param_groups:
                group["lr"] = rate * self.schedule(step)
        if step < self.alone:
            z = torch.randn(self.batch_size, self.generator.style_dim, generator=self.random("alone", step))
            z = z.to(self.device)
            for number in range(self.updates):
                with torch.no_grad():
                    painted = self.draw(z.roll(number, 1))[0].float()  # rolled, latents are others
                self._tell_apart(critic, painted, step * self.updates + number)
            return
        z, truth, target, weight = (t.to(self.device) for t in self.lesson(step))
        output, w = (t.float() for t in self.draw(z))
        self._tell_apart(critic, output.detach(), step)

        self.discriminator.requires_grad_(False)
        taught = self.taught(output, w, truth, target, weight)
        fooled = F.softplus(-self.discriminator(output).float()).mean()
        painter.zero_grad()
        self.manual_backward(fooled + self.regression * taught)
        painter.step()
        self._remember()
        self.log("train/fooled", fooled)
        self.log("train/loss", taught)

    def _tell_apart(self, critic: LightningOptimizer, painted: Tensor, number: int) -> None:
        """One step of the discriminator: painted portraits against those of strangers."""
        self.discriminator.requires_grad_(True)
        real = self._strangers(number)
        seen, doubted = self.discriminator(torch.cat([real, painted])).float().chunk(2)
        loss = F.softplus(-seen).mean() + F.softplus(doubted).mean()
        if self.r1 and number % self.r1_every == 0:
            loss = loss + self._penalty(real)
        critic.zero_grad()
        self.manual_backward(loss)
        critic.step()
        self.log("train/discriminator", loss)
        self.log("train/real_logit", seen.mean())
        self.log("train/painted_logit", doubted.mean())

    def _strangers(self, step: int) -> Tensor:
        """Portraits [N, 3, H, W] whose codes are not those of the batch."""
        truth = torch.rand(self.batch_size, factors.COUNT, generator=self.random("strangers", step))
        return portraits.render(truth).to(self.device)

    def _penalty(self, real: Tensor) -> Tensor:
        """R1 of a half batch, times the batches that it stands for."""
        part = real[: len(real) // 2].detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(self.discriminator(part).sum(), part, create_graph=True)
        return 0.5 * self.r1 * self.r1_every * gradient.square().sum((1, 2, 3)).mean()

    @torch.no_grad()
    def _remember(self) -> None:
        pairs: list[tuple[Tensor, Tensor]] = list(
            zip(self.average.parameters(), self.generator.parameters(), strict=True)
        )
        for kept, new in pairs:
            kept.lerp_(new, 1 - self.averaging)
