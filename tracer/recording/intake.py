"""From a tensor seen by a tap to a row of the table, and a copy in the writer's queue."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..capture import Capture
from ..errors import said
from ..info import SiteInfo
from ..layout import HAS_STATISTICS, HAS_TENSOR, MOST_VARIANTS
from ..stored import Stored
from .buffers import kind_of
from .clock import Clock
from .copies import Copies
from .device import Results
from .losses import Losses
from .sites import Alike, Known, Port, Sites, Slot, Source, dtype_name
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
        losses: Knows what of it could not be written.
        wait: Wait for the writer while its budget is spent; else only the statistics are kept then.
        on_array: Called with a site that is about to get an array, that array, the dtype it is stored as, its number
            among those of its own, and the slot of another site that its tensors were read from until now, or None.
        on_gap: Called with a site, a step and a reason when something cannot be recorded.
    """

    def __init__(
        self,
        capture: Capture,
        clock: Clock,
        copies: Copies,
        *,
        losses: Losses,
        wait: bool,
        on_array: Callable[[SiteInfo, Stored, str, int, Slot | None], None],
        on_gap: Callable[[str, int | None, str], None],
    ) -> None:
        self.sites = Sites(clock, losses)
        self.results = Results()
        self.shed = 0
        """Tensors of this step of which only the statistics could be kept."""
        self._capture = capture
        self.clock = clock
        self.copies = copies
        self._wait = wait
        self._on_array = on_array
        self._arrays = 0
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
        within: tuple[str | int, ...] = (),
        structure: object = None,
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
            row = self.sites.add(
                place, source, port, call, tensor=tensor, dims=dims, within=within, structure=structure
            )
        seen = self._look(tensor, table, row)
        is_new, on_host = seen.row == row, tensor.is_cpu
        unmeasured = table.rows.places[row] if is_new else None
        captured = HAS_STATISTICS
        if keep and tensor.numel() and self.wants(step):
            alike = tensor.shape, self._stored_dtype(tensor)
            shareable = seen.array and source.order is not None
            shared = self._share(place, call, tensor, alike, seen.array, step) if shareable else None
            if shared is not None:
                captured = shared
            else:
                later = unmeasured if on_host else None
                kept = self._keep(place, call, tensor, alike, step=step, unmeasured=later)
                if kept is not None:
                    captured = kept
                    unmeasured = None if on_host else unmeasured
                    seen.array = place.held[call].slots[alike].array if source.order is not None else ""
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
        row, stored = place.rows[call], self._stored_dtype(tensor)
        slot = place.held[call].slots.get((tensor.shape, stored))
        own, mark = (slot.array, HAS_TENSOR + slot.number) if slot is not None and slot.own else ("", HAS_STATISTICS)
        like = tensor.dtype, tensor.shape, tensor.stride(), tensor.nbytes
        place.expect(call, Known(row, *like, dense, own, mark, stored, kind_of(tensor)))

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

    def _share(  # noqa: PLR0917 — one call, once
        self, place: Port, call: int, tensor: Tensor, alike: Alike, array: str, step: int | None
    ) -> int | None:
        """Let a module's tensor be read from the array of another module that has stored this very tensor.

        Only modules share: latents and records are looked for under their own names.

        Returns:
            What the table's `captured` says of it; None where it is not shared.
        """
        slot = place.held[call].slots.get(alike)
        if slot is None and not self._has_room(place, call):
            return None
        if slot is None:
            slot = self.sites.shared_slot(place, call, tensor, alike, array)
        if slot.array != array:
            return None
        if step is not None and not slot.own:
            slot.borrowed.append(step)
        return HAS_TENSOR + slot.number

    def _keep(
        self, place: Port, call: int, tensor: Tensor, alike: Alike, *, step: int | None, unmeasured: Place | None
    ) -> int | None:
        """Copy a tensor and queue it for the array of its like; None when there is no room for it now.

        Returns:
            What the table's `captured` says of it.
        """
        site, slot = place.table.sites[place.rows[call]], place.held[call].slots.get(alike)
        if slot is None and not self._has_room(place, call):
            self._on_gap(site.key, step, "more different shapes than a trace has arrays for: statistics only")
            return None
        try:
            copied = self.copies.copy(tensor, wait=self._wait)
        except Exception as error:  # noqa: BLE001 — memory, an accelerator: it costs this record and no other
            self._on_gap(site.key, step, f"could not be copied: {said(error)}")
            return None
        if copied is None:
            self.shed += 1
            return None
        try:
            if slot is None or not slot.own:
                slot = self._own_array(place, call, tensor, alike)
        except BaseException:
            self.copies.drop(copied)
            raise
        self.copies.add(copied, array=slot.array, step=step, dtype=alike[1], place=unmeasured)
        return HAS_TENSOR + slot.number

    def _own_array(self, place: Port, call: int, tensor: Tensor, alike: Alike) -> Slot:
        """Have an array for tensors like this one, in the place of another module's where that stood for it."""
        held = place.held[call]
        before, number = held.slots.get(alike), held.owned
        slot = self.sites.own_slot(place, call, tensor, alike)
        site = place.table.sites[place.rows[call]]
        self._arrays += number > 0
        self._on_array(site, site.arrays[slot.number], alike[1], number, before)
        return slot

    def _has_room(self, place: Port, call: int) -> bool:
        """Whether a site may have one more array: a trace of too many cannot be opened in reasonable time."""
        slots = place.held[call].slots
        return not slots or (len(slots) <= MOST_VARIANTS and self._arrays < MOST_VARIANTS)

    def _stored_dtype(self, tensor: Tensor) -> str:
        if tensor.dtype is torch.complex32:
            return "complex64"
        if not tensor.dtype.is_floating_point or tensor.dtype == torch.float64:
            return dtype_name(tensor)
        if self._capture.dtype == "auto":  # a registered bfloat16 would keep xarray from opening the store
            return "float16" if tensor.dtype == torch.float16 else "float32"
        return self._capture.dtype


def _against(tensor: Tensor) -> str:
    """Why nothing can be recorded of a tensor; "" where something can."""
    if not can_summarise(tensor):
        return f"a {tensor.layout} {tensor.dtype} tensor has no numbers to look at"
    if tensor.numel() > MOST_ELEMENTS:  # a few numbers expanded, as a rule
        return f"{tensor.numel():.3g} elements are more than a histogram can count"
    return ""
