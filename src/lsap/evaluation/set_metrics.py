"""Metrics of a set of images: means, the spread of their codes, NSCD by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, distributed

from lsap.alignment import NormalizedStyleSpace, normalize, nscd
from lsap.errors import BadValue
from lsap.evaluation.rows import Row, by_layer, seven_digits


class SetMetrics:
    """One row of a table over a set of images.

    Holds sums in double precision alone, so the row does not depend on how images were cut into batches or, under
    distributed training, spread over processes; each process brings its own share, which may be empty.

    `diversity` is the spread of the unit styles, averaged over layers: per layer the mean squared distance to their own
    mean, 1 − ‖mean‖². A set that has collapsed to one code gives 0; styles in all directions give 1. A low NSCD is a
    collapse only if the diversity has fallen with it. For the generator's own samples it equals their raw NSCD, by
    definition. A small set is expected to have (n − 1)/n of a large one's value.

    Args:
        space: the generator's normalised style space.
        names: of the metrics whose means are wanted.
    """

    def __init__(self, space: NormalizedStyleSpace, names: Sequence[str] = ()) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=space.mean[0].device)

        self.space, self.names = space, tuple(names)
        self.totals, self.counts = zeros(len(names)), zeros(len(names))
        self.codes, self.layers = zeros(), zeros(len(space.mean))
        self.units = [zeros(len(mean)) for mean in space.mean]

    def update(self, values: Mapping[str, Tensor] | None = None, styles: Sequence[Tensor] = ()) -> None:
        """Add images.

        Args:
            values: name → [N]; NaN where an image has no value, names that are not wanted are ignored.
            styles: raw styles of their codes, one [N, C_l] per layer.

        Raises:
            BadValue: styles of another style space.
        """
        for place, name in enumerate(self.names):
            if values is not None and name in values:
                self.totals[place] += values[name].double().nansum()
                self.counts[place] += (~values[name].isnan()).sum()
        if len(styles):
            self.layers += nscd(styles, self.space.mean, reduction="none").double().sum(0)
            self.codes += len(styles[0])
            for total, unit in zip(self.units, normalize([style.double() for style in styles]), strict=True):
                total += unit.sum(0)

    def compute(self) -> Row:
        """Means by name (None where no image has a value), `diversity`, `nscd_layers` (layer → NSCD) and `n` (codes).

        Raises:
            BadValue: no code has been added.
        """
        totals, counts, codes, layers, *units = self._reduced()
        if not codes:
            raise BadValue("there is no image to evaluate; give a folder with images, or a larger held-out share")
        found = zip(self.names, totals, counts, strict=True)
        row: Row = {name: seven_digits((total / count).float()) if count else None for name, total, count in found}
        spread = torch.stack([1 - (unit / codes).square().sum() for unit in units])
        row["diversity"] = seven_digits(spread.clamp(min=0).mean().float())  # one code alone may round below 0
        return row | {"nscd_layers": by_layer(self.space, (layers / codes).float()), "n": int(codes)}

    def _reduced(self) -> list[Tensor]:
        """The sums over all processes."""
        sums = [each.clone() for each in (self.totals, self.counts, self.codes, self.layers, *self.units)]
        if distributed.is_available() and distributed.is_initialized():
            for each in sums:
                distributed.all_reduce(each)
        return sums
