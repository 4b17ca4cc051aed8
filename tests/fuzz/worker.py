"""One process that damages and reads traces, seed after seed, within limits of time and memory.

python -m fuzz.worker FOLDER FIRST COUNT TRACE ...

It writes a line of JSON for each seed: what was done, what was wrong, how long it took, and how much memory.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from diffusion_xray.tracer.errors import DxrayError

from .mutations import LOSSES, mutate
from .readers import SECRET, readers, reads_of

__all__ = ["Limits", "one_seed"]

SECONDS = 20
"""Of the processor for one reader: more than a hundred times what it takes."""
_WAITING = 10
"""So many times as long it may wait, on a machine that has much else to do."""
MEBIBYTES = 700
"""More than before: the limit of what small files may become, twice, and what libraries take when they are imported."""
_ADDRESS_SPACE = 8 << 30
_BROWSED = 10
"""One in so many is opened in the browser as well."""

Limits = tuple[int, int]
Readers = Callable[[Path, Path, random.Random], Iterator[tuple[str, Callable[[], str]]]]


class _TooLongError(BaseException):
    """No `Exception`, so that nobody takes it for damage."""


def one_seed(seed: int, folder: Path, whole: Path, look: Readers = readers) -> dict[str, Any]:
    """Damage a copy of a trace and read it.

    Args:
        seed: Decides everything.
        folder: Where the copy goes.
        whole: The trace.
        look: What reads it.
    """
    dice = random.Random(seed)
    path, outside = folder / "t.zarr", folder / "outside"
    for old in (path, outside):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(whole, path)
    outside.mkdir()
    (outside / "secret").write_bytes(SECRET * 64)
    done = mutate(path, outside, dice)
    before = _canary(outside)
    begun, memory = time.process_time(), _start_of_peak()
    wrong = []
    chosen = list(look(path, whole, dice))
    if seed % _BROWSED == 0:
        from .browsing import browse

        chosen.append(("browser", lambda: browse(path, whole, dice)))
    if all(what.split()[0] in LOSSES for what in done):
        chosen.append(("same", lambda: _same(path, whole)))
    for name, read in chosen:
        if complaint := _limited(read):
            wrong.append(f"{name}: {complaint}")
    grown = _peak() - memory
    if grown > MEBIBYTES:
        wrong.append(f"{grown} MiB")
    if _canary(outside) != before:
        wrong.append("a file outside has changed")
    return {
        "seed": seed,
        "trace": whole.name,
        "done": done,
        "wrong": wrong,
        "MiB": grown,
        "seconds": round(time.process_time() - begun, 2),
    }


def _same(path: Path, whole: Path) -> str:
    """Whether what can still be read is what it was."""
    expected = dict(reads_of(whole))
    try:
        found = dict(reads_of(path))
    except DxrayError:
        return ""
    for name, read in found.items():
        try:
            value = read()
        except DxrayError:
            continue
        if not _equal(value, expected[name]()):
            return f"{name} reads as something else"
    return "" if found.keys() == expected.keys() else f"{len(found)} arrays in place of {len(expected)}"


def _equal(value: Any, other: Any) -> bool:
    numbers = isinstance(value, np.ndarray) and value.dtype.kind in "fc"
    return np.array_equal(value, other, equal_nan=numbers)


def _limited(read: Callable[[], str]) -> str:
    """What a reader complains of, or what it raised, within the limit of time."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, _WAITING * SECONDS)
    faulthandler.dump_traceback_later(2 * _WAITING * SECONDS, exit=True)
    try:
        return read()
    except _TooLongError:
        return f"not done after {SECONDS} s of the processor, or {_WAITING * SECONDS} s"
    except SystemExit as error:
        return f"exit {error.code}"
    except Exception as error:  # noqa: BLE001 - whatever is not ours
        import traceback

        where = [
            f"{frame.filename.rpartition('/repo/')[2]}:{frame.lineno}"
            for frame in traceback.extract_tb(error.__traceback__)
        ]
        return f"{type(error).__name__}: {str(error)[:200]} at {' < '.join(reversed(where[-6:]))}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()


def _canary(outside: Path) -> list[tuple[str, int, bytes]]:
    return [(file.name, file.stat().st_mtime_ns, file.read_bytes()) for file in sorted(outside.iterdir())]


def _start_of_peak() -> int:
    """Forget the peak so far, where the system can; the memory in use, in MiB."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _too_long(number: int, frame: FrameType | None) -> None:
    raise _TooLongError


def _main(folder: Path, first: int, count: int, traces: list[Path]) -> None:
    os.environ["DXRAY_DEBUG"] = "1"
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _too_long)
    signal.signal(signal.SIGPROF, _too_long)
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, resource.getrlimit(resource.RLIMIT_AS)[1]))
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(first, first + count):
        print(json.dumps({"begun": seed}), flush=True)
        faulthandler.dump_traceback_later(2 * _WAITING * SECONDS, exit=True)  # where damage is done, too
        print(json.dumps(one_seed(seed, folder, traces[seed % len(traces)])), flush=True)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), [Path(name) for name in sys.argv[4:]])
