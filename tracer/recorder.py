"""From a tensor seen by a tap to a row and a chunk of the trace."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from .capture import Capture
from .clock import Clock, StepLog
from .info import SiteInfo
from .layout import (
    HAS_STATISTICS,
    HAS_TENSOR,
    ArraySpec,
    array_name,
    dimension_names,
    encode_segment,
    module_group,
    tensor_spec,
)
from .statistics import Statistics, can_summarise, summarise
from .store import StoreWriter
from .tables import Table
from .timeline import add_timeline, commit_step, resize_steps
from .writer import BackgroundWriter

__all__ = ["Recorder", "Source"]

_MOST_GAPS = 100
_UNKNOWN_STEPS = 64
"""Steps to make room for when nobody knows how many there will be."""


@dataclass(frozen=True, slots=True)
class Source:
    """Who emits a tensor: a module, or anything else with a name."""

    name: str
    """Path with its component, "unet.mid_block"."""
    kind: str = ""
    """Class of the module."""
    order: int | None = None
    """Position in call order; None for what is no module, which stands behind the latest module."""
    leaf: bool = True
    """Whether it has no children; decides where its arrays lie in the store."""


@dataclass(slots=True)
class _Seen:
    """A tensor object of this step, so that the same tensor under another name is not measured and stored again."""

    tensor: weakref.ref[Tensor]
    version: int
    statistics: Statistics
    array: str = ""


class Recorder:
    """Takes tensors from the taps, knows their place in the trace, and feeds the writer.

    Thread-safe: pipelines may run in another thread than the one that started the tracer.
    """

    def __init__(self, writer: BackgroundWriter, capture: Capture, clock: Clock) -> None:
        self.clock = clock
        self._writer = writer
        self._capture = capture
        self._lock = threading.RLock()
        self._tables: dict[tuple[str, bool], Table] = {}
        self._rows: dict[tuple[str, str, int, bool], int] = {}
        self._calls: dict[tuple[str, str, bool], int] = {}
        self._dims: dict[str, dict[str, int]] = {}
        self._seen: dict[tuple[int, bool], _Seen] = {}
        self._latest = -1
        self._capacity = 0
        self._committed = 0
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
    ) -> Statistics | None:
        """Take statistics of a tensor, and a copy when it is to be kept; nothing later can change what is recorded.

        Args:
            source: Who emits it.
            tensor: Any dense real tensor; anything else is noted as a gap.
            port: Which of the source's tensors.
            keep: Store the tensor too, at the steps the capture allows.
            dims: Dimension names; by rank when None.
            in_last_step: Count it to the last step even after the loop, as the scheduler's and the user's tensors are.

        Returns:
            The statistics, or None when the tensor has no numbers to look at.
        """
        with self._lock:
            step = self.clock.last_step if in_last_step else self.clock.step_now()
            stepped = step is not None
            call = self._calls.get((source.name, port, stepped), 0)
            self._calls[source.name, port, stepped] = call + 1
            if not can_summarise(tensor):
                self._gap(source.name, step, f"a {tensor.layout} {tensor.dtype} tensor has no numbers to look at")
                return None
            table = self._table(source.name.split(".", 1)[0], stepped=stepped)
            row = self._rows.get((source.name, port, call, stepped))
            if row is None:
                row = self._add_site(table, source, port, call, tensor=tensor, dims=dims)
            seen = self._look(tensor, stepped=stepped)
            wanted = keep and self._capture.wants_step(step)
            kept = wanted and self._keep(table, table.sites[row], source, tensor=tensor, seen=seen)
            table.set(row, seen.statistics, HAS_TENSOR if kept else HAS_STATISTICS)
            return seen.statistics

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
            changed = any(table.changed for table in self._tables.values())
            for table in self._tables.values():
                if table.changed:
                    self._writer.submit(table.declare(self._capacity))
                if table.stepped:
                    self._writer.submit(*table.flush(log.step))
            for key in [key for key in self._calls if key[2]]:
                del self._calls[key]
            self._seen.clear()
            for skipped in range(self._committed, log.step):  # the user's own numbering may leave some out
                self._writer.submit(functools.partial(commit_step, StepLog(skipped)))
            self._writer.submit(functools.partial(commit_step, replace(log)))
            self._committed = log.step + 1
            if changed:
                self.publish()

    def publish(self) -> None:
        """Make everything recorded so far visible to readers, what fired outside of the loop included."""
        with self._lock:
            for table in self._tables.values():
                if table.changed:
                    self._writer.submit(table.declare(self._capacity))
                if not table.stepped:
                    self._writer.submit(*table.flush(None))
            self._writer.submit(StoreWriter.publish)

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

    def _look(self, tensor: Tensor, *, stepped: bool) -> _Seen:
        """Statistics, taken once for the very tensor object that has not been written to since.

        What was seen outside of the loop is another thing inside: its array has no steps.
        """
        try:
            version = tensor._version
        except RuntimeError:  # tensors of inference mode do not count their versions
            return _Seen(weakref.ref(tensor), -1, summarise(tensor))
        known = self._seen.get((id(tensor), stepped))
        if known is None or known.tensor() is not tensor or known.version != version:
            known = self._seen[id(tensor), stepped] = _Seen(weakref.ref(tensor), version, summarise(tensor))
        return known

    def _table(self, component: str, *, stepped: bool) -> Table:
        table = self._tables.get((component, stepped))
        if table is None:
            table = self._tables[component, stepped] = Table(component, stepped)
        return table

    def _add_site(
        self, table: Table, source: Source, port: str, call: int, *, tensor: Tensor, dims: Sequence[str] | None
    ) -> int:
        name, row = source.name, len(table.sites)
        self._rows[name, port, call, table.stepped] = row
        if (name, port, call, not table.stepped) in self._rows:  # inside and outside of the loop are two places
            port = f"{port}_{'step' if table.stepped else 'once'}"
        group = module_group(name, has_children=not source.leaf)
        order = self._latest if source.order is None else source.order
        self._latest = max(self._latest, order)
        shape, names = tuple(tensor.shape), tuple(dims or dimension_names(tensor.dim()))
        table.add(
            SiteInfo(
                name=name,
                port=port,
                call=call,
                row=row,
                order=order,
                module_class=source.kind,
                torch_dtype=str(tensor.dtype).removeprefix("torch."),
                shape=shape,
                dims=self._free_dims(group, array_name(port, call), names, shape),
                branch=self.clock.branch if table.stepped else "",
                array="",
                stepped=table.stepped,
            )
        )
        return row

    def _free_dims(self, group: str, array: str, names: tuple[str, ...], shape: tuple[int, ...]) -> tuple[str, ...]:
        """Dimension names that no other array of the group uses with another size; xarray insists on that."""
        sizes = self._dims.setdefault(group, {})
        free: list[str] = []
        for name, size in zip(names, shape, strict=True):
            chosen = name if sizes.get(name, size) == size and name not in free else f"{array}_{name}"
            sizes[chosen] = size
            free.append(chosen)
        return tuple(free)

    def _keep(self, table: Table, site: SiteInfo, source: Source, *, tensor: Tensor, seen: _Seen) -> bool:
        """Copy the tensor and queue it for the store, unless a module's tensor is already there as another module's.

        Only modules share: latents and records are looked for under their own names.
        """
        step = self.clock.last_step if table.stepped else None
        if not tensor.numel():
            return False
        if tuple(tensor.shape) != site.shape:
            self._gap(site.key, step, f"shape {tuple(tensor.shape)} differs from the first, {site.shape}")
            return False
        own = f"{module_group(site.name, has_children=not source.leaf)}/{encode_segment(site.array_name)}"
        is_module = source.order is not None
        if is_module and seen.array and site.array in ("", seen.array):
            if not site.array:
                table.replace(replace(site, array=seen.array))
            return True
        if site.array != own:
            if site.array:
                self._gap(site.key, step, f"up to here its tensors are those of {site.array}")
            self._add_array(replace(site, array=own), tensor)
            table.replace(replace(site, array=own))
        if is_module:
            seen.array = own
        copy = tensor.detach().to("cpu", copy=True)
        self._writer.submit(functools.partial(_write_tensor, own, step, copy, self._stored_dtype(tensor)), copy.nbytes)
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


def _write_tensor(path: str, step: int | None, tensor: Tensor, dtype: str, store: StoreWriter) -> None:
    if tensor.dtype.is_floating_point:
        tensor = tensor.to(getattr(torch, dtype))
    if step is None:
        store.write(path, (0,) * tensor.dim(), tensor.numpy())
    else:
        store.append(path, (step,), tensor.numpy()[None])
