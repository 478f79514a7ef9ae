"""`Inversion`, the one record that crosses every border between stages: images' names, their codes, how to draw them.

An embedding makes it, a refinement returns a better one, editing moves its codes and renders them again, and none of
them knows which method came before. Refinements change how codes are drawn, image by image (noise maps, weights or
features of its own), so the record carries per-image tensors and a renderer that reads them.

A renderer is stateless and goes into files as a key of the registry below and plain settings: reading a file never
imports or calls what the file names. Of a renderer of the user's own the file also holds the name of the module that
registered it, which is only shown to the user.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor

from lsap.errors import BadValue, nearest

if TYPE_CHECKING:
    from lsap.stylegan2 import StyleGenerator

FORMAT = "lsap.inversion/1"
Watch = Callable[[float, Mapping[str, float]], None]  # what a stage calls while it works: see `Embedding`, `Refinement`
SHOWN = 3  # names that a line shows
MODULE = re.compile(r"(?!__main__$)[A-Za-z_]\w{0,60}(\.[A-Za-z_]\w{0,60}){0,7}", re.ASCII)  # one that can be imported
STATE = "state/"  # what the names of per-image tensors begin with in a file


class Renderer(Protocol):
    """Codes and per-image tensors in, images out; stateless, so that one serves every batch.

    key: its name in the registry.
    generator: what it draws with.
    settings: what its class is built with, besides the generator: text, numbers, truth values, lists and dicts of them.
    """

    key: str
    generator: StyleGenerator

    @property
    def settings(self) -> Mapping[str, Any]: ...

    def __call__(self, codes: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Images [N, 3, size, size] of codes [N, L, C]; every tensor of the state is [N, …]."""
        ...


RENDERERS: dict[str, Callable[..., Renderer]] = {}
Class = TypeVar("Class", bound=type)


def registered(key: str) -> Callable[[Class], Class]:
    """Put a class of renderers into the registry; it is built as `cls(generator, **settings)`."""

    def enter(cls: Class) -> Class:
        assert key not in RENDERERS, f"two renderers are called {key!r}"
        cls.key = key  # type: ignore[attr-defined]
        RENDERERS[key] = cls
        return cls

    return enter


def renderer(key: str, settings: Mapping[str, Any], generator: StyleGenerator, module: object = None) -> Renderer:
    """The renderer that a file names.

    Args:
        key, settings: as in the file.
        generator: what it draws with.
        module: what the file says of the module that registered it; shown where the key is unknown, never imported.

    Raises:
        BadValue: a key that is not registered, or settings that its class does not take.
    """
    if key not in RENDERERS:
        if isinstance(module, str) and MODULE.fullmatch(module):
            raise BadValue(
                f"there is no renderer {key!r} here; the module {module} registered it when the file was written. If "
                f"that module is yours, add imports=[{module}]; in Python, import it first"
            )
        raise BadValue(
            f"there is no renderer {key!r} here; {nearest(key, RENDERERS)}. If it is of a method of your own, name "
            "the module that registers it: imports=[…]; else the file is of a newer lsap"
        )
    try:
        return RENDERERS[key](generator, **settings)
    except TypeError as error:
        raise BadValue(f"renderer {key!r} does not take the settings {sorted(settings)}: {error}") from error


def described(renderer: Renderer) -> dict[str, Any]:
    """What files hold of a renderer: its key, its settings and, unless it is one of lsap's, the name of its module."""
    module = type(renderer).__module__
    own = {} if module.partition(".")[0] == __package__ or not MODULE.fullmatch(module) else {"module": module}
    return {"key": renderer.key, "settings": dict(renderer.settings), **own}


@registered("generator")
class FixedNoise:
    """The generator as it is, with its fixed noise maps; needs no state."""

    key: str
    settings: Mapping[str, Any] = {}

    def __init__(self, generator: StyleGenerator) -> None:
        self.generator = generator

    def __call__(self, codes: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        return self.generator(codes)


@registered("own_noise")
class OwnNoise:
    """The generator with every image's own noise maps, `noise.<layer>` [N, 1, r, r] in the state."""

    key: str
    settings: Mapping[str, Any] = {}

    def __init__(self, generator: StyleGenerator) -> None:
        self.generator = generator
        self.layers = [layer.name for layer in generator.layers if layer.demodulates]

    def __call__(self, codes: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        return self.generator(codes, noise=[state[f"noise.{name}"].to(codes) for name in self.layers])


@dataclass(frozen=True, repr=False)
class Inversion:
    """N images as codes, and all that drawing them takes. Immutable: a stage returns a new one (`with_stage`).

    names: N image names, unique; they key files, rows and random streams.
    codes: [N, L, C] in W+.
    generator: fingerprint of the generator's weights.
    renderer: draws codes with the state.
    state: per-image tensors [N, …] that stages added, e.g. noise maps; names hold letters, digits, `.`, `_`, `-`.
    history: names of the stages that made it, first to last.

    In memory it is one batch of a plan; a stored run (`lsap.runs.Store`) hands out one batch after the other.

    Raises:
        BadValue: numbers of names, codes and tensors that differ, or a name that occurs twice.
    """

    names: tuple[str, ...]
    codes: Tensor
    generator: str
    renderer: Renderer
    state: Mapping[str, Tensor] = field(default_factory=dict)
    history: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.names)
        if self.codes.ndim != 3 or len(self.codes) != count:
            raise BadValue(f"{count} names came with codes of shape {list(self.codes.shape)}; expected [{count}, L, C]")
        if len(set(self.names)) < count:
            twice = sorted({name for name in self.names if self.names.count(name) > 1})
            raise BadValue(f"images of one inversion need names of their own, but {', '.join(twice[:3])} occurs twice")
        for name, tensor in self.state.items():
            if len(tensor) != count:
                raise BadValue(f"state {name!r} has {len(tensor)} rows for {count} images")

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        images = "1 image" if len(self) == 1 else f"{len(self)} images"
        made = " → ".join(self.history) or "nothing"
        return f"Inversion({images}, codes {list(self.codes.shape)}, made by {made}, names {brief(self.names)})"

    def render(self, codes: Tensor | None = None) -> Tensor:
        """Images [N, 3, size, size], about in [-1, 1], of these codes or of edited ones [N, L, C].

        They are drawn, and stay, where the renderer's generator is; the inversion itself may be elsewhere.

        Raises:
            BadValue: another number of codes; `repeat` the inversion first to draw several edits of each image.
        """
        codes = self.codes if codes is None else codes
        if len(codes) != len(self):
            raise BadValue(f"{len(codes)} codes for {len(self)} images; draw several edits of each with repeat()")
        device = self.renderer.generator.latent_avg.device
        return self.renderer(codes.to(device), {name: tensor.to(device) for name, tensor in self.state.items()})

    def select(self, index: Sequence[int]) -> Inversion:
        """The images at these places, in this order."""
        rows = torch.tensor(list(index), dtype=torch.long, device=self.codes.device)
        state = {name: tensor[rows.to(tensor.device)] for name, tensor in self.state.items()}
        return replace(self, names=tuple(self.names[i] for i in index), codes=self.codes[rows], state=state)

    def repeat(self, times: int) -> Inversion:
        """Every image `times` times, one copy after the other; the copies are named `<name>#0`, `<name>#1`, …."""
        state = {name: tensor.repeat_interleave(times, 0) for name, tensor in self.state.items()}
        names = tuple(f"{name}#{copy}" for name in self.names for copy in range(times))
        return replace(self, names=names, codes=self.codes.repeat_interleave(times, 0), state=state)

    def to(self, device: torch.device | str) -> Inversion:
        """The same with its tensors on a device."""
        state = {name: tensor.to(device) for name, tensor in self.state.items()}
        return replace(self, codes=self.codes.to(device), state=state)

    def with_stage(
        self,
        stage: str,
        *,
        codes: Tensor | None = None,
        renderer: Renderer | None = None,
        state: Mapping[str, Tensor] | None = None,
    ) -> Inversion:
        """What a further stage made of it.

        Args:
            stage: its name, for the history.
            codes: new codes; the old ones where it left them.
            renderer: how images are drawn from now on.
            state: tensors to add to the state, or to replace in it.
        """
        return replace(
            self,
            codes=self.codes if codes is None else codes,
            renderer=self.renderer if renderer is None else renderer,
            state={**self.state, **(state or {})},
            history=(*self.history, stage),
        )

    def check_generator(self, fingerprint: str) -> None:
        """Refuse another generator than the codes' own; raises BadValue with both names."""
        if fingerprint != self.generator:
            raise BadValue(
                f"these codes belong to generator {self.generator[:12]}, but this run uses {fingerprint[:12]}; use the "
                "generator that they were made for, or embed again"
            )

    def tensors(self) -> dict[str, Tensor]:
        """What a file holds, by name; `restored` takes it back."""
        return {"codes": self.codes, **{f"{STATE}{name}": tensor for name, tensor in self.state.items()}}

    def card(self) -> dict[str, str]:
        """The texts beside the tensors of a file."""
        return {
            "format": FORMAT,
            "names": json.dumps(self.names, ensure_ascii=False),
            "generator": self.generator,
            "renderer": json.dumps(described(self.renderer)),
            "history": json.dumps(self.history),
        }


def brief(names: Sequence[str]) -> str:
    """The first names in one line."""
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def halved(tensor: Tensor) -> Tensor:
    """A tensor as it is stored, in half precision; float64, which only tests use, stays as it is.

    Done before anything is drawn, so that what is shown and what is loaded again are equal to the bit.
    """
    return tensor.half() if tensor.dtype == torch.float32 else tensor


class Embedded:
    """What a stage made of a batch; no dataclass, since Lightning takes those apart.

    Args:
        inversion: of the images that it could work on; None if it could on none.
        notes: image → numbers about its making, such as its last loss.
        failed: image → why it has no inversion.
    """

    def __init__(
        self,
        inversion: Inversion | None,
        notes: Mapping[str, Mapping[str, Any]] | None = None,
        failed: Mapping[str, str] | None = None,
    ) -> None:
        self.inversion, self.notes, self.failed = inversion, notes or {}, failed or {}


def cat(parts: Sequence[Inversion]) -> Inversion:
    """Several inversions of one kind as one.

    Raises:
        BadValue: none, or they differ in generator, renderer, history or the names of their state.
    """
    if not parts:
        raise BadValue("there is no inversion to put together")

    def kind(part: Inversion) -> tuple[Any, ...]:
        return part.generator, part.renderer.key, dict(part.renderer.settings), part.history, sorted(part.state)

    first = parts[0]
    for part in parts[1:]:
        if kind(part) != kind(first):
            raise BadValue(
                f"inversions of different kinds cannot be put together: {first.history} drawn by "
                f"{first.renderer.key!r} and {part.history} drawn by {part.renderer.key!r}"
            )
    state = {name: torch.cat([part.state[name] for part in parts]) for name in first.state}
    names = tuple(name for part in parts for name in part.names)
    return replace(first, names=names, codes=torch.cat([part.codes for part in parts]), state=state)


def restored(tensors: Mapping[str, Tensor], card: Mapping[str, str], generator: StyleGenerator) -> Inversion:
    """An inversion from what its file holds.

    Args:
        tensors, card: as `Inversion.tensors` and `Inversion.card` gave them.
        generator: draws it; `check_generator` tells whether it is the right one.

    Raises:
        BadValue: not the content of such a file, or a renderer that is not registered here.
    """
    try:
        if card["format"] != FORMAT:
            raise ValueError(f"format {card['format']!r}")
        names = tuple(str(name) for name in json.loads(card["names"]))
        stored = json.loads(card["renderer"])
        key, settings, module = str(stored["key"]), dict(stored["settings"]), stored.get("module")
        history = tuple(str(stage) for stage in json.loads(card["history"]))
        codes, owner = tensors["codes"], card["generator"]
    except (KeyError, TypeError, ValueError) as error:
        raise BadValue(f"this is no stored inversion ({error!r}); expected what lsap.invert writes") from error
    state = {name.removeprefix(STATE): tensor for name, tensor in tensors.items() if name.startswith(STATE)}
    return Inversion(names, codes, owner, renderer(key, settings, generator, module), state, history)
