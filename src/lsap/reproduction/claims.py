"""What the paper leads one to expect, put to the test: every claim holds, does not hold, or stays open, with numbers.

A claim compares methods that saw the same images. Its interval comes from resampling seeds and images together, in
pairs: what one image or one training is harder than another cancels out.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from lsap.errors import BadValue, nearest

Values = NDArray[np.float64]
T = TypeVar("T")
Verdict = Literal["holds", "does not hold", "open"]
DRAWS = 2000  # of the bootstrap
LEVEL = 0.95


@dataclass(frozen=True)
class Measured:
    """One measure of one method: values [S, N] of S seeds and N images; a measure of whole sets has N = 1."""

    method: str
    measure: str
    values: Values

    @property
    def mean(self) -> float:
        """Over seeds and images."""
        return float(self.values.mean())


@dataclass(frozen=True)
class Finding:
    """What became of a claim.

    Attributes:
        says: the claim, in words.
        verdict: "open" where the interval has both answers in it.
        value, low, high: the claim's number (see its class) and its 95 % interval.
        wanted: what the number should be.
    """

    says: str
    verdict: Verdict
    value: float
    low: float
    high: float
    wanted: str

    def __str__(self) -> str:
        return f"{self.verdict:13}  {self.says}: {self.value:.3g} [{self.low:.3g}, {self.high:.3g}], {self.wanted}"


class Table:
    """All that was measured, looked up by method and measure.

    Args:
        measured: every pair of method and measure at most once.
    """

    def __init__(self, measured: Sequence[Measured]) -> None:
        self.measured = {(each.method, each.measure): each for each in measured}

    def __call__(self, method: str, measure: str) -> Measured:
        """What was measured; raises BadValue where it was not, with what there is."""
        found = self.measured.get((method, measure))
        if found is None:
            methods, measures = ({key[side] for key in self.measured} for side in (0, 1))
            if method not in methods:
                raise BadValue(f"a claim speaks of {method!r}, which was not run; {nearest(method, sorted(methods))}")
            raise BadValue(f"{method} has no {measure!r}; {nearest(measure, sorted(measures))}")
        return found


class Claim(abc.ABC):
    """A statement about a table, with a number that decides it.

    Args:
        says: the statement, in words.
        seed: of the resampling.
    """

    wanted: str

    def __init__(self, says: str, seed: int = 0) -> None:
        self.says, self.seed = says, seed

    @abc.abstractmethod
    def needs(self) -> Sequence[tuple[str, str]]:
        """The pairs of method and measure that it looks at."""

    @abc.abstractmethod
    def number(self, means: Sequence[float]) -> float:
        """What decides it, of the means of what it needs."""

    @abc.abstractmethod
    def holds(self, number: float) -> bool:
        """Whether a number is as the statement has it."""

    def check(self, table: Table) -> Finding:
        """Put it to the test; raises BadValue where something was not measured, or not on the same images."""
        needed = [table(method, measure) for method, measure in self.needs()]
        value = self.number([each.mean for each in needed])
        drawn = np.array([self.number(means) for means in resampled([each.values for each in needed], self.seed)])
        low, high = (float(q) for q in np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
        ends = {self.holds(low), self.holds(high)}
        verdict: Verdict = "open" if len(ends) == 2 else "holds" if self.holds(value) else "does not hold"
        return Finding(self.says, verdict, value, low, high, self.wanted)


class Less(Claim):
    """One method's measure is lower than another's; the number is their difference.

    Args:
        says: the statement.
        measure: of both.
        lower, higher: the methods.
        by: share of the higher one's mean by which it is lower at least; below 0, by which it may exceed it.
    """

    def __init__(self, says: str, measure: str, lower: str, higher: str, by: float = 0.0, seed: int = 0) -> None:
        super().__init__(says, seed)
        self.measure, self.lower, self.higher, self.by = measure, lower, higher, by
        self.wanted = f"below {0.0 - by:.3g}"

    def needs(self) -> Sequence[tuple[str, str]]:
        return [(self.lower, self.measure), (self.higher, self.measure)]

    def number(self, means: Sequence[float]) -> float:
        return (means[0] - means[1]) / abs(means[1])

    def holds(self, number: float) -> bool:
        return number < -self.by


class Plateau(Claim):
    """Between two methods a measure moves little, beside what it moved from a first to the nearer of them.

    The number is the ratio of the two moves.

    Args:
        says: the statement.
        measure: of all three.
        first, begins, ends: the methods in order.
        share: the largest ratio that counts as a plateau.
    """

    def __init__(
        self, says: str, measure: str, first: str, begins: str, ends: str, share: float = 0.25, seed: int = 0
    ) -> None:
        super().__init__(says, seed)
        self.measure, self.first, self.begins, self.ends, self.share = measure, first, begins, ends, share
        self.wanted = f"below {share:.3g}"

    def needs(self) -> Sequence[tuple[str, str]]:
        return [(method, self.measure) for method in (self.first, self.begins, self.ends)]

    def number(self, means: Sequence[float]) -> float:
        return abs(means[2] - means[1]) / abs(means[1] - means[0])

    def holds(self, number: float) -> bool:
        return number < self.share


class CheaperThan(Claim):
    """A measure that should fall falls by a larger share than one that should stay rises.

    The number is the share that the first falls by, less the share that the second rises by.

    Args:
        says: the statement.
        gain, cost: the measures.
        plain, changed: the methods, before and after.
    """

    wanted = "above 0"

    def __init__(self, says: str, gain: str, cost: str, plain: str, changed: str, seed: int = 0) -> None:
        super().__init__(says, seed)
        self.gain, self.cost, self.plain, self.changed = gain, cost, plain, changed

    def needs(self) -> Sequence[tuple[str, str]]:
        return [(method, measure) for measure in (self.gain, self.cost) for method in (self.plain, self.changed)]

    def number(self, means: Sequence[float]) -> float:
        falls, rises = 1 - means[1] / means[0], means[3] / means[2] - 1
        return falls - rises

    def holds(self, number: float) -> bool:
        return number > 0


CLAIMS: Mapping[str, type[Claim]] = {claim.__name__: claim for claim in (Less, Plateau, CheaperThan)}


def claim_of(described: Mapping[str, Any], domain: str, seed: int = 0) -> Claim:
    """A claim from its description in an experiment: `claim`, the class, and the class's arguments.

    `{domain}` in a method's name stands for the domain that the experiment runs on.

    Raises:
        BadValue: there is no such claim, or it lacks an argument or has one too many.
    """
    given = {
        key: value.replace("{domain}", domain) if isinstance(value, str) else value for key, value in described.items()
    }
    return chosen("claim", CLAIMS, given, seed=seed)


def chosen(kind: str, classes: Mapping[str, Callable[..., T]], described: Mapping[str, Any], **more: Any) -> T:
    """What a description in an experiment means: under `kind` the name of a class, beside it the class's arguments.

    Args:
        kind: "claim", "figure".
        classes: those that there are, by name.
        described: the description.
        more: further arguments, which the description does not give.

    Raises:
        BadValue: there is no such class, or it lacks an argument or has one too many.
    """
    given = dict(described)
    name = str(given.pop(kind, None))
    if name not in classes:
        raise BadValue(f"there is no {kind} {name!r}; {nearest(name, classes)}")
    try:
        return classes[name](**given, **more)
    except TypeError as error:
        raise BadValue(f"{kind} {name}: {error}") from error


def resampled(values: Sequence[Values], seed: int) -> Values:
    """Means [DRAWS, K] of K arrays [S, N] over seeds and images drawn with replacement, the same ones in all of them.

    Raises:
        BadValue: arrays of different images or seeds; those of one seed or of one image are not resampled along it.
    """
    rng = np.random.default_rng(seed)
    found = []
    for axis in (0, 1):
        lengths = {array.shape[axis] for array in values} - {1}
        if len(lengths) > 1:
            what = ("seeds", "images")[axis]
            raise BadValue(f"a claim compares methods that were not run on the same {what}: {sorted(lengths)} of them")
        found.append(lengths.pop() if lengths else 1)
    seeds, images = found
    means = np.empty((DRAWS, len(values)))
    for draw in range(DRAWS):
        s, n = rng.integers(seeds, size=seeds), rng.integers(images, size=images)
        for place, array in enumerate(values):
            rows = s if array.shape[0] > 1 else np.zeros(1, int)
            columns = n if array.shape[1] > 1 else np.zeros(1, int)
            means[draw, place] = array[np.ix_(rows, columns)].mean()
    return means
