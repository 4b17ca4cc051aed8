"""What is chosen, as the bytes of a file. Pure: needs no terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from diffusion_xray.tracer.layout import STATISTICS

from .plane_picture import plane_picture
from .selection import Selection
from .text import snippet, view_command

__all__ = ["FORMATS", "Format"]


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file."""

    key: str
    """The key that chooses it in the menu."""
    title: str
    suffix: str
    """What its name ends in, with the dot; a word before that tells two kinds with one ending apart."""
    why_not: Callable[[Selection], str]
    """Why there is none of the selection; "" where there is one."""
    make: Callable[[Selection], bytes] | None
    """Its bytes; may take long and may raise. None for the picture of the screen, which the screen has to make."""


def _png(selection: Selection) -> bytes:
    """The plane in its colours, with title, range and caption."""
    out = io.BytesIO()
    plane_picture(selection, selection.shown()).save(out, "PNG")
    return out.getvalue()


def _npy(selection: Selection) -> bytes:
    """The tensor as NumPy keeps it."""
    out = io.BytesIO()
    np.save(out, np.ascontiguousarray(selection.tensor()), allow_pickle=False)
    return out.getvalue()


def _plane_csv(selection: Selection) -> bytes:
    """The plane, a line a row, without a header."""
    return _csv(selection.shown().values.tolist())


def _statistics_csv(selection: Selection) -> bytes:
    """All statistics of the layer, a line a step; timestep and sigma beside it in the loop."""
    assert selection.site is not None
    snapshot, rows = selection.snapshot, selection.snapshot.rows(selection.site)
    if not selection.site.stepped:
        return _csv([STATISTICS, *rows.tolist()])
    loop = zip(snapshot.timestep.tolist(), snapshot.sigma.tolist(), rows.tolist(), strict=False)
    lines = ([step, timestep, sigma, *row] for step, (timestep, sigma, row) in enumerate(loop))
    return _csv([("step", "timestep", "sigma", *STATISTICS), *lines])


def _csv(rows: Iterable[Iterable[Any]]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


def _no_plane(selection: Selection) -> str:
    return "" if selection.plane is not None else selection.why_no_tensor()


def _no_statistics(selection: Selection) -> str:
    if selection.site is None:
        return "no layer is chosen"
    return "" if len(selection.snapshot.rows(selection.site)) else "no step is complete yet"


def _always(selection: Selection) -> str:  # noqa: ARG001 - as the others are called
    return ""


FORMATS: Final = (
    Format("p", "Picture of the plane", ".png", _no_plane, _png),
    Format("s", "Picture of the screen", ".svg", _always, None),
    Format("t", "Tensor, for NumPy", ".npy", Selection.why_no_tensor, _npy),
    Format("o", "Statistics over the steps", ".statistics.csv", _no_statistics, _statistics_csv),
    Format("v", "Values of the plane", ".plane.csv", _no_plane, _plane_csv),
    Format("y", "Python that reads it", ".py", _always, lambda selection: snippet(selection).encode()),
    Format("c", "Command that opens it", ".sh", _always, lambda selection: f"{view_command(selection)}\n".encode()),
)
