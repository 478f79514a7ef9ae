"""How the judges are made: from plain and rich portraits alike, whose factors are known."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsap.demo import factors, portraits
from lsap.demo.accessories import Accessories
from lsap.demo.networks import ArcFaceHead, FactorReader, FactorTrunk, IdentityNet, IdentityReader
from lsap.demo.pretraining.steps import Pretraining


class TrunkPretraining(Pretraining):
    """Teach a factor regressor to read plain and rich portraits alike."""

    def __init__(self, trunk: FactorTrunk | FactorReader, **settings: float) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self.trunk = trunk

    @property
    def product(self) -> FactorTrunk | FactorReader:
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
        for family, extras in (("plain", None), ("rich", Accessories.draw(self.seed, "judge test", range(2048)))):
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

    def __init__(self, network: IdentityNet | IdentityReader, *, people: int = 1000, **settings: float) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self.network = network
        self.head = ArcFaceHead(network.size, people)
        self.guess = nn.Linear(network.size, int(factors.IDENTITY.sum()))
        self.people = people

    @property
    def product(self) -> IdentityNet | IdentityReader:
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
        extras = Accessories.draw(seed, purpose, range(len(truth) - half))
        return torch.cat([portraits.render(truth[:half]), portraits.render(truth[half:], extras)])
