"""Waiting for the browser as long as it takes, so that tests pass on a loaded machine as on an idle one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from textual.pilot import Pilot

__all__ = ["until"]

_LONGEST = 30.0
"""Seconds after which what did not happen will not."""


async def until(pilot: Pilot[Any], happened: Callable[[], object]) -> None:
    """Wait until something is so.

    Raises:
        AssertionError: It never was.
    """
    end = time.monotonic() + _LONGEST
    while not happened():
        assert time.monotonic() < end, "what was waited for did not happen"
        await pilot.pause(0.02)
        await pilot.app.workers.wait_for_complete()
