"""Data of a self-contained HTML page (text, tables, pictures, facts) and its rendering with the templates beside it.

Pictures are data URIs, the style is one block, there is no script, and a Content Security Policy forbids external
resources. Jinja2 escapes every text. Each block is a dataclass; `templates/blocks.html.jinja` has its macro.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from lsap.errors import BadValue
from lsap.evaluation.columns import Measure, column, number
from lsap.reports import pictures
from lsap.runs import write_bytes
from lsap.values import is_number


@dataclass(frozen=True)
class Text:
    """A paragraph; `code` between back-ticks is set as code, **words** between asterisks are bold."""

    text: str


@dataclass(frozen=True)
class Points:
    """Short paragraphs, heading → text, side by side if there is room."""

    items: Mapping[str, str]


@dataclass(frozen=True)
class Numbers:
    """Key numbers in large print: (value, label, note)."""

    items: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Entry:
    """A row of a table.

    Attributes:
        name: its heading.
        values: by the key of the column; None or absent is shown as a dash.
        kind: only a "method" is compared for the best value; a "baseline" is the mean latent, a "reference" the
            generator's own samples.
    """

    name: str
    values: Mapping[str, Any]
    kind: Literal["method", "baseline", "reference"] = "method"


@dataclass(frozen=True)
class Table:
    """Numbers in rows and columns; the best of each column is bold, columns without any value are left out."""

    measures: Sequence[Measure]
    entries: Sequence[Entry]
    caption: str
    corner: str = ""

    @property
    def shown(self) -> list[Measure]:
        """The measures that at least one entry has a value of."""
        return [m for m in self.measures if any(e.values.get(m.key) is not None for e in self.entries)]

    def rows(self) -> list[tuple[Entry, list[tuple[str, bool]]]]:
        """Every entry with its cells: (formatted value, whether it is the best of its column)."""
        columns = [self._cells(measure) for measure in self.shown]
        return [(entry, [cells[row] for cells in columns]) for row, entry in enumerate(self.entries)]

    def _cells(self, measure: Measure) -> list[tuple[str, bool]]:
        values = [entry.values.get(measure.key) for entry in self.entries]
        kinds = [entry.kind for entry in self.entries]
        texts = column(values, [value for value, kind in zip(values, kinds, strict=True) if kind != "baseline"])
        cells = list(zip(texts, values, kinds, strict=True))
        compared = {text: value for text, value, kind in cells if kind == "method" and is_number(value)}
        best = None
        if measure.better and len(compared) > 1:
            best = (min if measure.better == "lower" else max)(compared, key=compared.__getitem__)
        return [(text, text == best and kind == "method") for text, _, kind in cells]


@dataclass(frozen=True)
class Figure:
    """A picture with a caption.

    Attributes:
        image: SVG text, or the bytes of a PNG file.
        alt: alternative text.
        caption: printed below.
    """

    image: str | bytes
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class SideBySide:
    """Blocks side by side if there is room, else below one another; `least` is the CSS width that each one needs."""

    blocks: Sequence[Block]
    least: str = "18rem"


@dataclass(frozen=True)
class Gallery:
    """Columns of images as a table of small pictures, so that captions stay text at every width.

    Attributes:
        columns: as for `pictures.grid`.
        caption: printed below.
        names: of the rows, shown at the left and used in the alternative texts; numbered by default.
    """

    columns: Sequence[pictures.Column]
    caption: str = ""
    names: Sequence[str] = ()

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Neighbouring columns of one group: (its name, the number of its columns)."""
        return [(name, len(list(members))) for name, members in groupby(column.group for column in self.columns)]


@dataclass(frozen=True)
class Facts:
    """Names and values, such as the provenance of results."""

    items: Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """Preformatted text, folded below a summary line."""

    summary: str
    text: str


Block = Text | Points | Numbers | Table | Figure | SideBySide | Gallery | Facts | Source


@dataclass(frozen=True)
class Section:
    """A heading and the blocks below it; a section without a title opens the page."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """The title as an identifier for links."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-") or "section"


def write_report(path: Path, title: str, sections: Sequence[Section], *, lead: str = "", footer: str = "") -> Path:
    """Render one self-contained HTML page and write it atomically.

    Args:
        path: of the file; its folder is created if necessary.
        title: of the page, plain text.
        sections: in order; with four or more titled ones, links to them stand under the title.
        lead: one or two sentences under the title.
        footer: the last line.

    Raises:
        BadValue: a picture is not a PNG file.
    """
    template = _environment().get_template("page.html.jinja")
    write_bytes(path, template.render(title=title, sections=sections, lead=lead, footer=footer).encode())
    return path


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("lsap.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "class_name": lambda block: type(block).__name__,
        "data_uri": data_uri,
        "fact": fact,
        "inline": _inline,
        "png": pictures.png,
        "tile": pictures.tile,
    }
    return environment


def fact(value: Any) -> str:
    """A plain value, list or mapping as readable text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {fact(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(fact(entry) for entry in value)
    return number(value)


def data_uri(image: str | bytes) -> str:
    """SVG text or PNG bytes as a data URI.

    Raises:
        BadValue: bytes that are not a PNG file, such as a truncated picture.
    """
    if isinstance(image, str):
        return f"data:image/svg+xml;base64,{base64.b64encode(image.encode()).decode()}"
    if not image.startswith(b"\x89PNG\r\n\x1a\n"):
        raise BadValue("a picture of the report is not a PNG file; it may be truncated")
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


def _inline(text: str) -> Markup:
    """Escaped text with `code` and **strong** words."""
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", escaped))
