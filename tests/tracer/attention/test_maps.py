"""Attention recomputed from queries and keys, against a naive full softmax and against torch."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import functional as F

from diffusion_xray.tracer.attention import maps


def naive(
    query: NDArray[Any], key: NDArray[Any], scale: float, mask: NDArray[Any] | None = None, *, causal: bool = False
) -> NDArray[np.float64]:
    """The definition, in float64 and all at once; zero where a row may attend to nothing."""
    keys = np.repeat(key, query.shape[-3] // key.shape[-3], axis=-3).astype(np.float64)
    scores = query.astype(np.float64) @ np.swapaxes(keys, -1, -2) * scale
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    if causal:
        scores = np.where(np.tri(*scores.shape[-2:]) > 0, scores, -np.inf)
    largest = scores.max(-1, keepdims=True)
    weights = np.exp(scores - np.where(largest == -np.inf, 0, largest))
    sums = weights.sum(-1, keepdims=True)
    return np.asarray(weights / np.where(sums == 0, 1, sums))


def inputs(
    rng: np.random.Generator, batch: int, heads: int, groups: int, queries: int, keys: int, dim: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Random queries and keys; `groups` heads of the keys."""
    query = rng.standard_normal((batch, heads, queries, dim), np.float32)
    return query, rng.standard_normal((batch, groups, keys, dim), np.float32)


@st.composite
def attention(draw: st.DrawFn) -> tuple[Any, Any, Any, bool, Any, Any]:
    """Queries, keys, a mask of some kind, whether causal, the rows and the columns wanted."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    batch, groups, per_group = (draw(st.integers(1, 3)) for _ in range(3))
    queries, keys, dim = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 5))
    query, key = inputs(rng, batch, groups * per_group, groups, queries, keys, dim)
    full = (batch, groups * per_group, queries, keys)
    shape = tuple(size if draw(st.booleans()) else 1 for size in full)
    mask: Any = draw(st.sampled_from([None, "bool", "float", "float with -inf"]))
    if mask == "bool":
        mask = rng.random(shape) < 0.6
    elif mask is not None:
        added = rng.standard_normal(shape).astype(np.float32)
        mask = np.where(rng.random(shape) < 0.3, np.float32(-np.inf), added) if "-inf" in mask else added
    rows = draw(st.one_of(st.just(slice(None)), st.lists(st.integers(0, queries - 1), max_size=4).map(positions)))
    columns = draw(st.one_of(st.just(slice(None)), st.lists(st.integers(0, keys - 1), max_size=4).map(positions)))
    return query, key, mask, draw(st.booleans()), rows, columns


def positions(chosen: list[int]) -> NDArray[np.intp]:
    """Positions as an index array."""
    return np.array(chosen, np.intp)


@given(attention())
def test_it_is_the_full_softmax(case: tuple[Any, Any, Any, bool, Any, Any]) -> None:
    """Any rows and columns of any masked, causal or grouped attention are those of the full softmax in float64."""
    query, key, mask, causal, rows, columns = case
    full = naive(query, key, 0.7, mask, causal=causal)
    seen = maps.probabilities(query, key, scale=0.7, mask=mask, causal=causal, rows=rows, columns=columns)
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen, full[:, :, rows][..., columns], rtol=1e-5, atol=1e-6)
    value = np.random.default_rng(0).standard_normal((*key.shape[:-1], 3)).astype(np.float32)
    each = np.repeat(value, query.shape[1] // key.shape[1], axis=1)
    seen = maps.attend(query, key, value, scale=0.7, mask=mask, causal=causal, rows=rows)
    np.testing.assert_allclose(seen, (full @ each)[:, :, rows], rtol=1e-4, atol=1e-5)
    shared = maps.attend(query, key, value[0, 0], scale=0.7, mask=mask, causal=causal, rows=rows)
    np.testing.assert_allclose(shared, (full @ value[0, 0])[:, :, rows], rtol=1e-4, atol=1e-5)
    logs = np.log(np.where(full > 0, full, 1))
    entropy = maps.row_entropy(query, key, scale=0.7, mask=mask, causal=causal, rows=rows)
    np.testing.assert_allclose(entropy, -(full * logs).sum(-1)[:, :, rows], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["plain", "bool", "float", "causal", "grouped", "nothing"])
def test_it_is_what_torch_computes(kind: str) -> None:
    """With the identity as values torch's own kernel gives the same rows, those that attend to nothing included."""
    rng = np.random.default_rng(1)
    query, key = inputs(rng, 2, 4, 2 if kind == "grouped" else 4, 6, 6, 8)
    mask: Any = {
        "bool": rng.random((2, 1, 6, 6)) < 0.5,
        "float": rng.standard_normal((2, 1, 1, 6)).astype(np.float32),
        "nothing": np.arange(6)[:, None] < np.zeros((2, 1, 1, 6), np.int64) + 3,
    }.get(kind)
    values = torch.eye(6).expand(*key.shape[:2], 6, 6).contiguous()
    expected = F.scaled_dot_product_attention(
        torch.from_numpy(query),
        torch.from_numpy(key),
        values,
        attn_mask=None if mask is None else torch.from_numpy(mask),
        is_causal=kind == "causal",
        enable_gqa=kind == "grouped",
    )
    seen = maps.probabilities(query, key, scale=8**-0.5, mask=mask, causal=kind == "causal")
    np.testing.assert_allclose(seen, expected.numpy(), rtol=1e-5, atol=1e-6)
    if kind == "nothing":
        assert (seen[:, :, 3:] == 0).all()


def test_large_scores_do_not_overflow() -> None:
    """Scores beyond what exp can take give the same as in float64, because the largest is subtracted first."""
    query, key = (100 * array for array in inputs(np.random.default_rng(2), 1, 1, 1, 5, 7, 8))
    seen = maps.probabilities(query, key, scale=1.0)
    np.testing.assert_allclose(seen, naive(query, key, 1.0), atol=1e-3)
    assert np.isfinite(seen).all()


def test_what_is_not_finite_stays_in_its_row() -> None:
    """A NaN in a query spoils its own row only, and an infinite score makes its row NaN, without a warning."""
    query, key = inputs(np.random.default_rng(3), 1, 1, 1, 4, 5, 2)
    query[0, 0, 1, 0] = np.nan
    query[0, 0, 2, 0], key[0, 0, 0, 0] = np.inf, 1
    seen = maps.probabilities(query, key, scale=1.0)[0, 0]
    assert np.isnan(seen).any(axis=1).tolist() == [False, True, True, False]


def test_memory_is_bounded() -> None:
    """One row of a long sequence, and the sums over all rows, take a small part of the full matrix."""
    rng = np.random.default_rng(4)
    query, key = inputs(rng, 1, 1, 1, 4096, 4096, 8)
    value = rng.standard_normal((4096, 1), np.float32)
    tracemalloc.start()
    try:
        for rows in (np.array([7]), slice(None)):
            tracemalloc.reset_peak()
            maps.attend(query, key, value, scale=1.0, rows=rows)
            assert tracemalloc.get_traced_memory()[1] < 32e6 < 4 * 4096 * 4096
    finally:
        tracemalloc.stop()


def test_shapes_that_do_not_fit_are_named() -> None:
    """Queries and keys that cannot have met in one kernel are refused with their shapes."""
    with pytest.raises(ValueError, match=r"\(1, 3, 4, 2\) and keys of shape \(1, 2, 5, 2\) do not fit"):
        maps.probabilities(np.zeros((1, 3, 4, 2)), np.zeros((1, 2, 5, 2)), scale=1)
    with pytest.raises(ValueError, match="do not fit"):
        maps.probabilities(np.zeros((4, 2)), np.zeros((5, 3)), scale=1)
