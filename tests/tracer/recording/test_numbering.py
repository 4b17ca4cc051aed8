"""What a user gives as a step."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from diffusion_xray.tracer import StepError
from diffusion_xray.tracer.recording.numbering import number_of, step_index


class Hostile:
    """An object that answers nothing."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __repr__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    "value", [3, 3.0, np.int64(3), np.float32(3), torch.tensor(3), torch.tensor([3.0]), Fraction(3)]
)
def test_whole_numbers_of_any_kind_are_steps(value: Any) -> None:
    """An int, a whole float, a number of numpy, a tensor of one element."""
    assert step_index(value) == 3
    assert type(step_index(value)) is int
    assert step_index(2**24 - 1) == 2**24 - 1


@pytest.mark.parametrize(
    "value",
    [
        *(-1, -1.0, 2**24, 2**31 - 1, 10**30, 1e300, 3.7, math.nan, math.inf, 1j, True, np.True_, torch.tensor(True)),
        *("3", b"3", "x\n" * 999, [3], {}, None, object(), torch.tensor([1, 2]), np.array([])),
    ],
)
def test_what_is_no_step_is_refused(value: Any) -> None:
    """Negative, not whole, no number, a truth, or 2**24 and more: one line that says what was given and what to do."""
    with pytest.raises(StepError, match=r"^step\(.*\): (give the number|number the steps from 0)") as raised:
        step_index(value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 200


def test_an_object_that_cannot_be_printed_is_no_step() -> None:
    """Nothing that belongs to the user is called without a guard."""
    with pytest.raises(StepError, match="Hostile"):
        step_index(Hostile())
    with pytest.raises(StepError, match=re.escape("sigma=Hostile")):
        number_of(Hostile(), "sigma")
    with pytest.raises(StepError, match=re.escape("step(..., timestep='late'): give a number")):
        number_of("late", "timestep")
    assert number_of(torch.tensor(2.5), "sigma") == 2.5
