"""The stages of an inversion: the embedding and, if asked for, its refinement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsap.config.checks import NONE
from lsap.embedding import Embedding
from lsap.pipelines.build import Parts
from lsap.pipelines.images import Chosen
from lsap.pipelines.run_identity.inversions import refined_folder, run_folder
from lsap.refinement import (
    Refinement,
)
from lsap.runs import Store
from lsap.stylegan2 import StyleGenerator


@dataclass(frozen=True)
class Stage:
    """One stage of an inversion, as work on a plan.

    title: what people call it and all before it: `lsap_e`, `lsap_e + pti`.
    path: the folder of its store.
    settings: what the store keeps: all that decides what comes out.
    generator: draws the inversions.
    module: makes what works on the batches.
    before: the stage whose inversions it refines; None for an embedding.
    """

    title: str
    path: Path
    settings: Mapping[str, Any]
    generator: StyleGenerator
    module: Callable[[], Embedding | Refinement]
    before: Stage | None = None

    def open(self, images: Chosen, batch_size: int) -> Store:
        """Its store, begun or found; raises as `Store.open`."""
        return Store.open(self.path, images.names, batch_size, self.settings, images.digests)


def stages(parts: Parts, chosen: Chosen) -> list[Stage]:
    """What a configuration asks for, first to last; `save_to` names the folder of the last one.

    Raises:
        BadValue, MissingFile: weights that do not fit, or that are not there.
    """
    config = parts.config
    named = {"embedding": config.embedding.name, "domain": config.domain.name}
    folder = run_folder(parts, chosen)
    first = Stage(config.embedding.name, folder.path, folder.settings | named, parts.generator, parts.embedding)
    if config.refinement.name == NONE:
        return [first]
    folder = refined_folder(parts, chosen)
    title = f"{config.embedding.name} + {config.refinement.name}"
    return [first, Stage(title, folder.path, folder.settings | named, parts.generator, parts.refinement, first)]
