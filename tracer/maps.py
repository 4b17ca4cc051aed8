"""Attention probabilities, recomputed from queries and keys in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["probabilities"]


def probabilities(
    query: NDArray[Any],
    key: NDArray[Any],
    *,
    scale: float,
    mask: NDArray[Any] | None = None,
    causal: bool = False,
) -> NDArray[np.float32]:
    """softmax(QKᵀ · scale + mask), the attention map of Vaswani et al. (2017), eq. 1.

    Args:
        query: Shape (…, head, query, head_dim).
        key: Shape (…, head, key, head_dim); with fewer heads, each serves as many consecutive heads of the query.
        scale: Factor of the scores.
        mask: Boolean (true where a query may attend) or additive; it broadcasts to (…, head, query, key).
        causal: Query i sees the keys 0 … i only, as in `scaled_dot_product_attention`.

    Returns:
        Shape (…, head, query, key), float32; every row adds up to 1, or to 0 where a query may attend to nothing.
    """
    query, key = (np.asarray(array, np.promote_types(array.dtype, np.float32)) for array in (query, key))
    if query.ndim > 2 and 1 < key.shape[-3] < query.shape[-3]:
        key = np.repeat(key, query.shape[-3] // key.shape[-3], axis=-3)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflowed in the run does so here
        scores = query @ key.swapaxes(-1, -2)
        scores *= scale
        if mask is not None:
            scores = np.where(mask, scores, -np.inf) if mask.dtype == np.bool_ else scores + mask
        if causal:
            scores = np.where(np.tri(*scores.shape[-2:], dtype=np.bool_), scores, -np.inf)
        highest = scores.max(axis=-1, keepdims=True)
        weights = np.exp(scores - np.where(np.isfinite(highest), highest, 0))
        total = weights.sum(axis=-1, keepdims=True)
        return np.asarray(weights / np.where(total == 0, 1, total), np.float32)
