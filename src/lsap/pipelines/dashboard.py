"""`python -m lsap.dashboard domain=demo`: the workspace in which Weights & Biases shows the runs of a domain.

Its panels refer to what `lsap.pipelines.wandb_logging` logs. The definition is always written to a file. With a W&B
login it is also pushed, and replaces what an earlier push made.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from lsap.errors import BadValue, nearest
from lsap.evaluation.columns import measures
from lsap.runs import read_json, write_json
from lsap.runs.dashboard import mode

MISSING = "a dashboard needs the package wandb-workspaces, which is not installed: pip install 'lsap[dashboard]'"
# Charts of Weights & Biases that draw a table: its name there, and which column is which.
SCATTER, LINE = "wandb/scatter/v0", "wandb/line/v0"
WIDE = 2  # panels side by side where each needs room


def dashboard(config: DictConfig) -> Path:
    """Write the workspace of a domain, and push it where somebody is logged in.

    Returns:
        The file of the definition: {"url": where it was pushed to, or None, "view": what Weights & Biases is sent}.

    Raises:
        BadValue: wandb-workspaces is not installed, the name of the user or team is needed and not known, or what was
            written before is damaged.
    """
    try:
        import wandb_workspaces.workspaces as ws
    except ImportError as error:
        raise BadValue(MISSING) from error
    columns = {measure.key for measure in measures({}, list(config.domain.get("edits") or {}))}
    usual = {name for name in columns if "/" not in name}  # of edits there are many
    for name, wanted in (("measures", config.measures), ("fidelity", config.fidelity)):
        for one in wanted:
            if one not in columns:
                raise BadValue(f"{name}={wanted}: nobody measures {one!r}; {nearest(str(one), usual)}")
    path = Path(config.save_to or Path(config.outputs) / config.domain.name / "dashboard.json")
    online = mode(config.logger.offline) == "online"
    mend = "delete it: the workspace is then made anew"
    known = read_json(path, mend, dict).get("url") if path.is_file() else None
    workspace = ws.Workspace(
        entity=owner(config) if online else config.logger.entity or "",
        project=config.logger.project,
        name=config.title,
        sections=sections(config),
        settings=ws.WorkspaceSettings(max_runs=50),
        runset_settings=ws.RunsetSettings(filters=ws.And(ws.Config("domain") == config.domain.name)),
    )
    if online:
        known = _pushed(workspace, known)
    view = workspace._model.model_dump(by_alias=True, exclude_none=True)
    write_json(path, {"url": known, "view": view})
    if online:
        print(f"{known}\n{path}: its definition")
    else:
        print(
            f"{path}: the definition alone, as nobody is logged in or offline was asked for. To push it: wandb login, "
            f"then python -m lsap.dashboard domain={config.domain.name} again; runs kept offline: wandb sync"
        )
    return path


def owner(config: DictConfig) -> str:
    """The user or team whose project it is; asks Weights & Biases where `logger.entity` does not say."""
    if config.logger.entity is not None:
        return str(config.logger.entity)
    import wandb

    found = wandb.Api().default_entity
    if not found:
        raise BadValue(
            "logger.entity is not set, and Weights & Biases knows no default; name your user or team with it"
        )
    return str(found)


def _pushed(workspace: Any, url: str | None) -> str:
    """Save a workspace, in place of the one at `url` where there is one; where it lies now."""
    import wandb_workspaces.workspaces as ws

    if url is not None:
        before = ws.Workspace.from_url(url)
        workspace._internal_name, workspace._internal_id = before._internal_name, before._internal_id
    return str(workspace.save().url)


# ---- what is on it


def sections(config: DictConfig) -> list[Any]:
    """The sections of the workspace, first to last."""
    import wandb_workspaces.workspaces as ws

    room = ws.SectionLayoutSettings(columns=WIDE, rows=2)
    return [
        ws.Section("λ curves", panels=curves(config.measures), is_open=True, pinned=True),
        ws.Section("Fidelity against NSCD", panels=tradeoffs(config.fidelity), is_open=True),
        ws.Section("Pictures", panels=pictures(), is_open=True, layout_settings=room),
        ws.Section("Tables", panels=tables(), is_open=True, layout_settings=room),
        ws.Section("Training", panels=losses(config.terms)),
    ]


def curves(measures: Sequence[str]) -> list[Any]:
    """Measures over lambda_nscd: of trained encoders, of inversions, one point per run; of an evaluation, a line."""
    import wandb_workspaces.reports.v2 as wr

    found: list[Any] = [
        wr.ScatterPlot(
            title=f"{what}: {name}", x=wr.Config("lambda_nscd"), y=wr.SummaryMetric(f"{stage}/{name}"),
            running_ymean=True, legend_template="${run:displayName}",
        )
        for stage, what in (("test", "encoders"), ("invert", "inversions"))
        for name in measures
    ]  # fmt: skip
    return found + [_of_table(LINE, "lambda_nscd", name) for name in measures]


def tradeoffs(fidelity: Sequence[str]) -> list[Any]:
    """Fidelity over NSCD, one point per run, and one per method of an evaluation."""
    import wandb_workspaces.reports.v2 as wr

    found: list[Any] = [
        wr.ScatterPlot(
            title=f"{what}: {name} against NSCD", x=wr.SummaryMetric(f"{stage}/nscd"),
            y=wr.SummaryMetric(f"{stage}/{name}"), legend_template="${run:displayName}",
        )
        for stage, what in (("test", "encoders"), ("invert", "inversions"))
        for name in fidelity
    ]  # fmt: skip
    return found + [_of_table(SCATTER, "nscd", name) for name in fidelity]


def _of_table(chart: str, x: str, y: str) -> Any:
    """A chart of two columns of the tables of evaluations."""
    import wandb_workspaces.reports.v2 as wr

    return wr.CustomChart(
        query={"summaryTable": {"tableKey": "evaluate/table"}},
        chart_name=chart,
        chart_fields={"x": x, "y": y},
        chart_strings={"title": f"evaluations: {y} over {x}"},
    )


def pictures() -> list[Any]:
    """Input, inversion and edits of fixed images."""
    import wandb_workspaces.reports.v2 as wr

    titles = {"val/panel": "encoders as they learn", "invert/panel": "inversions", "evaluate/panel": "evaluations"}
    return [wr.MediaBrowser(title=title, media_keys=[key], num_columns=1) for key, title in titles.items()]


def tables() -> list[Any]:
    """The methods of an evaluation, and the single images of everything."""
    import wandb_workspaces.reports.v2 as wr

    keys = ("evaluate/table", "evaluate/images", "invert/images", "test/images")
    return [wr.WeavePanelSummaryTable(table_name=key) for key in keys]


def losses(terms: Sequence[str]) -> list[Any]:
    """What an encoder learns by, in training and on held-out images."""
    import wandb_workspaces.reports.v2 as wr

    found = [wr.LinePlot(title="image loss, held out", y=["val/image_loss"])]
    found += [wr.LinePlot(title=name, y=[f"train/{name}", f"val/{name}"]) for name in terms]
    return [*found, wr.LinePlot(title="rows of W+ that train", y=["train/stage"])]
