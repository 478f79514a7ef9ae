"""Which number, known before any edit, ranks images as their editability does? Spearman's correlation, intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lsap.evaluation.ranking import correlation, spearman, standard
from lsap.evaluation.tables import interval, resamples

LEAST = 3  # images that a rank correlation takes at least
EVERY, IMAGES = "all methods", "per image"  # scopes beside those of single methods

Numbers = Mapping[str, Sequence[float | None]]  # key → a value per image, the same images in the same order everywhere


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of a predictor with what an edit did.

    Attributes:
        predictor, target: their keys.
        scope: a method's name, for its images alone; "all methods" for the images of all of them as one set;
            "per image" for the ranks of the methods on each image, averaged over images.
        rho: in [-1, 1]; 1 where the predictor orders as the target does.
        low, high: 95 % bootstrap interval; images are drawn, each with all its methods.
        n: images.
    """

    predictor: str
    target: str
    scope: str
    rho: float
    low: float
    high: float
    n: int

    def plain(self) -> dict[str, Any]:
        """Its fields by name."""
        return asdict(self)


def rank_correlations(
    methods: Mapping[str, Numbers], predictors: Sequence[str], targets: Sequence[str], seed: int = 0, count: int = 1000
) -> list[Correlation]:
    """All predictors against all targets, within every method and across them.

    Args:
        methods: name → numbers of the same images in the same order. An image counts where every method has a value of
            all predictors and targets that are used.
        predictors, targets: keys; one that a method lacks altogether is passed over.
        seed, count: of the bootstrap.
    """
    found: list[Correlation] = []
    used = [key for key in (*predictors, *targets) if all(_has(numbers, key) for numbers in methods.values())]
    pairs = [(p, t) for t in targets for p in predictors if {p, t} <= set(used)]
    values = {key: np.array([_floats(numbers[key]) for numbers in methods.values()]) for key in used}  # [methods, N]
    known = np.logical_and.reduce([np.isfinite(v).all(0) for v in values.values()]) if pairs else np.zeros(0, bool)
    n = int(known.sum())
    if n < LEAST:
        return []
    values = {key: value[:, known] for key, value in values.items()}
    places = np.concatenate([np.arange(n)[None], resamples(n, seed, count)])  # the images as they are come first
    several = len(methods) > 1
    scopes = {name: slice(i, i + 1) for i, name in enumerate(methods)} | ({EVERY: slice(None)} if several else {})
    for scope, rows in scopes.items():
        ranks = {key: standard(_drawn(values[key][rows], places)) for key in used}
        found += [one for p, t in pairs if (one := _formatted(p, t, scope, correlation(ranks[p], ranks[t]), n))]
    if several:
        for p, t in pairs:
            each = spearman(values[p].T, values[t].T)  # of the methods, on every image
            with np.errstate(invalid="ignore"):
                drawn = each[places]
                rho = np.nansum(drawn, 1) / np.isfinite(drawn).sum(1)
            found += [one] if (one := _formatted(p, t, IMAGES, rho, n)) else []
    return found


def _has(numbers: Numbers, key: str) -> bool:
    return any(value is not None for value in numbers.get(key, ()))


def _drawn(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The values [M, N] of every bootstrap sample in one row, [count, M · N]."""
    return values[:, places].transpose(1, 0, 2).reshape(len(places), -1)


def _formatted(predictor: str, target: str, scope: str, rho: np.ndarray, n: int) -> Correlation | None:
    """The correlation [0] and its interval from those of the bootstrap [1:]; None where there is none."""
    if not np.isfinite(rho[0]):
        return None
    low, high = interval(rho[1:])
    return Correlation(predictor, target, scope, round(float(rho[0]), 4), round(low, 4), round(high, 4), n)


def _floats(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else float(value) for value in values]
