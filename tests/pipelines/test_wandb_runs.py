"""A sweep, inversions and an evaluation of the demo, logged offline: what was logged, what a workspace refers to."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from PIL import Image

from commands import Command
from lsap.config.compose import composed, config_dir
from lsap.errors import BadValue
from lsap.pipelines.dashboard import MISSING, dashboard
from wandb_files import end_of_process, records

# The package's own classes are written in a way that pydantic wants to see changed.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:wandb_workspaces", "ignore:Pydantic V1 style")

TINY = (
    "max_steps=2", "batch_size=2", "space.samples=100", "data.train.count=8", "data.val_images=2",
    "data.tests.rich.count=4", "data.tests.plain.count=2", "data.tests.far.count=2", "trainer.accelerator=cpu",
    "trainer.val_check_interval=1.0",
)  # fmt: skip


@dataclass
class Run:
    """What an offline run of Weights & Biases keeps on this machine."""

    folder: Path
    run_id: str = ""
    group: str = ""
    verb: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: dict[str, list[Any]] = field(default_factory=dict)
    summary: set[str] = field(default_factory=set)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    artifacts: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> Run:
        run = cls(path.parent)
        for record in records(path):
            if record.HasField("run"):
                told = record.run
                run.run_id, run.group, run.verb = told.run_id, told.run_group, told.job_type
                run.config |= {each.key: json.loads(each.value_json) for each in told.config.update}
            for item in record.history.item:
                key = item.key or "/".join(item.nested_key)
                run.history.setdefault(key, []).append(json.loads(item.value_json))
            run.summary |= {item.key or item.nested_key[0] for item in record.summary.update}
            if record.HasField("artifact"):
                run.artifacts[record.artifact.name] = [each.path for each in record.artifact.manifest.contents]
        for key, (kind, *_) in [(k, v) for k, v in run.history.items() if k.endswith("/_type")]:
            if kind == "table-file":
                key = key.removesuffix("/_type")
                run.tables[key] = json.loads((run.folder / "files" / run.history[f"{key}/path"][-1]).read_text())
        return run

    def keys(self, kind: str) -> set[str]:
        """Names of everything that is of a kind of W&B, as `table-file`."""
        return {key.removesuffix("/_type") for key, values in self.history.items() if values[0] == kind}

    def picture(self, key: str) -> Image.Image:
        """The last picture that was logged under a key."""
        with Image.open(self.folder / "files" / self.history[f"{key}/filenames"][-1][0]) as found:
            return found.convert("RGB")


Project = Mapping[str, list[Run]]


def called(verb: str, *arguments: str) -> None:
    """A command as a user gives it, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{verb}.py", *arguments])
        try:
            importlib.import_module(f"lsap.{verb}").main()
        finally:
            GlobalHydra.instance().clear()
            HydraConfig.instance().cfg = None


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a sweep of two trainings, an inversion by each and their evaluation, all logged offline."""
    folder = tmp_path_factory.mktemp("project") / "outputs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        patch.setenv("WANDB_DATA_DIR", str(folder.parent / "staged"))
        common = ("logger=wandb", f"outputs={folder}")
        for verb in ("train", "invert"):
            called(verb, "-m", "lambda_nscd=0,0.5", *TINY, *common)
        inverted = sorted(folder.glob("demo/inversions/lsap_e/*/summary.json"))
        assert len(inverted) == 2
        named = ",".join(f"m{number}: '{file.parent}'" for number, file in enumerate(inverted))
        fast = ("strength=1", "correlations=false", "shown=2", "inception=null", "accelerator=cpu", "space.samples=100")
        called("evaluate", f"runs={{{named}}}", *fast, *common)
        called("invert", "lambda_nscd=0.5", *TINY, *common)  # finished and logged before
        end_of_process()
        yield folder


@pytest.fixture(scope="module")
def project(outputs: Path) -> Project:
    """All runs, by the verb that made them."""
    found: dict[str, list[Run]] = {}
    for path in sorted(outputs.rglob("*.wandb")):
        run = Run.of(path)
        found.setdefault(run.verb, []).append(run)
    return found


# ---- the definition of the workspace


def definition(outputs: Path, *overrides: str) -> dict[str, Any]:
    pytest.importorskip("wandb_workspaces")
    path = dashboard(composed("dashboard", ["logger.offline=true", f"outputs={outputs}", *overrides]))
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def panels(found: dict[str, Any]) -> list[dict[str, Any]]:
    sections = found["view"]["spec"]["section"]["panelBankConfig"]["sections"]
    return [panel for section in sections for panel in section["panels"]]


def strings(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for value in node.values():
            yield from strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from strings(value)
    elif isinstance(node, str):
        yield node


def referred(found: dict[str, Any]) -> dict[str, set[str]]:
    """What panels refer to, by its kind: config, summary, history, pictures, tables, columns."""
    keys: dict[str, set[str]] = {}
    for panel in panels(found):
        config = panel["config"]
        match panel["viewType"]:
            case "Scatter Plot":
                for axis in (config["xAxis"], config["yAxis"]):
                    kind, _, name = axis.partition(":")
                    keys.setdefault(kind, set()).add(name.removesuffix(".value"))
            case "Run History Line Plot":
                keys.setdefault("history", set()).update(config["metrics"])
            case "Media Browser":
                keys.setdefault("pictures", set()).update(config["mediaKeys"])
            case "Weave":
                (key,) = (word for word in strings(config) if re.fullmatch(r"(test|invert|evaluate)/\w+", word))
                keys.setdefault("tables", set()).add(key)
            case "Vega2":
                (key,) = (word for word in strings(config["userQuery"]) if "/" in word)
                keys.setdefault("charted", set()).add(key)
                keys.setdefault("columns", set()).update(config["fieldSettings"].values())
            case other:
                raise AssertionError(f"nobody checks panels of type {other}")
    return keys


def test_offline_the_definition_goes_into_a_file_and_says_how_to_push_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = definition(tmp_path, "logger.project=inversion")
    told = capsys.readouterr().out
    assert str(tmp_path / "demo" / "dashboard.json") in told
    assert "wandb login" in told
    assert "python -m lsap.dashboard domain=demo" in told
    assert found["url"] is None
    assert (found["view"]["project"], found["view"]["displayName"]) == ("inversion", "LSAP: demo")
    keys = referred(found)
    assert keys["config"] == {"lambda_nscd"}
    assert {"test/mse", "invert/mse", "invert/nscd"} <= keys["summary"]
    assert keys["pictures"] == {"val/panel", "invert/panel", "evaluate/panel"}
    assert "demo" in set(strings(found["view"]["spec"]["section"]["runSets"])), "runs of other domains are left out"


def test_measures_that_nobody_has_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("wandb_workspaces.workspaces")
    with pytest.raises(BadValue, match=r"measures=\['foo'\]: nobody measures 'foo'; accepted: diversity, .*psnr"):
        definition(tmp_path, "measures=[foo]")
    with pytest.raises(BadValue, match=r"nobody measures 'lpisp'; did you mean 'lpips'"):
        definition(tmp_path, "fidelity=[mse,lpisp]")
    assert definition(tmp_path, "measures=[psnr,leakage/smile]")


def test_a_damaged_definition_is_named(tmp_path: Path) -> None:
    pytest.importorskip("wandb_workspaces.workspaces")
    (tmp_path / "dashboard.json").write_text("{")
    with pytest.raises(BadValue, match=r"dashboard\.json cannot be read .*delete it: the workspace is then made anew"):
        dashboard(composed("dashboard", [f"save_to={tmp_path / 'dashboard.json'}"]))


def test_where_somebody_is_logged_in_the_workspace_is_pushed_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    internal = pytest.importorskip("wandb_workspaces.workspaces.internal")
    sent: list[Any] = []

    def upsert(view: Any) -> dict[str, Any]:
        sent.append(view)
        return {"upsertView": {"view": {"name": view.name, "id": view.id or "its id"}}}

    def stored(entity: str, project: str, name: str) -> Any:
        assert (entity, project) == ("me", "lsap")
        return sent[-1].model_copy(update={"id": "its id"})

    monkeypatch.setattr(internal, "upsert_view2", upsert)
    monkeypatch.setattr(internal.View, "from_name", stored)
    monkeypatch.setattr("wandb_workspaces.workspaces.interface.get_app_url", lambda _: "https://wandb.ai")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr("wandb.Api", lambda: None)
    config = composed("dashboard", ["logger.entity=me", f"outputs={tmp_path}"])
    first = json.loads(dashboard(config).read_text())
    second = json.loads(dashboard(config).read_text())
    assert first["url"].startswith("https://wandb.ai/me/lsap?nw=")
    assert first["url"] in capsys.readouterr().out
    assert second["url"] == first["url"], "the same workspace, not another one"
    assert [view.id for view in sent] == ["", "its id"]
    assert len(panels(second)) == len(panels(first))


def test_without_the_package_one_line_says_what_to_install(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    done = command("dashboard")
    assert (done.code, done.err) == (2, f"error: {MISSING}\n")
    with pytest.raises(BadValue, match=r"lsap\[dashboard\]"):
        dashboard(composed("dashboard"))
    extras = (config_dir().parent / "pyproject.toml").read_text()
    assert re.search(r'^dashboard = \["wandb-workspaces', extras, re.MULTILINE)


# ---- what was logged


@pytest.mark.slow
def test_every_panel_refers_to_what_was_really_logged(outputs: Path, project: Project) -> None:
    keys = referred(definition(outputs))
    runs = [run for found in project.values() for run in found]
    tables = {key: table for run in runs for key, table in run.tables.items()}
    assert keys["config"] | {"domain"} <= set.intersection(
        *({*r.config} for v in ("train", "invert") for r in project[v])
    )
    assert keys["summary"] <= {key for run in runs for key in run.summary}
    assert keys["history"] <= {key for run in runs for key in run.history}
    assert keys["pictures"] == {key for run in runs for key in run.keys("images/separated")}
    assert keys["tables"] == set(tables)
    assert keys["charted"] <= set(tables)
    assert keys["columns"] <= set(tables["evaluate/table"]["columns"])
    assert all(run.config["domain"] == "demo" for run in runs), "what the workspace filters by"


@pytest.mark.slow
def test_a_panel_of_a_key_that_nobody_logs_would_be_found(outputs: Path, project: Project) -> None:
    keys = referred(definition(outputs, "measures=[mse,fid]", f"save_to={outputs}/other.json"))
    assert {"test/fid", "invert/fid"} <= keys["summary"]
    assert "fid" in keys["columns"]
    assert not {"test/fid", "invert/fid"} & {key for v in project.values() for run in v for key in run.summary}


@pytest.mark.slow
def test_every_member_of_a_sweep_is_a_run_of_its_group(project: Project) -> None:
    for verb in ("train", "invert"):
        runs = project[verb]
        assert len({run.run_id for run in runs}) == len(runs) == 2, "and what was logged is not logged again"
        assert {run.config["lambda_nscd"] for run in runs} == {0.0, 0.5}
        (group,) = {run.group for run in runs}
        assert group.startswith(f"{verb} lambda_nscd=0,0.5 max_steps=2")
    (evaluation,) = project["evaluate"]
    assert evaluation.group == ""


@pytest.mark.slow
def test_panels_show_input_inversion_and_the_edits_of_the_domain(project: Project) -> None:
    edits = len(composed("train").domain.edits)
    assert edits
    tile, gap, margin = 128, 4, 14
    for verb, key in (("train", "val/panel"), ("invert", "invert/panel")):
        for run in project[verb]:
            picture = run.picture(key)
            rows = 2 + edits
            assert picture.height == rows * (tile + gap) - gap + 2 * margin, "input, inversion, one row per edit"
            left = picture.width - margin - tile
            shown = [
                picture.crop((left, y, left + tile, y + tile)) for y in range(margin, picture.height - tile, tile + gap)
            ]
            assert len({part.tobytes() for part in shown}) == rows, "no two rows are alike"
    methods = 2
    assert project["evaluate"][0].picture("evaluate/panel").width > (1 + methods * (1 + edits)) * tile


@pytest.mark.slow
def test_tables_hold_a_row_per_image_with_its_numbers_and_pictures(project: Project) -> None:
    for verb, key in (("train", "test/images"), ("invert", "invert/images")):
        for run in project[verb]:
            table = run.tables[key]
            rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
            assert [row["name"] for row in rows] == [f"rich-test-{number:05d}" for number in range(4)]
            mean = sum(row["mse"] for row in rows) / len(rows)
            assert mean == pytest.approx(run.history[f"{key.split('/')[0]}/mse"][-1], rel=1e-5)
            files = [path for paths in run.artifacts.values() for path in paths]
            assert sum(path.endswith(".png") for path in files) == 2 * len(rows), "input and inversion of each"
    (run,) = project["evaluate"]
    table = run.tables["evaluate/table"]
    found = {row[0]: dict(zip(table["columns"], row, strict=True)) for row in table["data"]}
    assert set(found) == {"m0", "m1"}
    assert {row["lambda_nscd"] for row in found.values()} == {0.0, 0.5}
    for name, row in found.items():
        assert row["embedding"] == "lsap_e"
        assert row["mse"] == run.history[f"evaluate/{name}/mse"][-1]
    assert len(run.tables["evaluate/images"]["data"]) == 2 * 4
