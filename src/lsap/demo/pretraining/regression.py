"""The generator's first phase: regression onto the renderer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsap.demo import factors, portraits
from lsap.demo.pretraining.steps import Pretraining
from lsap.demo.quality import measure
from lsap.demo.weights import load_factor_reader

if TYPE_CHECKING:
    from lsap.stylegan2 import Generator


class GeneratorPretraining(Pretraining):
    """Teach a StyleGAN2 that z is the portrait with the factors of z: regression onto the renderer.

    The loss is L1 + L2 + differences of neighbouring pixels. A mean over all pixels forgets a mouth, so one factor of
    each portrait, another in every step, is weighted up where it shows: a nose counts as much as a wall. Besides, a
    linear map (thrown away afterwards) must be able to read the factors off w: pixels alone teach a small feature very
    slowly, because neither the mapping nor the synthesis can learn it before the other has. No judge takes part: a
    generator that must please a regressor learns stains that pass for smiles.
    """

    def __init__(
        self,
        generator: Generator,
        *,
        emphasis: float = 2.0,
        asked_of_w: float = 1.0,
        compiled: bool = False,
        **settings: float,
    ) -> None:
        """
        Args:
            generator: trained in place.
            emphasis: mean weight that this adds to the pixels, whose weight is 1 without it.
            asked_of_w: weight of the squared error of factors read off w.
            compiled: fuse the generator with torch.compile, twice as fast after a minute of compilation.
        """
        super().__init__(**settings)  # type: ignore[arg-type]
        self.generator = generator
        self.guess = nn.Linear(generator.style_dim, factors.COUNT)
        self.emphasis = emphasis
        self.asked_of_w = asked_of_w
        self.draw = torch.compile(self._draw) if compiled else self._draw

    def on_train_start(self) -> None:
        """Finished weights are loaded after construction: start the linear map where it reads their w best.

        Not in `on_fit_start`, which does not know yet that a run goes on from a checkpoint.
        """
        if self.global_step == 0:
            self._guess_best()

    @torch.no_grad()
    def _guess_best(self, samples: int = 8192) -> None:
        z = torch.randn(samples, self.generator.style_dim, generator=self.random("guess"))
        w = self.generator.mapping(z.to(self.device)).double()
        known = torch.cat([w, torch.ones_like(w[:, :1])], 1)
        solution = torch.linalg.lstsq(known, factors.from_z(z).to(known)).solution
        self.guess.weight.copy_(solution[:-1].T)
        self.guess.bias.copy_(solution[-1])

    def _draw(self, z: Tensor) -> tuple[Tensor, Tensor]:
        w = self.generator.mapping(z)
        return self.generator(w, noise="none"), w

    @property
    def product(self) -> Generator:
        return self.generator

    def pair(self, rng: torch.Generator, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Latents [N, C], their factors [N, F] and the portraits that they should become."""
        z = torch.randn(count, self.generator.style_dim, generator=rng)
        truth = factors.from_z(z)
        with torch.autocast("cpu", enabled=False):
            return z, truth, portraits.render(truth)

    def training_step(self, step: int, _: int) -> Tensor | None:
        z, truth, target, weight = (t.to(self.device) for t in self.lesson(step))
        output, w = (t.float() for t in self.draw(z))
        loss = self.taught(output, w, truth, target, weight)
        self.log("train/loss", loss)
        return loss

    def lesson(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What a step teaches: latents, their factors, their portraits, and the weights of pixels [N, 1, H, W]."""
        rng = self.random("regression", step)
        z, truth, target = self.pair(rng, self.batch_size)
        column = torch.randint(factors.COUNT, (self.batch_size,), generator=rng)
        with torch.autocast("cpu", enabled=False):
            return z, truth, target, 1 + self.emphasis * portraits.where_it_shows(truth, target, column)

    def taught(self, output: Tensor, w: Tensor, truth: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """The loss of pictures [N, 3, H, W] and their w [N, C] that should show and know the factors [N, F]."""
        error = output - target
        loss = (weight * (error.abs() + error.square())).mean()
        for axis in (2, 3):
            keep = weight.narrow(axis, 1, weight.shape[axis] - 1)
            loss = loss + (keep * (output.diff(dim=axis) - target.diff(dim=axis)).abs()).mean()
        known = F.mse_loss(self.guess(w), truth)
        self.log("train/factors_of_w", known)
        self.log("train/psnr", 10 * torch.log10(4 / error.detach().square().mean()))
        return loss + self.asked_of_w * known

    @torch.no_grad()
    def sample(self, count: int) -> Tensor:
        """The same held-out samples every time, [N, 3, H, W]."""
        z, _, _ = self.pair(self.random("held out"), count)
        return self._show(z)

    def _show(self, z: Tensor) -> Tensor:
        kept = self.product
        return kept(kept.mapping(z.to(self.device)), noise="none").float().cpu()

    def quality(self) -> dict[str, float]:
        """Measured by the reader, which has no part in this training and must be made before it."""
        kept = self.product.eval()
        reader = load_factor_reader().to(self.device)
        return {name: round(value, 4) for name, value in measure(kept, reader, seed=self.seed).items()}
