"""Embedding by optimisation, image by image: StyleGAN2's projection and, with alignment, LSAP_O (Eq. 17).

Batched, yet with independent images: each has its own code, noise maps and random stream; losses are summed over images
and Adam works element by element, so that what becomes of an image depends on nothing but the image, its name and the
seed (up to the rounding of batched arithmetic). An image that fails or is finished leaves the batch; the others go on.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lsap.embedding import noise
from lsap.embedding.inference import Embedded, Embedding
from lsap.embedding.projection import noise_strength, spread_of
from lsap.inversion import OwnNoise, halved
from lsap.losses import LossInputs, Objective, Running, learning_rate
from lsap.seeds import derive
from lsap.stylegan2 import StyleGenerator, View
from lsap.values import COUNT, POSITIVE, require

Start = Callable[[Tensor, Sequence[str]], Tensor]


class MeanLatent:
    """Start every image from the mean latent: images, names → w_plus [N, L, C]."""

    def __init__(self, generator: StyleGenerator) -> None:
        self.generator = generator

    def __call__(self, images: Tensor, names: Sequence[str]) -> Tensor:
        return self.generator.latent_avg.expand(len(images), self.generator.n_latent, -1)


class Optimisation(Embedding, abc.ABC):
    """What W and W+ share: all but the shape of the code.

    Args:
        generator, fingerprint, name: as for `Embedding`.
        view: the generator's image → the image that the losses see.
        objective: weighted terms of a `LossInputs`; Eq. 17 is LPIPS and NSCD.
        layers: names of the style space's layers, whose styles the alignment term reads.
        start: where the codes begin.
        seed: of noise maps and noise on the codes, together with the image's name.
        steps: of Adam (0.9, 0.999).
        lr, rampup, rampdown: the learning rate; see `learning_rate`.
        lambda_noise: weight of the noise regulariser.
        latent_noise, noise_ramp: noise on the codes; see `noise_strength`.
        patience: steps without progress after which an image counts as finished; None: all steps for every image.
        compiled: run the losses through `torch.compile`.

    Raises:
        BadValue: a number that cannot work.
    """

    def __init__(
        self,
        generator: StyleGenerator,
        fingerprint: str,
        name: str,
        *,
        view: View,
        objective: Objective,
        layers: Sequence[str],
        start: Start,
        seed: int = 0,
        steps: int = 1000,
        lr: float = 0.1,
        rampup: float = 0.05,
        rampdown: float = 0.25,
        lambda_noise: float = 1e5,
        latent_noise: float = 0.05,
        noise_ramp: float = 0.75,
        patience: int | None = None,
        compiled: bool = False,
    ) -> None:
        super().__init__(generator, fingerprint, name)
        rates = {"lr": lr, "rampup": rampup, "rampdown": rampdown, "noise_ramp": noise_ramp}
        require(POSITIVE, rates, "optimisation.")
        COUNT.require("steps", steps)
        COUNT.or_null("for all steps").require("patience", patience)
        self.view, self.objective, self.layers, self.start, self.seed = view, objective, list(layers), start, seed
        self.steps, self.lr, self.rampup, self.rampdown = steps, lr, rampup, rampdown
        self.lambda_noise, self.latent_noise, self.noise_ramp = lambda_noise, latent_noise, noise_ramp
        self.patience = patience
        self.convolutions = [layer for layer in generator.layers if layer.demodulates]
        self.spread = spread_of(generator)
        self.losses: Callable[[Tensor, Tensor, Sequence[Tensor]], dict[str, Tensor]] = self.values
        if compiled:
            self.losses = torch.compile(self.values)

    @abc.abstractmethod
    def variable(self, w_plus: Tensor) -> Tensor:
        """What is optimised, from codes [N, L, C] to start from."""

    @abc.abstractmethod
    def w_plus(self, variable: Tensor) -> Tensor:
        """Codes [N, L, C] of it."""

    def predict_step(self, batch: Mapping[str, Any], _: int = 0) -> Embedded:
        with torch.enable_grad():  # Lightning predicts without gradients
            return self.embed(batch["image"], batch["names"])

    def embed(self, images: Tensor, names: Sequence[str]) -> Embedded:
        """Optimise a batch; the algorithm, from top to bottom."""
        with torch.no_grad():
            start = self.variable(self.start(images, names)).to(images, copy=True)
        streams = [torch.Generator().manual_seed(derive(self.seed, "invert", name)) for name in names]
        maps = [m.to(images) for m in noise.draw([layer.resolution for layer in self.convolutions], streams)]
        running = Running(names, [start, *maps], {"image": images}, streams)
        finished: list[Running] = []
        failed: dict[str, str] = {}
        for step in range(self.steps):
            t = step / self.steps
            code, *maps = running.variables
            values = self.losses(running.constants["image"], code + self.jitter(t, running.streams, code), maps)
            loss = torch.stack(list(values.values())).sum(0)
            running.backward(loss)
            broken = running.broken(loss, values, step)
            failed |= broken
            running = running.without(broken)
            if len(running) == 0:
                break
            running.step(learning_rate(t, self.lr, self.rampup, self.rampdown))
            self.normalise(running.variables[1:])
            if self.patience is not None:
                idle = running.idle(self.patience)
                if any(idle):
                    finished.append(running.part(idle))
                    running = running.part([not i for i in idle])
            if self.watch is not None:
                self.watch((step + 1) / self.steps, {name: v.detach().mean().item() for name, v in values.items()})
            if len(running) == 0:
                break
        return self.collect([*finished, running], names, failed)

    def values(self, images: Tensor, code: Tensor, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """The weighted loss terms of every image, [N] each."""
        w_plus = self.w_plus(code)
        styles = self.generator.styles(w_plus)
        output = self.view(self.generator.synthesis(styles, noise=maps))
        chosen = [styles[name] for name in self.layers]
        inputs = LossInputs(
            images=images, output=output, w_plus=w_plus, styles=chosen, stage=self.generator.n_latent - 1
        )
        values = {name: weight * self.objective.terms[name](inputs) for name, weight in self.objective.weights.items()}
        return values | {"noise": self.lambda_noise * self.regularity(maps)}

    def jitter(self, t: float, streams: Sequence[torch.Generator], code: Tensor) -> Tensor:
        """Noise on the codes, of their shape; every image draws from its own stream."""
        drawn = torch.stack([torch.randn(code.shape[1:], generator=stream) for stream in streams])
        return noise_strength(t, self.latent_noise, self.noise_ramp) * self.spread * drawn.to(code)

    def regularity(self, maps: Sequence[Tensor]) -> Tensor:
        """How far every image's noise maps are from white noise, [N]."""
        return noise.regularity(maps)

    def normalise(self, maps: Sequence[Tensor]) -> None:
        """Bring noise maps back to unit variance, in place."""
        noise.normalise(maps)

    def collect(self, runs: Sequence[Running], names: Sequence[str], failed: Mapping[str, str]) -> Embedded:
        """Put the images back in their order, without noise on their codes and with the maps that were found."""
        runs = [run for run in runs if len(run)]
        if not runs:
            return Embedded(None, failed=failed)
        found = [name for run in runs for name in run.names]
        order = sorted(range(len(found)), key=lambda place: list(names).index(found[place]))
        whole = zip(*(run.variables for run in runs), strict=True)
        code, *maps = (torch.cat([part.detach() for part in parts])[order] for parts in whole)
        # Half precision, rounded before anything is drawn: what is shown and what is loaded again are equal to the bit.
        state = {f"noise.{layer.name}": halved(m) for layer, m in zip(self.convolutions, maps, strict=True)}
        numbers = [(loss, steps) for run in runs for loss, steps in zip(run.last, run.steps, strict=True)]
        notes = {found[i]: {"loss": float(f"{numbers[i][0]:.7g}"), "steps": numbers[i][1]} for i in order}
        kept = self.inversion([found[i] for i in order], self.w_plus(code), OwnNoise(self.generator), state)
        return Embedded(kept, notes, failed)


class OptimisationInW(Optimisation):
    """One w [N, C] for all rows: StyleGAN2's own projection and, with alignment, LSAP_O in W."""

    def variable(self, w_plus: Tensor) -> Tensor:
        return w_plus.mean(1)

    def w_plus(self, variable: Tensor) -> Tensor:
        return variable[:, None].expand(-1, self.generator.n_latent, -1)


class OptimisationInWPlus(Optimisation):
    """Every row its own: w_plus [N, L, C]."""

    def variable(self, w_plus: Tensor) -> Tensor:
        return w_plus

    def w_plus(self, variable: Tensor) -> Tensor:
        return variable
