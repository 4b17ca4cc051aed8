"""Attention probabilities in numpy, against torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from diffusion_xray.tracer.maps import probabilities

GENERATOR = np.random.default_rng(0)
QUERY, KEY = GENERATOR.standard_normal((2, 4, 6, 8)), GENERATOR.standard_normal((2, 4, 5, 8))


@pytest.mark.parametrize(
    ("mask", "causal"),
    [
        (None, False),
        (None, True),
        (GENERATOR.standard_normal((1, 4, 6, 5)), False),
        (np.arange(5)[None, None, None] < 3, False),
        (np.where(np.arange(5) < 2, 0, -np.inf).reshape(1, 1, 1, 5), True),
    ],
)
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_they_are_those_of_torch(mask: Any, causal: bool, heads: int) -> None:
    """Scale, causal flag, boolean and additive masks, and grouped heads, as in the kernel with one-hot values."""
    key = KEY[:, :heads]
    query, keys = torch.tensor(QUERY), torch.tensor(key).repeat_interleave(4 // heads, 1)
    bias = torch.zeros(6, 5, dtype=torch.float64)
    if causal:
        bias = bias.masked_fill(~torch.ones(6, 5, dtype=torch.bool).tril(), -torch.inf)
    if mask is not None:
        given = torch.tensor(mask)
        bias = bias + (torch.where(given, 0.0, -torch.inf) if given.dtype == torch.bool else given)
    values = torch.eye(5, dtype=torch.float64).expand(2, 4, 5, 5)
    expected = torch.nn.functional.scaled_dot_product_attention(query, keys, values, bias, scale=0.4)
    found = probabilities(QUERY, key, scale=0.4, mask=mask, causal=causal)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


def test_one_head_alone() -> None:
    """Two dimensions are enough."""
    assert np.allclose(probabilities(QUERY[0, 0], KEY[0, 0], scale=1.0).sum(-1), 1)


def test_a_query_that_sees_nothing_has_no_mass() -> None:
    """A row that is masked altogether is zero and not NaN."""
    mask = np.zeros((6, 5), dtype=bool)
    mask[1:] = True
    found = probabilities(QUERY, KEY, scale=1.0, mask=mask)
    assert (found[:, :, 0] == 0).all()
    assert np.allclose(found[:, :, 1:].sum(-1), 1)


def test_large_scores_do_not_overflow_and_nan_stays() -> None:
    """Scores in the hundreds are fine; a query that is NaN is NaN in its row only."""
    query = QUERY * 1e3
    query[0, 0, 2] = np.nan
    found = probabilities(query, KEY, scale=1.0)
    assert np.isnan(found[0, 0, 2]).all()
    assert np.isnan(found).sum() == 5
    assert np.allclose(np.nansum(found, -1), 1 - np.isnan(found).all(-1))
