"""The slope of codes on an attribute: how the generator's own codes move, on average, when it grows."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lsap.checkpoints import Direction
from lsap.editing.directions import data_direction
from lsap.editing.discovery.samples import Samples
from lsap.stylegan2 import StyleGenerator


@dataclass(frozen=True)
class Slope:
    """One direction per label; see `lsap.editing.directions.data_direction`."""

    supervised = True

    def find(self, generator: StyleGenerator, samples: Samples) -> list[Direction]:
        """Directions of all labels."""
        found = []
        for name in samples.labels:
            direction = data_direction(name, *samples.labelled(name), samples.generator)
            origin = f"{direction.origin}; labels: {samples.labelled_by}"
            found.append(replace(direction, attribute=samples.attributes.get(name, name), origin=origin))
        return found
