"""The short way for what comes out of a module as it did in the step before.

On a small network the interpreter's own time is most of what recording costs, the more so as the run has driven our
code and data out of the processor's caches. So each module has one function with all it needs in its closure, which
calls next to nothing. Whatever is new takes the long way.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from ..layout import HAS_STATISTICS
from .intake import Intake, Seen
from .sites import Port, Source

__all__ = ["Take", "output_taker"]

Take = Callable[..., None]
"""Called with a tensor; where it came in a container also with its place there and, the first time, what that is."""


def output_taker(intake: Intake, source: Source, *, keep: bool, lock: AbstractContextManager[object]) -> Take:
    """A function that takes the first output of a module.

    Args:
        intake: Takes what is new.
        source: The module.
        keep: Store the tensors too.
        lock: Held while it works.
    """
    clock, sites, seen, wants = intake.clock, intake.sites, intake.seen, intake.wants
    add_again, fired, next_number = intake.copies.add_again, sites.fired, intake.next_number
    port: Port | None = None

    def take(tensor: Tensor, within: tuple[str | int, ...] = (), structure: object = None) -> None:
        nonlocal port
        with lock:
            if port is not None and clock.in_denoiser and take_again(port, tensor):
                return
            intake.take(
                source,
                tensor,
                port="output",
                keep=keep,
                dims=None,
                in_last_step=False,
                within=within,
                structure=structure,
            )
            port = port or sites.port(source.name, "output", stepped=True)

    def take_again(port: Port, tensor: Tensor) -> bool:
        known, key = port.known.get(port.calls), id(tensor)
        if (
            known is None
            or not tensor.is_cpu
            or tensor.layout is not torch.strided
            or tensor.is_nested
            or (
                (tensor.dtype is not known.dtype or tensor.shape != known.shape or tensor.stride() != known.stride)
                and (known := port.like(tensor)) is None
            )
            or tensor.is_inference()  # such tensors do not count their versions
            or tensor.is_neg()
            or ((before := seen.get(key)) is not None and before.tensor() is tensor)
        ):
            return False
        try:
            address = tensor.data_ptr()
        except RuntimeError:  # made by a transformation of torch.func
            return False
        step, array, row, table = clock.last_step, "", known.row, port.table
        rows = table.rows
        place, dense = rows.places[row], known.dense
        if keep and wants(step):
            array = known.array
            if not array or not add_again(tensor, address, known, step=step, place=place):
                return False
            rows.marks[row] = known.mark
        else:
            dense.measure(address, dense.kind, dense.count, place.row_address, place.histogram_address)
            rows.marks[row] = HAS_STATISTICS
        rows.sequence[row] = next_number()
        seen[key] = Seen(tensor, tensor._version, table, row, array)
        if not port.calls:
            fired.append(port)
        port.calls += 1
        return True

    return take
