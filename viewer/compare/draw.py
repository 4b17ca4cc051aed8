"""Two planes and how they differ, as one plane to draw. Pure: arrays in, arrays and text out."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from diffusion_xray.tracer.comparison.divergence import Evidence
from diffusion_xray.tracer.text import number

from .state import Mode

__all__ = ["LABELS", "difference", "difference_range", "heights", "level", "relative", "wiped"]

Plane = NDArray[np.floating]
LABELS: Final[dict[Mode, str]] = {
    "signed": "A − B",
    "absolute": "|A − B|",
    "relative": "|A − B| / max(|A|, |B|)",
    "wipe": "A ┃ B",
    "flicker": "A ⇄ B",
}
_DECADES: Final = 7
_BARS: Final = "▁▂▃▄▅▆▇█"


def difference(a: Plane, b: Plane, mode: Mode) -> Plane:
    """What two planes differ by: 0 where both hold NaN or the same infinity, NaN where only one does."""
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        apart = a.astype(np.float64) - b
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        if mode == "relative":
            apart = np.abs(apart) / np.maximum(np.abs(a), np.abs(b))
        elif mode == "absolute":
            apart = np.abs(apart)
    apart = np.where(np.isfinite(apart), apart, math.nan)
    return np.where(same, 0.0, apart)


def difference_range(apart: Plane, mode: Mode, *, clipped: bool) -> tuple[float, float]:
    """Range to draw differences in: symmetric about zero where they have a sign, else from zero."""
    sizes = np.abs(apart[np.isfinite(apart)])
    if not sizes.size:
        return math.nan, math.nan
    high = float(np.percentile(sizes, 99) if clipped else sizes.max())
    if clipped and not high:
        high = float(sizes.max())
    return (-high, high) if mode == "signed" else (0.0, high)


def wiped(a: Plane, b: Plane, share: float) -> Plane:
    """A on the left, B on the right of a share of the width."""
    columns = np.arange(a.shape[1]) < round(share * a.shape[1])
    return np.where(columns[None], a, b)


def level(values: Plane) -> NDArray[np.float64]:
    """Relative distances from 1e-6 to 10 as 0 to 1, on a logarithmic scale; infinity is 1, NaN stays."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log10(np.asarray(values, np.float64)) + _DECADES - 1
    return np.where(np.isnan(values), math.nan, np.clip(logs / _DECADES, 0, 1))


def heights(values: NDArray[np.float64], columns: int) -> tuple[str, NDArray[np.float64]]:
    """Distances over the steps as bars on a logarithmic scale, and the largest behind each bar.

    "·" is no difference, a blank no number; where there are more steps than columns, a bar is the largest of several.
    """
    columns = min(columns, values.size)
    starts = np.arange(columns) * values.size // max(columns, 1)
    if not columns:
        return "", values[:0]
    largest = np.maximum.reduceat(np.where(np.isnan(values), -1.0, values), starts)
    largest = np.where(largest < 0, math.nan, largest)
    signs = [
        " " if np.isnan(value) else "·" if value == 0 else _BARS[round(float(height) * (len(_BARS) - 1))]
        for value, height in zip(largest, level(largest), strict=True)
    ]
    return "".join(signs), largest


def relative(value: float, evidence: int) -> str:
    """A relative distance; "≥" before one that statistics alone give, "?" after one whose tensors cannot be read."""
    if math.isnan(value):
        return "?" if evidence == Evidence.UNREADABLE else "–"
    text = "0" if value == 0 else "∞" if math.isinf(value) else number(value)
    if evidence == Evidence.STATISTICS:
        return f"≥{text}"
    return f"{text}?" if evidence == Evidence.UNREADABLE else text
