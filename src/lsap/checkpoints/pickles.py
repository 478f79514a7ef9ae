"""Pickles read as data: a small interpreter of their opcodes that has nothing to call but what it is given.

A pickle is a program. Python's own reader runs it, and the program may import and call anything; here every name that
it asks for is looked up in a table of harmless makers, and a name outside the table ends the reading before anything
was made of it. Sizes, indices and keys are checked too, so a small file cannot ask for a large memory or endless work.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, cast

from lsap.errors import BadValue

MOST_STEPS = 5_000_000  # a published network takes some ten thousand
PLAIN_KEYS = (str, bytes, int, float, bool, type(None))

Maker = Callable[..., object]
Lookup = Callable[[str], Maker]

# Opcodes whose argument is the value itself; strings of Python 2 come as text.
VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES",
    "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
CONSTANTS: Mapping[str, Callable[[], object]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_LIST": list, "EMPTY_DICT": dict,
    "EMPTY_SET": set, "EMPTY_TUPLE": tuple,
}  # fmt: skip


@dataclass(eq=False, repr=False)
class Record:
    """An object of a foreign class, without the class: its name and what was stored in it. It can do nothing.

    name: of its class.
    arguments: what its constructor would have been given.
    state: its attributes, where they were stored.
    items: what was put into it by key.
    """

    name: str
    arguments: tuple[object, ...] = ()
    state: object = None
    items: dict[object, object] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Record({self.name})"  # the content may hold itself


@dataclass(frozen=True)
class _Global:
    """A name that the pickle asked for, and what stands for it here."""

    name: str
    make: Maker


def inert(name: str) -> Maker:
    """The maker that turns any object of that name into a `Record`."""
    return lambda *arguments: Record(name, arguments)


def refuse(name: str) -> Maker:
    """What a name outside the table comes to.

    Raises:
        BadValue: always, with the name.
    """
    raise BadValue(
        f"refused, because the file wants to run code when it is opened: it asks for {name}. If it is a network "
        "that was saved whole, save its state_dict() in the program that it belongs to."
    )


def read_pickle(file: IO[bytes], lookup: Lookup, *, persistent: Callable[[object], object] | None = None) -> object:
    """The value of the pickle that begins at the file's position; the position is then behind it.

    Args:
        file: anything with `read`, `readline` and `tell`.
        lookup: "module.name" → the function that stands for it here; it raises `BadValue` for all others.
        persistent: what a reference to something outside the pickle becomes; None refuses such references.

    Raises:
        BadValue: the pickle asks for a name, an opcode, a key or an amount of work that is not accepted.
        ValueError, IndexError, KeyError, TypeError: it is cut short or is no pickle.
    """
    return _Machine(lookup, persistent).run(file)


class _Machine:
    """The stack, the marks and the memory that a pickle works with."""

    def __init__(self, lookup: Lookup, persistent: Callable[[object], object] | None) -> None:
        self.lookup, self.persistent = lookup, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memory: dict[int, object] = {}

    def run(self, file: IO[bytes]) -> object:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if step > MOST_STEPS:
                raise BadValue(f"refused, because it takes more than {MOST_STEPS:,} steps to read; no network does")
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            if name in VALUES:
                self.stack.append(argument)
            elif name in CONSTANTS:
                self.stack.append(CONSTANTS[name]())
            elif not (self._remember(name, argument) or self._gather(name) or self._make(name, argument)):
                raise BadValue(f"refused, because its opcode {name} has no place in a file of tensors")
        raise ValueError("the pickle has no end")

    def _remember(self, name: str, argument: Any) -> bool:
        """Opcodes of the stack itself and of the memory; whether this was one."""
        if name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memory[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memory[len(self.memory)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memory[argument])
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name == "POP":
            self.stack.pop()
        elif name == "POP_MARK":
            self._since_mark()
        else:
            return name in ("PROTO", "FRAME")
        return True

    def _gather(self, name: str) -> bool:
        """Opcodes that put values into containers; whether this was one."""
        if name in ("TUPLE", "LIST", "DICT", "FROZENSET"):
            values = self._since_mark()
            self.stack.append(GATHERED[name](values))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            self.stack[-count:] = [tuple(self.stack[-count:])]
        elif name in ("APPENDS", "SETITEMS", "ADDITEMS"):
            values = self._since_mark()
            self._fill(name, values)
        elif name in ("APPEND", "SETITEM"):
            count = 1 if name == "APPEND" else 2
            values = self.stack[-count:]
            del self.stack[-count:]
            self._fill(name + "S", values)
        else:
            return False
        return True

    def _fill(self, name: str, values: list[Any]) -> None:
        container = self.stack[-1]
        if isinstance(container, Record):
            container.items.update(_pairs(values) if name == "SETITEMS" else enumerate(values, len(container.items)))
        elif name == "APPENDS" and isinstance(container, list):
            container.extend(values)
        elif name == "SETITEMS" and isinstance(container, dict):
            container.update(_pairs(values))
        elif name == "ADDITEMS" and isinstance(container, set):
            container.update(_distinct(values))
        else:
            raise BadValue(f"refused, because it fills a {type(container).__name__} as if it were a container")

    def _make(self, name: str, argument: Any) -> bool:
        """Opcodes that would import, call or restore objects; whether this was one."""
        if name == "GLOBAL":
            self._global(".".join(argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = self.stack.pop(), self.stack.pop()
            self._global(f"{module}.{attribute}")
        elif name in ("REDUCE", "NEWOBJ"):
            arguments = self.stack.pop()
            self.stack.append(_call(self.stack.pop(), arguments))
        elif name == "BUILD":
            state = self.stack.pop()
            _restore(self.stack[-1], state)
        elif name == "BINPERSID" and self.persistent is not None:
            self.stack.append(self.persistent(self.stack.pop()))
        else:
            return False
        return True

    def _global(self, name: str) -> None:
        self.stack.append(_Global(name, self.lookup(name)))

    def _since_mark(self) -> list[Any]:
        first = self.marks.pop()
        values = self.stack[first:]
        del self.stack[first:]
        return values


def _call(function: object, arguments: object) -> object:
    if not isinstance(function, _Global):
        raise BadValue(f"refused, because it calls a {type(function).__name__} that it has made itself")
    if not isinstance(arguments, tuple):
        raise ValueError("arguments are no tuple")
    return function.make(*(_named(a) for a in arguments))


def _named(argument: object) -> object:
    """A global as an argument is only its name."""
    return argument.name if isinstance(argument, _Global) else argument


def _restore(target: object, state: object) -> None:
    """Give an object its attributes. Containers keep none: what torch hangs on its dicts is not needed."""
    if isinstance(target, Record):
        target.state = state
    elif hasattr(target, "restore"):  # one of the makers' own, see `arrays.py`
        cast(Any, target).restore(state)
    elif not isinstance(target, dict):
        raise BadValue(f"refused, because it changes the attributes of a {type(target).__name__}")


def _pairs(values: list[Any]) -> dict[object, object]:
    if len(values) % 2:
        raise ValueError("a key without value")
    return {_key(key): value for key, value in zip(values[::2], values[1::2], strict=True)}


def _distinct(values: list[Any]) -> set[object]:
    return {_key(value) for value in values}


def _key(key: object) -> object:
    """A key that is hashed in no time: nested tuples can take longer than anybody waits."""
    parts = key if isinstance(key, tuple) else (key,)
    if not all(isinstance(part, PLAIN_KEYS) for part in parts):
        raise BadValue("refused, because it uses something else than numbers and texts as a key")
    return key


GATHERED: Mapping[str, Callable[[list[Any]], object]] = {
    "TUPLE": tuple, "LIST": list, "DICT": _pairs, "FROZENSET": _distinct,
}  # fmt: skip
