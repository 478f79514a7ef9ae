"""HFGI's networks: those of published checkpoints (`residue.…`, `grid_align.…` beside an encoder), and our own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lsap.checkpoints.encoders import EXTRA, split
from lsap.checkpoints.states import read_card, read_state
from lsap.errors import BadValue

FORMAT = "lsap consultation"
PUBLISHED = "hfgi"


@dataclass(frozen=True)
class StoredConsultation:
    """HFGI's networks of a file.

    kind: which networks: "hfgi" (the published ones) or "small".
    state: `residue.…` and `grid_align.…`.
    generator: fingerprint of the generator that they were trained for; None where the file does not say.
    """

    kind: str
    state: dict[str, Tensor]
    generator: str | None = None


def read_consultation(path: str | Path) -> StoredConsultation:
    """HFGI's networks of `hfgi_ffhq_official.pt` and its like, of such a file converted, or of a run.

    Raises:
        MissingFile, BadValue: no such file, or another kind of content.
    """
    texts, content = read_card(path), read_state(path)
    state = {name: tensor for name, tensor in content.items() if str(name).startswith(EXTRA)} or split(content)["extra"]
    absent = [part for part in EXTRA if not any(name.startswith(part) for name in state)]
    if absent:
        found = _begins(state or content)
        raise BadValue(
            f"{path}: this holds no networks of HFGI (no {absent[0]}…; it holds {found}); expected HFGI's checkpoint, "
            "or consultation.safetensors of a run"
        )
    if texts.get("format") == FORMAT:
        return StoredConsultation(texts["kind"], state, texts.get("generator"))
    return StoredConsultation(PUBLISHED, state)


def card(kind: str) -> dict[str, str]:
    """The texts beside the tensors of our own file, but for the generator's fingerprint."""
    return {"format": FORMAT, "kind": kind}


def _begins(content: Mapping[str, Any]) -> str:
    return ", ".join(list(map(str, content))[:4]) or "nothing"
