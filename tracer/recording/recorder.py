"""From a tensor seen by a tap to a row and a chunk of the trace."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from numpy.typing import NDArray
from torch import Tensor

from ..capture import Capture
from ..errors import said
from ..info import SiteInfo
from ..layout import IMAGES, MANY_VARIANTS, SHARD_STEPS, ArraySpec, array_name, tensor_spec
from ..storage.store import StoreWriter
from ..stored import Stored
from .again import Take, output_taker
from .clock import Clock, StepLog
from .copies import Copies
from .gaps import Gaps
from .intake import Intake
from .losses import Losses
from .moves import move, move_numbers
from .provenance import Provenance
from .publication import Publication
from .sites import Slot, Source
from .timeline import add_timeline, commit_step, resize_steps, skip_steps
from .writer import BackgroundWriter

__all__ = ["OnPressure", "Recorder"]

OnPressure = Literal["wait", "degrade"]

_UNKNOWN_STEPS = 64
"""Steps to make room for when nobody knows how many there will be."""


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
        self.provenance = Provenance()
        self._writer = writer
        self._publication = Publication(writer)
        self._codec = capture.codec
        self._lock = threading.RLock()
        self._gaps = Gaps()
        losses = Losses(self._gaps.add)
        self._copies = Copies(writer, losses)
        self._intake = Intake(
            capture,
            clock,
            self._copies,
            losses=losses,
            wait=on_pressure == "wait",
            on_array=self._add_array,
            on_gap=self._gaps.add,
        )
        self._capacity = 0
        self._committed = 0
        self._written = 0
        """Steps that the writer has committed."""
        self._images_written = 0
        self._outside: set[str] = set()
        self._moved: list[Callable[[str, bool], None]] = []
        clock.when_run_begins(self._run_begins)

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been recorded: no tensor and no picture."""
        return not self._intake.sites.tables and not self._images_written

    @property
    def saw_fault(self) -> bool:
        """Whether a value that is not finite was among what was written; known for certain once all is."""
        return any(table.saw_fault for table in self._intake.sites.tables)

    def record(
        self,
        source: Source,
        tensor: Tensor,
        *,
        port: str = "output",
        keep: bool = False,
        dims: Sequence[str] | None = None,
        in_last_step: bool = False,
        from_start: bool = False,
        within: tuple[str | int, ...] = (),
    ) -> None:
        """Take statistics of a tensor, and a copy when it is to be kept; nothing later can change what is recorded.

        Args:
            source: Who emits it.
            tensor: Any dense real tensor; anything else is noted as a gap.
            port: Which of the source's tensors.
            keep: Store the tensor too, at the steps the capture allows.
            dims: Dimension names; by rank when None.
            in_last_step: Count it to the last step even after the loop, as the scheduler's and the user's tensors are.
            from_start: It is what the step began with: made before everything else of the step, though seen later.
            within: Keys and indices that lead to it in what its source returned.
        """
        with self._lock:
            self._intake.take(
                source,
                tensor,
                port=port,
                keep=keep,
                dims=dims,
                in_last_step=in_last_step,
                from_start=from_start,
                within=within,
            )

    def output_taker(self, source: Source, *, keep: bool) -> Take:
        """A function that does `record` with the first output of a module, faster where it is as in the step before."""
        return output_taker(self._intake, source, keep=keep, lock=self._lock)

    def write_array(self, path: str, array: NDArray[Any], dims: Sequence[str]) -> None:
        """Store an array that belongs to no step and needs no statistics, such as tokens and pictures."""
        dtype = "string" if array.dtype == object else str(array.dtype)
        spec = tensor_spec(path, dtype, array.shape, dims, steps=None, codec="lz4", attributes={})
        try:
            job = functools.partial(_add_and_write, spec, array.copy())
        except MemoryError as error:
            self._gaps.add(path, None, f"could not be copied: {said(error)}")
            return
        with self._lock:
            self._writer.submit(job, array.nbytes)

    def write_images(self, images: NDArray[Any]) -> None:
        """Store pictures that a run returned, (image, [frame,] y, x, rgb); those of each further run by themselves."""
        dims = ("image", "frame", "y", "x", "rgb")
        suffix = array_name("", self._images_written)
        names = [name + suffix for name in (dims if images.ndim == 5 else (dims[0], *dims[2:]))]
        self.write_array(f"{IMAGES}/images{suffix}", images, names)
        self._images_written += 1

    def describe(self, attributes: Mapping[str, Any], *, group: str = "") -> None:
        """Add attributes to the root of the trace, or to a group; readers see them before steps that end later."""
        fixed = dict(attributes)
        self._writer.submit(lambda store: store.set_group(group, fixed))

    def gap(self, site: str, reason: str) -> None:
        """Say that something of a site cannot be recorded, see `Gaps.add`."""
        with self._lock:
            self._gaps.add(site, self.clock.step_now(), reason)

    def step_ended(self, log: StepLog) -> None:
        """Commit a step: its rows, then its coordinates, then one byte that says it is complete."""
        with self._lock:
            self._reserve_steps(log.step + 1)
            changed = any(table.changed for table in self._intake.sites.tables)
            self._copies.send()
            self._fetch_results()
            for table in self._intake.sites.tables:
                if table.changed:
                    self._writer.submit(table.declare(self._capacity))
                if table.stepped or changed:
                    self._writer.submit(*table.flush(log.step if table.stepped else None))
            if (shed := self._intake.shed) and self._writer.error is None:
                self._gaps.add("", log.step, "the writer fell behind: statistics only", shed)
            self._intake.next_step()
            commit = functools.partial(self._commit, self._committed, replace(log))
            self._writer.submit(functools.partial(self._publication.commit, commit))
            self._committed = log.step + 1
            self._writer.send()

    def when_moved(self, listener: Callable[[str, bool], None]) -> None:
        """Call this with a component whose records are taken into the loop (true) or out of it."""
        self._moved.append(listener)

    def enter_loop(self, component: str) -> None:
        """What a component did since the run began was in the current step, and not before the loop."""
        with self._lock:
            if component in self._outside:
                reason = "called before the loop too, so that what it did in its first step is outside of it"
                self._gaps.add(component, self.clock.last_step, reason)
            else:
                self._move(component, stepped=True)

    def leave_loop(self) -> None:
        """What first ran after the last step of a scheduler was after the loop."""
        with self._lock:
            for component in self._intake.sites.after_the_last_step():
                self._move(component, stepped=False)

    def publish(self) -> None:
        """Make everything recorded so far visible to readers, what fired outside of the loop included."""
        with self._lock:
            self._copies.send()
            self._fetch_results()
            for table in self._intake.sites.tables:
                if table.changed:
                    self._writer.submit(table.declare(self._capacity))
                if not table.stepped:
                    self._writer.submit(*table.flush(None))
            self._writer.submit(self._publication.publish)
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
            final, committed = dict(attributes), self._committed
            final["planned_steps"] = max(committed, self.clock.planned or 0)
            self._writer.pool.close()  # what comes from here on, from another thread, comes too late

        def last(store: StoreWriter) -> None:
            error, pool = self._writer.error, self._writer.pool
            final["memory"] = {"budget": pool.budget, "peak": pool.peak}
            final["gaps"] = self._gaps.to_attributes()  # those of the writer, too
            if error is not None:
                self._write_failure(final, error, store)
                return
            resize_steps(committed, store)
            self._publication.publish(store)
            try:
                final.update(finish(store))
            except Exception as failure:  # noqa: BLE001 — an extra; what was recorded must still be closed
                final["gaps"].append({"reason": f"no previews: {type(failure).__name__}: {failure}"})
            store.set_group("", final)
            store.publish()

        self._writer.close(last)
        return self._writer.error

    def _write_failure(self, final: Mapping[str, Any], error: Exception, store: StoreWriter) -> None:
        """Say in the trace that the writer has failed, from where on, and why."""
        step = self._written if self._written < self._committed else None
        gap = {"site": "", "reason": f"nothing from here on could be written: {said(error)}", "count": 1}
        gap |= {} if step is None else {"steps": [[step, self._committed - 1]]}
        end = {"status": "incomplete", "error": {"type": type(error).__name__, "message": said(error)}}
        words = {**final, **end, "error": final.get("error") or end["error"], "gaps": [*final["gaps"], gap]}
        try:
            store.write_last_words(words)
        except OSError:  # no room even for these
            count = {"reason": f"{len(final['gaps'])} more"}
            store.write_last_words(words | {"gaps": [gap, *([count] if final["gaps"] else [])]})

    def _commit(self, start: int, log: StepLog, store: StoreWriter) -> None:
        if start < log.step:
            skip_steps(start, log.step, store)
        commit_step(log, store)
        self._written = log.step + 1

    def _run_begins(self) -> None:
        self._outside = {table.component for table in self._intake.sites.tables if not table.stepped}

    def _move(self, component: str, *, stepped: bool) -> None:
        """Take what a component did into the current step, or out of the loop: rows, their numbers, and tensors."""
        last = self.clock.last_step
        before, step = (None, last) if stepped else (last, None)
        self._copies.send()
        self._fetch_results()
        moved = move(self._intake.sites, component, stepped=stepped, keeps=lambda _: self._intake.wants(step))
        self._intake.seen.clear()
        numbers = [(one.source, one.target) for one in moved]
        self._writer.submit(lambda _: move_numbers(numbers))
        for old, (new, dtype) in {
            one.old.array: (one.new, one.dtype) for one in reversed(moved) if one.old.array
        }.items():
            if not new.array:
                self._writer.submit(functools.partial(_withdraw, old, before))
                continue
            spec = self._array_spec(new, new.arrays[0], dtype)
            self._writer.submit(functools.partial(_move_array, (old, before), spec, step))
        for listener in self._moved:
            listener(component, stepped)

    def _fetch_results(self) -> None:
        fill = self._intake.results.fetch()
        self._writer.submit(lambda _: fill())

    def _add_array(self, site: SiteInfo, stored: Stored, dtype: str, number: int, before: Slot | None) -> None:
        spec = self._array_spec(site, stored, dtype, number)
        self._writer.submit(lambda store: store.add_array(spec))
        if before is not None:  # until now its tensors were those of another module
            self._copies.send()
            self._writer.submit(lambda store: store.copy_chunks(before.array, spec.path, before.borrowed))

    def _array_spec(self, site: SiteInfo, stored: Stored, dtype: str, number: int = 0) -> ArraySpec:
        attributes: dict[str, Any] = {"torch_dtype": stored.torch_dtype, "module_class": site.module_class}
        attributes |= {"call": site.call, "branch": site.branch}
        if dtype == "float16":
            attributes["scale_factor"] = 1.0  # xarray then computes in float64; sums of float16 overflow
        if site.stepped:
            assert self.clock.last_step is not None
            self._reserve_steps(self.clock.last_step + 1)
        return tensor_spec(
            stored.array,
            dtype,
            stored.shape,
            stored.dims,
            steps=self._capacity if site.stepped else None,
            codec=self._codec,
            attributes=attributes,
            shard_steps=1 if number > MANY_VARIANTS else SHARD_STEPS,
        )

    def _reserve_steps(self, steps: int) -> None:
        """Make room for `steps` steps in every array of the loop."""
        if steps <= self._capacity:
            return
        first, planned = not self._capacity, self.clock.planned or 0
        self._capacity = max(steps, planned, 0 if planned else max(_UNKNOWN_STEPS, 2 * self._capacity))
        self.describe({"planned_steps": planned})
        self._writer.submit(functools.partial(add_timeline if first else resize_steps, self._capacity))
        if not first:
            self._writer.submit(self._publication.publish)


def _withdraw(path: str, step: int | None, store: StoreWriter) -> None:
    store.withdraw(path, step)


def _move_array(old: tuple[str, int | None], spec: ArraySpec, step: int | None, store: StoreWriter) -> None:
    codec = store.spec(old[0]).codec
    data = store.withdraw(*old)
    store.add_array(replace(spec, codec=codec))
    if data is not None:
        store.put_encoded(spec.path, step, data)


def _add_and_write(spec: ArraySpec, array: NDArray[Any], store: StoreWriter) -> None:
    store.add_array(spec)
    store.write(spec.path, (0,) * array.ndim, array)
