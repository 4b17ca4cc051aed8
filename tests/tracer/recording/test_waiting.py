"""The run waits for the disk and never for itself: whatever is claimed comes back, whatever fails."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from diffusion_xray.tracer import Trace, Tracer
from diffusion_xray.tracer.recording.copies import Copies
from diffusion_xray.tracer.recording.statistics import warm_up
from diffusion_xray.tracer.recording.writer import BackgroundWriter
from diffusion_xray.tracer.storage.store import StoreWriter

PATIENCE = 30
"""Seconds after which a run counts as stuck."""


class Memory:
    """A store that keeps what it is given, until a write fails."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.written: list[tuple[str, Any]] = []
        self.closed = False
        self._fails_at = fails_at

    def write(self, path: str, _: tuple[int, ...], chunk: NDArray[Any]) -> None:
        """Keep one chunk."""
        if self._fails_at is not None and len(self.written) >= self._fails_at:
            raise OSError("the disk is full")
        self.written.append((path, chunk.tolist()))

    def append_all(self, chunks: Sequence[tuple[str, int, NDArray[Any], int]]) -> None:
        """Keep many."""
        for path, step, chunk, _ in chunks:
            self.write(path, (step,), chunk)

    def release_reserve(self) -> None:
        """There is none."""

    def close(self) -> None:
        """The end."""
        self.closed = True


class Uncopyable(Tensor):
    """A tensor that cannot be read."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Everything but reading works."""
        if function in {Tensor.data_ptr, Tensor.copy_, Tensor.detach}:
            raise RuntimeError("this memory cannot be read")
        return super().__torch_function__(function, types, args, kwargs or {})  # type: ignore[no-untyped-call]


def writer_of(store: Memory, budget: int) -> BackgroundWriter:
    """A writer into a store that keeps everything in memory."""
    return BackgroundWriter(lambda: cast("StoreWriter", store), budget=budget)


def ends(function: Callable[[], object]) -> None:
    """Run a function, and fail where it does not come back."""
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 — raised below
            errors.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "the run waits for itself"
    if errors:
        raise errors[0]


class Run:
    """What a run does to a writer, and what it expects to find in the store."""

    def __init__(self, writer: BackgroundWriter, copies: Copies, lock: threading.Lock) -> None:
        self._writer, self._copies, self._lock = writer, copies, lock
        self.expected: list[tuple[str, Any]] = []
        self.refused = 0

    def do(self, kind: str, size: int, *, wait: bool) -> None:
        """One operation of a kind, on so many elements."""
        with self._lock:
            getattr(self, f"_{kind}")(size, wait)

    def _copy(self, size: int, wait: bool) -> None:
        tensor = torch.full((size,), float(len(self.expected)))
        copied = self._copies.copy(tensor, wait=wait)
        if copied is None:
            self.refused += 1
            return
        name = f"{id(self)}.{len(self.expected)}"
        self._copies.add(copied, array=name, step=0 if size % 2 else None, dtype="float32", place=None)
        self.expected.append((name, tensor.tolist()))

    def _drop(self, size: int, wait: bool) -> None:
        copied = self._copies.copy(torch.zeros(size), wait=wait)
        if copied is not None:
            self._copies.drop(copied)

    def _job(self, size: int, _: bool) -> None:
        name = f"{id(self)}.{len(self.expected)}"
        value = np.full(size, len(self.expected))
        self.expected.append((name, value.tolist()))
        self._writer.submit(lambda store: store.write(name, (0,), value), 4 * size)

    def _note(self, size: int, _: bool) -> None:
        name = f"{id(self)}.{len(self.expected)}"
        self.expected.append((name, [size]))
        self._writer.submit(lambda store: store.write(name, (0,), np.array([size])))

    def _no_memory(self, size: int, wait: bool) -> None:
        with contextlib.suppress(MemoryError):
            assert self._copies.copy(torch.ones(1).expand(size << 45), wait=wait) is None

    def _no_copy(self, size: int, wait: bool) -> None:
        with contextlib.suppress(RuntimeError):
            assert self._copies.copy(torch.zeros(size).as_subclass(Uncopyable), wait=wait) is None

    def _send(self, _: int, __: bool) -> None:
        self._copies.send()


def _write(name: str, value: NDArray[Any], store: StoreWriter) -> None:
    store.write(name, (0,), value)


KINDS = ["copy", "copy", "copy", "job", "job", "note", "drop", "send"]
FAULTY = [*KINDS, "no_memory", "no_copy"]
SIZES = st.sampled_from([1, 2, 7, 60, 61, 900])
BUDGETS = st.sampled_from([1, 30, 240, 244, 4000, 1 << 20])


def operations(kinds: Sequence[str]) -> st.SearchStrategy[list[tuple[str, int, bool]]]:
    """Lists of what a run may do: kind, size, whether it waits."""
    return st.lists(st.tuples(st.sampled_from(kinds), SIZES, st.booleans()), max_size=40)


@settings(max_examples=150)
@given(BUDGETS, operations(KINDS))
def test_nothing_is_lost_whatever_the_order_and_the_budget(budget: int, todo: list[tuple[str, int, bool]]) -> None:
    """In any order of copies and jobs, down to a budget of one byte, all that waited is written, once and in order."""
    store = Memory()
    writer = writer_of(store, budget)
    run = Run(writer, Copies(writer), threading.Lock())

    def act() -> None:
        for kind, size, _ in todo:
            run.do(kind, size, wait=True)
        writer.close(lambda _: None)

    ends(act)
    assert not run.refused
    assert writer.error is None
    assert sorted(store.written) == sorted(run.expected)
    assert writer.pool.in_flight == 0
    assert writer.pool.peak <= max([budget, *(4 * size for _, size, _ in todo)])


@settings(max_examples=150)
@given(BUDGETS, operations(FAULTY), st.none() | st.integers(0, 10))
def test_what_fails_gives_back_what_it_held(
    budget: int, todo: list[tuple[str, int, bool]], fails_at: int | None
) -> None:
    """Whichever allocation, copy or write fails, the run comes to its end and nothing is in flight after it."""
    store = Memory(fails_at)
    writer = writer_of(store, budget)
    run = Run(writer, Copies(writer), threading.Lock())

    def act() -> None:
        for kind, size, wait in todo:
            run.do(kind, size, wait=wait)
        writer.close(lambda _: None)

    ends(act)
    assert writer.pool.in_flight == 0
    assert store.closed
    lost = len(run.expected) - len(store.written)
    assert (lost > 0) is (writer.error is not None)


@settings(max_examples=40)
@given(BUDGETS, st.lists(operations(FAULTY), min_size=2, max_size=3), st.none() | st.integers(0, 20))
def test_several_threads_wait_for_the_disk_and_not_for_each_other(
    budget: int, todo: list[list[tuple[str, int, bool]]], fails_at: int | None
) -> None:
    """Threads that share a writer, some of them without the recorder's lock, all come to their end."""
    store = Memory(fails_at)
    writer = writer_of(store, budget)
    copies, lock = Copies(writer), threading.Lock()
    runs = [Run(writer, copies, lock) for _ in todo]
    loose: list[tuple[str, Any]] = []

    def jobs() -> None:
        for number in range(10):
            name, value = f"loose.{number}", np.full(50, number)
            loose.append((name, value.tolist()))
            writer.submit(functools.partial(_write, name, value), 200)

    def act(run: Run, operations: list[tuple[str, int, bool]]) -> None:
        for kind, size, wait in operations:
            run.do(kind, size, wait=wait)

    def all_of_them() -> None:
        threads = [threading.Thread(target=act, args=pair, daemon=True) for pair in zip(runs, todo, strict=True)]
        threads.append(threading.Thread(target=jobs, daemon=True))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with lock:
            writer.close(lambda _: None)

    ends(all_of_them)
    assert writer.pool.in_flight == 0
    if writer.error is None:
        expected = [entry for run in runs for entry in run.expected]
        assert sorted(store.written) == sorted(expected + loose)


def test_a_large_claim_is_not_overtaken_for_ever() -> None:
    """One who waits for the whole budget gets it although others go on asking for little."""
    store = Memory()
    writer = writer_of(store, 100)
    stop = threading.Event()

    def work(_: StoreWriter) -> None:
        stop.wait(0.001)

    def little() -> None:
        while not stop.is_set():
            writer.submit(work, 40)
            writer.send()

    others = [threading.Thread(target=little, daemon=True) for _ in range(2)]
    for thread in others:
        thread.start()
    ends(lambda: writer.submit(lambda _: None, 1000))
    stop.set()
    for thread in others:
        thread.join(PATIENCE)
    ends(lambda: writer.close(lambda _: None))
    assert writer.pool.in_flight == 0


def test_nobody_waits_for_a_thread_that_has_ended() -> None:
    """Where a job ends the writer's thread, whoever waits goes on, what was queued is given back, the error is kept."""

    def exits(_: StoreWriter) -> None:
        raise SystemExit(3)

    store = Memory()
    writer = writer_of(store, 10)
    copies = Copies(writer)

    def act() -> None:
        writer.submit(exits, 8)
        for _ in range(3):
            copies.copy(torch.zeros(4), wait=True)
            writer.submit(lambda _: None, 8)
        writer.close(lambda _: None)

    ends(act)
    assert writer.pool.in_flight == 0
    assert store.closed
    assert "SystemExit(3)" in str(writer.error)


def test_what_comes_after_the_end_is_given_back() -> None:
    """A thread that goes on after the writer was closed neither waits nor leaves anything in flight."""
    store = Memory()
    writer = writer_of(store, 100)
    copies = Copies(writer)
    ends(lambda: writer.close(lambda _: None))

    def act() -> None:
        assert copies.copy(torch.zeros(4), wait=True) is None
        writer.submit(lambda _: None, 8)
        writer.send()

    ends(act)
    assert writer.pool.in_flight == 0
    assert not store.written


class Encoder(nn.Module):
    """An embedding of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 64)

    def forward(self, input_ids: Tensor) -> Tensor:
        """(batch, token) to (batch, token, 64)."""
        embedded: Tensor = self.embed(input_ids)
        return embedded * 2


class Tokenizer:
    """Every token is its number."""

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        """One string a token."""
        return [str(number) for number in ids]

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        """All of them."""
        return "" if skip_special_tokens and not ids else " ".join(map(str, ids))


@pytest.mark.parametrize("budget", [1, 600, 1 << 14, 1 << 20])
@pytest.mark.parametrize("on_pressure", ["wait", "degrade"])
def test_tensors_and_arrays_do_not_wait_for_each_other(tmp_path: Path, budget: int, on_pressure: Any) -> None:
    """Tokens that lie queued never keep a tensor waiting that is larger than what they leave of the budget."""
    encoder = Encoder()
    ids = torch.arange(77)[None] % 10
    plain = encoder(ids)
    parts = {"text_encoder": encoder, "tokenizer": Tokenizer()}
    warm_up()
    traces: list[Trace] = []

    def act() -> None:
        options: dict[str, Any] = {"budget": budget, "on_pressure": on_pressure}
        with Tracer(parts, tmp_path / "run.zarr", capture="all", **options) as tracer:
            for _ in range(3):
                assert torch.equal(encoder(ids), plain)
        traces.append(tracer.trace)

    ends(act)
    (trace,) = traces
    assert trace.info.status == "complete"
    assert [prompt.tokens[0][:3] for prompt in trace.prompts] == [("0", "1", "2")] * 3
    assert trace.info.memory["budget"] == budget
    assert trace.info.memory["peak"] > 0
    if on_pressure == "wait":
        assert np.array_equal(trace["text_encoder"]["output"], torch.stack([plain.detach()] * 3))
        assert not trace.info.gaps


def test_a_tensor_that_cannot_be_copied_costs_its_own_record(tmp_path: Path) -> None:
    """A tensor of more elements than can be, or one that cannot be read, is a gap; what comes beside it is there."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vast, self.locked, self.plain = nn.Identity(), nn.Identity(), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            self.vast(x[:1, :1].expand(1 << 20, 1 << 20))
            self.locked((x + 2).as_subclass(Uncopyable))
            result: Tensor = self.plain(x + 1)
            return result

    model, given = Odd(), torch.ones(1, 3)
    traces: list[Trace] = []

    def act() -> None:
        with Tracer(model, tmp_path / "run.zarr", capture="all", budget=1000) as tracer:
            for _ in range(2):
                assert torch.equal(model(given), given + 1)
        traces.append(tracer.trace)

    ends(act)
    (trace,) = traces
    assert trace.info.status == "complete"
    assert not trace.info.tap_failures
    assert np.array_equal(trace["model.plain"]["output"], torch.stack([given + 1] * 2))
    reasons = {str(gap["site"]).partition(":")[0]: str(gap["reason"]) for gap in trace.info.gaps}
    assert "1.1e+12 elements" in reasons["model.vast"]
    assert "this memory cannot be read" in reasons["model.locked"]
