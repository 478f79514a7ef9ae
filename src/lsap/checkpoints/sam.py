"""SAM's invertibility predictors: published ones (`sd_base` and a state dict per latent space), and our own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lsap.checkpoints.states import read_card, read_state, write_state
from lsap.errors import BadValue

FORMAT = "lsap predictor"
PUBLISHED = "deeplab"
BASE = "sd_base"


@dataclass(frozen=True)
class StoredPredictor:
    """A predictor of a file.

    kind: which network: "deeplab" (the published ones) or "small".
    spaces: the latent spaces that it speaks of, most editable first.
    state: `base.…` and `heads.<space>.…`, the published names behind them.
    generator: fingerprint of the generator that it was trained for; None where the file does not say.
    """

    kind: str
    spaces: tuple[str, ...]
    state: dict[str, Tensor]
    generator: str | None = None


def read_predictor(path: str | Path) -> StoredPredictor:
    """A predictor from `invertibility_faces_sg2.pt` and its like, or from `predictor.safetensors` of a run.

    Raises:
        MissingFile, BadValue: no such file, or another kind of content.
    """
    texts = read_card(path)
    content = read_state(path)
    if texts.get("format") == FORMAT:
        return StoredPredictor(texts["kind"], tuple(json.loads(texts["spaces"])), content, texts.get("generator"))
    if not _published(content):
        found = ", ".join(list(map(str, content))[:4]) or "nothing"
        raise BadValue(
            f"{path}: this is no invertibility predictor (it holds {found}); expected SAM's file with {BASE}, W+, "
            "F4, … or predictor.safetensors of a run"
        )
    spaces = tuple(sorted((name for name in content if name != BASE), key=_order))
    state = {f"base.{name}": tensor for name, tensor in content[BASE].items()}
    state |= {f"heads.{space}.{name}": tensor for space in spaces for name, tensor in content[space].items()}
    return StoredPredictor(PUBLISHED, spaces, state)


def card(kind: str, spaces: Sequence[str]) -> dict[str, str]:
    """The texts beside the tensors of a predictor's file, but for the generator's fingerprint."""
    return {"format": FORMAT, "kind": kind, "spaces": json.dumps(list(spaces))}


def write_predictor(path: str | Path, found: StoredPredictor) -> Path:
    """Keep a predictor as safetensors, whole or not at all; raises as `write_state`."""
    owner = {} if found.generator is None else {"generator": found.generator}
    return write_state(path, found.state, card(found.kind, found.spaces) | owner)


def _published(content: Mapping[str, Any]) -> bool:
    return BASE in content and "W+" in content and all(isinstance(part, Mapping) for part in content.values())


def _order(space: str) -> int:
    return int(space[1:]) if space[1:].isdigit() else 0
