"""What lies in an output: the tensors in it, with their places, and how it is built. Nothing is ever rebuilt.

Whatever a model returns may refuse to be looked at, lie about its length, or hold itself. So only containers of known
kinds are walked, other objects by their attributes, never by methods or properties of their own, and no further than
there are so many tensors.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from types import MemberDescriptorType
from typing import Any

from torch import Tensor, nn

from ..layout import as_text
from ..recording.asking import is_a

__all__ = ["MOST_TENSORS", "Key", "label", "placed_tensors", "structure_of", "tensors_in"]

Key = str | int
"""A step into a container: a key, an index, or the name of an attribute."""

MOST_TENSORS = 1000
"""Tensors of one output that are recorded; each would be a row in every step."""
_DEEPEST = 4
_MOST_ENTRIES = 4096
"""Entries of one container that are looked at."""
_MOST_SEEN = 1 << 14
"""Entries of an output that are looked at in all."""
_WHOLE = (str, bytes, int, float, complex, type, nn.Module)
"""What is not looked into."""
_MOST_TOLD = 64
"""Entries of one container that its description names."""


def tensors_in(value: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors of an output, each with its place in one word, "sample", "1_hidden"."""
    return ((label(place), tensor) for place, tensor in placed_tensors(value)[0])


def placed_tensors(value: Any) -> tuple[list[tuple[tuple[Key, ...], Tensor]], bool]:
    """The tensors of an output, each with the keys that lead to it, and whether these are all."""
    walk = _Walk()
    walk.into(value, (), ())
    return walk.found, walk.left > 0 and len(walk.found) <= MOST_TENSORS


def label(place: tuple[Key, ...]) -> str:
    """A place in one word."""
    return "_".join(map(as_text, place))


def structure_of(value: Any, depth: int = 0) -> Any:
    """How an output is built, as JSON: "tensor", null, a plain type's name, or a class with what lies in it."""
    if is_a(value, Tensor):
        return "tensor"
    if value is None:
        return None
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    entries = _entries(value) if depth < _DEEPEST else []
    if not entries:
        return kind
    return {
        "class": kind,
        "items": [[key, structure_of(entry, depth + 1)] for key, entry in entries[:_MOST_TOLD]],
        "length": len(entries),
    }


class _Walk:
    """Goes through an output, the first tensors first, until it has seen enough."""

    __slots__ = ("found", "left")

    def __init__(self) -> None:
        self.found: list[tuple[tuple[Key, ...], Tensor]] = []
        self.left = _MOST_SEEN

    def into(self, value: Any, place: tuple[Key, ...], above: tuple[int, ...]) -> None:
        """Look at what lies at a place, `above` being the containers that it lies in."""
        self.left -= 1
        if is_a(value, Tensor):
            self.found.append((place, value))
        elif len(above) < _DEEPEST and id(value) not in above:
            for key, entry in _entries(value):
                if self.left <= 0 or len(self.found) > MOST_TENSORS:
                    return
                self.into(entry, (*place, key), (*above, id(value)))


def _entries(value: Any) -> list[tuple[Key, Any]]:
    """What lies in an object, by name; nothing where it is no container, or will not be looked into."""
    if value is None or any(is_a(value, kind) for kind in _WHOLE):
        return []
    try:
        return list(itertools.islice(_pairs(value), _MOST_ENTRIES))
    except Exception:  # noqa: BLE001 — it holds no tensor for us then
        return []


def _pairs(value: Any) -> Iterator[tuple[Key, Any]]:
    if is_a(value, Mapping):  # type: ignore[type-abstract]
        return ((key if isinstance(key, str | int) else str(key), entry) for key, entry in value.items())
    if is_a(value, list):
        return enumerate(list.__iter__(value))
    if is_a(value, tuple):
        return enumerate(tuple.__iter__(value))
    if dataclasses.is_dataclass(type(value)):
        return ((field.name, getattr(value, field.name, None)) for field in dataclasses.fields(type(value)))
    return _attributes(value)


def _attributes(value: Any) -> Iterator[tuple[Key, Any]]:
    """What an object of a class of its own has in its dictionary and its slots, read past all it says of itself."""
    if type(value).__module__ in ("builtins", "numpy", "functools"):
        return
    try:
        own = object.__getattribute__(value, "__dict__")
    except AttributeError:
        own = {}
    for name, entry in list(own.items()) if type(own) is dict else ():
        if isinstance(name, str) and not name.startswith("__"):
            yield name, entry
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            member = kind.__dict__.get(name)
            if isinstance(member, MemberDescriptorType):
                try:
                    yield name, member.__get__(value)
                except AttributeError:  # never set
                    continue
