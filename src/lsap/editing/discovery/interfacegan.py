"""InterFaceGAN (Shen et al. 2020): the normal of the plane in W that parts samples with an attribute from others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lsap.checkpoints import SPREAD, Direction
from lsap.editing.directions import centred, check_samples, conditional, spread
from lsap.editing.discovery.samples import Samples
from lsap.errors import BadValue, nearest
from lsap.seeds import derive
from lsap.stylegan2 import StyleGenerator
from lsap.values import HALF, POSITIVE

HELD_OUT = 0.3  # share of the chosen samples on which the plane is tried


@dataclass(frozen=True)
class InterFaceGAN:
    """Boundaries by a linear support vector machine, trained on the clearest samples of both kinds.

    Args:
        share: of the samples that are taken as the clearest of each kind where labels are scores; labels of two values
            are used as they are.
        regularisation: weight of the mean loss over samples, for codes of unit variance. Large values part the samples
            better, small ones lean towards the difference of the two kinds' means, which leaves more else as it is.
        conditions: direction → directions that it shall leave alone: it is projected onto the orthogonal complement of
            theirs.
        seed: of the choice of samples that are held out.

    Raises:
        BadValue: numbers out of range.
    """

    share: float = 0.25
    regularisation: float = 0.1
    conditions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    seed: int = 0

    supervised = True

    def __post_init__(self) -> None:
        HALF.require("interfacegan.share", self.share)
        POSITIVE.require("interfacegan.regularisation", self.regularisation)

    def find(self, generator: StyleGenerator, samples: Samples) -> list[Direction]:
        """Directions of all labels, the conditional ones purified; their origin tells the held-out accuracy."""
        found = {name: self.boundary(name, samples) for name in samples.labels}
        for name, others in self.conditions.items():
            for word in (name, *others):
                if word not in found:
                    raise BadValue(
                        f"interfacegan.conditions name {word!r}, which is not looked for; {nearest(word, found)}"
                    )
        return [
            conditional(direction, [found[other] for other in self.conditions.get(name, ())], samples.w.cpu())
            if self.conditions.get(name)
            else direction
            for name, direction in found.items()
        ]

    def boundary(self, name: str, samples: Samples) -> Direction:
        """The direction of one label.

        Raises:
            BadValue: too few samples of a kind.
        """
        w, labels = samples.labelled(name)
        check_samples(name, w, labels)
        w, labels = w.detach().double().cpu(), labels.double().cpu()
        chosen, positive = self.clearest(name, labels)
        order = torch.randperm(
            len(chosen), generator=torch.Generator().manual_seed(derive(self.seed, "boundary", name))
        )
        chosen, positive = chosen[order], positive[order]
        deviations = centred(w)
        scale = deviations.square().mean().sqrt()
        codes = (deviations[chosen] / scale).numpy()
        kinds = positive.numpy()
        first = round(len(kinds) * HELD_OUT)
        if len(np.unique(kinds[first:])) < 2:
            raise BadValue(f"direction {name!r}: {len(kinds)} labelled samples are too few to learn from; label more")
        from sklearn.svm import LinearSVC  # a slow import that only this needs

        machine = LinearSVC(C=self.regularisation / len(kinds[first:]), dual=False, tol=1e-6, max_iter=10_000)
        machine.fit(codes[first:], kinds[first:])
        accuracy = float(machine.score(codes[:first], kinds[:first])) if first else float("nan")
        normal = torch.from_numpy(machine.coef_[0].copy())
        normal = normal / normal.norm()
        along = deviations @ normal
        rise = (along * centred(labels)).mean().item() / along.square().mean().item()
        return Direction(
            name=name, vector=normal.float(), generator=samples.generator, step=spread(deviations, normal), unit=SPREAD,
            attribute=samples.attributes.get(name, name), change=rise,
            origin=f"InterFaceGAN: linear SVM on {len(kinds) - first} of {len(w)} samples, {accuracy:.1%} right of "
            f"{first} held out; labels: {samples.labelled_by}",
        )  # fmt: skip

    def clearest(self, name: str, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Places of the samples to learn from [M], and which of them are positive [M].

        Raises:
            BadValue: fewer than two of a kind.
        """
        values = labels.unique()
        if len(values) == 2:
            chosen, positive = torch.arange(len(labels)), labels == values[1]
        else:
            count = max(1, round(len(labels) * self.share))
            order = labels.argsort(stable=True)
            chosen = torch.cat([order[:count], order[-count:]])
            positive = torch.arange(len(chosen)) >= count
        kinds = (int(positive.sum()), int((~positive).sum()))
        if min(kinds) < 2:
            raise BadValue(f"direction {name!r}: {kinds[0]} samples with it and {kinds[1]} without; label more of both")
        return chosen, positive
