"""The families are deterministic."""

from __future__ import annotations

import numpy as np
import pytest

from .families import FAMILIES, run

pytestmark = pytest.mark.filterwarnings(  # NumPy's about `np.array(tensor)` in the schedulers of diffusers
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_seed_gives_the_same_output_twice(name: str) -> None:
    """Everything a call depends on is in the family and the seed, and the output is made of numbers."""
    family = FAMILIES[name]()
    first = run(family)
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(run(family), first)
    np.testing.assert_array_equal(run(FAMILIES[name]()), first)
