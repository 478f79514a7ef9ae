"""`docs/notebook.ipynb`: small, without stored outputs, and it runs from top to bottom."""

from __future__ import annotations

import ast
import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pages import ROOT

FILE = ROOT / "docs" / "notebook.ipynb"
QUICK = (
    ("count=4", "count=1"),
    ("steps=60", "steps=3"),
    ('load("demo")', 'load("demo", "steps=3", "space.samples=500")'),
)


def content() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def test_it_is_small_and_holds_no_outputs() -> None:
    assert FILE.stat().st_size < 10_000
    for cell in content()["cells"]:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None), "clear all outputs before saving it"
            ast.parse("".join(cell["source"]))


def test_what_is_shortened_below_is_there() -> None:
    source = FILE.read_text(encoding="utf-8").replace('\\"', '"')
    assert all(source.count(long) == 1 for long, _ in QUICK)


def run(folder: Path, quick: bool, file: Path = FILE) -> list[Any]:
    """The outputs of its code cells, executed in an empty folder."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient is of the extra dev")
    pytest.importorskip("ipykernel", reason="ipykernel is of the extra dev")
    import nbformat

    notebook = nbformat.read(file, as_version=4)
    for cell in notebook.cells:
        for long, short in QUICK if quick else ():
            cell.source = cell.source.replace(long, short)
    nbclient.NotebookClient(
        notebook, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


def pictures(outputs: list[Any]) -> list[Image.Image]:
    """The pictures that cells show."""
    shown = [one["data"]["image/png"] for cell in outputs for one in cell if "image/png" in one.get("data", {})]
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in shown]


@pytest.mark.slow
@pytest.mark.parametrize("quick", [True, False], ids=["short", "as it is"])
def test_it_runs(quick: bool, tmp_path: Path) -> None:
    outputs = run(tmp_path, quick)
    assert "Inverter(domain=demo, embedding=lsap_o_wplus" in outputs[0][-1]["data"]["text/plain"]
    assert len(pictures(outputs)) == 2
    assert "synthetic" in outputs[2][0]["text"]
    assert outputs[-1][-1]["data"]["text/plain"] == "True", "what was saved is drawn again to the bit"
    assert (tmp_path / "outputs" / "notebook" / "tuned" / "codes.safetensors").is_file()


@pytest.mark.slow
def test_a_cell_that_fails_fails_the_test(tmp_path: Path) -> None:
    broken = json.loads(FILE.read_text(encoding="utf-8"))
    broken["cells"] = [{**broken["cells"][1], "source": ["import lsap\n", "lsap.lod"]}]
    file = tmp_path / "broken.ipynb"
    file.write_text(json.dumps(broken))
    with pytest.raises(Exception, match="has no attribute 'lod'"):
        run(tmp_path, quick=False, file=file)
