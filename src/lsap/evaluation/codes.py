"""Where a set of codes lies, in numbers: NSCD by layer, diversity, and the rivals of NSCD in other spaces.

Metrics keep sums only, in double precision, so their values do not depend on how codes were cut into batches or spread
over processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from lsap.alignment import NormalizedStyleSpace, nscd
from lsap.errors import BadValue
from lsap.evaluation.rows import code_diversity


class LayerNSCD(Metric):
    """NSCD of every layer apart (Eq. 12); its mean over layers is the score `NSCD`.

    Worth a look because layers differ: the last ToRGB spreads widest and outweighs the convolutions in the mean.

    Args:
        mean: raw mean normalised style per layer, [C_l] each; see `NormalizedStyleSpace.mean`.

    update(styles): raw styles, one [N, C_l] tensor per layer.
    compute(): [layers], each in [0, 2], lower is nearer to the mean.
    """

    full_state_update = False
    higher_is_better = False
    label = "NSCD by layer"
    unit = "1 − cosine"
    total: Tensor
    count: Tensor

    def __init__(self, mean: Sequence[Tensor], **options: Any) -> None:
        super().__init__(**options)
        self.mean = tuple(mean)
        self.add_state("total", torch.zeros(len(self.mean), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, styles: Sequence[Tensor]) -> None:
        mean = [m.to(styles[0].device) for m in self.mean]
        values = nscd(styles, mean, reduction="none")
        self.total += values.detach().double().sum(0)
        self.count += len(values)

    def compute(self) -> Tensor:
        return (self.total / self.count).float()


class CodeDiversity(Metric):
    """How varied a set of codes is: the spread of their unit styles, averaged over layers.

    Per layer, the mean squared distance of the unit styles to their own mean, which is 1 − ‖mean‖². A set that has
    collapsed to one code gives 0; styles in all directions give 1. Read it beside the generator's own samples: a low
    NSCD is collapse only if the diversity has fallen with it. For the samples it equals their raw NSCD, by definition.
    A small set is expected (n − 1)/n of a large one's value.

    Args:
        widths: C_l of every layer of the style space, in order.

    update(styles): raw styles, one [N, C_l] tensor per layer; they are normalised here.
    compute(): scalar in [0, 1], unitless; neither direction is better, the samples' own value is the reference.

    Raises:
        BadValue: layer widths differ from `widths`.

    Example:
        >>> metric = CodeDiversity([2])
        >>> metric.update([torch.tensor([[1.0, 0.0], [0.0, 3.0]])])           # at a right angle; length is no matter
        >>> metric.compute()
        tensor(0.5000)
    """

    full_state_update = False
    higher_is_better = None
    label = "code diversity"
    unit = "1 − ‖mean‖²"
    count: Tensor

    def __init__(self, widths: Sequence[int], **options: Any) -> None:
        super().__init__(**options)
        self.widths = tuple(widths)
        for layer, width in enumerate(self.widths):
            self.add_state(f"sum_{layer}", torch.zeros(width, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, styles: Sequence[Tensor]) -> None:
        widths = tuple(s.shape[-1] for s in styles)
        if widths != self.widths:
            raise BadValue(f"styles have the widths {list(widths)}, but this style space has {list(self.widths)}")
        for layer, style in enumerate(styles):
            getattr(self, f"sum_{layer}").add_(F.normalize(style.detach().double(), dim=1).sum(0))
        self.count += len(styles[0])

    def compute(self) -> Tensor:
        return code_diversity([getattr(self, f"sum_{layer}") for layer in range(len(self.widths))], self.count)


class Places:
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
            self.labels["suspicion"] = "suspicion of e4e's discriminator"
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
        found = {
            "nscd": nscd(styles, self.space.mean),
            "nscd_raw": nscd(styles, self.space.mean, anchor="raw"),
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
