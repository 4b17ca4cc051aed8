"""What a scheduler is set to: its class and the plain values of its configuration, as JSON of a bounded size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["settings_of"]

_MOST_KEYS: Final = 64
_MOST_ENTRIES: Final = 16
_LONGEST: Final = 200


def settings_of(scheduler: object) -> dict[str, Any]:
    """Class and configuration of a scheduler; of what is no plain value, only what it is."""
    config = getattr(scheduler, "config", None)
    items = list(config.items()) if isinstance(config, Mapping) else []
    told = {str(key): _plain(value) for key, value in items if not str(key).startswith("_")}
    return {"class": type(scheduler).__name__, "config": dict(list(told.items())[:_MOST_KEYS])}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return value[:_LONGEST]
    if isinstance(value, list | tuple) and len(value) <= _MOST_ENTRIES:
        return [_plain(entry) for entry in value]
    count = f" of {len(value)}" if isinstance(value, list | tuple) else ""
    return f"{type(value).__name__}{count}"
