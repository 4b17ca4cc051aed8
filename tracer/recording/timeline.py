"""The arrays along `step` at the root of a trace: made, committed step by step, lengthened and clipped."""

from __future__ import annotations

import math

import numpy as np

from ..layout import ROOT_ARRAYS, ROOT_CHUNK, ArraySpec
from ..storage.store import StoreWriter
from .clock import StepLog

__all__ = ["add_timeline", "commit_step", "resize_steps", "skip_steps"]


def add_timeline(steps: int, store: StoreWriter) -> None:
    """Make room for `steps` steps."""
    for name, (dtype, fill) in ROOT_ARRAYS.items():
        spec = ArraySpec(name, dtype, (steps,), ("step",), (ROOT_CHUNK,), None, "raw", fill, has_checksums=False)
        store.add_array(spec)
    _write_chunks(0, steps, store)


def commit_step(log: StepLog, store: StoreWriter) -> None:
    """Write a step's coordinates, and last of all the byte by which readers know that it is complete."""
    for name, value in (("timestep", log.timestep), ("sigma", log.sigma), ("stage", log.stage)):
        if not math.isnan(value):
            store.poke(name, log.step, value)
    store.poke("committed", log.step, 1)


def skip_steps(start: int, stop: int, store: StoreWriter) -> None:
    """Commit steps of which nothing was recorded, as the user's own numbering leaves them out."""
    store.fill("committed", start, stop, 1)


def resize_steps(steps: int, store: StoreWriter) -> None:
    """Give every array of the loop `steps` steps, here and in the rest of the trace."""
    if "step" in store:
        _write_chunks(store.spec("step").shape[0], steps, store)
    for spec in store.specs():
        if spec.dims[:1] == ("step",):
            store.resize(spec.path, (steps, *spec.shape[1:]))


def _write_chunks(before: int, steps: int, store: StoreWriter) -> None:
    """Write the chunks that further steps need, with nothing in them but the numbers of steps: none may be missing."""
    for chunk in range(math.ceil(before / ROOT_CHUNK), math.ceil(steps / ROOT_CHUNK)):
        for name, (dtype, fill) in ROOT_ARRAYS.items():
            values = np.full(ROOT_CHUNK, float(fill), dtype)
            if name == "step":
                values += np.arange(chunk * ROOT_CHUNK, (chunk + 1) * ROOT_CHUNK)
            store.write(name, (chunk,), values)
