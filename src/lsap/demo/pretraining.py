"""How the demo domain's generator and judges are made: three small trainings on rendered portraits.

Each training sees a new batch at every step, drawn from (seed, step): nothing is stored, and a run that is killed and
started again goes on exactly where it was.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from lsap.demo import factors, portraits
from lsap.demo.extras import Extras
from lsap.demo.judges import ArcFaceHead, FactorTrunk, IdentityNet
from lsap.seeds import derive

if TYPE_CHECKING:
    from lsap.generator import Generator


class Steps(IterableDataset[int]):
    """Yields the numbers of the steps to come; what a step shows is derived from its number."""

    def __init__(self, first: int) -> None:
        self.first = first

    def __iter__(self) -> Iterator[int]:
        step = self.first
        while True:
            yield step
            step += 1


class Pretraining(LightningModule, abc.ABC):
    """What the three trainings share: steps, Adam whose rate warms up and then follows a cosine to zero."""

    betas = (0.9, 0.99)

    def __init__(self, *, seed: int, batch_size: int, lr: float, max_steps: int, warmup: int = 100) -> None:
        super().__init__()
        self.seed, self.batch_size, self.lr, self.max_steps, self.warmup = seed, batch_size, lr, max_steps, warmup

    def train_dataloader(self) -> DataLoader[int]:
        return DataLoader(Steps(self.global_step), batch_size=None)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr, betas=self.betas)

        def rate(step: int) -> float:
            progress = min(step / self.max_steps, 1.0)
            return min((step + 1) / self.warmup, 1.0) * (0.5 + 0.5 * math.cos(math.pi * progress))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def random(self, *purpose: str | int) -> torch.Generator:
        """A random stream for one purpose of one step."""
        return torch.Generator().manual_seed(derive(self.seed, *purpose))

    @abc.abstractmethod
    def quality(self) -> dict[str, float]:
        """What the finished network is worth, measured on portraits that it was not trained on."""

    @property
    @abc.abstractmethod
    def product(self) -> nn.Module:
        """The network that is kept."""


class GeneratorPretraining(Pretraining):
    """Teach a StyleGAN2 that z is the portrait with the factors of z: regression onto the renderer.

    The loss is L1 + L2 + differences of neighbouring pixels, weighted up where small features are: a mean over all
    pixels forgets a mouth. Besides, a linear map (thrown away afterwards) must be able to read the factors off w:
    pixels alone teach a small feature very slowly, because neither the mapping nor the synthesis can learn it before
    the other has. No judge takes part: a generator that must please a regressor learns stains that pass for smiles.
    """

    def __init__(
        self,
        generator: Generator,
        *,
        emphasis: float = 8.0,
        asked_of_w: float = 1.0,
        compiled: bool = False,
        **settings: float,
    ) -> None:
        """
        Args:
            generator: trained in place.
            emphasis: weight of mouth and eyes over that of other pixels, which is 1.
            asked_of_w: weight of the squared error of factors read off w.
            compiled: fuse the generator with torch.compile, twice as fast after a minute of compilation.
        """
        super().__init__(**settings)  # type: ignore[arg-type]
        self.generator = generator
        self.guess = nn.Linear(generator.style_dim, factors.COUNT)
        self.emphasis = emphasis
        self.asked_of_w = asked_of_w
        self.draw = torch.compile(self._draw) if compiled else self._draw

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

    def training_step(self, step: int, _: int) -> Tensor:
        z, truth, target = (t.to(self.device) for t in self.pair(self.random("regression", step), self.batch_size))
        weight = 1 + self.emphasis * portraits.salience(truth)
        output, w = (t.float() for t in self.draw(z))
        error = output - target
        loss = (weight * (error.abs() + error.square())).mean()
        for axis in (2, 3):
            keep = weight.narrow(axis, 1, weight.shape[axis] - 1)
            loss = loss + (keep * (output.diff(dim=axis) - target.diff(dim=axis)).abs()).mean()
        known = F.mse_loss(self.guess(w), truth)
        self.log("train/factors_of_w", known)
        loss = loss + self.asked_of_w * known
        self.log("train/loss", loss)
        self.log("train/psnr", 10 * torch.log10(4 / error.detach().square().mean()))
        return loss

    @torch.no_grad()
    def sample(self, count: int) -> Tensor:
        """The same held-out samples every time, [N, 3, H, W]."""
        z, _, _ = self.pair(self.random("held out"), count)
        return self._draw(z.to(self.device))[0].float().cpu()

    @torch.no_grad()
    def quality(self) -> dict[str, float]:
        errors, detail = [], []
        for part in range(16):
            z, _, target = self.pair(self.random("held out", part), 64)
            output = self._draw(z.to(self.device))[0].float().cpu()
            errors.append((output - target).square().mean((1, 2, 3)))
            detail.append(torch.stack([_fine_energy(output), _fine_energy(target)]))
        fine = torch.stack(detail).mean(0)
        return {
            "psnr_db": round(10 * math.log10(4 / torch.cat(errors).mean().item()), 2),
            "fine_energy_ratio": round((fine[0] / fine[1]).item(), 3),
        }


class TrunkPretraining(Pretraining):
    """Teach the trunk to read factors from plain and rich portraits alike."""

    def __init__(self, trunk: FactorTrunk, **settings: float) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self.trunk = trunk

    @property
    def product(self) -> FactorTrunk:
        return self.trunk

    def training_step(self, step: int, _: int) -> Tensor:
        rng = self.random("trunk", step)
        truth = torch.rand(self.batch_size, factors.COUNT, generator=rng)
        images = _half_rich(truth, self.seed, f"trunk {step}").to(self.device)
        loss = F.mse_loss(self.trunk(images).float(), truth.to(self.device))
        self.log("train/loss", loss)
        return loss

    @torch.no_grad()
    def quality(self) -> dict[str, float]:
        truth = factors.draw(self.seed, "judge test", range(2048))
        result = {}
        for family, extras in (("plain", None), ("rich", Extras.draw(self.seed, "judge test", range(2048)))):
            read = torch.cat(
                [self.trunk(part.to(self.device)).float().cpu() for part in portraits.render(truth, extras).split(256)]
            )
            error = (read - truth).abs().mean(0) / factors.STANDARD_DEVIATION
            result[f"{family}/mean"] = round(error.mean().item(), 3)
            result |= {f"{family}/{name}": round(e, 3) for name, e in zip(factors.NAMES, error.tolist(), strict=True)}
        return result


class IdentityPretraining(Pretraining):
    """Teach the identity network to tell people apart whatever their pose, smile, age, glasses, light or hat.

    ArcFace over `people` rendered people. From nothing, a margin over a thousand people teaches next to nothing for
    hundreds of steps; so, over the first half, the embedding is also asked for the person's own factors, with a weight
    that fades to zero.
    """

    hint = 100.0  # weight of that question at the start; squared errors of factors are about a hundredth

    def __init__(self, network: IdentityNet, *, people: int = 1000, **settings: float) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self.network = network
        self.head = ArcFaceHead(network.size, people)
        self.guess = nn.Linear(network.size, int(factors.IDENTITY.sum()))
        self.people = people

    @property
    def product(self) -> IdentityNet:
        return self.network

    def training_step(self, step: int, _: int) -> Tensor:
        rng = self.random("identity", step)
        person = torch.randint(self.people, (self.batch_size,), generator=rng)
        pictures = range(step * self.batch_size, (step + 1) * self.batch_size)
        truth = factors.draw_person(self.seed, "judge train", person.tolist(), pictures)
        images = _half_rich(truth, self.seed, f"identity {step}").to(self.device)
        embedding = self.network(images)
        loss = self.head(embedding, person.to(self.device))
        self.log("train/arcface", loss)
        fading = max(0.0, 1 - 2 * step / self.max_steps)
        if fading:
            own = truth[:, factors.IDENTITY].to(self.device)
            asked = F.mse_loss(self.guess(embedding * self.network.size**0.5), own)
            self.log("train/factors", asked)
            loss = loss + self.hint * fading * asked
        return loss

    @torch.no_grad()
    def quality(self) -> dict[str, float]:
        """Verification on people never seen, pictures differing in every state factor: best-threshold accuracy."""
        people = 1000
        pairs = []
        for picture in (0, 1):
            truth = factors.draw_person(self.seed, "judge test", range(people), [picture] * people)
            images = _half_rich(truth, self.seed, f"judge test {picture}")
            pairs.append(torch.cat([self.network(part.to(self.device)).cpu() for part in images.split(256)]))
        same = (pairs[0] * pairs[1]).sum(1)
        other = (pairs[0] * pairs[1].roll(1, 0)).sum(1)
        threshold = torch.cat([same, other]).sort().values
        accuracy = torch.stack([((same > t).float().mean() + (other <= t).float().mean()) / 2 for t in threshold[::4]])
        return {
            "verification_accuracy": round(accuracy.max().item(), 4),
            "cosine_same_person": round(same.mean().item(), 3),
            "cosine_other_person": round(other.mean().item(), 3),
        }


def _half_rich(truth: Tensor, seed: int, purpose: str) -> Tensor:
    """Render the first half of the factors plain, the second half rich."""
    half = len(truth) // 2
    with torch.autocast("cpu", enabled=False):
        extras = Extras.draw(seed, purpose, range(len(truth) - half))
        return torch.cat([portraits.render(truth[:half]), portraits.render(truth[half:], extras)])


def _fine_energy(images: Tensor) -> Tensor:
    """Spectral energy above half the Nyquist frequency, mean over images."""
    spectrum = torch.fft.fft2(images).abs().square()
    frequency = torch.fft.fftfreq(images.shape[-1]).abs()
    fine = torch.maximum(frequency[:, None], frequency[None, :]) > 0.25
    return (spectrum * fine).mean()
