"""SAM, spatially adaptive inversion (Parmar et al. 2022): codes for what they can draw, features for the rest.

A predictor says how badly each latent space would invert each segment of an image; every segment gets the most editable
space that is good enough. Codes and features are then optimised together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsap.errors import BadValue
from lsap.inversion import Embedded, Inversion, halved, registered
from lsap.losses import L2, Delta, LossInputs, Objective, Perceptual, Running, learning_rate
from lsap.refinement.segments import W_PLUS, Segmenter, masks, resolutions
from lsap.refinement.stage import Refinement, checked
from lsap.refinement.tuned import NOISE, own_noise
from lsap.seeds import derive
from lsap.stylegan2 import Noise, StyleGenerator, Tap, View
from lsap.values import COUNT, POSITIVE, WEIGHT, require

FEATURES, MASK = "features.", "mask."  # what the names of features and of their masks begin with in a state
SLOPE = 5.0  # undoes the mapping network's last leaky ReLU, of slope 0.2
RIDGE = 1e-8


@registered("features")
class PastedFeatures:
    """The generator with features of the images' own in place of its own, where masks say so.

    In the state, for each space: `features.<space>` [N, C, r, r], which is the whole of what stands there under the
    codes that were found, and `mask.<space>` [N, 1, r, r] in [0, 1]. So edited codes move what is not masked, and codes
    that were not edited give the very image that was optimised.

    Args:
        generator: what draws.
        spaces: names of the feature spaces.
        own_noise: whether the state holds noise maps, too.
    """

    key: str

    def __init__(self, generator: StyleGenerator, spaces: Sequence[str], own_noise: bool = False) -> None:
        self.generator, self.own_noise = generator, own_noise
        self.sizes = resolutions(generator, spaces)
        self.layers = [layer.name for layer in generator.layers if layer.demodulates]

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"spaces": list(self.sizes), "own_noise": self.own_noise}

    def __call__(self, codes: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        noise: Noise | list[Tensor] = "fixed"
        if self.own_noise:
            noise = [state[NOISE + name].to(codes) for name in self.layers]
        taps = {f"after{size}": self.paste(space, state) for space, size in self.sizes.items()}
        return self.generator(codes, noise=noise, taps=taps)

    def paste(self, space: str, state: Mapping[str, Tensor]) -> Tap:
        """What puts the stored features of a space over those of the generator."""

        def tap(x: Tensor) -> Tensor:
            mask = state[MASK + space].to(x)
            return x * (1 - mask) + state[FEATURES + space].to(x) * mask

        return tap


class LatentPrior(nn.Module):
    """How unlikely codes are under a normal distribution fitted to the generator's own (SAM's `mvg`).

    Measured where they are nearly normal: before the last leaky ReLU of the mapping network.

    Args:
        generator: whose codes.
        samples: that it is fitted to.
        seed: of these samples.
    """

    center: Tensor
    precision: Tensor

    def __init__(self, generator: StyleGenerator, samples: int = 5000, seed: int = 0) -> None:
        super().__init__()
        stream = torch.Generator().manual_seed(derive(seed, "latent prior"))
        with torch.no_grad():
            w = generator.sample_w(samples, stream).double()
        center, covariance = self.fitted(w)
        self.register_buffer("center", center, persistent=False)
        self.register_buffer("precision", torch.linalg.inv(covariance), persistent=False)

    @staticmethod
    def fitted(w: Tensor) -> tuple[Tensor, Tensor]:
        """Centre [C] and covariance [C, C] of codes w [K, C]; as published, the centre is that of w, unfolded."""
        v = F.leaky_relu(w, SLOPE)
        return F.leaky_relu(w.mean(0), SLOPE), torch.cov(v.T) + RIDGE * torch.eye(len(v.T)).to(v)

    def forward(self, w_plus: Tensor) -> Tensor:
        """Squared Mahalanobis distances of codes [N, L, C], summed over rows: [N]."""
        away = F.leaky_relu(w_plus.double(), SLOPE) - self.center
        return ((away @ self.precision) * away).sum((1, 2)).to(w_plus.dtype)


class Predicting(Protocol):
    """What says which space inverts what: `spaces`, W+ first; images → errors [N, 1, H, W] by space."""

    spaces: tuple[str, ...]

    def __call__(self, images: Tensor) -> dict[str, Tensor]: ...


class SpatiallyAdaptive(Refinement):
    """Optimise codes and masked features of every image together; images of a batch do not know of one another.

    Features are added behind the ToRGB of their resolution, as in SAM's own code. They start from zero, codes from
    those of the embedding. Image losses look at the view's size, clamped to [-1, 1].

    Args:
        generator, fingerprint, name: as for `Refinement`.
        view: the generator's image → the image that the losses see.
        distance: the perceptual one, images, images → [N]; None where nothing weighs it.
        predictor: images → errors [N, 1, H, W] by space.
        segmenter: images, names → labels [N, H, W].
        tau: the predicted error up to which a space is good enough for a segment.
        steps: of Adam (0.9, 0.999).
        lr, rampup, rampdown: the learning rate; see `lsap.losses.learning_rate`.
        lambda_l2, lambda_lpips: weights of the image losses.
        lambda_features: weight of the mean square of each space's features, which keeps them small.
        lambda_delta: weight of the distance of the rows of W+ from the first.
        lambda_mvg: weight of `LatentPrior`.
        samples: that the prior is fitted to.
        seed: of these samples.

    Raises:
        BadValue: a number that cannot work, or a predictor that knows no space of this generator.
    """

    def __init__(
        self,
        generator: StyleGenerator,
        fingerprint: str,
        name: str = "sam",
        *,
        view: View,
        distance: nn.Module | None,
        predictor: Predicting,
        segmenter: Segmenter,
        tau: float = 0.225,
        steps: int = 500,
        lr: float = 0.05,
        rampup: float = 0.05,
        rampdown: float = 0.25,
        lambda_l2: float = 1.0,
        lambda_lpips: float = 1.0,
        lambda_features: float = 5.0,
        lambda_delta: float = 1e-3,
        lambda_mvg: float = 1e-8,
        samples: int = 5000,
        seed: int = 0,
    ) -> None:
        super().__init__(generator, fingerprint, name)
        COUNT.require("refinement.steps", steps)
        require(POSITIVE, {"tau": tau, "lr": lr, "rampup": rampup, "rampdown": rampdown}, "refinement.")
        require(WEIGHT, {"lambda_features": lambda_features, "lambda_mvg": lambda_mvg}, "refinement.")
        terms = {
            "l2": (lambda_l2, L2()),
            "lpips": (lambda_lpips, Perceptual(checked(distance, lambda_lpips > 0))),
            "delta": (lambda_delta, Delta()),
        }
        self.objective = Objective(terms)
        self.sizes = resolutions(generator, predictor.spaces)
        if W_PLUS not in predictor.spaces or not self.sizes:
            raise BadValue(
                f"this predictor speaks of {', '.join(predictor.spaces)}; a generator of {generator.size} px needs W+ "
                "and features of less than its size"
            )
        self.view, self.predictor, self.segmenter, self.tau = view, predictor, segmenter, tau
        self.steps, self.lr, self.rampup, self.rampdown = steps, lr, rampup, rampdown
        self.lambda_features, self.lambda_mvg = lambda_features, lambda_mvg
        self.prior = LatentPrior(generator, samples, seed) if lambda_mvg > 0 else None
        self.layers = [layer for layer in generator.layers if layer.demodulates]

    def refine(self, inversion: Inversion, images: Tensor) -> Embedded:
        noisy = own_noise(inversion, f"refinement={self.name}")
        placed, shares = self.placed(images, inversion.names)
        with torch.enable_grad():  # Lightning predicts without gradients
            running, failed = self.optimised(inversion, images, placed, noisy)
        if len(running) == 0:
            return Embedded(None, failed=failed)
        places = [inversion.names.index(name) for name in running.names]
        found, masked = running.variables[0].detach(), {space: mask[places] for space, mask in placed.items()}
        with torch.no_grad():
            state = self.kept(running, masked)
        drawn = PastedFeatures(self.generator, list(self.sizes), noisy)
        better = inversion.select(places).with_stage(self.name, codes=found, renderer=drawn, state=state)
        notes = {
            name: {
                "loss": float(f"{loss:.7g}"),
                "steps": steps,
                "spaces": {space: round(share, 4) for space, share in zip(self.spaces, shares[place], strict=True)},
            }
            for name, loss, steps, place in zip(running.names, running.last, running.steps, places, strict=True)
        }
        return Embedded(better, notes, failed)

    @property
    def spaces(self) -> list[str]:
        """Latent spaces to choose from, most editable first."""
        return [W_PLUS, *self.sizes]

    @torch.no_grad()
    def placed(self, images: Tensor, names: Sequence[str]) -> tuple[dict[str, Tensor], list[list[float]]]:
        """Where each feature space is at work, masks [N, 1, r, r] rounded as they are kept; and shares of `spaces`."""
        predicted = self.predictor(images.float())
        maps = {space: predicted[space] for space in self.spaces}
        labels = self.segmenter(images, names)
        found, shares = masks(labels, maps, self.sizes, self.tau, square=self.view.size, first=self.view.first)
        return {space: mask.half().to(images) for space, mask in found.items()}, shares.tolist()

    def optimised(
        self, inversion: Inversion, images: Tensor, placed: Mapping[str, Tensor], noisy: bool
    ) -> tuple[Running, dict[str, str]]:
        """Optimise a batch; its variables are codes and, of the spaces that any image uses, features [N, C, r, r]."""
        used = [space for space in self.sizes if placed[space].any()]
        start = [inversion.codes.to(images, copy=True), *(self.zeros(space, images) for space in used)]
        constants = {"image": images, **{MASK + space: placed[space] for space in used}}
        if noisy:
            constants |= {NOISE + each.name: inversion.state[NOISE + each.name].to(images) for each in self.layers}
        running = Running(inversion.names, start, constants)
        failed: dict[str, str] = {}
        for step in range(self.steps):
            values = self.values(running, used)
            loss = torch.stack(list(values.values())).sum(0)
            running.backward(loss)
            broken = running.broken(loss, values, step)
            failed |= broken
            running = running.without(broken)
            if len(running) == 0:
                break
            running.step(learning_rate(step / self.steps, self.lr, self.rampup, self.rampdown))
            if self.watch is not None:
                losses = {name: value.detach().mean().item() for name, value in values.items()}
                self.watch((step + 1) / self.steps, losses)
        return running, failed

    def values(self, running: Running, used: Sequence[str]) -> dict[str, Tensor]:
        """The weighted losses of every image, [N] each."""
        codes, *features = running.variables
        image = self.drawn(running, dict(zip(used, features, strict=True)), {})
        inputs = LossInputs(
            running.constants["image"], self.view(image).clamp(-1, 1), codes, None, self.generator.n_latent - 1
        )
        values = {name: weight * self.objective.terms[name](inputs) for name, weight in self.objective.weights.items()}
        if features and self.lambda_features > 0:
            sizes = torch.stack([feature.square().mean((1, 2, 3)) for feature in features])
            values["features"] = self.lambda_features * sizes.sum(0)
        if self.prior is not None:
            values["mvg"] = self.lambda_mvg * self.prior(codes)
        return values

    def drawn(self, running: Running, features: Mapping[str, Tensor], seen: dict[str, Tensor]) -> Tensor:
        """The images of a batch with features added; `seen` takes what then stands at every space, unmasked."""
        given = running.constants
        noise: Noise | list[Tensor] = [
            given[NOISE + each.name] for each in self.layers if NOISE + each.name in given
        ] or "fixed"

        def added(space: str) -> Tap:
            def tap(x: Tensor) -> Tensor:
                seen[space] = x + features[space]
                return x + given[MASK + space] * features[space]

            return tap

        taps = {f"after{self.sizes[space]}": added(space) for space in features}
        return self.generator(running.variables[0], noise=noise, taps=taps)

    def kept(self, running: Running, placed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features and masks of every space, rounded; features are zero where nothing shows of them."""
        used = [space for space in self.sizes if MASK + space in running.constants]
        seen: dict[str, Tensor] = {}
        self.drawn(running, dict(zip(used, running.variables[1:], strict=True)), seen)
        state = {}
        for space, mask in placed.items():
            whole = seen[space] * (mask > 0) if space in seen else self.zeros(space, mask)
            state[FEATURES + space], state[MASK + space] = halved(whole), halved(mask)
        return state

    def zeros(self, space: str, like: Tensor) -> Tensor:
        """Features [N, C, r, r] of nothing, for as many images as `like` has."""
        size = self.sizes[space]
        channels = next(layer.channels for layer in self.layers if layer.name == f"conv{size}")
        return like.new_zeros(len(like), channels, size, size)
