"""The traces below a folder, for a browser that was not told which to open."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from diffusion_xray.tracer.errors import DxrayError
from diffusion_xray.tracer.trace import open_trace

__all__ = ["FoundTrace", "find_beside", "find_traces"]

_DEEPEST: Final = 4
_MOST_FOLDERS: Final = 20_000
"""Looked into: below a home folder there may be millions."""


@dataclass(frozen=True, slots=True)
class FoundTrace:
    """One line of the list."""

    path: Path
    pipeline: str
    steps: int
    nbytes: int | None
    fault: str
    """Where a value first is not finite; "" where all are."""
    problem: str = ""
    """Why it cannot be read."""

    @property
    def size(self) -> str:
        """Its bytes, for people."""
        if self.nbytes is None:
            return "–"
        return f"{self.nbytes / 1e9:.1f} GB" if self.nbytes >= 1e9 else f"{self.nbytes / 1e6:.1f} MB"


def find_traces(folder: Path) -> Iterator[FoundTrace]:
    """The traces in and below a folder, by name; hidden folders and what lies inside a trace are left out."""
    for path in _candidates(folder):
        try:
            yield _look_at(path)
        except (DxrayError, OSError) as error:
            yield FoundTrace(path, "", 0, None, "", f"{error}")
        except Exception as error:  # noqa: BLE001 - a damaged store raises whatever its codec likes
            yield FoundTrace(path, "", 0, None, "", f"{type(error).__name__}: {error}")


def find_beside(trace: Path | str) -> Iterator[FoundTrace]:
    """The other traces below the working folder, then those below the folder that holds this one."""
    here = Path(trace) if isinstance(trace, Path) else None
    seen = set() if here is None else {here.resolve()}
    for folder in (Path(), *(() if here is None else (here.resolve().parent,))):
        for found in find_traces(folder):
            path = found.path.resolve()
            if path not in seen:
                seen.add(path)
                yield found


def _look_at(path: Path) -> FoundTrace:
    trace = open_trace(path)
    fault = trace.first_fault()
    where = "" if fault is None else f"{'' if fault.step is None else f'step {fault.step} '}{fault.site.name}"
    return FoundTrace(path, trace.info.pipeline or "modules", trace.n_steps, trace.nbytes, where)


def _candidates(folder: Path) -> Iterator[Path]:
    for seen, (place, folders, files) in enumerate(os.walk(folder)):
        here = Path(place)
        traces = sorted(name for name in folders if name.endswith(".zarr") and (here / name / "zarr.json").is_file())
        yield from (here / name for name in traces)
        yield from (here / name for name in sorted(files) if name.endswith(".zarr.zip"))
        deeper = len(here.relative_to(folder).parts) < _DEEPEST and seen < _MOST_FOLDERS
        folders[:] = sorted(n for n in folders if not n.startswith(".") and not n.endswith(".zarr")) if deeper else []
