"""A loop traced in one way or another: what is captured, how long it takes, what the trace then holds."""

# ruff: noqa: INP001 (beside the scripts that import it, no package)
from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from harness import Stopwatch, Turn
from loops import sd15_loop, small_loop
from processes import peak_resident, resident
from torch import Tensor

__all__ = ["ATTENTION", "DURABLE", "EVERYTHING", "RAW", "prepare_peak", "trace_facts", "traced_turn"]

ATTENTION = "blocks, query and key"
DURABLE = "blocks, durable"
EVERYTHING = "every module"
RAW = "every module, uncompressed"


def traced_turn(
    loop: Any, name: str, expected: Tensor | None, folder: str | Path | None, settle: Callable[[], object] = int
) -> Turn:
    """Run a loop once, traced as `name` says, from before the tracer starts until its trace is closed.

    Args:
        loop: What to run.
        name: "untraced", "statistics", "blocks", or one of the names above.
        expected: Output of an untraced run; None where this is one.
        folder: Where the trace is made and deleted again; None for the system's temporary folder.
        settle: Waits for the device; called before the clock is started and before it is stopped.

    Raises:
        RuntimeError: The output differs from `expected` in any bit, or the trace is not whole.
    """
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / "run.zarr"
        settle()
        with Stopwatch() as clock:
            output = loop.run() if name == "untraced" else _traced(loop, path, name)
            settle()
        turn = clock.turn
        turn.output = output
        if expected is not None and not torch.equal(expected, output):
            raise RuntimeError(f"{name}: the run computed something else than the untraced one")
        if name != "untraced":
            turn.facts = trace_facts(path, loop.steps)
    return turn


def prepare_peak(model: str, name: str, steps: int, threads: int, folder: str | None) -> Callable[[], Turn]:
    """For a fresh process: make a loop, and return what runs it once and measures the peak of memory.

    Args:
        model: "small", "sd15" or "sd15 reduced".
        name: See `traced_turn`.
        steps: Steps of the loop.
        threads: Threads of torch.
        folder: See `traced_turn`.

    Returns:
        Its turn has the facts "before" and "peak": bytes held when the loop starts, after a first step, and at most.
    """
    torch.set_num_threads(threads)
    loop = small_loop(steps) if model == "small" else sd15_loop(steps, reduced=model.endswith("reduced"))
    # One step before, so that libraries and compiled code are told apart from what grows with a run.
    traced_turn(replace(loop, steps=1), name, None, folder)

    def run() -> Turn:
        before = resident()
        turn = traced_turn(loop, name, None, folder)
        turn.facts |= {"before": before, "peak": peak_resident()}
        return turn

    return run


def _traced(loop: Any, path: Path, name: str) -> Tensor:
    from diffusion_xray.tracer import Capture, Tracer  # not at the top: an untraced run's process must not hold it

    captures = {
        ATTENTION: "attention",
        DURABLE: "blocks",
        EVERYTHING: Capture(modules="**"),
        RAW: Capture(modules="**", codec="raw"),
    }
    with Tracer({"unet": loop.unet}, path, capture=captures.get(name, name), durable=name == DURABLE) as tracer:
        return loop.run(on_step=lambda step, timestep: tracer.step(step, timestep=float(timestep)))


def trace_facts(path: Path, steps: int) -> dict[str, Any]:
    """Modules seen, modules with tensors, bytes on disk; a trace that is not whole would look too cheap."""
    from diffusion_xray.tracer import open_trace

    trace = open_trace(path)
    if trace.info.status != "complete" or trace.n_steps != steps or trace.info.gaps or trace.info.tap_failures:
        wrong = [*trace.info.tap_failures, *trace.info.gaps][:3]
        raise RuntimeError(f"{path} is {trace.info.status} with {trace.n_steps} of {steps} steps: {wrong}")
    return {
        "modules": len(trace.modules),
        "stored": sum(module.stored for module in trace.modules.values()),
        "bytes": trace.nbytes,
    }
