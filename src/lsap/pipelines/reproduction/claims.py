"""What the paper leads one to expect, put to the test: every claim holds, does not hold, or stays open, with numbers.

A claim compares methods that saw the same images. Its interval comes from resampling seeds and images together, in
pairs: what one image or one training is harder than another cancels out.
"""

from __future__ import annotations

import abc
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np

from lsap.errors import BadValue, nearest
from lsap.evaluation.ranking import Values, spearman

T = TypeVar("T")
Verdict = Literal["holds", "does not hold", "open", "not tested"]
DRAWS = 2000  # of the bootstrap
RANKED = 500  # the same for ranks, which take longer; an interval needs no more
LEVEL = 0.95


class NotMeasured(BadValue):
    """A claim needs a number that nobody measured, or that is none."""


@dataclass(frozen=True)
class Measured:
    """One measure of one method: values [S, N] of S seeds and N images; a measure of whole sets has N = 1.

    names: of the images; without them, values of equal number are taken to be of the same images.
    """

    method: str
    measure: str
    values: Values
    names: Sequence[str] = ()

    @property
    def mean(self) -> float:
        """Over seeds and images."""
        return float(self.values.mean())


@dataclass(frozen=True)
class Finding:
    """What became of a claim.

    Attributes:
        says: the claim, in words.
        verdict: "open" where the interval has both answers in it, "not tested" where a number is missing or undefined.
        value, low, high: the claim's number (see its class) and its 95 % interval; None where it was not tested.
        wanted: what the number should be; of a claim that was not tested, why not.
    """

    says: str
    verdict: Verdict
    value: float | None
    low: float | None
    high: float | None
    wanted: str

    @property
    def text(self) -> str:
        """The claim and its numbers, without the verdict."""
        numbers = "" if self.value is None else f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}], "
        return f"{self.says}: {numbers}{self.wanted}"

    def __str__(self) -> str:
        return f"{self.verdict:13}  {self.text}"


class Table:
    """All that was measured, looked up by method and measure.

    Args:
        measured: every pair of method and measure at most once.
    """

    def __init__(self, measured: Sequence[Measured]) -> None:
        self.measured = {(each.method, each.measure): each for each in measured}

    def __call__(self, method: str, measure: str) -> Measured:
        """What was measured; raises NotMeasured where it was not, with what there is."""
        found = self.measured.get((method, measure))
        if found is None:
            methods, measures = ({key[side] for key in self.measured} for side in (0, 1))
            if method not in methods:
                known = nearest(method, sorted(methods))
                raise NotMeasured(f"a claim speaks of {method!r}, which was not run; {known}")
            raise NotMeasured(f"{method} has no {measure!r}; {nearest(measure, sorted(measures))}")
        return found


class Claim(abc.ABC):
    """A statement about a table, with a number that decides it.

    Args:
        says: the statement, in words.
        seed: of the resampling.
    """

    wanted: str
    draws: ClassVar[int] = DRAWS
    undefined: ClassVar[str] = "a measure that it divides by is 0, so it has no number"

    def __init__(self, says: str, seed: int = 0) -> None:
        self.says, self.seed = says, seed

    @abc.abstractmethod
    def needs(self) -> Sequence[tuple[str, str]]:
        """The pairs of method and measure that it looks at."""

    @abc.abstractmethod
    def number(self, values: Sequence[Values]) -> float:
        """What decides it, of the values [S, N] of what it needs."""

    @abc.abstractmethod
    def holds(self, number: float) -> bool:
        """Whether a number is as the statement has it."""

    def check(self, table: Table) -> Finding:
        """Put it to the test.

        Raises:
            NotMeasured: something that it needs is not in the table, or its number or an end of the interval is none.
            BadValue: methods were not run on the same images.
        """
        needed = of_common_images([table(method, measure) for method, measure in self.needs()])
        with np.errstate(divide="ignore", invalid="ignore"):
            value = self.number(needed)
            drawn = np.array([self.number(values) for values in resampled(needed, self.seed, self.draws)])
            known = drawn[~np.isnan(drawn)]  # a sample of equal images ranks nothing
            low, high = map(float, np.quantile(known if len(known) else drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
        if not all(map(math.isfinite, (value, low, high))):
            raise NotMeasured(self.undefined)
        ends = {self.holds(low), self.holds(high)}
        verdict: Verdict = "open" if len(ends) == 2 else "holds" if self.holds(value) else "does not hold"
        return Finding(self.says, verdict, value, low, high, self.wanted)


class Less(Claim):
    """Methods have a lower measure than others; the number is the relative difference of the pair that has least of it.

    Args:
        says: the statement.
        measure: of all.
        lower, higher: the methods, one or several on each side; every one of the first against every one of the others.
        by: share of the higher one's mean by which it is lower at least; below 0, by which it may exceed it.
    """

    def __init__(
        self,
        says: str,
        measure: str,
        lower: str | Sequence[str],
        higher: str | Sequence[str],
        by: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(says, seed)
        self.lower, self.higher = ([side] if isinstance(side, str) else list(side) for side in (lower, higher))
        self.measure, self.by = measure, by
        self.wanted = f"below {0.0 - by:.3g}"

    def needs(self) -> Sequence[tuple[str, str]]:
        return [(method, self.measure) for method in (*self.lower, *self.higher)]

    def number(self, values: Sequence[Values]) -> float:
        means = [each.mean() for each in values]
        lower, higher = means[: len(self.lower)], means[len(self.lower) :]
        pairs = itertools.product(lower, higher)
        return float(np.max([(low - high) / abs(high) for low, high in pairs]))  # NaN where one of them is

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

    def number(self, values: Sequence[Values]) -> float:
        first, begins, ends = (each.mean() for each in values)
        return float(abs(ends - begins) / abs(begins - first))

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

    def number(self, values: Sequence[Values]) -> float:
        before, after, cheap, dear = (each.mean() for each in values)
        return float((1 - after / before) - (dear / cheap - 1))

    def holds(self, number: float) -> bool:
        return number > 0


class RanksWithin(Claim):
    """A number known before any edit ranks the images of a method as the outcome of their edits does.

    The number is Spearman's rank correlation over the images of a method, averaged over methods and seeds, less that
    of a rival where one is named.

    Args:
        says: the statement.
        predictor: what is known before.
        targets: what edits did; their mean is ranked.
        methods: whose images.
        rival: another number that is known before.
    """

    wanted = "above 0"
    draws = RANKED
    undefined = "all values of one measure are equal, so nothing is ranked"

    def __init__(
        self,
        says: str,
        predictor: str,
        targets: Sequence[str],
        methods: Sequence[str],
        rival: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(says, seed)
        self.predictors = [predictor] if rival is None else [predictor, rival]
        self.targets, self.methods = list(targets), list(methods)

    def needs(self) -> Sequence[tuple[str, str]]:
        return list(itertools.product(self.methods, (*self.predictors, *self.targets)))

    def number(self, values: Sequence[Values]) -> float:
        of_methods = np.array(values).reshape(len(self.methods), -1, *values[0].shape)  # [M, measures, S, N]
        known = len(self.predictors)
        target = self.sets(of_methods[:, known:].mean(1))
        own, *rival = (float(spearman(self.sets(of_methods[:, place]), target).mean()) for place in range(known))
        return own - sum(rival)

    def sets(self, values: Values) -> Values:
        """Values [M, S, N] as sets [..., n] each of which is ranked apart."""
        return values

    def holds(self, number: float) -> bool:
        return number > 0


class RanksAcross(RanksWithin):
    """The same where the images of all methods are ranked as one set; arguments as for `RanksWithin`."""

    def sets(self, values: Values) -> Values:
        return values.swapaxes(0, 1).reshape(values.shape[1], -1)


CLAIMS: Mapping[str, type[Claim]] = {
    claim.__name__: claim for claim in (Less, Plateau, CheaperThan, RanksWithin, RanksAcross)
}


def claim_of(described: Mapping[str, Any], domain: str, seed: int = 0) -> Claim:
    """A claim from its description in an experiment: `claim`, the class, and the class's arguments.

    `{domain}` in a method's name stands for the domain that the experiment runs on.

    Raises:
        BadValue: there is no such claim, or it lacks an argument or has one too many.
    """

    def named(value: Any) -> Any:
        if isinstance(value, list):
            return [named(each) for each in value]
        return value.replace("{domain}", domain) if isinstance(value, str) else value

    return chosen("claim", CLAIMS, {key: named(value) for key, value in described.items()}, seed=seed)


def judged(claim: Claim, table: Table) -> Finding:
    """What became of a claim; where a number that it needs is missing or undefined, it says which."""
    try:
        return claim.check(table)
    except NotMeasured as error:
        return Finding(claim.says, "not tested", None, None, None, str(error))


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


def of_common_images(measured: Sequence[Measured]) -> list[Values]:
    """The values of those images that all of them have; raises BadValue where there is none."""
    named = [each for each in measured if each.names]
    if not named:
        return [each.values for each in measured]
    common = set(named[0].names).intersection(*(each.names for each in named))
    if not common:
        raise BadValue(f"a claim compares methods that have no image in common: {', '.join(m.method for m in named)}")

    def shared(one: Measured) -> Values:
        places = {name: place for place, name in enumerate(one.names)}
        return one.values[:, [places[name] for name in named[0].names if name in common]] if one.names else one.values

    return [shared(each) for each in measured]


def resampled(values: Sequence[Values], seed: int, draws: int) -> Iterator[list[Values]]:
    """K arrays [S, N] with seeds and images drawn with replacement, the same ones in all of them, so many times.

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
    one = np.zeros(1, int)
    for _ in range(draws):
        s, n = rng.integers(seeds, size=seeds), rng.integers(images, size=images)
        yield [array[np.ix_(s if array.shape[0] > 1 else one, n if array.shape[1] > 1 else one)] for array in values]
