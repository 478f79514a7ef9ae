"""What settings and arguments have to be: types and ranges under names, and the one error for a value that is not.

`lsap.config.settings` says which setting is of which type; classes that can be used without a configuration check their
arguments with `require`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import GenericAlias
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeGuard

from annotated_types import Ge, Gt, Le

from lsap.errors import BadValue, nearest

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@dataclass(frozen=True)
class Kind:
    """A type of setting.

    Attributes:
        type: what pydantic validates, without converting.
        accepted: what is accepted, for messages: "expected a whole number of at least 1".
        choices: the words that are accepted, where there is a list of them.
        is_path: whether it is taken literally (`lsap.config.paths`).
        several: whether a path may also be a list of paths.
    """

    type: Any
    accepted: str
    choices: tuple[str, ...] = ()
    is_path: bool = False
    several: bool = False

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        from pydantic import ConfigDict, TypeAdapter  # needed only where a value is checked

        return TypeAdapter(self.type, config=ConfigDict(strict=True, allow_inf_nan=False))

    def takes(self, value: object) -> bool:
        """Whether a value is of this type."""
        from pydantic import ValidationError

        try:
            self._adapter.validate_python(value)
        except ValidationError:
            return False
        return True

    def or_null(self, meaning: str = "") -> Kind:
        """The same or null; `meaning`: what null stands for."""
        accepted = f"{self.accepted}, or null{f' {meaning}' if meaning else ''}"
        return replace(self, type=self.type | None, accepted=accepted)

    def listed(self, accepted: str) -> Kind:
        """A list of values of this type."""
        return Kind(GenericAlias(list, (self.type,)), accepted)

    def require(self, name: str, value: object) -> None:
        """Raise BadValue unless `value` is of this type.

        Args:
            name: of the setting, as it is typed.
            value: of it.
        """
        if not self.takes(value):
            known = nearest(str(value), self.choices, 1) if self.choices else f"expected {self.accepted}"
            raise BadValue(f"{name}={value}: {known}")


def one_of(*words: str) -> Kind:
    """One of a list of words."""
    return Kind(Literal[words], " or ".join(words), words)


COUNT = Kind(Annotated[int, Ge(1)], "a whole number of at least 1")
WHOLE = Kind(Annotated[int, Ge(0)], "a whole number of at least 0")
NUMBER = Kind(float, "a number")
POSITIVE = Kind(Annotated[float, Gt(0)], "a number above 0")
WEIGHT = Kind(Annotated[float, Ge(0)], "a number of at least 0")
STEPS = Kind(WEIGHT.type, "a number of steps of at least 0 or, below 1, a fraction of max_steps")
FRACTION = Kind(Annotated[float, Gt(0), Le(1)], "a number above 0 and at most 1")
HALF = Kind(Annotated[float, Gt(0), Le(0.5)], "a number above 0 and at most 0.5")
SHARE = Kind(Annotated[float, Ge(0), Le(1)], "a number from 0 to 1")
FLAG = Kind(bool, "true or false")
PATH = Kind(str, "one path", is_path=True)  # taken literally: `lsap.config.paths`
PATHS = Kind(
    str | list[str] | dict[str, str], "a path, a list of paths, or {name: path, …}", is_path=True, several=True
)
SIZE = Kind(tuple[Annotated[int, Ge(1)], Annotated[int, Ge(1)]] | list[Annotated[int, Ge(1)]], "(height, width)")


def require(kind: Kind, values: Mapping[str, object], prefix: str = "") -> None:
    """Raise BadValue for the first of several values that is not of a type.

    Args:
        kind: the type.
        values: name → value.
        prefix: of the names, as "refinement.".
    """
    for name, value in values.items():
        kind.require(f"{prefix}{name}", value)


def expanded(path: str | Path) -> Path:
    """A path whose `~` is the home folder, or stays where there is no such user, as in a shell."""
    return Path(os.path.expanduser(path))


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a finite number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
