"""Reports are self-contained, escape every text, format numbers correctly and are accessible without pictures."""

from __future__ import annotations

import base64
import doctest
import itertools
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from lsap.errors import BadValue, MissingFile
from lsap.evaluation import columns as table_columns
from lsap.evaluation.columns import Measure
from lsap.reports import charts, page, pictures
from lsap.reports import run_reports as report
from lsap.reports.page import Entry, Facts, Figure, Gallery, Section, Source, Table, Text, write_report
from lsap.reports.pictures import Column
from lsap.reports.run_reports import comparison_report, training_report

NASTY = "<script>alert('x')</script> & \"λ\""
VOID = {"meta", "img", "col", "br", "hr", "link"}
LAYERS = {"conv4": 0.02, "conv8": 0.03, "rgb8": 0.11}


BLOCKS: list[page.Block] = [
    Text("marker"), page.Points({"marker": ""}), page.Numbers([("1", "marker", "")]), Facts({"marker": 1}),
    Table([Measure("x", "marker")], [Entry("a", {"x": 1})], "caption"), Source("marker", "text"),
    Figure("<svg/>", "marker"), page.SideBySide([Text("marker")]),
    Gallery([Column("marker", torch.zeros(1, 3, 8, 8))]),
]  # fmt: skip


class Page(HTMLParser):
    """A parsed page: its elements, their nesting, the texts of table rows."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.bold: list[str] = []
        self.texts: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data
            if "b" in self.open:
                self.bold.append(data)

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def row(**values: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("mse", "lpips", "identity", "nscd", "nscd_raw", "diversity", "n"))
    return {**empty, "nscd_layers": LAYERS, **values}


ROWS = {
    "mean_latent": row(mse=0.1085, nscd=0.0004, diversity=0.0, n=20),
    "synthetic": row(nscd=0.0303, nscd_raw=0.0588, diversity=0.0588, n=50_000),
    "lambda_0": row(mse=0.0237, lpips=0.14, nscd=0.0367, nscd_raw=0.065, diversity=0.0561, n=20),
    "lambda_0.5": row(mse=0.0270, lpips=0.158, nscd=0.0053, nscd_raw=0.0351, diversity=0.0402, n=20),
}


def columns() -> list[Column]:
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    return [
        Column("input", images),
        *(Column(t, images, g) for g in ("λ = 0", "λ = 0.5") for t in ("inversion", "pose", "smile")),
    ]


def log(path: Path, rows: int = 60) -> Path:
    """A CSV as Lightning writes it: training and validation values on rows of their own."""
    lines = ["epoch,step,train/l2,train/stage,val/l2,val/image_loss"]
    for step in range(rows):
        lines.append(f"0,{step},{1 / (step + 1):.4f},{step // 20},,")
        if step % 10 == 9:
            lines.append(f"0,{step},,,{1.1 / (step + 1):.4f},0.5")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Page:
    tmp_path = tmp_path_factory.mktemp("comparison")
    logs = {"λ = 0": log(tmp_path / "0.csv"), "λ = 0.5": log(tmp_path / "1.csv")}
    path = comparison_report(
        tmp_path / "report.html", ROWS, columns(), logs=logs, labels={"lpips": "LPIPS (demo trunk)"},
        seconds=521, provenance={"command": "make demo", "note": NASTY},
    )  # fmt: skip
    return Page(path)


def test_a_report_loads_nothing_and_runs_nothing(comparison: Page) -> None:
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in comparison.elements}
    for _, attributes in comparison.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "poster", "data"):
                assert re.match(r"data:image/|#", value or "")
    css = comparison.source[: comparison.source.index("</style>")]
    assert "url(" not in css
    assert "@import" not in css
    assert any("default-src 'none'" in (meta.get("content") or "") for meta in comparison.attributes("meta"))


def test_every_picture_is_a_complete_data_uri_with_an_alternative_text(comparison: Page) -> None:
    images = comparison.attributes("img")
    assert len(images) == 2 * 7 + 2 + 2  # gallery; scatter and layers; l2 and image loss
    for image in images:
        kind, data = re.fullmatch(r"data:image/(png|svg\+xml);base64,(.+)", image["src"] or "").groups()  # type: ignore[union-attr]
        content = base64.b64decode(data, validate=True)
        if kind == "png":
            assert content.startswith(b"\x89PNG")
            assert content.endswith(b"IEND\xaeB`\x82")
        else:
            ElementTree.fromstring(content)
        assert image["alt"]
    assert "image 2, λ = 0.5, smile" in {image["alt"] for image in images}


def test_links_within_the_page_have_a_target(comparison: Page) -> None:
    anchors = {attributes.get("id") for _, attributes in comparison.elements}
    links = [a["href"] for a in comparison.attributes("a")]
    assert len(links) >= 4
    assert all((link or "")[1:] in anchors for link in links)


def test_all_text_is_escaped(tmp_path: Path) -> None:
    image = torch.zeros(1, 3, 8, 8)
    sections = [
        Section(NASTY, [
            Text(NASTY), page.Points({NASTY: NASTY}), page.Numbers([(NASTY, NASTY, NASTY)]), Facts({NASTY: NASTY}),
            Table([Measure("x", NASTY, NASTY, "lower")], [Entry(NASTY, {"x": NASTY})], NASTY, NASTY),
            Figure(charts.layer_bars({NASTY: {NASTY: 1.0}}), NASTY, NASTY), Source(NASTY, NASTY),
            Gallery([Column(NASTY, image, NASTY)], NASTY, [NASTY]),
        ])
    ]  # fmt: skip
    path = write_report(tmp_path / "r.html", NASTY, sections, lead=NASTY, footer=NASTY)
    read = Page(path)
    assert not read.attributes("script")
    assert read.texts.count(NASTY) >= 16
    assert any(image["alt"] == NASTY for image in read.attributes("img"))


def test_the_best_encoder_is_bold_and_neither_baseline_nor_reference_competes(comparison: Page) -> None:
    assert sorted(comparison.bold) == sorted(["0.0237", "0.140", "0.00530", "0.0351"])
    table = {cells[0]: cells for cells in comparison.rows if len(cells) > 4 and cells[0]}
    assert table["Generator’s own samples"][1:] == ["–", "–", "0.03030", "0.0588", "0.0588", "50\u202f000"]
    assert table["Mean latent"][3] == "0.00040"
    heads = " ".join(table["Codes"])
    assert "LPIPS (demo trunk)" in heads
    assert "Identity" not in heads  # no row has a value
    kinds = [r.get("class") for r in comparison.attributes("tr") if r.get("class") not in (None, "groups")]
    assert kinds == ["baseline", "reference", "method", "method"]


def test_arrows_have_a_text_label(comparison: Page) -> None:
    labels = [arrow["aria-label"] for arrow in comparison.attributes("abbr")]
    assert labels == ["lower is better"] * 4  # mse, lpips, nscd, nscd_raw; diversity and number have none


def test_tables_name_their_rows_and_columns(comparison: Page) -> None:
    assert {head.get("scope") for head in comparison.attributes("th")} == {"col", "row", "colgroup"}
    assert comparison.source.count("<caption>") == 1


def test_the_ratios_in_words_are_right(comparison: Page) -> None:
    text = " ".join(comparison.texts)
    assert "MSE at λ = 0.5 is 0.249 times the mean latent’s and 1.14 times that of λ = 0." in text
    assert "NSCD at λ = 0.5 is 0.144 times that of λ = 0 and 0.175 times the samples’." in text
    assert {"÷ 6.9", "+14 %", "68 %", "8 min 41 s"} <= set(comparison.texts)


def test_a_comparison_of_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadValue, match=r"needs two encoders.*got synthetic, lambda_0$"):
        comparison_report(tmp_path / "r.html", {n: ROWS[n] for n in ("synthetic", "lambda_0")}, columns())
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_is_rendered(tmp_path: Path) -> None:
    log(tmp_path / "metrics.csv")
    (tmp_path / "config.yaml").write_text("lambda_nscd: 0.5  # <b>\n")
    pictures.save(pictures.sheet(torch.zeros(2, 3, 16, 16)), tmp_path / "reconstructions.png")
    rows = {name: ROWS[name] for name in ("mean_latent", "synthetic")} | {"encoder": ROWS["lambda_0.5"]}
    content = {"splits": {"rich": rows, "plain": rows}, "images_per_second": 71.8412, "versions": {"torch": "2.14.1"}}
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    read = Page(training_report(tmp_path, title="LSAP_E, λ = 0.5"))
    text = " ".join(read.texts)
    assert "On rich: MSE 0.0270, 0.249 times the mean latent’s; NSCD 0.00530" in text
    assert "lambda_nscd: 0.5  # <b>" in text
    assert "71.8" in read.texts
    assert "torch 2.14.1" in read.texts
    assert read.bold == []  # one encoder alone is not the best of anything
    assert len(read.attributes("img")) == 1 + 1 + 2


def test_a_run_without_pictures_or_log_is_rendered_with_its_numbers(tmp_path: Path) -> None:
    read = Page(training_report(tmp_path, {"splits": {"rich": {"encoder": row(mse=0.5, nscd=0.1, nscd_layers=None)}}}))
    assert read.attributes("img") == []
    assert "0.500" in [cell for cells in read.rows for cell in cells]


def test_a_missing_or_damaged_metrics_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"metrics\.json does not exist"):
        training_report(tmp_path)
    (tmp_path / "metrics.json").write_text('{"splits": ')
    with pytest.raises(BadValue, match=r"metrics\.json cannot be read .*; delete it and start the run again"):
        training_report(tmp_path)


def test_a_truncated_picture_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="not a PNG file"):
        write_report(tmp_path / "r.html", "title", [Section("", [Figure(b"\x89PN", "cut")])])
    assert list(tmp_path.iterdir()) == []


def test_every_kind_of_block_has_a_macro(tmp_path: Path) -> None:
    for number, block in enumerate(BLOCKS):
        section = Section("", [page.SideBySide([block])])
        first, second = (write_report(tmp_path / f"{number}-{n}.html", "t", [section]) for n in range(2))
        assert "marker" in first.read_text()
        assert first.read_bytes() == second.read_bytes()
    assert {type(block) for block in BLOCKS} == set(get_args(page.Block))


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0"), (0.02374, "0.0237"), (-1.5, "−1.50"), (12345, "12\u202f345"), (1431.6, "1\u202f432"),
     (3.2e-6, "3.20 × 10⁻⁶"), (0.9999, "1.00"), (float("nan"), "not a number"), ("cpu", "cpu"), (True, "True")],
)  # fmt: skip
def test_numbers_are_written_for_readers(value: Any, text: str) -> None:
    assert page.number(value) == text


def test_a_log_with_gaps_repeats_and_rubbish_is_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/l2,val/l2\n4,0.4,\n2,0.9,\n4,,0.5\n2,0.8,\n6,nan,\n7,oops,\n8,0.1\n")
    read = charts.read_log(path)
    assert read["train/l2"] == [(2.0, 0.8), (4.0, 0.4), (8.0, 0.1)]  # in order; of a repeated step the later row
    assert read["val/l2"] == [(4.0, 0.5)]
    with pytest.raises(MissingFile, match=r"none\.csv"):
        charts.read_log(tmp_path / "none.csv")


def test_loss_charts_name_runs_at_their_ends_and_leave_out_what_is_no_loss(tmp_path: Path) -> None:
    read = charts.read_log(log(tmp_path / "m.csv"))
    both = charts.loss_curves({"λ = 0": read, "λ = 0.5": read}, titles={"l2": "L2"})
    assert list(both) == ["l2", "image_loss"]
    for text in ("L2", "λ = 0", "λ = 0.5, held out", charts.COLOURS[0].lower(), charts.COLOURS[1].lower()):
        assert text in both["l2"]
    assert "image_loss, held out" in both["image_loss"]
    assert charts.loss_curves({}) == {}


def test_the_trade_off_shows_every_row_and_the_samples_as_a_line() -> None:
    svg = charts.tradeoff(ROWS, names={name: report.row_title(name) for name in ROWS})
    for text in ("Mean latent", "λ = 0", "λ = 0.5", "own samples"):
        assert text in svg
    assert "stroke-dasharray" in svg
    with pytest.raises(BadValue, match="at least one row"):
        charts.tradeoff({"synthetic": ROWS["synthetic"]})


def box(svg: str, patch: str) -> tuple[float, float]:
    """Where a rectangle of a chart begins and ends from left to right."""
    path = re.search(rf'<g id="{patch}">\s*<path d="([^"]+)"', svg)
    assert path is not None
    xs = [float(x) for x in re.findall(r"[ML] (\S+) \S+", path[1])]
    return min(xs), max(xs)


def test_long_names_leave_the_axes_their_room_and_stand_apart() -> None:
    names = [f"{letter} method whose name is far longer than most" for letter in "abc"]
    svg = charts.scatter({name: (0.9 + n / 1000, 0.1) for n, name in enumerate(names)}, "x", "y")
    (left, right), (first, last) = box(svg, "patch_1"), box(svg, "patch_2")
    assert last - first > 0.75 * (right - left)
    heights = [float(y) for y in re.findall(r' y="(\S+)" transform="[^"]*">[abc] method[^<]*…[^<]*<', svg)]
    assert len(heights) == 3
    assert min(b - a for a, b in itertools.pairwise(sorted(heights))) > 9, "names do not lie on each other"


def test_axes_hold_points_that_are_all_below_zero() -> None:
    svg = charts.scatter({"a": (-0.4, 0.1), "b": (-0.2, 0.2)}, "x", "y")
    first, last = box(svg, "patch_2")
    at = [float(x) for x in re.findall(r'<use [^>]*x="(\S+)" y="\S+" style="fill: #(?:d55e00|0072b2)"', svg)]
    assert len(at) == 2
    assert first < at[0] < at[1] < last


def test_charts_carry_no_metadata_and_are_the_same_every_time() -> None:
    first, second = (charts.layer_bars({"λ = 0": LAYERS}, reference=LAYERS) for _ in range(2))
    assert first == second
    assert "metadata" not in first


def test_examples_in_docstrings_hold() -> None:
    for module in (table_columns, report):
        result = doctest.testmod(module)
        assert result.attempted > 0
        assert result.failed == 0
