"""`python -m lsap.evaluate runs=[…]`: one table of several methods, from saved files, under a named protocol.

Numbers of single images are kept chunk by chunk, so an evaluation that was stopped goes on where it was, and one with a
further method measures that method only.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from lsap.evaluation.cache import Rows
from lsap.evaluation.ranks import Correlation
from lsap.evaluation.tables import ResultsTable, written
from lsap.pipelines.editing.setup import label
from lsap.pipelines.evaluation.evaluator import Evaluator
from lsap.pipelines.evaluation.methods import MethodOutputs, completed
from lsap.reports.evaluation_report import Shown, evaluation_report
from lsap.runs import manifest, write_json, write_text

EXTREME = 4  # best and worst images that the page shows


def evaluate(config: DictConfig) -> Path:
    """Measure runs, or pick up what an earlier start of the same left.

    Returns:
        The folder of the results: `table.csv`, `table.md`, `results.json`, `images.csv`, `report.html`.

    Raises:
        BadValue, MissingFile: runs that cannot be compared, or settings that cannot work.
        StoppedRun: the disk is full; what was measured stays.
    """
    evaluator = Evaluator.of(completed(config))
    rows = {one.name: evaluator.measured(one) for one in evaluator.methods}
    results_table = evaluator.results_table(rows)
    correlations = evaluator.correlations(rows) if config.correlations else []
    path = evaluator.path
    first = list(evaluator.names[: config.shown])
    images = (first, evaluator.read(first))
    shown = {one.name: _shown(evaluator, one, first, rows[one.name]) for one in evaluator.methods}
    write_results(evaluator, rows, results_table, correlations, images, shown)
    if config.logger.name == "wandb":
        from lsap.pipelines.evaluation.wandb_logging import log_evaluation

        log_evaluation(evaluator, rows, results_table, images, shown)
    print(results_table.markdown())
    if evaluator.not_measured:
        print(f"not measured: {'; '.join(evaluator.not_measured)}")
    print(f"{path}/report.html")
    return path


# ---- results


def write_results(
    evaluator: Evaluator,
    rows: Mapping[str, Rows],
    results_table: ResultsTable,
    correlations: Sequence[Correlation],
    images: tuple[Sequence[str], Tensor],
    shown: Mapping[str, Shown],
) -> None:
    """Write the table in three forms, the rows of all images, the correlations, and the page."""
    path, notes = evaluator.path, evaluator.not_measured
    keys = list(dict.fromkeys(key for found in rows.values() for row in found.values() for key in row))
    lines = [
        {"method": method, "name": name} | found[name] for method, found in rows.items() for name in evaluator.names
    ]
    write_text(path / "images.csv", written(["method", "name", *keys], lines))
    write_text(path / "table.csv", results_table.csv())
    write_text(path / "table.md", results_table.markdown())
    if correlations:
        columns = list(correlations[0].plain())
        write_text(path / "correlations.csv", written(columns, [one.plain() for one in correlations]))
    facts = described(evaluator, rows)
    about = {
        "table": results_table.json(),
        "correlations": [one.plain() for one in correlations],
        "not_measured": notes,
    }
    write_json(path / "results.json", facts | about | {"made": manifest(evaluator.parts.device)})
    write_text(path / "config.yaml", OmegaConf.to_yaml(evaluator.config, resolve=False))
    called = ({} if evaluator.latent_distances is None else evaluator.latent_distances.labels) | {
        "excess": "the leakage that is the edits’ fault, mean of all edits",
        "leakage": "leakage, mean of all edits",
    }
    for edit in evaluator.edits:
        called |= {
            f"excess/{edit}": f"the leakage of {edit} that is the edit’s fault",
            f"leakage/{edit}": f"leakage of {edit}",
        }
    evaluation_report(
        path / "report.html", results_table, evaluator.edits, images, shown, correlations, _flat(facts), notes, called
    )


def described(evaluator: Evaluator, rows: Mapping[str, Rows]) -> dict[str, Any]:
    """How the numbers were made, for files of results."""
    skipped = {
        method: sum(row.get("identity") is None for row in found.values()) if "identity" in evaluator.metrics else None
        for method, found in rows.items()
    }
    edits = {}
    if evaluator.edit_metrics is not None:
        for one in evaluator.edit_metrics.edits:
            unit = f"{label(one.rule.steps[0])}, {one.rule.name}"
            edits[one.direction.name] = f"{unit}; {one.direction.unit}; {one.direction.origin}"
    return {
        "protocol": evaluator.protocol.name,
        "settings": evaluator.protocol.described,
        "images": evaluator.chosen.label,
        "images compared": len(evaluator.names),
        "judges": dict(evaluator.labels),
        "identity_skipped": skipped,
        "faces": "nobody looked for them" if evaluator.faces is None else evaluator.faces.label,
        "runs": {
            one.name: {"folder": str(one.path), "mark": one.digest[:12], "lost": len(one.lost)}
            for one in evaluator.methods
        },
        "edits": edits,
        "reader": None if evaluator.edit_metrics is None else evaluator.edit_metrics.settings["reader"],
        "domain": evaluator.config.domain.name,
        "generator": evaluator.parts.fingerprint[:12] if evaluator.latent_distances is not None else None,
        "seed": evaluator.config.seed,
        "command": shlex.join(["python", "-m", "lsap.evaluate", *sys.argv[1:]]),
    }


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts for the page, those that are nothing left out."""
    return {key.replace("_", " "): value for key, value in facts.items() if value not in (None, {}, [])}


def _shown(evaluator: Evaluator, one: MethodOutputs, first: Sequence[str], rows: Rows) -> Shown:
    """The pictures of a method on the page."""
    pairs = evaluator.pairs(one)
    edits = {} if evaluator.edit_metrics is None else evaluator.edit_metrics.drawn(one, first, rows)
    order = sorted(
        (name for name in evaluator.names if rows[name].get("mse") is not None), key=lambda n: rows[n]["mse"]
    )
    some = min(EXTREME, len(order) // 2)
    best, worst = order[:some], order[::-1][:some]
    parts = [(part, *pairs.chunk(part)) if part else None for part in (best, worst)]
    return Shown(pairs.chunk(first)[1], edits, *parts)
