"""Numbers of single images, kept chunk by chunk, so that an evaluation that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lsap
from lsap.evaluation.rows import Row
from lsap.runs import write_json

Rows = dict[str, Row]  # image name → key → number or None


class MetricCache:
    """The numbers of one method under one set of rules.

    Args:
        folder: of all that is kept.
        kind: what is measured, for the name of its folder.
        settings: all that decides the numbers: the run, the images, the protocol, fingerprints of judges. Others have
            another folder; so has another version of lsap.
    """

    def __init__(self, folder: Path, kind: str, settings: Mapping[str, Any]) -> None:
        self.settings = {"lsap": lsap.__version__, **settings}
        text = json.dumps(self.settings, sort_keys=True, ensure_ascii=False)
        self.path = folder / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def find(self, chunk: int | str) -> Rows | None:
        """The rows of a chunk; None where they are not kept, or cannot be read."""
        try:
            found: Rows = json.loads((self.path / f"{chunk}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found

    def keep(self, chunk: int | str, rows: Rows) -> Rows:
        """Keep the rows of a chunk and return them."""
        if not (self.path / "settings.json").is_file():
            write_json(self.path / "settings.json", self.settings)
        write_json(self.path / f"{chunk}.json", rows)
        return rows
