"""Charts for reports, as SVG text: small, labelled at the data instead of in a legend, readable without colour.

Colours are Okabe and Ito's, which differ for every kind of colour vision. A chart carries its own dark variant, which a
browser picks by the reader's preference.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adjustText import adjust_text
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.style import context
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from lsap.errors import BadValue, MissingFile

COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK, MUTED, RULE = "#1c2128", "#68727d", "#d5dae0"
DARK = {
    INK: "#e8ebef",
    MUTED: "#9aa5b1",
    RULE: "#3a424c",
    "#0072B2": "#4da3dc",
    "#D55E00": "#f08a3c",
    "#009E73": "#35c49a",
}
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lsap",  # the same chart is the same text
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.titlecolor": INK,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}

NOT_LOSSES = ("stage",)  # logged beside the terms, but nothing that falls
Curve = list[tuple[float, float]]
Log = dict[str, Curve]


def read_log(path: Path) -> Log:
    """The curves of a `metrics.csv` as Lightning's CSVLogger writes it: column → (step, value) pairs in order of step.

    Gaps, NaN, infinities and text are passed over; of a step that was logged twice, as after a resumption, the later
    row counts.

    Raises:
        MissingFile: there is no such file.
    """
    if not path.is_file():
        raise MissingFile(f"{path} does not exist; it is written by training with the CSV logger, which is always on")
    found: dict[str, dict[float, float]] = {}
    with path.open(newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            step = _number(row.get("step"))
            for name, text in row.items():
                value = _number(text)
                if isinstance(name, str) and name not in ("step", "epoch") and value is not None:
                    found.setdefault(name, {})[number if step is None else step] = value
    return {name: sorted(values.items()) for name, values in found.items()}


def loss_curves(runs: Mapping[str, Log], *, titles: Mapping[str, str] | None = None) -> dict[str, str]:
    """One chart per loss term, every run in it; a held-out curve beside one of training is dashed.

    Args:
        runs: label of the run → its log. Columns "train/<term>" and "val/<term>" are shown.
        titles: term → title, e.g. {"l2": "L2"}; other terms keep their own name.

    Returns:
        Term → SVG text, in the order of the log; empty where nothing was logged.
    """
    charts = {}
    for term in _terms(runs):
        curves = []
        trained = any(log.get(f"train/{term}") for log in runs.values())
        for colour, (label, log) in zip(_colours(len(runs)), runs.items(), strict=True):
            if curve := log.get(f"train/{term}"):
                alone = len(runs) == 1 and f"val/{term}" not in log
                curves.append(("" if alone else label, colour, False, curve))
            if curve := log.get(f"val/{term}"):
                beside = "held out" if len(runs) == 1 else f"{label}, held out" if trained else label
                curves.append((beside if trained or len(runs) > 1 else "", colour, trained, curve))
        if curves:
            title = (titles or {}).get(term, term)
            charts[term] = _curves(title if trained else f"{title}, held out", curves)
    return charts


def tradeoff(rows: Mapping[str, Mapping[str, Any]], *, names: Mapping[str, str] | None = None) -> str:
    """Fidelity against alignment: MSE over NSCD, one point per row, the generator's own samples as a line.

    Args:
        rows: name → row with "mse" and "nscd". Rows without MSE are drawn as a vertical line at their NSCD.
        names: row → label.

    Returns:
        SVG text.
    """
    points = {
        n: (r["nscd"], r["mse"]) for n, r in rows.items() if r.get("nscd") is not None and r.get("mse") is not None
    }
    lines = {n: r["nscd"] for n, r in rows.items() if r.get("nscd") is not None and r.get("mse") is None}
    if not points:
        raise BadValue("a trade-off needs at least one row with an MSE and an NSCD")
    x, y = "NSCD  (← nearer to the generator’s mean style)", "MSE  (↓ truer to the image)"
    return scatter(points, x, y, lines=lines, names=names, muted=("mean_latent",))


def scatter(
    points: Mapping[str, tuple[float, float]],
    x_title: str,
    y_title: str,
    *,
    lines: Mapping[str, float] | None = None,
    names: Mapping[str, str] | None = None,
    muted: Sequence[str] = (),
) -> str:
    """One point per row, labelled where it lies; axes begin at 0, or below where a value does.

    Args:
        points: row → (x, y).
        x_title, y_title: what the axes say.
        lines: row → x of a vertical line that stands for it.
        names: row → label.
        muted: rows in grey.

    Returns:
        SVG text.
    """
    called = names or {}
    with context(STYLE):
        axes = _axes(4.6, 3.5)
        xs = [x for x, _ in points.values()] + list((lines or {}).values())
        ys = [y for _, y in points.values()]
        axes.set(xlim=_span(xs, 0.03, 0.3), ylim=_span(ys, 0.0, 0.18))
        top = axes.get_ylim()[1]
        for name, x in (lines or {}).items():
            axes.axvline(x, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
            axes.annotate(
                _broken(called.get(name, name)), (x, top), (5, -2), textcoords="offset points", va="top", color=MUTED
            )
        colour = iter(COLOURS)
        shades = {name: MUTED if name in muted else next(colour, MUTED) for name in points}
        for name, (x, y) in points.items():
            axes.plot(x, y, "o", color=shades[name], markersize=9, markeredgewidth=0, clip_on=False)
        _label_points(axes, [(called.get(name, name), *point, shades[name]) for name, point in points.items()])
        axes.set_xlabel(x_title)
        axes.set_ylabel(y_title)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        return _svg(axes)


def _span(values: Sequence[float], before: float, beyond: float) -> tuple[float, float]:
    """The ends of an axis that holds 0 and all values, with room on both sides as parts of what it spans."""
    low, high = min(0.0, *values), max(0.0, *values)
    span = (high - low) or 1.0
    return low - (0.1 if low < 0 else before) * span, high + beyond * span


def _label_points(axes: Axes, points: Sequence[tuple[str, float, float, str]]) -> None:
    """Write each name beside its point (name, x, y, colour), apart from points and names; a line ties one that moved.

    Names take no part in the layout, which a long one would leave no room for the axes.
    """
    points = sorted(points, key=lambda point: point[2])
    low, high = axes.get_ylim()
    step = (high - low) / 200  # names that start on one another would stay there
    starts = [y + step * (rank + 4) for rank, (_, _, y, _) in enumerate(points)]
    texts = [
        axes.text(x, start, _shortened(name), color=shade, fontweight="bold")
        for start, (name, x, _, shade) in zip(starts, points, strict=True)
    ]
    for text in texts:
        text.set_in_layout(False)
    figure = axes.get_figure(root=True)
    assert figure is not None
    FigureCanvasSVG(figure)
    figure.draw_without_rendering()  # the layout is settled before names find their places in it
    xs, ys = ([point[axis] for point in points] for axis in (1, 2))
    adjust_text(
        texts, xs, ys, target_x=xs, target_y=ys, ax=axes, iter_lim=300,
        expand=(1.15, 1.6), min_arrow_len=4, arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.8},
    )  # fmt: skip


def _shortened(text: str, most: int = 30) -> str:
    """A long label without its middle."""
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def layer_bars(layers: Mapping[str, Mapping[str, float]], *, reference: Mapping[str, float] | None = None) -> str:
    """NSCD of every layer: bars per run, the generator's own samples as a mark across them.

    Args:
        layers: label → (layer name → NSCD), every label with the same layers in generator order.
        reference: the same for the samples.

    Returns:
        SVG text.
    """
    names = list(next(iter(layers.values()), {}))
    if not names:
        raise BadValue("layer bars need at least one run with at least one layer")
    with context(STYLE):
        axes = _axes(max(4.6, 1.6 + 0.3 * len(names)), 3.5)
        width = 0.8 / len(layers)
        for index, (colour, (label, values)) in enumerate(zip(_colours(len(layers)), layers.items(), strict=True)):
            left = [x - 0.4 + width * (index + 0.5) for x in range(len(names))]
            axes.bar(left, [values.get(n, 0.0) for n in names], width * 0.9, color=colour, linewidth=0)
            _key(axes, index, label, colour)
        if reference:
            heights = [reference.get(n, math.nan) for n in names]
            axes.hlines(
                heights, [x - 0.45 for x in range(len(names))], [x + 0.45 for x in range(len(names))], INK, linewidth=2
            )
            _key(axes, len(layers), "samples  ━", INK)
        axes.set_xticks(range(len(names)), names, rotation=55, ha="right", rotation_mode="anchor")
        axes.tick_params(axis="x", length=0)
        axes.set_ylabel("NSCD of the layer")
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="y", color=RULE, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.margins(x=0.02)
        return _svg(axes)


def _terms(runs: Mapping[str, Log]) -> list[str]:
    columns = [name for log in runs.values() for name in log]
    terms = [name.split("/", 1)[1] for name in columns if name.startswith(("train/", "val/"))]
    return [term for term in dict.fromkeys(terms) if term not in NOT_LOSSES]


def _curves(title: str, curves: Sequence[tuple[str, str, bool, Curve]]) -> str:
    with context(STYLE):
        axes = _axes(3.1, 2.3)
        ends = []
        for label, colour, dashed, curve in curves:
            steps = [s for s, _ in curve]
            values = [v for _, v in curve]
            smooth = _smoothed(values)
            if len(values) > 40 and not dashed:
                axes.plot(*_thinned(steps, values), color=colour, alpha=0.22, linewidth=0.8)
            axes.plot(*_thinned(steps, smooth), color=colour, linestyle=(0, (3, 2)) if dashed else "-")
            ends.append((smooth[-1], label, colour))
        shown = [v for _, _, _, curve in curves for _, v in curve]
        low, high = min(shown), max(shown)
        if low > 0 and high / low > 30:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(numticks=5))
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.yaxis.set_minor_locator(LogLocator(subs=[]))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        else:
            axes.set_ylim(bottom=min(0.0, low))
            axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.set_title(title)
        axes.set_xlabel("step")
        _label_ends(axes, ends)
        return _svg(axes)


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write each curve's name beside its end, moved apart where ends lie close."""
    to_axes = axes.transData + axes.transAxes.inverted()
    placed = sorted((float(to_axes.transform((0, value))[1]), label, colour) for value, label, colour in ends if label)
    heights: list[float] = []
    for y, _, _ in placed:
        heights.append(max(y, heights[-1] + 0.1) if heights else y)
    overshoot = max(0.0, heights[-1] - 1) if heights else 0.0
    for y, (_, label, colour) in zip(heights, placed, strict=True):
        axes.text(1.02, y - overshoot, label, color=colour, transform=axes.transAxes, va="center", fontsize=9)


def _key(axes: Axes, index: int, label: str, colour: str) -> None:
    axes.text(0.03, 0.97 - 0.085 * index, label, color=colour, transform=axes.transAxes, va="top", fontweight="bold")


def _axes(width: float, height: float) -> Axes:
    """Axes of a figure (in inches) that no global state knows of, so nothing is left open."""
    return Figure(figsize=(width, height), layout="constrained").add_subplot()


def _svg(axes: Axes) -> str:
    """The figure as SVG text, transparent, in the page's fonts, with a dark variant."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    FigureCanvasSVG(figure)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r" font-family: [^;\"]*;?", "", text)
    dark = "".join(
        f'[style*="{paint}: {light.lower()}"]{{{paint}:{shade}!important}}'
        for light, shade in DARK.items()
        for paint in ("fill", "stroke")
    )
    style = f"<style>text{{font-family:{FONTS}}}@media (prefers-color-scheme: dark){{{dark}}}</style>"
    return re.sub(r"(<svg[^>]*>)", lambda match: match.group(1) + style, text, count=1)


def _colours(count: int) -> list[str]:
    """One run alone is blue; several take the palette in order, so λ = 0 is vermilion and the aligned run blue."""
    return [COLOURS[1]] if count == 1 else [COLOURS[i % len(COLOURS)] for i in range(count)]


def _smoothed(values: Sequence[float]) -> list[float]:
    """Centred running mean over a fortieth of the curve; short curves stay as they are."""
    half = len(values) // 80
    if not half:
        return list(values)
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def _thinned(
    steps: Sequence[float], values: Sequence[float], most: int = 400
) -> tuple[Sequence[float], Sequence[float]]:
    """At most about `most` points, the last one kept: a chart has no more columns of pixels."""
    stride = max(1, len(steps) // most)
    keep = sorted({*range(0, len(steps), stride), len(steps) - 1})
    return [steps[i] for i in keep], [values[i] for i in keep]


def _broken(text: str) -> str:
    """A label in two lines of about equal length."""
    words = text.split()
    cut = min(range(1, len(words)), key=lambda i: abs(len(" ".join(words[:i])) - len(text) / 2), default=0)
    return " ".join(words[:cut]) + "\n" + " ".join(words[cut:]) if cut else text


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
