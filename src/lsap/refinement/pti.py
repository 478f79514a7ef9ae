"""PTI, pivotal tuning (Roich et al. 2021): the codes stay, the generator is tuned until it draws the image from them.

Every image gets a generator of its own. Several are tuned in one pass, yet independently: losses are summed over images
and Adam works element by element.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lsap.errors import BadValue
from lsap.inversion import Embedded, Inversion
from lsap.losses import L2, LossInputs, Objective, Perceptual, Running
from lsap.refinement.locality import Locality, stream
from lsap.refinement.stage import Refinement, checked
from lsap.refinement.tuned import NOISE, Tuned, TunedLowRank, TunedWhole, own_noise, together, tunable
from lsap.stylegan2 import Noise, StyleGenerator, View
from lsap.values import COUNT, POSITIVE

# Above this size, tuning several images in one pass was slower on the processor that it was measured on.
SEVERAL = 128  # pixels of the generator


class PivotalTuning(Refinement):
    """Tune the synthesis network to every image around its code, the pivot.

    Convolutions, affine maps, biases, noise strengths and the constant are tuned; the mapping network and the noise
    maps are not. Losses look at the view's size.

    Args:
        generator, fingerprint, name: as for `Refinement`.
        view: the generator's image → the image that the losses see.
        distance: the perceptual one, images, images → [N]; None where nothing weighs it.
        seed: of what locality draws, together with the image's name.
        steps: of Adam (0.9, 0.999), exactly; as published, where LPIPS at `stop_at` ends it earlier.
        lr: its rate.
        lambda_l2, lambda_lpips: weights of the losses; 0 leaves one out.
        stop_at: LPIPS at which an image is finished, checked before every step; None: all steps for every image. PTI's
            published code has 0.06.
        locality: keeps the neighbourhood of the pivot as it was; None as in the published settings.
        rank: of the differences that are kept, see `TunedLowRank`; None keeps them whole.
        at_once: images that are tuned in one pass; None: all of the batch up to generators of 128 px, else one.

    Raises:
        BadValue: a number that cannot work.
    """

    def __init__(
        self,
        generator: StyleGenerator,
        fingerprint: str,
        name: str = "pti",
        *,
        view: View,
        distance: nn.Module | None,
        seed: int = 0,
        steps: int = 350,
        lr: float = 3e-4,
        lambda_l2: float = 1.0,
        lambda_lpips: float = 1.0,
        stop_at: float | None = None,
        locality: Locality | None = None,
        rank: int | None = None,
        at_once: int | None = None,
    ) -> None:
        super().__init__(generator, fingerprint, name)
        COUNT.require("refinement.steps", steps)
        COUNT.or_null().require("refinement.at_once", at_once)
        POSITIVE.require("refinement.lr", lr)
        if lambda_l2 == lambda_lpips == 0:
            raise BadValue("refinement.lambda_l2=0 and refinement.lambda_lpips=0: nothing would be tuned towards")
        if stop_at is not None and lambda_lpips == 0:
            raise BadValue(f"refinement.stop_at={stop_at} looks at LPIPS, which refinement.lambda_lpips=0 leaves out")
        judged = lambda_lpips > 0 or (locality is not None and locality.lambda_lpips > 0)
        given = checked(distance, judged)
        self.objective = Objective({"l2": (lambda_l2, L2()), "lpips": (lambda_lpips, Perceptual(given))})
        self.view, self.distance, self.seed, self.steps, self.lr = view, given, seed, steps, lr
        self.stop_at, self.locality, self.rank, self.at_once = stop_at, locality, rank, at_once
        self.renderer(False)  # refuses a wrong rank before anything is tuned
        self.layers = [layer.name for layer in generator.layers if layer.demodulates]

    @property
    def weights(self) -> dict[str, Tensor]:
        """What is tuned, as it was, by name."""
        return tunable(self.generator)

    def renderer(self, noisy: bool) -> Tuned:
        """What draws the result; `noisy`: with noise maps of every image's own. Raises BadValue for a wrong rank."""
        if self.rank is None:
            return TunedWhole(self.generator, noisy)
        return TunedLowRank(self.generator, noisy, self.rank)

    def refine(self, inversion: Inversion, images: Tensor) -> Embedded:
        noisy = own_noise(inversion, "refinement=pti")
        drawn = self.renderer(noisy)
        size = self.at_once or (len(inversion) if self.generator.size <= SEVERAL else 1)
        whole: dict[str, list[Tensor]] = {}
        names: list[str] = []
        notes: dict[str, dict[str, Any]] = {}
        failed: dict[str, str] = {}
        for first in range(0, len(inversion), size):
            part = inversion.select(range(first, min(first + size, len(inversion))))
            done, share = first / len(inversion), len(part) / len(inversion)
            with torch.enable_grad():  # Lightning predicts without gradients
                runs, broken = self.tune(part, images[first : first + size], noisy, done, share)
            failed |= broken
            for run in runs:
                names += run.names
                for name, loss, steps in zip(run.names, run.last, run.steps, strict=True):
                    notes[name] = {"loss": float(f"{loss:.7g}"), "steps": steps}
                for name, tensor in drawn.packed(self.differences(run)).items():
                    whole.setdefault(name, []).append(tensor)
        if not names:
            return Embedded(None, failed=failed)
        order = [names.index(name) for name in inversion.names if name in names]
        state = {name: torch.cat(tensors)[order] for name, tensors in whole.items()}
        kept = inversion.select([inversion.names.index(names[place]) for place in order])
        return Embedded(kept.with_stage(self.name, renderer=drawn, state=state), notes, failed)

    def tune(
        self, inversion: Inversion, images: Tensor, noisy: bool, done: float, share: float
    ) -> tuple[list[Running], dict[str, str]]:
        """Tune these images in one pass; the algorithm, from top to bottom.

        Args:
            inversion: their pivots.
            images: [N, 3, H, W].
            noisy: whether they have noise maps of their own.
            done, share: of the work on the whole batch, for `watch`.

        Returns:
            Those that ended well, their variables the tuned weights [N, …]; and why the others did not.
        """
        running = self.begun(inversion, images, noisy)
        finished: list[Running] = []
        failed: dict[str, str] = {}
        for step in range(self.steps):
            values = self.values(running, step)
            loss = torch.stack(list(values.values())).sum(0)
            running.backward(loss)
            broken, near = running.broken(loss, values, step), self.near(values)
            failed |= broken
            sound = [name not in broken for name in running.names]
            if any(near):
                finished.append(running.part([s and n for s, n in zip(sound, near, strict=True)]))
            going = [s and not n for s, n in zip(sound, near, strict=True)]
            if not all(going):
                running = running.part(going)
            if len(running) == 0:
                break
            running.step(self.lr)
            if self.watch is not None:
                losses = {name: value.detach().mean().item() for name, value in values.items()}
                self.watch(done + share * (step + 1) / self.steps, losses)
        return [run for run in (*finished, running) if len(run)], failed

    def begun(self, inversion: Inversion, images: Tensor, noisy: bool) -> Running:
        """The generator's own weights for every image, and what the losses need."""
        start = [weight.expand(len(images), *weight.shape).clone() for weight in self.weights.values()]
        constants = {"image": images, "codes": inversion.codes.to(images)}
        if noisy:
            constants |= {NOISE + name: inversion.state[NOISE + name].to(images) for name in self.layers}
        return Running(inversion.names, start, constants, [stream(self.seed, name) for name in inversion.names])

    def values(self, running: Running, step: int) -> dict[str, Tensor]:
        """The weighted losses of every image, [N] each."""
        given = running.constants
        own: Noise | list[Tensor] = [given[NOISE + name] for name in self.layers if NOISE + name in given] or "fixed"
        weights = dict(zip(self.weights, running.variables, strict=True))

        def tuned(codes: Tensor, noise: Noise | Sequence[Tensor]) -> Tensor:
            return together(self.generator, weights, codes, noise)

        output = self.view(tuned(given["codes"], own))
        inputs = LossInputs(given["image"], output, given["codes"], None, self.generator.n_latent - 1)
        values = {name: weight * self.objective.terms[name](inputs) for name, weight in self.objective.weights.items()}
        if self.locality is not None and step % self.locality.every == 0:
            codes = self.locality.codes(self.generator, given["codes"], running.streams)
            values |= self.locality.penalty(self.generator, tuned, codes, self.view, self.distance)
        return values

    def near(self, values: Mapping[str, Tensor]) -> list[bool]:
        """Of every image, whether its LPIPS is so low that it is finished."""
        if self.stop_at is None:
            return [False] * len(next(iter(values.values())))
        found: list[bool] = (values["lpips"].detach() <= self.stop_at * self.objective.weights["lpips"]).tolist()
        return found

    def differences(self, run: Running) -> dict[str, Tensor]:
        """What tuning changed, [N, …], by the names of weights."""
        tuned = zip(self.weights.items(), run.variables, strict=True)
        return {name: variable.detach() - weight for (name, weight), variable in tuned}
