"""From a tensor seen by a tap to a row of the table, and a copy in the writer's queue."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..capture import Capture
from ..errors import said
from ..info import SiteInfo
from ..layout import HAS_STATISTICS, HAS_TENSOR
from .buffers import kind_of
from .clock import Clock
from .copies import Copies
from .device import Results
from .sites import Known, Port, Sites, Source
from .statistics import MOST_ELEMENTS, Place, can_summarise, dense_kernel, measure
from .tables import Table

__all__ = ["Intake", "Seen"]


class Seen:
    """A tensor object of this step, so that the same tensor under another name is not measured and stored again."""

    __slots__ = ("array", "row", "table", "tensor", "version")

    def __init__(self, tensor: Tensor, version: int, table: Table, row: int, array: str = "") -> None:
        self.tensor, self.version, self.table, self.row = weakref.ref(tensor), version, table, row
        self.array = array


class Intake:
    """Takes tensors in. Not thread-safe: its owner holds a lock.

    Args:
        capture: Which of the tensors to keep.
        clock: Knows the step.
        copies: Takes what is kept.
        wait: Wait for the writer while its budget is spent; else only the statistics are kept then.
        on_array: Called with a site that is about to get its first tensor of its own, that tensor's stored dtype, and
            the other site's array that its tensors were read from until now, or "".
        on_gap: Called with a site, a step and a reason when something cannot be recorded.
    """

    def __init__(
        self,
        capture: Capture,
        clock: Clock,
        copies: Copies,
        *,
        wait: bool,
        on_array: Callable[[SiteInfo, str, str], None],
        on_gap: Callable[[str, int | None, str], None],
    ) -> None:
        self.sites = Sites(clock)
        self.results = Results()
        self.shed = 0
        """Tensors of this step of which only the statistics could be kept."""
        self._capture = capture
        self.clock = clock
        self.copies = copies
        self._wait = wait
        self._on_array = on_array
        self._dtypes: dict[str, str] = {}
        self._on_gap = on_gap
        self.seen: dict[int, Seen] = {}
        self._wanted: tuple[int | None, bool] = (None, True)
        self.next_number: Callable[[], int] = itertools.count().__next__
        """Counts all tensors of the run, see `layout.SEQUENCE`."""
        self._start: int | None = None
        """The number of what the current step began with, which is seen when the step is nearly over."""

    def next_step(self) -> None:
        """What comes from now on belongs to another step."""
        self.sites.next_step()
        self.seen.clear()
        self.shed = 0
        self._start = self.next_number()

    def take(
        self,
        source: Source,
        tensor: Tensor,
        *,
        port: str,
        keep: bool,
        dims: Sequence[str] | None,
        in_last_step: bool,
        from_start: bool = False,
    ) -> None:
        """Take statistics of a tensor, and a copy when it is to be kept.

        What is not copied is measured here, where the processor's caches still hold it; what is, by the writer.
        """
        step = self.clock.last_step if in_last_step else self.clock.step_now()
        place, call = self.sites.fire(source, port, stepped=step is not None)
        if reason := _against(tensor):
            self._on_gap(source.name, step, reason)
            return
        table, row = place.table, place.rows.get(call, -1)
        if row < 0:
            row = self.sites.add(place, source, port, call, tensor=tensor, dims=dims)
        seen = self._look(tensor, table, row)
        is_new, on_host = seen.row == row, tensor.is_cpu
        unmeasured = table.rows.places[row] if is_new else None
        captured = HAS_STATISTICS
        if keep and self.wants(step):
            later = unmeasured if on_host else None
            if self._share(table, row, source, seen):
                captured = HAS_TENSOR
            elif self._keep(table, row, place.arrays[call], tensor, step=step, unmeasured=later):
                captured = HAS_TENSOR
                unmeasured = None if on_host else unmeasured
                seen.array = place.arrays[call] if source.order is not None else ""
        if not is_new:
            table.rows.alias(row, seen.row)
        elif unmeasured is not None and not self._measure(tensor, unmeasured, seen, step):
            return
        table.rows.marks[row] = captured
        if step is not None and self._start is None:
            self._start = self.next_number()
        started = self._start if from_start and step is not None else None
        table.rows.sequence[row] = self.next_number() if started is None else started
        if port == "output" and step is not None and source.order is not None:
            self._expect(place, call, tensor)

    def moved(self, old: str, new: str) -> str:
        """An array has become another one, or none; what its tensors are stored as."""
        dtype = self._dtypes.pop(old)
        if new:
            self._dtypes[new] = dtype
        return dtype

    def _measure(self, tensor: Tensor, place: Place, seen: Seen, step: int | None) -> bool:
        """Measure a tensor now; false where that cannot be."""
        try:
            (measure if tensor.is_cpu else self.results.measure)(tensor, place)
        except Exception as error:  # noqa: BLE001 — as in `_keep`
            self._on_gap(seen.table.sites[seen.row].key, step, f"could not be measured: {said(error)}")
            self.seen.pop(id(tensor), None)
            return False
        return True

    def _expect(self, place: Port, call: int, tensor: Tensor) -> None:
        """Remember what a tensor was like, see `again`."""
        dense = dense_kernel(tensor) if tensor.is_contiguous() else None
        if dense is None:
            place.known.pop(call, None)
            return
        row = place.rows[call]
        site, own = place.table.sites[row], place.arrays[call]
        stored = self._stored_dtype(tensor)
        own = own if site.array == own and site.shape == tensor.shape and self._dtypes[own] == stored else ""
        like = tensor.dtype, tensor.shape, tensor.stride(), tensor.nbytes
        place.known[call] = Known(row, *like, dense, own, stored, kind_of(tensor))

    def wants(self, step: int | None) -> bool:
        """Whether tensors of a step are to be kept."""
        if self._wanted[0] != step:
            self._wanted = step, self._capture.wants_step(step)
        return self._wanted[1]

    def _look(self, tensor: Tensor, table: Table, row: int) -> Seen:
        """Where this very tensor object, not written to since, was seen before in this step; else here."""
        if tensor.is_inference():  # such tensors do not count their versions
            return Seen(tensor, -1, table, row)
        version, known = tensor._version, self.seen.get(id(tensor))
        if known is None or known.version != version or known.table is not table or known.tensor() is not tensor:
            known = self.seen[id(tensor)] = Seen(tensor, version, table, row)
        return known

    def _share(self, table: Table, row: int, source: Source, seen: Seen) -> bool:
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
        self, table: Table, row: int, own: str, tensor: Tensor, *, step: int | None, unmeasured: Place | None
    ) -> bool:
        """Copy a tensor and queue it for its own array; false when there is no room for it now, or it does not fit."""
        site = table.sites[row]
        if not tensor.numel():
            return False
        if tensor.shape != site.shape:
            self._on_gap(site.key, step, f"shape {tuple(tensor.shape)} differs from the first, {site.shape}")
            return False
        dtype = self._stored_dtype(tensor)
        first = self._dtypes.get(site.array, dtype)  # its own array, or that of the module whose tensors it shares
        if dtype != first:
            self._on_gap(site.key, step, f"{tensor.dtype} does not fit in with the first, stored as {first}")
            return False
        try:
            copied = self.copies.copy(tensor, wait=self._wait)
        except Exception as error:  # noqa: BLE001 — memory, an accelerator: it costs this record and no other
            self._on_gap(site.key, step, f"could not be copied: {said(error)}")
            return False
        if copied is None:
            self.shed += 1
            return False
        try:
            if site.array != own:
                before, site = site.array, replace(site, array=own)
                self._dtypes[own] = dtype
                self._on_array(site, dtype, before)
                table.replace(site)
        except BaseException:
            self.copies.drop(copied)
            raise
        self.copies.add(copied, array=own, step=step, dtype=dtype, place=unmeasured)
        return True

    def _stored_dtype(self, tensor: Tensor) -> str:
        if tensor.dtype.is_floating_point and tensor.dtype != torch.float64:
            return self._capture.dtype
        return str(tensor.dtype).removeprefix("torch.")


def _against(tensor: Tensor) -> str:
    """Why nothing can be recorded of a tensor; "" where something can."""
    if not can_summarise(tensor):
        return f"a {tensor.layout} {tensor.dtype} tensor has no numbers to look at"
    if tensor.numel() > MOST_ELEMENTS:  # a few numbers expanded, as a rule
        return f"{tensor.numel():.3g} elements are more than a histogram can count"
    return ""
