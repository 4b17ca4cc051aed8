"""What is chosen, as the bytes of a file. Pure: needs no terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from diffusion_xray.tracer.layout import MEASURED

from .picture import sheet_picture
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
    own_title: str = ""
    """Its title where the view has numbers beside those of the tensor."""

    def title_of(self, selection: Selection) -> str:
        """What it would hold of a selection."""
        return self.own_title if self.own_title and selection.taken.numbers else self.title


def _png(selection: Selection) -> bytes:
    """What is shown in its colours, with title, range and caption."""
    out = io.BytesIO()
    sheet_picture(selection, selection.sheet()).save(out, "PNG")
    return out.getvalue()


def _npy(selection: Selection) -> bytes:
    """The tensor as NumPy keeps it, or the numbers of maps that are no part of it, shape ([map,] row, column)."""
    out = io.BytesIO()
    if selection.taken.numbers:
        planes = [tile.values for tile in selection.sheet().tiles]
        values = planes[0] if len(planes) == 1 else np.stack(planes)
    else:
        values = selection.tensor()
    np.save(out, np.ascontiguousarray(values), allow_pickle=False)
    return out.getvalue()


def _plane_csv(selection: Selection) -> bytes:
    """The plane, a line a row, without a header; of several, each line begins with which one and which row."""
    sheet = selection.sheet()
    rows: list[list[Any]] = [list(sheet.header)] if sheet.header else []
    for tile in sheet.tiles:
        begin = [tile.label] if len(sheet.tiles) > 1 else []
        rows += [[*begin, *([at] if begin else []), *row] for at, row in enumerate(tile.values.tolist())]
    return _csv(rows)


def _statistics_csv(selection: Selection) -> bytes:
    """All statistics of the layer, a line a step; timestep and sigma beside it in the loop."""
    assert selection.site is not None
    snapshot, rows = selection.snapshot, selection.snapshot.rows(selection.site)
    if not selection.site.stepped:
        return _csv([MEASURED, *rows.tolist()])
    loop = zip(snapshot.timestep.tolist(), snapshot.sigma.tolist(), rows.tolist(), strict=False)
    lines = ([step, timestep, sigma, *row] for step, (timestep, sigma, row) in enumerate(loop))
    return _csv([("step", "timestep", "sigma", *MEASURED), *lines])


def _csv(rows: Iterable[Iterable[Any]]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


def _unless_refused(suffix: str) -> Callable[[Selection], str]:
    """Why a file with what is shown cannot be made."""

    def why_not(selection: Selection) -> str:
        taken = selection.taken
        own = taken.draw is not None and (suffix != ".npy" or taken.numbers)
        return taken.refused.get(suffix, "") or ("" if own else selection.why_no_tensor())

    return why_not


def _no_statistics(selection: Selection) -> str:
    if selection.site is None:
        return "no layer is chosen"
    return "" if len(selection.snapshot.rows(selection.site)) else "no step is complete yet"


def _always(selection: Selection) -> str:  # noqa: ARG001 - as the others are called
    return ""


FORMATS: Final = (
    Format("p", "Picture of what is shown", ".png", _unless_refused(".png"), _png),
    Format("s", "Picture of the screen", ".svg", _always, None),
    Format("t", "Tensor, for NumPy", ".npy", _unless_refused(".npy"), _npy, "Map, for NumPy"),
    Format("o", "Statistics over the steps", ".statistics.csv", _no_statistics, _statistics_csv),
    Format("v", "Numbers of what is shown", ".plane.csv", _unless_refused(".plane.csv"), _plane_csv),
    Format("y", "Python that reads it", ".py", _always, lambda selection: snippet(selection).encode()),
    Format("c", "Command that opens it", ".sh", _always, lambda selection: f"{view_command(selection)}\n".encode()),
)
