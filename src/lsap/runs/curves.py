"""metrics.csv: every logged number of a run, whatever else logs, kept whole when a run is resumed."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from lsap.runs.atomic import write_text


class MetricsFile(Logger):
    """Logs to one CSV file: a row per logged step, a column per metric, empty where a metric was not logged.

    A resumed run keeps the rows of the steps before its checkpoint and drops those after it, which it will log again.
    Lightning asks for a save after every row; the whole file is then written only when it has grown by a twentieth, so
    that a long run does not write it thousands of times, and whenever `flush` is called.

    Args:
        path: of the file.
        first_step: the step that the run goes on from.
    """

    def __init__(self, path: Path, first_step: int = 0) -> None:
        super().__init__()
        self.path = path
        self.rows: dict[int, dict[str, Any]] = {}
        self.unwritten = 0
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                kept = [row for row in csv.DictReader(file) if int(row["step"]) < first_step]
            self.rows = {int(row["step"]): {k: v for k, v in row.items() if v and k != "step"} for row in kept}

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> int:
        return 0

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Settings are in config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        values = {name: value for name, value in metrics.items() if name != "epoch"}
        self.rows.setdefault(int(step or 0), {}).update(values)
        self.unwritten += 1

    @rank_zero_only
    def save(self) -> None:
        if self.unwritten > len(self.rows) / 20:
            self.flush()

    @rank_zero_only
    def flush(self) -> None:
        """Write the file as it should be now."""
        if not self.unwritten:
            return
        columns = sorted({name for row in self.rows.values() for name in row})
        text = io.StringIO()
        writer = csv.DictWriter(text, ["step", *columns], lineterminator="\n")
        writer.writeheader()
        for step in sorted(self.rows):
            writer.writerow({"step": step, **self.rows[step]})
        write_text(self.path, text.getvalue())
        self.unwritten = 0

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.flush()
