"""Processes of their own: for variants that must not disturb each other, and for peaks of memory."""

# ruff: noqa: INP001 (beside the scripts that import it, no package)
from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import resource
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from harness import NotMeasuredError, Turn

PATIENCE = 1800.0
"""Seconds after which a turn counts as hung."""

Setup = Callable[..., Callable[[], Turn]]


class Worker:
    """A variant in a process that lives for all its turns.

    Some recorders replace functions of torch for good. In a process of its own such a one slows nobody else, and the
    processor time of the process is its own.

    Args:
        setup: Function of a script in this folder. Called in the process with `arguments`; returns what runs one turn.
        arguments: Picklable.
        optional: A failure gives `NotMeasuredError` instead of ending the benchmark.
    """

    def __init__(self, setup: Setup, *arguments: Any, optional: bool = False) -> None:
        self._order = (Path(inspect.getfile(setup)).stem, setup.__name__, arguments)
        self._optional = optional
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> Turn:
        """Run one turn.

        Raises:
            NotMeasuredError: It failed, and is optional.
            RuntimeError: It failed, and is not.
        """
        if self._process is None:
            self._pipe, theirs = Pipe()
            # Not a process of multiprocessing: torchlens refuses to work in such a one.
            command = [sys.executable, __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()])  # noqa: S603 — this very file
            theirs.close()
            self._pipe.send(self._order)
        try:
            self._pipe.send("run")
            failure: str | tuple[str, str] = f"took longer than {PATIENCE:.0f} s"
            answer = self._pipe.recv() if self._pipe.poll(PATIENCE) else (failure, failure)
        except (EOFError, OSError):
            failure = f"its process ended with code {self._process.wait()}"
            answer = (failure, failure)
        if isinstance(answer, Turn):
            return answer
        self.close()
        line, text = answer
        raise NotMeasuredError(line) if self._optional else RuntimeError(text)

    def close(self) -> None:
        """End the process."""
        if self._process is None:
            return
        self._pipe.close()  # on which it ends by itself, unless it hangs
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def once(setup: Setup, *arguments: Any) -> Turn:
    """Run one turn in a process that has done nothing else."""
    worker = Worker(setup, *arguments)
    try:
        return worker()
    finally:
        worker.close()


def resident() -> int:
    """Bytes of memory that the process holds now."""
    return _status("VmRSS") or _max_resident()


def peak_resident() -> int:
    """Bytes of memory that the process has held at most.

    The kernel's own mark where there is one: that of `getrusage` starts from the parent's at the fork.
    """
    return _status("VmHWM") or _max_resident()


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Send what a talkative library prints to a file, from compiled code too: the terminal has the progress bar."""
    saved = [os.dup(number) for number in (1, 2)]
    with tempfile.TemporaryFile() as sink:
        try:
            for number in (1, 2):
                os.dup2(sink.fileno(), number)
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, before in zip((1, 2), saved, strict=True):
                os.dup2(before, number)
                os.close(before)


def _serve(pipe: Connection) -> None:
    """Body of a worker's process: set up at the first order, then run one turn for each."""
    module, name, arguments = pipe.recv()
    run: Callable[[], Turn] | None = None
    with contextlib.suppress(EOFError):
        while pipe.recv():
            try:
                with _silenced():
                    run = run or getattr(importlib.import_module(module), name)(*arguments)
                    turn = run()
                turn.output = None
                pipe.send(turn)
            except Exception as error:  # noqa: BLE001 — goes to the parent, who decides
                line = " ".join(str(error).split())[:200]
                if not isinstance(error, NotMeasuredError):
                    line = f"{type(error).__name__}: {line}"
                pipe.send((line, traceback.format_exc()))


def _status(key: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return 0


def _max_resident() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, kilobytes elsewhere


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))
