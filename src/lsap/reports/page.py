"""One self-contained HTML page out of plain parts: text, tables, pictures, facts.

Everything is inside the file: pictures are data URIs, the style is one block, there is no script, and the page forbids
itself to load anything. Every text is escaped. Each part is a small class with one method, `html()`.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Protocol

from lsap.errors import BadValue
from lsap.evaluation.columns import Measure, column, number
from lsap.reports import pictures
from lsap.runs import write_bytes
from lsap.values import is_number

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Block(Protocol):
    """A part of a page."""

    def html(self) -> str: ...


@dataclass(frozen=True)
class Text:
    """A paragraph; `code` between back-ticks is set as code."""

    text: str

    def html(self) -> str:
        return f"<p>{_inline(self.text)}</p>"


@dataclass(frozen=True)
class Points:
    """Short paragraphs with a heading each, side by side where there is room."""

    items: Sequence[tuple[str, str]]

    def html(self) -> str:
        entries = (f"<li><strong>{_text(head)}</strong> {_inline(text)}</li>" for head, text in self.items)
        return f'<ul class="points">{"".join(entries)}</ul>'


@dataclass(frozen=True)
class Numbers:
    """The few numbers to remember: (value, what it is, a note), drawn large."""

    items: Sequence[tuple[str, str, str]]

    def html(self) -> str:
        entries = (
            f'<div><dt>{_text(label)}</dt><dd class="value">{_text(value)}</dd>'
            + (f'<dd class="note">{_text(note)}</dd>' if note else "")
            + "</div>"
            for value, label, note in self.items
        )
        return f'<dl class="numbers">{"".join(entries)}</dl>'


@dataclass(frozen=True)
class Entry:
    """A row of a table.

    Attributes:
        name: its heading.
        values: by the key of the column; None or absent is shown as a dash.
        kind: only a "method" competes for the best value; a "baseline" is there to be beaten, a "reference" to be
            compared with (the generator's own samples).
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

    def html(self) -> str:
        shown = [m for m in self.measures if any(e.values.get(m.key) is not None for e in self.entries)]
        columns = [self._column(measure) for measure in shown]
        head = "".join(_heading(measure) for measure in shown)
        body = "".join(
            f'<tr class="{entry.kind}"><th scope="row">{_text(entry.name)}</th>'
            + "".join(f"<td>{column[row]}</td>" for column in columns)
            + "</tr>"
            for row, entry in enumerate(self.entries)
        )
        return (
            f'<div class="scroll" role="region" tabindex="0" aria-label="{_text(self.caption)}"><table class="data">'
            f'<caption>{_inline(self.caption)}</caption><thead><tr><th scope="col">{_text(self.corner)}</th>{head}</tr>'
            f"</thead><tbody>{body}</tbody></table></div>"
        )

    def _column(self, measure: Measure) -> list[str]:
        values = [entry.values.get(measure.key) for entry in self.entries]
        texts = column(values, [v for v, e in zip(values, self.entries, strict=True) if e.kind != "baseline"])
        rivals = {
            text: entry.values[measure.key]
            for text, entry in zip(texts, self.entries, strict=True)
            if entry.kind == "method" and is_number(entry.values.get(measure.key))
        }
        best = None
        if measure.better and len(rivals) > 1:
            best = (min if measure.better == "lower" else max)(rivals, key=lambda text: rivals[text])
        return [
            f"<b>{_text(text)}</b>" if text == best and entry.kind == "method" else _text(text)
            for text, entry in zip(texts, self.entries, strict=True)
        ]


@dataclass(frozen=True)
class Figure:
    """A picture with a caption.

    Attributes:
        image: SVG text, or the bytes of a PNG file.
        alt: what it shows, for those who cannot see it.
        caption: printed below.
    """

    image: str | bytes
    alt: str
    caption: str = ""

    def html(self) -> str:
        kind = ' class="chart"' if isinstance(self.image, str) else ""
        caption = f"<figcaption>{_inline(self.caption)}</figcaption>" if self.caption else ""
        return f'<figure{kind}><img src="{data_uri(self.image)}" alt="{_text(self.alt)}">{caption}</figure>'


@dataclass(frozen=True)
class Beside:
    """Parts side by side where there is room, else below one another; `least` is the width that each one needs."""

    blocks: Sequence[Block]
    least: str = "18rem"

    def html(self) -> str:
        return f'<div class="pair" style="--least:{_text(self.least)}">{"".join(b.html() for b in self.blocks)}</div>'


@dataclass(frozen=True)
class Gallery:
    """Columns of images as a table of small pictures, so that captions stay text at every width.

    Attributes:
        columns: as for `pictures.grid`.
        caption: printed below.
        names: of the rows, shown at the left and used in the alternative texts; numbered where there are none.
    """

    columns: Sequence[pictures.Column]
    caption: str = ""
    names: Sequence[str] = ()

    def html(self) -> str:
        rows = "".join(self._row(row) for row in range(len(self.columns[0].images)))
        caption = f"<figcaption>{_inline(self.caption)}</figcaption>" if self.caption else ""
        widths = '<col class="name">' if self.names else ""
        widths += self._spread(["<col>"] * len(self.columns), '<col class="gap">')
        return (
            f'<figure class="wide"><div class="scroll" role="region" tabindex="0" aria-label="pictures">'
            f'<table class="gallery" style="--columns:{len(self.columns)}"><colgroup>{widths}</colgroup>'
            f"<thead>{self._head()}</thead><tbody>{rows}</tbody></table></div>{caption}</figure>"
        )

    def _head(self) -> str:
        corner = "<td></td>" if self.names else ""
        titles = self._spread([f'<th scope="col">{_text(c.title)}</th>' for c in self.columns])
        groups = pictures.spans(self.columns)
        if not groups:
            return f"<tr>{corner}{titles}</tr>"
        cells = ["<td></td>"] * len(self.columns)
        for name, first, last in groups:
            cells[first] = f'<th scope="colgroup" colspan="{last - first + 1}"><span>{_text(name)}</span></th>'
            cells[first + 1 : last + 1] = [""] * (last - first)
        return f'<tr class="groups">{corner}{self._spread(cells)}</tr><tr>{corner}{titles}</tr>'

    def _row(self, row: int) -> str:
        name = self.names[row] if self.names else f"image {row + 1}"
        cells = []
        for each in self.columns:
            alt = ", ".join(filter(None, (name, each.group, each.title)))
            source = data_uri(pictures.png(pictures.tile(each.images[row])))
            cells.append(f'<td><img src="{source}" alt="{_text(alt)}"></td>')
        heading = f'<th class="name" scope="row">{_text(name)}</th>' if self.names else ""
        return f"<tr>{heading}{self._spread(cells)}</tr>"

    def _spread(self, cells: Sequence[str], gap: str = '<td class="gap"></td>') -> str:
        """The cells of one row, with a narrow one wherever a group begins or ends."""
        groups = [column.group for column in self.columns]
        parts = (gap + cell if i and groups[i] != groups[i - 1] else cell for i, cell in enumerate(cells))
        return "".join(parts)


@dataclass(frozen=True)
class Facts:
    """Names and values, as of where results come from."""

    items: Mapping[str, Any]

    def html(self) -> str:
        entries = (f"<dt>{_text(name)}</dt><dd>{_text(fact(value))}</dd>" for name, value in self.items.items())
        return f'<dl class="facts">{"".join(entries)}</dl>'


@dataclass(frozen=True)
class Source:
    """Preformatted text behind a line that opens it."""

    summary: str
    text: str

    def html(self) -> str:
        return f"<details><summary>{_text(self.summary)}</summary><pre><code>{_text(self.text)}</code></pre></details>"


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it; a section without a title opens the page."""

    title: str
    blocks: Sequence[Block]


def write_report(path: Path, title: str, sections: Sequence[Section], *, lead: str = "", footer: str = "") -> Path:
    """Write one self-contained HTML page, whole or not at all.

    Args:
        path: of the file; its folder is made if need be.
        title: of the page, plain text.
        sections: in order; with four or more named ones, links to them stand under the title.
        lead: one or two sentences under the title.
        footer: the last line.
    """
    css = files("lsap.evaluation").joinpath("page.css").read_text(encoding="utf-8")
    named = [section for section in sections if section.title]
    links = "".join(f'<li><a href="#{_anchor(s.title)}">{_text(s.title)}</a></li>' for s in named)
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>\n{css}</style>\n</head>\n<body>\n"
        f"<header><h1>{_text(title)}</h1>"
        + (f'<p class="lead">{_inline(lead)}</p>' if lead else "")
        + (f'<nav aria-label="sections"><ul>{links}</ul></nav>' if len(named) > 3 else "")
        + f"</header>\n<main>\n{''.join(_section(s) for s in sections)}</main>\n"
        + (f"<footer><p>{_inline(footer)}</p></footer>\n" if footer else "")
        + "</body>\n</html>\n"
    )
    write_bytes(path, page.encode())
    return path


def fact(value: Any) -> str:
    """Any plain value as a reader would write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {fact(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(fact(entry) for entry in value)
    return number(value)


def data_uri(image: str | bytes) -> str:
    """SVG text or PNG bytes inside an address.

    Raises:
        BadValue: bytes that are no PNG file, as when a picture was cut short.
    """
    if isinstance(image, str):
        return f"data:image/svg+xml;base64,{base64.b64encode(image.encode()).decode()}"
    if not image.startswith(b"\x89PNG\r\n\x1a\n"):
        raise BadValue("a picture for the report is no PNG file; it may have been cut short")
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


def _heading(measure: Measure) -> str:
    arrow = {"lower": "↓", "higher": "↑"}.get(measure.better or "")
    says = f"{measure.better} is better"
    mark = f'&nbsp;<abbr class="arrow" title="{says}" aria-label="{says}">{arrow}</abbr>'
    unit = f"<small>{_text(measure.unit)}</small>" if measure.unit else ""
    return f'<th scope="col">{_text(measure.label)}{mark if arrow else ""}{unit}</th>'


def _section(section: Section) -> str:
    heading = f"<h2>{_text(section.title)}</h2>\n" if section.title else ""
    anchor = f' id="{_anchor(section.title)}"' if section.title else ""
    return f"<section{anchor}>\n{heading}{''.join(block.html() for block in section.blocks)}\n</section>\n"


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"


def _text(text: str) -> str:
    return html.escape(text, quote=True)


def _inline(text: str) -> str:
    """Escaped text with `code` and line-internal **strong** words."""
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", _text(text))
    return re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", escaped)
