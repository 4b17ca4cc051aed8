"""A comparison written to files."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from diffusion_xray.tracer.comparison.divergence import Comparison
from diffusion_xray.tracer.comparison.report import FORMS, Form, report
from diffusion_xray.tracer.trace import Trace

__all__ = ["write_report"]

_ENDINGS: Final[dict[Form, str]] = {"markdown": "md", "json": "json", "csv": "csv"}
_LONGEST: Final = 60


def write_report(comparison: Comparison, tolerance: float | None, folder: Path) -> Path:
    """Write what a comparison has found so far as Markdown, JSON and CSV; never over a file.

    Args:
        comparison: Two traces.
        tolerance: See `report`.
        folder: Where to.

    Returns:
        The Markdown file; the others differ in their ending.

    Raises:
        OSError: A file cannot be written.
    """
    stem = f"compare-{_stem(comparison.a)}-{_stem(comparison.b)}"
    endings = _ENDINGS.values()
    names = (stem if n == 1 else f"{stem}-{n}" for n in range(1, 10_000))
    free = next(name for name in names if not any((folder / f"{name}.{ending}").exists() for ending in endings))
    for form in FORMS:
        (folder / f"{free}.{_ENDINGS[form]}").write_text(report(comparison, form, tolerance), encoding="utf-8")
    return folder / f"{free}.md"


def _stem(trace: Trace) -> str:
    """A trace's name as a part of a file's: nothing of it can lead out of the folder."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in trace.name.removesuffix(".zarr"))[:_LONGEST]
