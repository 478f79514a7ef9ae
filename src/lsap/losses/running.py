"""Images that are optimised together, each by itself: their variables, Adam's memory of them, and who is still in.

Losses are summed over images and Adam works element by element, so that what becomes of an image depends on nothing but
that image (up to the rounding of batched arithmetic). One that fails or is finished leaves; the others go on.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

PROGRESS = 1e-3  # by what share its loss must fall for an image to count as still improving


def learning_rate(t: float, rate: float, rampup: float = 0.05, rampdown: float = 0.25) -> float:
    """StyleGAN2's rate over time (arXiv:1912.04958, appendix D), which SAM took over.

    Rising in a line over the first `rampup` of the time, falling along a cosine over the last `rampdown` of it.

    Args:
        t: the step over the number of steps, so the very first update has rate 0: it only fills Adam's moments.
        rate: what it rises to.
        rampup, rampdown: shares of the time.
    """
    fall = min(1.0, (1 - t) / rampdown)
    return rate * (0.5 - 0.5 * math.cos(math.pi * fall)) * min(1.0, t / rampup)


class Running:
    """The images of a batch that are still being optimised.

    Args:
        names: theirs.
        variables: [N, …] each, what is optimised, from these values on.
        constants: [N, …] each, what the losses need of every image, such as its target.
        streams: a random stream for each image; none where nothing is drawn.
    """

    def __init__(
        self,
        names: Sequence[str],
        variables: Sequence[Tensor],
        constants: Mapping[str, Tensor],
        streams: Sequence[torch.Generator] = (),
    ) -> None:
        self.names, self.streams, self.constants = list(names), list(streams), dict(constants)
        self.variables = [v.detach().requires_grad_() for v in variables]
        self.optimizer = torch.optim.Adam(self.variables, betas=(0.9, 0.999), eps=1e-8)
        self.last = [float("nan")] * len(names)
        self.best = [float("inf")] * len(names)
        self.waited = [0] * len(names)
        self.steps = [0] * len(names)

    def __len__(self) -> int:
        return len(self.names)

    def backward(self, loss: Tensor) -> None:
        """Gradients of the losses [N]; they are summed, so that no image's gradient knows of another image."""
        self.optimizer.zero_grad()
        loss.sum().backward()

    def sound(self, loss: Tensor) -> list[bool]:
        """Of every image, whether its loss and all its gradients are finite; keeps the losses in `last`.

        A sum is finite only if all that it is over is, so that a step costs one reduction per variable, and all comes
        to the host at once. Only where a sum is not, which may be for its size alone, every number is looked at.
        """
        gradients = [v.grad.reshape(len(loss), -1) for v in self.variables if v.grad is not None]
        sums = torch.stack([loss.detach(), *(gradient.sum(1) for gradient in gradients)])
        self.last, totals = torch.stack([sums[0], sums.sum(0)]).tolist()
        if all(map(math.isfinite, totals)):
            return [True] * len(totals)
        fine = loss.detach().isfinite()
        for gradient in gradients:
            fine = fine & gradient.isfinite().all(1)
        return fine.tolist()

    def broken(self, loss: Tensor, values: Mapping[str, Tensor], step: int) -> dict[str, str]:
        """The images that must leave after `backward`, and why: their loss [N] or a gradient is no number."""
        sound = self.sound(loss)
        lost = [name for name, fine in zip(self.names, sound, strict=True) if not fine]
        return dict.fromkeys(lost, failure(values, step)) if lost else {}

    def without(self, names: Collection[str]) -> Running:
        """All but these images."""
        return self.part([name not in names for name in self.names]) if names else self

    def step(self, rate: float) -> None:
        """One update of Adam."""
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()
        self.steps = [steps + 1 for steps in self.steps]

    def idle(self, patience: int) -> list[bool]:
        """Of every image, whether its loss has not fallen by `PROGRESS` for so many steps."""
        for place, loss in enumerate(self.last):
            improved = loss < self.best[place] * (1 - PROGRESS)
            self.best[place] = loss if improved else self.best[place]
            self.waited[place] = 0 if improved else self.waited[place] + 1
        return [waited >= patience for waited in self.waited]

    def part(self, mask: Sequence[bool]) -> Running:
        """The chosen images alone, with the gradients and the moments that they have."""
        rows = [place for place, chosen in enumerate(mask) if chosen]
        names, streams = [self.names[i] for i in rows], [self.streams[i] for i in rows if self.streams]
        constants = {name: constant[rows] for name, constant in self.constants.items()}
        some = Running(names, [v.detach()[rows] for v in self.variables], constants, streams)
        for old, new in zip(self.variables, some.variables, strict=True):
            new.grad = None if old.grad is None else old.grad[rows]
            memory = self.optimizer.state.get(old, {})
            some.optimizer.state[new] = {k: v[rows] if v.ndim else v.clone() for k, v in memory.items()}
        some.last, some.best = [self.last[i] for i in rows], [self.best[i] for i in rows]
        some.waited, some.steps = [self.waited[i] for i in rows], [self.steps[i] for i in rows]
        return some


def failure(values: Mapping[str, Tensor], step: int) -> str:
    """Why an image leaves: which of its losses [N] was not finite, or else that a gradient was not."""
    bad = [name for name, value in values.items() if not bool(value.isfinite().all())]
    return f"not a number in step {step} ({', '.join(bad) or 'a gradient'})"
