"""Objects of a user's own that do not want to be looked at: whatever is asked of them raises, lies, or never ends."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["HOSTILE", "UntellableError"]


class UntellableError(RuntimeError):
    """An error that cannot be printed."""

    def __str__(self) -> str:
        raise ValueError("not printable")

    __repr__ = __str__


def refusing(name: str, *, base: type = object) -> Any:
    """An object, one method of which raises."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError(name)

    return type("Refusing", (base,), {name: refuse})()


class NoClass:
    """Raises where it is asked for its class."""

    @property
    def __class__(self) -> Any:
        raise ZeroDivisionError("__class__")

    @__class__.setter
    def __class__(self, _: Any) -> None:
        """Nobody sets it."""


class Liar:
    """Says that it is of another class."""

    @property
    def __class__(self) -> Any:
        return dict

    @__class__.setter
    def __class__(self, _: Any) -> None:
        """Nobody sets it."""


class Endless(dict[str, Any]):
    """A mapping without an end."""

    def items(self) -> Any:
        """Go on for ever."""
        return ((str(number), number) for number in itertools.count())

    __iter__ = items
    keys = items


class Sequence(list[Any]):
    """A list without an end, which says that it is short."""

    def __iter__(self) -> Iterator[Any]:
        return itertools.repeat(0)

    def __len__(self) -> int:
        return 3


def itself() -> Any:
    """A list that holds itself, and a dict that does."""
    held: list[Any] = [{}]
    held[0]["self"] = held
    held.append(held)
    return held


_METHODS = {
    object: (
        *("__str__", "__repr__", "__eq__", "__hash__", "__len__", "__iter__", "__bool__", "__getattr__"),
        *("__getattribute__", "__dir__", "__format__", "__int__", "__float__", "__index__", "__array__"),
        *("__contains__", "__getitem__"),
    ),
    dict: ("items", "keys", "__iter__", "__len__", "get"),
    list: ("__iter__", "__len__", "__getitem__"),
    str: ("__str__", "__eq__", "__len__", "__hash__"),
}
HOSTILE: dict[str, Callable[[], Any]] = {
    **{
        f"{base.__name__} {name}": functools.partial(refusing, name, base=base)
        for base, names in _METHODS.items()
        for name in names
    },
    "no class": NoClass,
    "liar": Liar,
    "endless mapping": Endless,
    "endless list": Sequence,
    "itself": itself,
}
"""Makes an object of each kind."""
