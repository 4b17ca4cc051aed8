"""What is said once a run is over, beside the trace itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from ..extras import INSTALL
from ..info import printable
from .places import Place
from .recorder import Recorder
from .statistics import slower_because
from .target import Target

__all__ = ["remarks"]

_UNTOLD = threading.Lock()
"""Held for good by the first run of the process that says it was slower; a lock, as two may end at once."""


def remarks(target: Target, place: Place, recorder: Recorder, *, failed: bool) -> Iterator[str]:
    """What the user should know of the trace that has just been written, a line each; nothing where all is well.

    Args:
        target: What was traced.
        place: Where the trace is, complete.
        recorder: What has written it, closed. Only where it has seen a value that is not finite is the trace read.
        failed: Whether the run raised, so that it is no wonder if nothing was called.
    """
    if recorder.is_empty and not failed:
        parts = ", ".join([*target.components, *target.schedulers]) or "it"
        yield (
            f"nothing was recorded in this block, so {place.path} is empty: no tensor came out of {printable(parts)}; "
            "call within the with statement what was given to the Tracer"
        )
    elif recorder.saw_fault and (where := _first_fault(place)):
        yield f"a value is not finite, the first in {printable(where)}; look with: dxray view {place.path}"
    if (reason := slower_because()) and _UNTOLD.acquire(blocking=False):
        yield f"this was recorded without numba, which takes longer ({printable(reason)[:200]}): {INSTALL}"


def _first_fault(place: Place) -> str:
    try:
        fault = place.open().first_fault()
    except Exception:  # noqa: BLE001 — a remark is no reason to disturb the run; what cannot be read is told elsewhere
        return ""
    if fault is None:  # nothing but masks
        return ""
    return fault.site.key + ("" if fault.step is None else f" at step {fault.step}")
