"""`Tracer`: the context manager that owns the taps, the clock and the writer for the length of a run."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

from torch import Tensor

from .capture import Capture, Level, Selection
from .errors import CaptureError, DxrayError, StoreError, TargetError, TracerStateError, TracerWarning, said, words_of
from .info import printable
from .layout import RECORDS, as_text
from .preview import write_previews
from .recording.clock import Clock, StepLog
from .recording.ending import remarks
from .recording.foreign import as_tensor
from .recording.numbering import number_of, step_index
from .recording.origin import caller, describe_origin
from .recording.places import MakeStore, place_of
from .recording.recorder import OnPressure, Recorder
from .recording.sites import Source
from .recording.statistics import MOST_ELEMENTS, can_summarise, summarise, warm_up
from .recording.summary import Summary
from .recording.target import Target
from .recording.writer import DEFAULT_BUDGET, BackgroundWriter
from .storage.library_store import Where
from .storage.store import StoreWriter, bulk_calls
from .taps.attachment import Attachment
from .taps.compiled import Compiled
from .taps.images import images_in
from .taps.ports import PortSteps
from .taps.protocol import Tap
from .taps.scheduler import LOOP
from .taps.steps import StepsTap
from .trace import Trace

__all__ = ["Tracer"]


class Tracer:
    """Records everything that happens in a `with` block into a trace.

    The traced run is never changed: its outputs are bit-identical with and without the tracer, and an error of the
    tracer costs records, not the run. A tracer is used once, and has its pipeline to itself.

    Args:
        traced: A `DiffusionPipeline`, an `nn.Module`, or a mapping of names to modules, schedulers and tokenizers.
        path: Where the trace goes: a folder whose name ends in ".zarr", a zip file, a URL of fsspec, or a Zarr store.
        capture: What to keep beside statistics: "statistics" (nothing), "blocks" (every block's output), "attention"
            (and queries and keys), "all", or a `Capture`.
        overwrite: Replace an older trace at `path`. Anything that is not a trace is never deleted.
        taps: Further taps, beside the built-in ones and those of installed packages.
        budget: Bytes that may be on their way to the disk, the buffers for them included.
        on_pressure: What to do while they are: "wait" for the disk, or "degrade", keep statistics instead of tensors
            and note the gap.
        durable: Have each step on the disk before it counts as complete, so that it survives a power failure. Without
            it a step survives the end of the process, however violent.
        compiled: What to do with modules that were given to `torch.compile`: run them "eager", so that all within them
            is seen, or "keep" them as they are and see what comes out of them. Neither has anything compiled anew.
        store: Makes the writer of a folder from its path and head.

    Raises:
        TargetError: `traced` is none of these.
        CaptureError: `capture` is wrong or matches nothing, or `on_pressure` or `compiled` is neither.

    Example:
        >>> with Tracer(pipe, "run.zarr") as tracer:
        ...     image = pipe("a red circle on white").images[0]
        >>> tracer.trace["unet.mid_block"]["std"]
    """

    def __init__(
        self,
        traced: object,
        path: Where,
        *,
        capture: Level | Capture = "blocks",
        overwrite: bool = False,
        taps: Sequence[Tap] = (),
        budget: int = DEFAULT_BUDGET,
        on_pressure: OnPressure = "wait",
        durable: bool = False,
        compiled: Compiled = "eager",
        store: MakeStore | None = None,
    ) -> None:
        self._target = Target.of(traced)
        self._selection = Selection.of(capture, self._target.modules())
        self._level = capture if isinstance(capture, str) else "custom"
        self._place = place_of(path, store or functools.partial(StoreWriter, durable=durable))
        self._overwrite = overwrite
        self._own_taps = tuple(taps)
        self._budget = budget
        if on_pressure not in get_args(OnPressure):
            raise CaptureError(f"on_pressure={on_pressure!r}: choose from {', '.join(map(repr, get_args(OnPressure)))}")
        self._on_pressure = on_pressure
        if compiled not in get_args(Compiled):
            raise CaptureError(f"compiled={compiled!r}: choose from {', '.join(map(repr, get_args(Compiled)))}")
        self._title = caller()
        self._state: Literal["new", "recording", "closed"] = "new"
        self._undo = ExitStack()
        self._taps = Attachment(self._target, self._selection, compiled)
        self._steps = StepsTap()
        self._step_offset = 0
        self._loop_over = False
        self._started = 0.0
        self._process = 0

    @property
    def path(self) -> Path | str:
        """Where the trace is."""
        return self._place.path

    @property
    def trace(self) -> Trace:
        """The trace, opened for reading.

        Raises:
            TracerStateError: The tracer has not been entered yet.
        """
        if self._state == "new":
            raise TracerStateError("nothing is recorded yet; use the tracer in a with statement first")
        return self._place.open()

    def __repr__(self) -> str:
        target = self._target
        parts = ", ".join([*target.components, *target.schedulers])
        traced = type(target.pipeline).__name__ if target.pipeline is not None else parts
        return f"<Tracer of {printable(traced)} into {printable(self.path)}: {self._state}>"

    def __enter__(self) -> Self:
        if self._state != "new":
            raise TracerStateError(f"this tracer is {self._state}; make a new Tracer for another run")
        with ExitStack() as undo:
            undo.enter_context(self._target.claim(self.path))
            try:
                self._place.make_room(overwrite=self._overwrite)
            except DxrayError:
                raise
            except OSError as error:
                raise StoreError(f"cannot replace the trace at {self.path}: {error}") from error
            warm_up()
            bulk_calls()
            self._started = time.monotonic()
            capture = {"level": self._level, **self._selection.capture.describe()}
            head = describe_origin(self._target, self._title, capture)
            try:
                writer = BackgroundWriter(lambda: self._place.writer(head), budget=self._budget)
            except (OSError, MemoryError) as error:
                raise StoreError(f"cannot write a trace at {self.path}: {said(error)}") from error
            self._undo = undo.pop_all()
        self._process = os.getpid()
        clock = Clock(self._step_ended, has_schedulers=bool(self._target.schedulers))
        self._clock = clock
        self._ports = PortSteps(self._target, clock)
        self._recorder = Recorder(writer, self._selection.capture, clock, on_pressure=self._on_pressure)
        clock.on_found, clock.on_loop_end = self._recorder.enter_loop, self._recorder.leave_loop
        self._state = "recording"
        try:
            self._taps.attach(self._own_taps, {"steps": self._steps}, self._recorder, self._undo)
        except BaseException as error:
            self._close(error)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._is_here:
            self._close(error)

    @property
    def _is_here(self) -> bool:
        """Whether this is the process that records: in a forked child a tracer does nothing, and its end neither."""
        return self._process == os.getpid()

    def step(self, index: int | None, *, timestep: float = math.nan, sigma: float = math.nan) -> None:
        """Say which step a hand-written loop is at, before the step's first module is called.

        Steps must ascend within a loop; those left out read as not captured. A second loop in the same trace goes on
        where the first ended. None says that the loop is over, so that a decoder called next is in no step.

        Raises:
            TracerStateError: The tracer is not recording.
        """
        self._check_recording("step")
        if not self._is_here:
            return
        if index is None:
            self._clock.run_ended()
            self._loop_over = True
            return
        index, timestep, sigma = step_index(index), number_of(timestep, "timestep"), number_of(sigma, "sigma")
        last = self._clock.last_step
        if last is not None and index + self._step_offset < last + self._loop_over:
            self._step_offset = last + 1
        self._loop_over = False
        self._clock.set_step(step_index(index + self._step_offset), timestep, sigma)

    def record(self, name: str, tensor: object) -> Summary:
        """Put any tensor of your own code into the trace, at the current step, as ``records.<name>``.

        Where no module is traced, a scheduler alone, the first that is recorded after it has stepped begins the next
        step; `step` says otherwise.

        Args:
            name: What it is; dots make a hierarchy.
            tensor: A tensor, an array of numpy, or anything with ``__array__`` or DLPack; copied before this returns.

        Returns:
            What it looks like, in one line when printed.

        Raises:
            TracerStateError: The tracer is not recording.
            TargetError: `tensor` is not a dense real tensor or array, or the name is empty.
        """
        self._check_recording("record")
        if not all(name.split(".")):
            raise TargetError(f"record({name!r}, {type(tensor).__name__}): give a name such as 'noise'")
        tensor = _tensor(f"record({name!r})", tensor)
        if tensor.numel() > MOST_ELEMENTS:
            raise TargetError(
                f"record({name!r}): {tensor.numel():.3g} elements are too many; give a part of the tensor"
            )
        source = Source(f"{RECORDS}.{as_text(name)}", "record", leaf=False)  # "a.b" may come after "a"
        if self._is_here:
            self._ports.array_comes()
            self._recorder.record(source, tensor, keep=True, in_last_step=True)
        if not can_summarise(tensor):
            raise TargetError(f"record({name!r}): a {tensor.layout} {tensor.dtype} tensor has no numbers to look at")
        return Summary(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), summarise(tensor))

    def record_latents(
        self,
        latents: object,
        *,
        model_output: object = None,
        next_latents: object = None,
        x0: object = None,
    ) -> None:
        """Put what a hand-written loop works on into the trace, at the current step, where a scheduler's would be.

        Previews and everything that reads `trace.steps` find it there. Where a denoiser was given a multiple of them,
        its batch holds branches of guidance; which is which is told by their texts, or by `model_output`. Where a
        scheduler of diffusers makes the steps, all this happens by itself. All may be arrays as in `record`.

        Args:
            latents: What the step begins with, x_t, (batch, channel, y, x) or another shape.
            model_output: What the denoiser predicted, after guidance.
            next_latents: What the step ends with.
            x0: The clean latents that the prediction implies.

        Raises:
            TracerStateError: The tracer is not recording.
            TargetError: One of them is no tensor or array.
        """
        self._check_recording("record_latents")
        given = {"latents": latents, "model_output": model_output, "next_latents": next_latents, "x0": x0}
        tensors = {
            port: _tensor(f"record_latents({port})", value)
            for port, value in given.items()
            if value is not None or port == "latents"
        }
        if self._is_here:
            self._ports.array_comes()
            for port, tensor in tensors.items():
                keep = self._selection.capture.latents
                begins = port == "latents"
                self._recorder.record(LOOP, tensor, port=port, keep=keep, in_last_step=True, from_start=begins)
        self._steps.latents_are(tensors["latents"], tensors.get("model_output"))

    def record_images(self, images: object) -> None:
        """Put the pictures that a hand-written loop ends with into the trace, as a pipeline's are.

        Args:
            images: A tensor (image, channel, y, x) in [0, 1], an array (image, y, x, channel), uint8 or floats in
                [0, 1], or a list of pictures of Pillow.

        Raises:
            TracerStateError: The tracer is not recording.
            TargetError: `images` is none of these.
        """
        self._check_recording("record_images")
        found = images_in(images)
        if found is None:
            raise TargetError(
                f"record_images({type(images).__name__}): give pictures, (image, channel, y, x) in [0, 1]"
            )
        if self._is_here:
            self._recorder.write_images(found)

    def _close(self, error: BaseException | None) -> None:
        self._state = "closed"
        raised_by = self._taps.ending(error)
        try:
            self._undo.close()
        finally:
            failure = self._write_end(error, raised_by)
        # Told only now: where warnings are errors they must not break into the run.
        for entry in self._taps.failures:
            _warn(f"tap {entry['tap']!r} failed and recorded nothing from there on: {entry['error']}")
        if failure is not None:
            _warn(f"the trace {self.path} is incomplete: {said(failure)}. The run itself is unharmed")
        else:
            with contextlib.suppress(*() if error is None else (TracerWarning,)):  # the run's own error goes first
                for remark in remarks(self._target, self._place, self._recorder, failed=error is not None):
                    _warn(remark)

    def _write_end(self, error: BaseException | None, raised_by: str) -> Exception | None:
        """Commit what is complete and write how the run ended; returns what went wrong with the trace."""
        end: dict[str, Any] = {"status": _status(error), "seconds": round(time.monotonic() - self._started, 3)}
        end["tap_failures"] = self._taps.failures
        failure: Exception | None = None
        if error is not None:
            end["error"] = {
                "type": type(error).__name__,
                "message": words_of(error)[:2000],
                "module": raised_by,
                "step": self._clock.last_step,
            }
        try:
            self._clock.finish(complete=error is None)
            failure = self._recorder.close(end, lambda store: write_previews(self._place.open(), store))
            self._place.finish()
        except Exception as problem:  # noqa: BLE001 — reported as a warning; the run is unharmed
            failure = failure or problem
        return failure

    def _step_ended(self, log: StepLog) -> None:
        self._recorder.step_ended(log)

    def _check_recording(self, call: str) -> None:
        if self._state != "recording":
            raise TracerStateError(f"{call}() needs a tracer that is recording; this one is {self._state}")


def _tensor(call: str, value: object) -> Tensor:
    tensor = as_tensor(value)
    if tensor is None:
        raise TargetError(
            f"{call}: {_kind(value)} is no tensor; give one, or an array of numbers by numpy, __array__ or DLPack"
        )
    return tensor


def _kind(value: object) -> str:
    kind, dtype = type(value).__name__, getattr(value, "dtype", None)
    article = "an" if kind[0].lower() in "aeio" else "a"
    return f"{article} {kind}" + ("" if dtype is None else f" of {dtype}")


def _warn(message: str) -> None:
    warnings.warn(message, TracerWarning, stacklevel=4)


def _status(error: BaseException | None) -> str:
    if error is None:
        return "complete"
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
