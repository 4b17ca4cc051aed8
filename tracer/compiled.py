"""Ways to compile with numba, and to hand memory to compiled code. Importing this imports numba."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numba
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["as_array", "as_pointer", "compiled"]


def compiled(
    *signature: str, fast: bool = False, nogil: bool = True
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a function to be compiled, and kept on disk for later processes where there is a place.

    Args:
        signature: Of the arguments; compiled at once then, else when it is first called.
        fast: Let a sum be taken in lanes. Nothing is assumed about NaN.
        nogil: Run without the interpreter's lock.
    """
    options: dict[str, Any] = {"nogil": nogil, "error_model": "numpy"}
    if fast:
        options["fastmath"] = {"reassoc", "contract"}
    compiler = functools.partial(numba.njit, *signature, **options)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            kept: Callable[..., Any] = compiler(cache=True)(function)
        except RuntimeError:  # no folder to keep the compiled code in
            kept = compiler()(function)
        return kept

    return decorate


def _to_pointer(_: Any, address: Any) -> Any:
    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), generate


as_pointer: Any = intrinsic(_to_pointer)
"""An address as a pointer."""
as_array: Any = numba.carray  # type: ignore[attr-defined]
"""A pointer as an array."""
