"""Where in a checkpoint a generator's tensors lie: bare, inside the dicts of other tools, behind prefixes of names.

Tools wrap the same tensors differently: `g_ema`, `state_dict`, `params_ema`; `module.` of DataParallel, `generator.` of
Lightning, `decoder.` of an encoder's checkpoint. The wrapping is not listed here but found: a tensor that every
generator has is looked for by the end of its name, and what stands before it is taken off.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lsap.checkpoints.arrays import as_tensor
from lsap.errors import BadValue

ANCHORS = re.compile(r"(.*\.)?(input\.input|synthesis\.b4\.const)")  # of rosinality's generators and NVIDIA's
DEEPEST = 4  # dicts within dicts
AVERAGED = {"ema", "avg", "average", "averaged", "running", "shadow"}  # words in the names of averaged weights
TRAINED = {"g", "netg", "net_g"}  # names that tools give to the network whose average is kept beside it


@dataclass(frozen=True)
class Wrapped:
    """A generator's tensors in a checkpoint.

    name: where they lie: keys and prefix, joined by dots; "" for a bare state dict.
    state: the tensors under the names of their lineage, without the mean latent.
    latent_avg: the mean latent beside or above them; None where there is none.
    """

    name: str
    state: dict[str, Tensor]
    latent_avg: Tensor | None

    @property
    def is_trained(self) -> bool:
        """Whether the name says that this is the network in training, not its average."""
        return self.name.rpartition(".")[2].lower() in TRAINED


def wrapped_generators(content: Mapping[str, Any]) -> list[Wrapped]:
    """Every generator of a checkpoint."""
    return list(_generators(content, (), [], set()))


def wrapped_generator(content: Mapping[str, Any]) -> Wrapped | None:
    """The generator of a checkpoint; averaged weights where it also has others; None where it has none.

    Raises:
        BadValue: it has several.
    """
    found = wrapped_generators(content)
    averaged = [one for one in found if _is_averaged(one.name)]
    chosen = averaged or found
    if len(chosen) > 1:
        names = ", ".join(one.name or "its own tensors" for one in chosen)
        raise BadValue(f"holds several generators ({names}); save one of them alone, as {{'g_ema': its tensors}}")
    return chosen[0] if chosen else None


def _generators(
    box: Mapping[str, Any], path: tuple[str, ...], outer: Sequence[Mapping[str, Any]], seen: set[int]
) -> Iterator[Wrapped]:
    """Every generator in a dict and in those inside it, each visited once."""
    if id(box) in seen or len(path) > DEEPEST:
        return
    seen.add(id(box))
    boxes = [*outer, box]
    for name, value in sorted(box.items(), key=lambda item: not _is_averaged(str(item[0]))):
        if isinstance(value, Mapping):
            yield from _generators(value, (*path, str(name)), boxes, seen)
        elif (anchor := ANCHORS.fullmatch(str(name))) and as_tensor(value) is not None:
            prefix = anchor[1] or ""
            own = {str(key)[len(prefix) :]: as_tensor(each) for key, each in box.items() if str(key).startswith(prefix)}
            state = {key: tensor for key, tensor in own.items() if tensor is not None}
            means = (state.pop("latent_avg", None), *(as_tensor(one.get("latent_avg")) for one in reversed(boxes)))
            mean = next((each for each in means if each is not None), None)
            parts = [part for part in prefix.split(".") if part not in ("", "module", "_orig_mod")]
            yield Wrapped(".".join((*path, *parts)), state, mean)


def _is_averaged(name: str) -> bool:
    """Whether a name says that these are averaged weights."""
    return not AVERAGED.isdisjoint(re.split(r"[._]", name.lower()))
