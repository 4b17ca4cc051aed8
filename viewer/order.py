"""The order of layers in a list: as they were called, or by what a statistic does over the steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from diffusion_xray.tracer.layout import MEASURED

from .model import Layer, Snapshot

__all__ = ["ORDERS", "Order", "ranked", "scores"]

Order = Literal["called", "largest", "changed"]
ORDERS: Final[tuple[Order, ...]] = ("called", "largest", "changed")


def ranked(layers: Sequence[Layer], snapshot: Snapshot, statistic: str, order: Order) -> list[tuple[Layer, float]]:
    """Layers with their scores, the highest first; those without one last, in call order."""
    if order == "called":
        return [(layer, math.nan) for layer in layers]
    score = scores(layers, snapshot, statistic, order)
    return [(layers[at], float(score[at])) for at in np.argsort(-np.nan_to_num(score, nan=-np.inf), kind="stable")]


def scores(layers: Sequence[Layer], snapshot: Snapshot, statistic: str, order: Order) -> NDArray[np.float64]:
    """A number for each layer, NaN where there is none.

    "largest" is the largest magnitude of the statistic at any step. "changed" is its range over the steps, divided by
    its mean magnitude: 0 for a layer that does the same at every step, whatever its scale.
    """
    by_table = {id(table): _score(table.values[:, :, MEASURED.index(statistic)], order) for table in snapshot.tables}
    found = np.full(len(layers), np.nan)
    for at, layer in enumerate(layers):
        if layer.module is not None:
            table, row = snapshot.column(layer.module.site)
            found[at] = by_table[id(table)][row]
    return found


def _score(values: NDArray[np.float64], order: Order) -> NDArray[np.float64]:
    finite = np.isfinite(values)
    count = finite.sum(axis=0)
    if not len(values):
        return np.full(values.shape[1], np.nan)
    magnitude = np.where(finite, np.abs(values), 0.0)
    if order == "largest":
        return np.where(count > 0, magnitude.max(axis=0), np.nan)
    span = np.where(finite, values, -np.inf).max(axis=0) - np.where(finite, values, np.inf).min(axis=0)
    mean = magnitude.sum(axis=0) / np.maximum(count, 1)
    changed: NDArray[np.float64] = np.where((count > 1) & (mean > 0), span / np.where(mean > 0, mean, 1), np.nan)
    return changed
