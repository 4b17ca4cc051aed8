"""From a tensor seen by a tap to a row and a chunk of the trace."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .capture import Capture
from .clock import Clock, StepLog
from .device import Results, copy_to_host
from .info import SiteInfo
from .layout import HAS_STATISTICS, HAS_TENSOR, ArraySpec, tensor_spec
from .sites import Sites, Source
from .statistics import can_summarise, measure
from .store import StoreWriter
from .tables import Table
from .timeline import add_timeline, commit_step, resize_steps
from .writer import BackgroundWriter

__all__ = ["OnPressure", "Recorder"]

OnPressure = Literal["wait", "degrade"]

_MOST_GAPS = 100
_UNKNOWN_STEPS = 64
"""Steps to make room for when nobody knows how many there will be."""


@dataclass(slots=True)
class _Seen:
    """A tensor object of this step, so that the same tensor under another name is not measured and stored again."""

    tensor: weakref.ref[Tensor]
    version: int
    table: Table
    row: int
    array: str = ""


_Row = tuple[NDArray[np.float64], NDArray[np.uint32]]
"""Statistics and histogram of a site, to be filled."""


class Recorder:
    """Takes tensors from the taps, knows their place in the trace, and feeds the writer.

    Thread-safe: pipelines may run in another thread than the one that started the tracer.

    Args:
        writer: Takes the copies.
        capture: Which of the tensors to keep.
        clock: Knows the step.
        on_pressure: What to do while the writer's budget is spent: "wait" for it, or "degrade" to statistics.
    """

    def __init__(
        self, writer: BackgroundWriter, capture: Capture, clock: Clock, *, on_pressure: OnPressure = "wait"
    ) -> None:
        self.clock = clock
        self._writer = writer
        self._capture = capture
        self._wait = on_pressure == "wait"
        self._lock = threading.RLock()
        self._sites = Sites(clock)
        self._results = Results()
        self._seen: dict[int, _Seen] = {}
        self._capacity = 0
        self._committed = 0
        self._shed = 0
        self._gaps: list[dict[str, Any]] = []
        self._unlisted_gaps = 0

    def record(
        self,
        source: Source,
        tensor: Tensor,
        *,
        port: str = "output",
        keep: bool = False,
        dims: Sequence[str] | None = None,
        in_last_step: bool = False,
    ) -> None:
        """Take statistics of a tensor, and a copy when it is to be kept; nothing later can change what is recorded.

        What is not copied is measured here, where the processor's caches still hold it; what is, by the writer.

        Args:
            source: Who emits it.
            tensor: Any dense real tensor; anything else is noted as a gap.
            port: Which of the source's tensors.
            keep: Store the tensor too, at the steps the capture allows.
            dims: Dimension names; by rank when None.
            in_last_step: Count it to the last step even after the loop, as the scheduler's and the user's tensors are.
        """
        with self._lock:
            step = self.clock.last_step if in_last_step else self.clock.step_now()
            place, call = self._sites.fire(source, port, stepped=step is not None)
            if not can_summarise(tensor):
                self._gap(source.name, step, f"a {tensor.layout} {tensor.dtype} tensor has no numbers to look at")
                return
            table, row = place.table, place.rows.get(call, -1)
            if row < 0:
                row = self._sites.add(place, source, port, call, tensor=tensor, dims=dims)
            seen = self._look(tensor, table, row)
            is_new, on_host = seen.row == row, tensor.device.type == "cpu"
            unmeasured = table.rows.at(row) if is_new else None
            captured = HAS_STATISTICS
            if keep and self._capture.wants_step(step):
                later = unmeasured if on_host else None
                if self._share(table, row, source, seen):
                    captured = HAS_TENSOR
                elif self._keep(table, row, place.arrays[call], tensor, step=step, unmeasured=later):
                    captured = HAS_TENSOR
                    unmeasured = None if on_host else unmeasured
                    seen.array = place.arrays[call] if source.order is not None else ""
            if not is_new:
                table.rows.alias(row, seen.row)
            elif unmeasured is not None:
                (measure if on_host else self._results.measure)(tensor, *unmeasured)
            table.rows.mark(row, captured)

    def write_array(self, path: str, array: NDArray[Any], dims: Sequence[str]) -> None:
        """Store an array that belongs to no step and needs no statistics, such as tokens and pictures."""
        dtype = "string" if array.dtype == object else str(array.dtype)
        spec = tensor_spec(path, dtype, array.shape, dims, steps=None, codec="lz4", attributes={})
        self._writer.submit(functools.partial(_add_and_write, spec, array.copy()), array.nbytes)

    def describe(self, attributes: Mapping[str, Any], *, group: str = "") -> None:
        """Add attributes to the root of the trace, or to a group; readers see them when it is published next."""
        fixed = dict(attributes)
        self._writer.submit(lambda store: store.set_group(group, fixed))

    def step_ended(self, log: StepLog) -> None:
        """Commit a step: its rows, then its coordinates, then one byte that says it is complete."""
        with self._lock:
            self._reserve_steps(log.step + 1)
            changed = any(table.changed for table in self._sites.tables)
            self._fetch_results()
            for table in self._sites.tables:
                if table.changed:
                    self._writer.submit(table.declare(self._capacity))
                if table.stepped:
                    self._writer.submit(*table.flush(log.step))
            self._sites.next_step()
            self._seen.clear()
            if self._shed:
                tensors = "1 tensor" if self._shed == 1 else f"{self._shed} tensors"
                self._gap("", log.step, f"the writer fell behind: {tensors} kept as statistics only")
                self._shed = 0
            if changed:  # before the commit: a complete step must not lack the sites that came up in it
                self.publish()
            for skipped in range(self._committed, log.step):  # the user's own numbering may leave some out
                self._writer.submit(functools.partial(commit_step, StepLog(skipped)))
            self._writer.submit(functools.partial(commit_step, replace(log)))
            self._committed = log.step + 1
            self._writer.send()

    def publish(self) -> None:
        """Make everything recorded so far visible to readers, what fired outside of the loop included."""
        with self._lock:
            self._fetch_results()
            for table in self._sites.tables:
                if table.changed:
                    self._writer.submit(table.declare(self._capacity))
                if not table.stepped:
                    self._writer.submit(*table.flush(None))
            self._writer.submit(StoreWriter.publish)
            self._writer.send()

    def close(
        self, attributes: Mapping[str, Any], finish: Callable[[StoreWriter], Mapping[str, Any]]
    ) -> Exception | None:
        """Publish what is left, clip to the complete steps, and wait for the writer.

        Args:
            attributes: Final attributes of the root. Where the writer has failed, `status` becomes "incomplete".
            finish: Adds to the finished store, and returns further attributes.

        Returns:
            What kept the writer from writing, or None.
        """
        with self._lock:
            self.publish()
            more = [{"reason": f"{self._unlisted_gaps} more"}] if self._unlisted_gaps else []
            final, committed = dict(attributes) | {"gaps": [*self._gaps, *more]}, self._committed
            final["planned_steps"] = max(committed, self.clock.planned or 0)

        def last(store: StoreWriter) -> None:
            error = self._writer.error
            if error is None:
                resize_steps(committed, store)
                store.publish()
                try:
                    final.update(finish(store))
                except Exception as failure:  # noqa: BLE001 — an extra; what was recorded must still be closed
                    final["gaps"].append({"reason": f"no previews: {type(failure).__name__}: {failure}"})
            else:
                final["status"] = "incomplete"
                final["error"] = final.get("error") or {"type": type(error).__name__, "message": str(error)}
            store.set_group("", final)
            store.publish()

        self._writer.close(last)
        return self._writer.error

    def _gap(self, site: str, step: int | None, reason: str) -> None:
        if len(self._gaps) < _MOST_GAPS:
            self._gaps.append({"site": site, "step": step, "reason": reason})
        else:
            self._unlisted_gaps += 1

    def _fetch_results(self) -> None:
        fill = self._results.fetch()
        self._writer.submit(lambda _: fill())

    def _look(self, tensor: Tensor, table: Table, row: int) -> _Seen:
        """Where this very tensor object, not written to since, was seen before in this step; else here."""
        here = _Seen(weakref.ref(tensor), -1, table, row)
        try:
            here.version = tensor._version
        except RuntimeError:  # tensors of inference mode do not count their versions
            return here
        known = self._seen.get(id(tensor))
        if known is None or known.tensor() is not tensor or known.version != here.version or known.table is not table:
            known = self._seen[id(tensor)] = here
        return known

    def _share(self, table: Table, row: int, source: Source, seen: _Seen) -> bool:
        """Let a module's tensor be read from the array of another module that has stored this very tensor.

        Only modules share: latents and records are looked for under their own names.
        """
        site = table.sites[row]
        if source.order is None or not seen.array or site.array not in ("", seen.array):
            return False
        if not site.array:
            table.replace(replace(site, array=seen.array))
        return True

    def _keep(
        self, table: Table, row: int, own: str, tensor: Tensor, *, step: int | None, unmeasured: _Row | None
    ) -> bool:
        """Copy a tensor and queue it for its own array; false when there is no room for it now, or it does not fit."""
        site = table.sites[row]
        if not tensor.numel():
            return False
        if tensor.shape != site.shape:
            self._gap(site.key, step, f"shape {tuple(tensor.shape)} differs from the first, {site.shape}")
            return False
        buffer = self._writer.buffer(tensor, wait=self._wait)
        if buffer is None:
            self._shed += self._writer.error is None
            return False
        if site.array != own:
            if site.array:
                self._gap(site.key, step, f"up to here its tensors are those of {site.array}")
            site = replace(site, array=own)
            self._add_array(site, tensor)
            table.replace(site)
        arrived = copy_to_host(tensor, buffer)
        job = _Copy(own, step, buffer, self._stored_dtype(tensor), arrived, unmeasured)
        self._writer.submit(job, buffer=buffer)
        return True

    def _add_array(self, site: SiteInfo, tensor: Tensor) -> None:
        dtype = self._stored_dtype(tensor)
        attributes: dict[str, Any] = {"torch_dtype": site.torch_dtype, "module_class": site.module_class}
        attributes |= {"call": site.call, "branch": site.branch}
        if dtype == "float16":
            attributes["scale_factor"] = 1.0  # xarray then computes in float64; sums of float16 overflow
        if site.stepped:
            assert self.clock.last_step is not None
            self._reserve_steps(self.clock.last_step + 1)
        steps, codec = self._capacity if site.stepped else None, self._capture.codec
        spec = tensor_spec(site.array, dtype, site.shape, site.dims, steps=steps, codec=codec, attributes=attributes)
        self._writer.submit(lambda store: store.add_array(spec))

    def _stored_dtype(self, tensor: Tensor) -> str:
        if tensor.dtype.is_floating_point and tensor.dtype != torch.float64:
            return self._capture.dtype
        return str(tensor.dtype).removeprefix("torch.")

    def _reserve_steps(self, steps: int) -> None:
        """Make room for `steps` steps in every array of the loop."""
        if steps <= self._capacity:
            return
        first, planned = not self._capacity, self.clock.planned or 0
        self._capacity = max(steps, planned, 0 if planned else max(_UNKNOWN_STEPS, 2 * self._capacity))
        self.describe({"planned_steps": planned})
        self._writer.submit(functools.partial(add_timeline if first else resize_steps, self._capacity))
        if not first:
            self._writer.submit(StoreWriter.publish)


def _add_and_write(spec: ArraySpec, array: NDArray[Any], store: StoreWriter) -> None:
    store.add_array(spec)
    store.write(spec.path, (0,) * array.ndim, array)


@dataclass(slots=True)
class _Copy:
    """A copied tensor on its way to its array; a job of the writer."""

    array: str
    step: int | None
    tensor: Tensor
    dtype: str
    arrived: Callable[[], None] | None
    """Waits until the copy is complete."""
    unmeasured: _Row | None

    def __call__(self, store: StoreWriter) -> None:
        if self.arrived is not None:
            self.arrived()
        if self.unmeasured is not None:
            measure(self.tensor, *self.unmeasured)
        tensor = self.tensor
        if tensor.dtype.is_floating_point:
            tensor = tensor.to(getattr(torch, self.dtype))
        if self.step is None:
            store.write(self.array, (0,) * tensor.dim(), tensor.numpy())
        else:
            store.append(self.array, (self.step,), tensor.numpy()[None])
