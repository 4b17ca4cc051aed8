"""What an attention map says in a few numbers, without the whole matrix in memory.

Each takes a map of `Trace.attention` or any selection of one that still has the dimensions `query` and `key`, and goes
through it in blocks of rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray
from numpy.typing import NDArray

__all__ = ["centre", "entropy", "mass", "top_keys"]

_BLOCK = 4 << 20
"""Bytes of the map computed at a time."""

Floats = NDArray[np.float32]


def entropy(attention: xarray.DataArray) -> xarray.DataArray:
    """How widely each head looks: the Shannon entropy −Σ p ln p of its rows, in nats, averaged over the queries.

    0 where every query looks at one key, ln(number of keys) where all look everywhere alike.

    Args:
        attention: Dimensions (..., query, key), with all keys.

    Returns:
        The dimensions of `attention` without query and key.
    """
    total = np.zeros(_lead_shape(attention))
    for place, _, rows in _blocks(attention):
        logs = np.log(rows, out=np.zeros_like(rows), where=rows > 0)
        total[place] += np.where(np.isnan(rows).any(), np.nan, -(rows * logs).sum(dtype=np.float64))
    return _over_lead(attention, total / max(attention.sizes["query"], 1), "entropy")


def mass(attention: xarray.DataArray) -> xarray.DataArray:
    """The share of attention that each word receives, averaged over the queries.

    The pieces of a word, all places where it stands, and the padding behind the text are added up; image positions of
    a joint sequence are "".

    Args:
        attention: Dimensions (batch, ..., query, key), or of one entry of the batch without `batch`; with the
            coordinate `key_word`.

    Returns:
        The dimensions of `attention` without query and key, and (word).

    Raises:
        ValueError: It has no words, or those of several entries of the batch differ; select one of them.
    """
    if "key_word" not in attention.coords:
        raise ValueError("the keys of this attention have no words, or which text they belong to is not known")
    words = attention["key_word"].values
    if words.ndim > 1:
        if (words != words[0]).any():
            raise ValueError("the entries of the batch have words of their own; select one, such as .isel(batch=-1)")
        words = words[0]
    names, member = np.unique(words, return_inverse=True)
    first = [int(np.argmax(words == name)) for name in names]
    order = np.argsort(first)
    columns = (member[:, None] == order[None]).astype(np.float32)
    total = np.zeros((*_lead_shape(attention), len(names)))
    for place, _, rows in _blocks(attention):
        total[place] += (rows @ columns).sum(axis=0, dtype=np.float64)
    total /= max(attention.sizes["query"], 1)
    return _over_lead(attention, total, "mass", word=names[order])


def top_keys(attention: xarray.DataArray, count: int = 5) -> xarray.Dataset:
    """The keys each query looks at most.

    Args:
        attention: Dimensions (..., query, key).
        count: How many.

    Returns:
        Along (..., query, rank), the largest first: `key_index`, the place along `key`, and `share`.
    """
    count = min(count, attention.sizes["key"])
    shape = (*_lead_shape(attention), attention.sizes["query"], count)
    keys, shares = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    for place, span, rows in _blocks(attention):
        best = np.argpartition(-rows, count - 1, axis=1)[:, :count] if count else np.zeros((len(rows), 0), np.int64)
        values = np.take_along_axis(rows, best, 1)
        order = np.argsort(-values, axis=1, kind="stable")
        keys[place][span], shares[place][span] = (
            np.take_along_axis(best, order, 1),
            np.take_along_axis(values, order, 1),
        )
    dims = (*_lead(attention), "query", "rank")
    coordinates = _kept(attention, {*_lead(attention), "query"})
    return xarray.Dataset({"key_index": (dims, keys), "share": (dims, shares)}, coordinates)


def centre(attention: xarray.DataArray) -> xarray.Dataset:
    """The middle of the places that look at each key: the mean of the queries' places, weighted by their attention.

    Args:
        attention: Dimensions (..., query, key), with the coordinates `query_y` and `query_x`. Queries that are no
            part of an image do not count.

    Returns:
        Along (..., key): `y`, `x`, and of a video `frame`, in cells of the grid; NaN where nothing looks.

    Raises:
        ValueError: The queries are no image.
    """
    axes = [axis for axis in ("frame", "y", "x") if f"query_{axis}" in attention.coords]
    if not axes:
        raise ValueError("the queries of this attention are no places of an image")
    places = np.stack([attention[f"query_{axis}"].values for axis in axes])
    inside = places[-1] >= 0
    weights = np.where(inside, np.vstack([places, np.ones(len(inside), np.int64)]), 0).astype(np.float32)
    total = np.zeros((*_lead_shape(attention), len(weights), attention.sizes["key"]))
    for place, span, rows in _blocks(attention):
        total[place] += weights[:, span] @ rows
    with np.errstate(invalid="ignore", divide="ignore"):
        means = total[..., :-1, :] / total[..., -1:, :]
    dims = (*_lead(attention), "key")
    found = {axis: (dims, means[..., at, :]) for at, axis in enumerate(axes)}
    return xarray.Dataset(found, _kept(attention, {*_lead(attention), "key"}))


def _lead(attention: xarray.DataArray) -> tuple[Any, ...]:
    missing = {"query", "key"} - set(attention.dims)
    if missing:
        raise ValueError(f"an attention map has the dimensions query and key; this one lacks {' and '.join(missing)}")
    return tuple(dim for dim in attention.dims if dim not in ("query", "key"))


def _lead_shape(attention: xarray.DataArray) -> tuple[int, ...]:
    return tuple(attention.sizes[dim] for dim in _lead(attention))


def _blocks(attention: xarray.DataArray) -> Iterator[tuple[tuple[int, ...], slice, Floats]]:
    """The map in blocks: place along the leading dimensions, queries, and their rows (query, key)."""
    variable = attention.variable
    queries, step = attention.sizes["query"], max(_BLOCK // (4 * max(attention.sizes["key"], 1)), 1)
    for place in itertools.product(*map(range, _lead_shape(attention))):
        chosen = dict(zip(_lead(attention), place, strict=True))
        for start in range(0, queries, step):
            span = slice(start, min(start + step, queries))
            rows = variable.isel(chosen | {"query": span}).transpose("query", "key")
            yield place, span, np.asarray(rows.values, np.float32)


def _over_lead(
    attention: xarray.DataArray, values: NDArray[np.float64], name: str, **further: NDArray[Any]
) -> xarray.DataArray:
    dims = (*_lead(attention), *further)
    return xarray.DataArray(values, _kept(attention, set(_lead(attention))) | further, dims, name=name)


def _kept(attention: xarray.DataArray, dims: set[Any]) -> dict[Any, Any]:
    """The coordinates that lie along these dimensions alone."""
    return {name: found.variable for name, found in attention.coords.items() if set(found.dims) <= dims}
