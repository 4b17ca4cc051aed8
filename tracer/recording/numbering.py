"""What a user gives as the number of a step, its timestep and its sigma: taken or refused at the call."""

from __future__ import annotations

from typing import Any

from ..errors import StepError
from ..layout import MOST_STEPS

__all__ = ["number_of", "step_index"]


def step_index(value: Any) -> int:
    """What a user gives as the index of a step: whole, not negative, below `MOST_STEPS`; a float or a tensor may be.

    Raises:
        StepError: It is none of this.
    """
    try:
        number = value.item() if hasattr(value, "item") else value  # of tensors and numpy's numbers
        known = not isinstance(number, bool | str | bytes) and int(number) == number
    except Exception:  # noqa: BLE001 — whatever an object does when it is asked for its value, it is no step
        known = False
    if not known:
        raise StepError(f"step({_shown(value)}): give the number of the step, 0 for the first, or None after the loop")
    if not 0 <= number < MOST_STEPS:
        raise StepError(f"step({_shown(value)}): number the steps from 0 to at most {MOST_STEPS - 1}")
    return int(number)


def number_of(value: Any, name: str) -> float:
    """What a user gives as a timestep or sigma.

    Raises:
        StepError: It is no number.
    """
    try:
        return float(value)
    except Exception as error:
        raise StepError(f"step(..., {name}={_shown(value)}): give a number") from error


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 — an object that cannot be printed
        text = type(value).__name__
    return text if len(text) <= 40 and text.isprintable() else type(value).__name__
