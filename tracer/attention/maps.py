"""Attention recomputed from the queries and keys a kernel received: numpy, in blocks of rows, in bounded memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["attend", "probabilities", "row_entropy"]

Floats = NDArray[np.float32]
Place = tuple[int, ...]
"""Indices of one head along the leading dimensions."""

_BLOCK = 8 << 20
"""Bytes of scores in work at a time."""


def probabilities(
    query: NDArray[Any],
    key: NDArray[Any],
    *,
    scale: float,
    mask: NDArray[Any] | None = None,
    causal: bool = False,
    rows: NDArray[np.intp] | slice = slice(None),
    columns: NDArray[np.intp] | slice = slice(None),
) -> Floats:
    """softmax(Q Kᵀ · scale + mask), as `torch.nn.functional.scaled_dot_product_attention` defines it.

    Computed in float32, the largest score of a row subtracted first; beside the result it takes some 20 MB. A row
    that may attend to nothing is zero, as in torch; one with a NaN is NaN.

    Args:
        query: Shape (..., head, query, head_dim).
        key: Shape (..., head, key, head_dim); with grouped heads fewer heads, a divisor, each serving consecutive
            heads of the queries.
        scale: Factor on the scores.
        mask: Shape (..., head, query, key), broadcast where a size is 1 or a leading dimension is missing. Boolean:
            true may attend. Else it is added to the scores.
        causal: Let query i attend to the keys up to i only.
        rows: Queries wanted, all by default.
        columns: Keys wanted, all by default. The rows are normalised over all keys in any case.

    Returns:
        float32 (..., head, row, column).

    Raises:
        ValueError: The shapes do not fit.
    """
    size = len(np.arange(key.shape[-2])[columns])
    everything = isinstance(columns, slice) and size == key.shape[-2] and columns.step in (None, 1)

    def finish(_: Place, block: Floats, sums: Floats, out: Floats) -> None:
        np.divide(block if everything else block[:, columns], sums[:, None], out=out)

    return _each(query, key, scale, mask, causal, rows, size, finish)


def attend(
    query: NDArray[Any],
    key: NDArray[Any],
    value: NDArray[Any],
    *,
    scale: float,
    mask: NDArray[Any] | None = None,
    causal: bool = False,
    rows: NDArray[np.intp] | slice = slice(None),
) -> Floats:
    """softmax(Q Kᵀ · scale + mask) V, without ever holding the whole matrix.

    With V the real values this is what the kernel returned; with columns of zeros and ones it is the share of
    attention that groups of keys receive.

    Args:
        query: As in `probabilities`, and all else likewise.
        key: Likewise.
        value: Shape (..., head, key, value_dim); or (key, value_dim), the same for every head.
        scale: Likewise.
        mask: Likewise.
        causal: Likewise.
        rows: Likewise.

    Returns:
        float32 (..., head, row, value_dim).

    Raises:
        ValueError: The shapes do not fit.
    """
    place_of = _key_places(query, value) if value.ndim > 2 else None

    def finish(place: Place, block: Floats, sums: Floats, out: Floats) -> None:
        np.matmul(block, np.asarray(value if place_of is None else value[place_of(place)], np.float32), out=out)
        out /= sums[:, None]

    return _each(query, key, scale, mask, causal, rows, value.shape[-1], finish)


def row_entropy(
    query: NDArray[Any],
    key: NDArray[Any],
    *,
    scale: float,
    mask: NDArray[Any] | None = None,
    causal: bool = False,
    rows: NDArray[np.intp] | slice = slice(None),
) -> Floats:
    """Shannon entropy −Σ p ln p of the rows of `probabilities`, in nats; from 0 (one key) to ln(keys).

    Returns:
        float32 (..., head, row).
    """

    def finish(_: Place, block: Floats, sums: Floats, out: Floats) -> None:
        block /= sums[:, None]
        logs = np.log(block, out=np.zeros_like(block), where=block > 0)
        np.negative(np.einsum("ij,ij->i", block, logs), out=out[:, 0])

    return _each(query, key, scale, mask, causal, rows, 1, finish)[..., 0]


def _each(  # noqa: PLR0917 — the common part of three functions that name every one of these
    query: NDArray[Any],
    key: NDArray[Any],
    scale: float,
    mask: NDArray[Any] | None,
    causal: bool,  # noqa: FBT001
    rows: NDArray[np.intp] | slice,
    width: int,
    finish: Callable[[Place, Floats, Floats, Floats], None],
) -> Floats:
    """Run over the heads and blocks of rows; `finish` makes rows of the result of exp(scores) and their sums."""
    _check(query, key)
    key_place = _key_places(query, key)
    positions = np.arange(query.shape[-2])[rows]
    result = np.empty((*query.shape[:-2], len(positions), width), np.float32)
    block_rows = max(_BLOCK // (4 * max(key.shape[-2], 1)), 1)
    for place in itertools.product(*map(range, query.shape[:-2])):
        keys = np.asarray(key[key_place(place)], np.float32)
        picked = query[place][rows]
        masks = None if mask is None else _at(mask, place)
        for at in _slices(len(positions), block_rows):
            block, sums = _exponentials(picked[at], keys, scale, masks, causal, positions[at])
            finish(place, block, sums, result[place][at])
    return result


def _exponentials(  # noqa: PLR0917
    queries: NDArray[Any],
    keys: Floats,
    scale: float,
    mask: NDArray[Any] | None,
    causal: bool,  # noqa: FBT001
    positions: NDArray[np.intp],
) -> tuple[Floats, Floats]:
    """exp(scores − the row's largest) of a block of rows, and their sums."""
    scores: Floats = (queries * np.float32(scale)).astype(np.float32, copy=False) @ keys.T
    if mask is not None:
        own = mask[positions] if mask.shape[0] > 1 else mask
        if own.dtype == bool:
            np.copyto(scores, -np.inf, where=~own)
        else:
            scores += own.astype(np.float32, copy=False)
    if causal:
        np.copyto(scores, -np.inf, where=np.arange(keys.shape[0]) > positions[:, None])
    if not scores.shape[1]:
        return scores, np.ones(len(scores), np.float32)
    largest = scores.max(axis=1)
    nothing = largest == -np.inf
    if nothing.any():
        largest[nothing] = 0
    with np.errstate(invalid="ignore"):  # infinite scores become NaN, as they do in the kernel
        scores -= largest[:, None]
    np.exp(scores, out=scores)
    sums = scores @ np.ones(scores.shape[1], np.float32)  # faster than a sum along short rows
    sums[nothing] = 1
    return scores, sums


def _check(query: NDArray[Any], key: NDArray[Any]) -> None:
    fits = query.ndim == key.ndim and query.ndim >= 2 and query.shape[-1] == key.shape[-1]
    if fits and query.ndim > 2:
        fits = query.shape[:-3] == key.shape[:-3] and key.shape[-3] > 0 and not query.shape[-3] % key.shape[-3]
    if not fits:
        raise ValueError(f"queries of shape {query.shape} and keys of shape {key.shape} do not fit together")


def _key_places(query: NDArray[Any], key: NDArray[Any]) -> Callable[[Place], Place]:
    """Where the keys of a head lie: grouped heads share them."""
    if query.ndim < 3:
        return lambda place: place
    group = query.shape[-3] // key.shape[-3]
    return lambda place: (*place[:-1], place[-1] // group)


def _at(mask: NDArray[Any], place: Place) -> NDArray[Any]:
    """The mask of one head, shape (query or 1, key or 1)."""
    lead = mask.shape[:-2]
    own = place[len(place) - len(lead) :]
    found: NDArray[Any] = mask[tuple(min(index, size - 1) for index, size in zip(own, lead, strict=True))]
    return found


def _slices(length: int, step: int) -> Iterator[slice]:
    for block in range(math.ceil(length / step)):
        yield slice(block * step, min((block + 1) * step, length))
