"""What W&B is shown of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from lsap.evaluation.cache import Rows
from lsap.evaluation.tables import ResultsTable
from lsap.pipelines.evaluation.evaluator import Evaluator
from lsap.pipelines.wandb_run import opened
from lsap.pipelines.wandb_tables import picture_cells, without_none
from lsap.reports.evaluation_report import Shown, side_by_side
from lsap.reports.pictures import grid
from lsap.runs.dashboard import noted, own_run

KNOWN = ("embedding", "refinement", "lambda_nscd")  # what an evaluation's table says of runs that we made


def log_evaluation(
    evaluator: Evaluator,
    rows: Mapping[str, Rows],
    results_table: ResultsTable,
    images: tuple[Sequence[str], Tensor],
    shown: Mapping[str, Shown],
) -> None:
    """Log an evaluation: means by `evaluate/<method>/<measure>`, the panel, tables of methods and of single images.

    Args:
        evaluator: methods and settings.
        rows: method → image → numbers.
        results_table: the table.
        images: names and images [N, 3, H, W] of the panel.
        shown: method → its pictures of these.
    """
    path, (names, inputs) = evaluator.path, images
    means = {name: row for name, row in results_table.means().items() if name not in results_table.kinds}
    with own_run():
        logger = opened(evaluator.config, path, name=path.name, run_id=noted(path)["id"], verb="evaluate")
        logger.log_metrics(
            without_none({f"evaluate/{n}/{key}": v for n, row in means.items() for key, v in row.items()})
        )
        logger.log_image("evaluate/panel", [grid(side_by_side(inputs, shown))])
        keys = [measure.key for measure in results_table.shown]
        known = {one.name: {key: one.summary.get(key) for key in KNOWN} for one in evaluator.methods}
        table = [[n, *known[n].values(), *(row[key] for key in keys)] for n, row in means.items()]
        logger.log_table("evaluate/table", ["method", *KNOWN, *keys], table)
        keys = list(dict.fromkeys(key for found in rows.values() for row in found.values() for key in row))
        lines = []
        for name, mine in rows.items():
            pairs = dict(zip(names, zip(inputs, shown[name].pictures, strict=True), strict=True))
            lines += [
                [name, n, *picture_cells(pairs.get(n)), *(mine[n].get(key) for key in keys)] for n in evaluator.names
            ]
        logger.log_table("evaluate/images", ["method", "name", "input", "inversion", *keys], lines)
