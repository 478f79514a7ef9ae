"""Spearman's rank correlation, with one answer where nothing is ranked: NaN."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Values = NDArray[np.float64]


def spearman(x: Values, y: Values) -> Values:
    """Rank correlation along the last axis of arrays of equal shape; NaN where all values of one are equal.

    >>> round(float(spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0]))), 6)
    1.0
    """
    return correlation(standard(x), standard(y))


def standard(values: Values) -> Values:
    """Ranks along the last axis, centred and of unit length; NaN where all values are equal."""
    ranks = rankdata(values, axis=-1)
    ranks = ranks - ranks.mean(-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Values = ranks / np.sqrt((ranks**2).sum(-1, keepdims=True))
    return found


def correlation(a: Values, b: Values) -> Values:
    """Of standard ranks, along the last axis."""
    product: Values = np.einsum("...i,...i->...", a, b)
    return product
