"""The paper's figures, drawn from what an experiment's evaluation found: pictures, distributions, curves."""

from __future__ import annotations

import abc
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.style import context
from PIL import Image
from torch import Tensor

from lsap.alignment import normalize
from lsap.errors import BadValue, nearest
from lsap.pipelines.evaluation.evaluator import Evaluator
from lsap.pipelines.evaluation.methods import MethodOutputs
from lsap.pipelines.reproduction import Measured, chosen
from lsap.reports.charts import COLOURS, MUTED, STYLE
from lsap.reports.evaluation_report import Shown, side_by_side
from lsap.reports.pictures import grid
from lsap.runs import replacing

SAMPLES = 2000  # of the generator, for its cloud


@dataclass(frozen=True)
class Evaluated:
    """What a figure is drawn from.

    evaluator: the methods of the first seed, on the images that all of them inverted.
    values: measures of all seeds.
    """

    evaluator: Evaluator
    values: Sequence[Measured]


class Figure(abc.ABC):
    """One picture of an experiment; `file` is what follows the domain in its file's name."""

    file: ClassVar[str]

    @abc.abstractmethod
    def draw(self, found: Evaluated) -> Image.Image:
        """The picture."""


@dataclass(frozen=True)
class Strips(Figure):
    """Images in rows; in columns the input and, for each method, its inversion and edits at equal effect.

    methods: the ones shown, in this order; null shows all.
    edits: the ones shown; null shows all, an empty list inversions alone.
    images: how many, the first ones; or their names.
    """

    methods: Sequence[str] | None = None
    edits: Sequence[str] | None = None
    images: int | Sequence[str] = 6
    file = "pictures.jpg"

    def draw(self, found: Evaluated) -> Image.Image:
        evaluator = found.evaluator
        names = list(evaluator.names[: self.images] if isinstance(self.images, int) else self.images)
        for name in names:
            if name not in evaluator.names:
                raise BadValue(f"figure Strips: no image is called {name!r}; {nearest(name, evaluator.names)}")
        by_name = {one.name: one for one in evaluator.methods}
        shown = {}
        for method in self.methods or list(by_name):
            if method not in by_name:
                raise BadValue(f"figure Strips: there is no row {method!r}; {nearest(method, by_name)}")
            one = by_name[method]
            shown[method] = Shown(evaluator.pairs(one).chunk(names)[1], self._edits(evaluator, one, names))
        return grid(side_by_side(evaluator.read(names), shown))

    def _edits(self, evaluator: Evaluator, one: MethodOutputs, names: Sequence[str]) -> dict[str, Tensor]:
        """The edits of a method that are shown."""
        if evaluator.edit_metrics is None or self.edits == []:
            return {}
        drawn = evaluator.edit_metrics.drawn(one, names, evaluator.measured(one))
        for edit in self.edits or ():
            if edit not in drawn:
                raise BadValue(f"figure Strips: nobody made the edit {edit!r}; {nearest(edit, drawn)}")
        return {edit: drawn[edit] for edit in self.edits or drawn}


@dataclass(frozen=True)
class Distributions(Figure):
    """Where the codes of each method lie in S^N, beside the generator's own samples (Figure 2).

    One panel per method, all on the two principal directions of the samples' normalised styles (every layer divided by
    its Euclidean norm, layers side by side).
    """

    file = "distributions.png"

    @torch.no_grad()
    def draw(self, found: Evaluated) -> Image.Image:
        evaluator = found.evaluator
        space, generator = evaluator.parts.space, evaluator.parts.generator

        def unit(codes: Tensor) -> Tensor:
            return torch.cat(normalize(space.styles(codes.to(generator.latent_avg))), 1).double().cpu()

        samples = unit(generator.sample_w(SAMPLES, torch.Generator().manual_seed(evaluator.config.seed)))
        centre = samples.mean(0)
        axes = principal(samples - centre)
        cloud = (samples - centre) @ axes
        means = {m.method: m.mean for m in found.values if m.measure == "nscd"}
        own = space.synthetic["unit"]
        panels = {}
        for one in evaluator.methods:
            codes = [one.codes[name] for name in evaluator.names if name in one.codes]
            if codes:
                score = f"\nNSCD {means[one.name]:.4f}" if one.name in means else ""
                panels[f"{one.name}{score}"] = (unit(torch.stack(codes)) - centre) @ axes
        if not panels:
            raise BadValue("figure Distributions: none of the methods has codes")
        limit = 1.15 * float(torch.cat([cloud, *panels.values()]).abs().max())
        with context(STYLE):
            canvas = Canvas(figsize=(2.6 * len(panels), 2.9), layout="constrained", dpi=150)
            canvas.suptitle(f"S^N; grey: the generator’s own samples, NSCD {own:.4f}", x=0.01, ha="left", fontsize=9)
            for place, (title, points) in enumerate(panels.items()):
                axis = canvas.add_subplot(1, len(panels), place + 1)
                colour = COLOURS[place % len(COLOURS)]
                axis.scatter(cloud[:, 0].numpy(), cloud[:, 1].numpy(), s=3, color=MUTED, alpha=0.25, linewidths=0)
                axis.scatter(points[:, 0].numpy(), points[:, 1].numpy(), s=4, color=colour, alpha=0.55, linewidths=0)
                axis.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[], aspect="equal")
                axis.set_title(title, fontsize=9)
            return _image(canvas)


def principal(points: Tensor, count: int = 2) -> Tensor:
    """The principal directions [D, count] of centred points [N, D]; the longest entry of each is positive."""
    values, vectors = torch.linalg.eigh(points @ points.T)
    axes = points.T @ vectors[:, -count:].flip(1) / values[-count:].flip(0).clamp(min=1e-30).sqrt()
    longest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return axes * longest.sign()


@dataclass(frozen=True)
class Curves(Figure):
    """Measures over the rows of the table, which are numbers: λ. Deviation over seeds as bars.

    measures: one panel each.
    x: what the rows are.
    """

    measures: Sequence[str]
    x: str = "λ"
    file = "curves.png"

    def draw(self, found: Evaluated) -> Image.Image:
        with context(STYLE):
            canvas = Canvas(figsize=(2.6 * len(self.measures), 2.4), layout="constrained", dpi=150)
            for place, measure in enumerate(self.measures):
                mine = [each for each in found.values if each.measure == measure]
                if not mine:
                    known = sorted({each.measure for each in found.values})
                    raise BadValue(f"figure Curves: nobody measured {measure!r}; {nearest(measure, known)}")
                _curve(canvas.add_subplot(1, len(self.measures), place + 1), mine, measure, self.x)
            return _image(canvas)


def _curve(axis: Axes, mine: Sequence[Measured], measure: str, x: str) -> None:
    try:
        points = sorted((float(each.method), each.values.mean(1)) for each in mine)
    except ValueError as error:
        raise BadValue(f"figure Curves: rows must be numbers, and {error}") from error
    xs, over = [x for x, _ in points], [values for _, values in points]
    bars = [float(values.std(ddof=1)) if len(values) > 1 else 0.0 for values in over]
    axis.errorbar(xs, [float(v.mean()) for v in over], bars, color=COLOURS[1], marker="o", markersize=4, capsize=2)
    axis.set_title(measure)
    axis.set_xlabel(x)


FIGURES: Mapping[str, type[Figure]] = {kind.__name__: kind for kind in (Strips, Distributions, Curves)}


def figure_of(described: Mapping[str, Any]) -> Figure:
    """A figure from its description in an experiment: `figure`, the class, and the class's arguments.

    Raises:
        BadValue: there is no such figure, or it lacks an argument or has one too many.
    """
    return chosen("figure", FIGURES, described)


def save_figure(picture: Image.Image, path: Path) -> Path:
    """Write a picture whole or not at all; photographs as .jpg, plots as .png."""
    with replacing(path) as part:
        picture.convert("RGB").save(
            part, format={".jpg": "JPEG", ".png": "PNG"}[path.suffix], quality=90, optimize=True
        )
    return path


def _image(canvas: Canvas) -> Image.Image:
    FigureCanvasAgg(canvas)
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png", metadata={"Software": None})
    return Image.open(buffer)
