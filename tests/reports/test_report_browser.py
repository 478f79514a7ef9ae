"""The page of an evaluation in a browser: complete, without console messages and without requests."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate

from lsap.config.compose import composed
from lsap.pipelines.evaluation.evaluate import evaluate
from lsap.pipelines.inversion import invert
from lsap.reports.pictures import save_image

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SMALL = ("space.samples=100",)
NARROW, USUAL = 420, 1280  # pixels: a telephone, a desk

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of an evaluation on the demo: one step of an optimisation, and pictures of another tool."""
    folder = tmp_path_factory.mktemp("report")
    common = (f"outputs={folder}", *SMALL)
    settings = ("embedding=lsap_o_wplus", "steps=1", "count=4", "trainer.accelerator=cpu")
    inverted = invert(composed("invert", [*settings, *common])).folder
    source = composed("invert", list(common)).data.tests.rich
    images = instantiate(source, _convert_="all")
    (folder / "other").mkdir()
    for place, name in enumerate(images.names[:4]):
        save_image(images.read([place])[0] / 2, folder / "other" / f"{name}.png")
    fast = ("strength=1", "inception=null", "accelerator=cpu", "protocol=demo64", "domain=demo")
    config = composed("evaluate", [*fast, *common, f"save_to={folder / 'evaluation'}"])
    config.runs = {
        "a method with a name that is longer than most": str(inverted),
        "another tool": str(folder / "other"),
    }
    return evaluate(config) / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if BROWSER is None:
        pytest.skip("no chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is of the extra dev")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [NARROW, USUAL])
def test_the_page_is_complete_and_sends_no_requests(browser: Any, report: Path, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    requests: list[str] = []
    messages: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(report.as_uri())
    page.wait_for_load_state("networkidle")
    assert messages == []
    assert [url for url in requests if not url.startswith("data:")] == [report.as_uri()]
    assert page.evaluate("document.images.length") > 20
    assert page.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).length") == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width, (
        "only tables scroll sideways, within themselves"
    )
    headings = page.locator("h2").all_inner_texts()
    assert {"Numbers", "Pictures", "Fidelity against editability", "How it was made"} <= set(headings)
    captions = page.locator("caption").all_inner_texts()
    assert "pose: +1, strength." in captions
    assert page.get_by_text("Equal effect").count() == 0, "the protocol edits by strength"
    page.close()


def test_charts_keep_their_axes_whatever_methods_are_called(browser: Any, report: Path) -> None:
    page = browser.new_page(viewport={"width": USUAL, "height": 900})
    page.goto(report.as_uri())
    chart = page.locator(".chart img").first.get_attribute("src")
    drawn = browser.new_page()
    drawn.set_content(base64.b64decode(chart.partition(",")[2]).decode())
    axes = drawn.locator("#patch_2").bounding_box()
    whole = drawn.locator("svg").first.bounding_box()
    assert axes["width"] > 0.6 * whole["width"]
    for label in drawn.locator("text", has_text="method").all():
        box = label.bounding_box()
        assert whole["x"] <= box["x"]
        assert box["x"] + box["width"] <= whole["x"] + whole["width"]
    drawn.close()
    page.close()
