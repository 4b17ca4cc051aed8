"""Traces that look as if they were still being written, and waiting for what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import zarr
from textual.pilot import Pilot

__all__ = ["cut", "until"]


def cut(path: Path, steps: int, status: str) -> None:
    """Make a trace look as if only some of its steps were written."""
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"] |= {"status": status, "planned_steps": 6}
    (path / "zarr.json").write_text(json.dumps(document))
    array = zarr.open_array(path / "committed", mode="r+")
    array[:] = [1] * steps + [0] * (array.shape[0] - steps)


async def until(pilot: Pilot[None], holds: Callable[[], bool]) -> None:
    """Wait until something holds, for at most 20 seconds."""
    for _ in range(200):
        if holds():
            return
        await pilot.pause(0.1)
    pytest.fail("it never came to hold")
