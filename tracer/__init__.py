"""Record a diffusion run and read it back.

`Tracer` and `Capture` record; `open_trace` and `Trace` read. What needs torch is imported on first use only, so that
a trace can be read on a machine without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .capture import Capture
from .errors import (
    CaptureError,
    DxrayError,
    MissingLibraryError,
    SiteNotFoundError,
    StepError,
    StoreError,
    StoreExistsError,
    TargetError,
    TraceFormatError,
    TraceNotFoundError,
    TracerStateError,
    TracerWarning,
)
from .extras import explained
from .trace import Trace, open_trace

if TYPE_CHECKING:
    from .session import Tracer

__all__ = [
    "Capture",
    "CaptureError",
    "DxrayError",
    "MissingLibraryError",
    "SiteNotFoundError",
    "StepError",
    "StoreError",
    "StoreExistsError",
    "TargetError",
    "Trace",
    "TraceFormatError",
    "TraceNotFoundError",
    "Tracer",
    "TracerStateError",
    "TracerWarning",
    "open_trace",
]


def __getattr__(name: str) -> Any:
    if name == "Tracer":
        with explained("recording"):
            return importlib.import_module(".session", __name__).Tracer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
