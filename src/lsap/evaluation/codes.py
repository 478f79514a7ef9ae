"""Distances of single codes from the generator's own: NSCD, and the same in other spaces."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lsap.alignment import NormalizedStyleSpace, nscd
from lsap.evaluation.metrics import code_values


class LatentDistances:
    """How far single codes lie from the generator's own, by NSCD and by its rivals; what may predict editability.

    The paper measures in the normalised style space and not in W or S (section 4.1). Here the same cosine distance is
    taken in those too, and the ordinary distance, which sees lengths.

    Args:
        space: the generator's normalised style space; its samples give the means of the other spaces too.
        discriminator: codes [..., C] → logits [...], above 0 where it takes them for the generator's own (e4e).

    Attributes:
        labels: key → what tables call it.
    """

    def __init__(
        self,
        space: NormalizedStyleSpace,
        discriminator: Callable[[Tensor], Tensor] | None = None,
        samples: int = 10_000,
    ) -> None:
        self.space, self.discriminator = space, discriminator
        self.labels = {
            "nscd": "NSCD",
            "nscd_raw": "NSCD, raw mean",
            "w_cosine": "cosine distance in W",
            "w_length": "distance in W",
            "s_cosine": "cosine distance in S",
            "s_length": "distance in S",
        }
        if discriminator is not None:
            self.labels["suspicion"] = "discriminator loss (e4e)"
        generator = space.generator
        with torch.no_grad():
            w = generator.sample_w(samples, torch.Generator().manual_seed(space.seed))
            self.w = w.mean(0)
            self.s = [torch.zeros_like(mean) for mean in space.mean]
            for part in w.split(1024):
                for total, style in zip(self.s, space.styles(part), strict=True):
                    total += style.sum(0) / samples

    @torch.no_grad()
    def __call__(self, w_plus: Tensor) -> dict[str, Tensor]:
        """Values [N] of codes [N, L, C] by key, means over rows or layers; every one grows with the distance.

        `suspicion` is softplus(-logit), mean over rows: the adversarial loss of e4e.
        """
        styles, rows = self.space.styles(w_plus), list(w_plus.unbind(1))
        means = [self.w.to(w_plus)] * len(rows)
        found = code_values(styles, self.space.mean) | {
            "w_cosine": nscd(rows, means),
            "w_length": _length(rows, means),
            "s_cosine": nscd(styles, self.s),
            "s_length": _length(styles, self.s),
        }
        if self.discriminator is not None:
            found["suspicion"] = F.softplus(-self.discriminator(w_plus)).mean(1)
        return found


def _length(codes: Sequence[Tensor], means: Sequence[Tensor]) -> Tensor:
    """Euclidean distance to the mean [N], averaged over layers."""
    return torch.stack([(c - m).norm(dim=1) for c, m in zip(codes, means, strict=True)], 1).mean(1)
