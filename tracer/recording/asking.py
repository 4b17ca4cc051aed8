"""Asking objects of the user's own: what they answer is theirs, and may be an error.

`isinstance` asks an object for its class where its type does not fit already, and that may be a property which raises.
Here the type alone counts, which cannot be overridden.
"""

from __future__ import annotations

from typing import Any, TypeGuard, TypeVar

__all__ = ["attribute_of", "is_a"]

T = TypeVar("T")


def is_a(value: object, kind: type[T]) -> TypeGuard[T]:
    """Whether the type of a value is a class, or derived from it, whatever the value says of itself."""
    try:
        return issubclass(type(value), kind)
    except Exception:  # noqa: BLE001 — a metaclass of the user's own
        return False


def attribute_of(value: object, name: str, default: Any = None) -> Any:
    """An attribute, or the default where there is none, or where asking for it raises whatever it likes."""
    try:
        return getattr(value, name, default)
    except Exception:  # noqa: BLE001 — a property of the user's own
        return default
