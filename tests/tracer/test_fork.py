"""A traced process forks: the child runs on as if there were no tracer, the parent's trace is whole."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from diffusion_xray.tracer import Tracer

from .networks import Denoiser, denoise

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def in_child(work: Callable[[], object]) -> int:
    """Exit code of a forked child that does something; it is killed after a while."""
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        import signal

        signal.alarm(60)
        try:
            work()
        except BaseException:  # noqa: BLE001 — the code is the answer
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_the_child_calls_the_model(tmp_path: Path) -> None:
    """A child that calls the model gets what an untraced one does, never waits, and adds nothing to the trace."""
    model = Denoiser()
    expected = denoise(Denoiser(), steps=3)

    def work() -> None:
        for _ in range(20):
            assert torch.equal(denoise(model, steps=3), expected)
        tracer.step(5)
        tracer.record("noise", torch.zeros(2))
        tracer.record_latents(torch.zeros(2))

    with Tracer({"model": model}, tmp_path / "a.zarr", capture="all", budget=1 << 16) as tracer:
        denoise(model, steps=2)
        assert in_child(work) == 0
        denoise(model, steps=2)
    trace = tracer.trace
    assert (trace.info.status, len(trace.timestep), "records.noise" in trace.modules) == ("complete", 4, False)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_the_child_leaves_the_block(tmp_path: Path) -> None:
    """A child that leaves the block, by itself or by an exception, does not end the parent's trace."""
    model = Denoiser()
    tracer = Tracer({"model": model}, tmp_path / "a.zarr")
    with tracer:
        denoise(model, steps=2)
        assert in_child(lambda: tracer.__exit__(None, None, None)) == 0
        assert in_child(lambda: tracer.__exit__(ValueError, ValueError(), None)) == 0
        assert tracer.trace.info.status == "recording"
        denoise(model, steps=1)
    assert (tracer.trace.info.status, len(tracer.trace.timestep)) == ("complete", 3)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_two_tracers_in_two_threads_and_a_fork(tmp_path: Path) -> None:
    """Two tracers record in two threads while the process forks: both traces are whole, and the children end."""
    models = [Denoiser(), Denoiser()]
    inside, codes = threading.Barrier(3), list[int]()

    def run(index: int) -> None:
        with Tracer({"model": models[index]}, tmp_path / f"{index}.zarr", capture="all") as tracer:
            inside.wait()
            for _ in range(10):
                denoise(models[index], steps=3)
            inside.wait()
        traces.append(tracer.trace)

    traces: list[object] = []
    threads = [threading.Thread(target=run, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    inside.wait()
    codes += [in_child(lambda: nn.Sequential(*models[0].sequence)(torch.zeros(1, 8, 2, 2))) for _ in range(3)]
    inside.wait()
    for thread in threads:
        thread.join()
    assert codes == [0, 0, 0] and len(traces) == 2
    assert {trace.info.status for trace in traces} == {"complete"}  # type: ignore[attr-defined]
