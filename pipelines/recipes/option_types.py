"""Types for the options of recipes: what an option may be, said where it is declared."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

__all__ = ["Between", "Called", "Count", "Steps", "Timestep"]


@dataclass(frozen=True, slots=True)
class Between:
    """Numbers that an option may be, with both ends: ``Annotated[float, Between(0, 1)]``.

    Infinity and what is no number are never among them: no recipe can do anything with these.
    """

    low: float = -math.inf
    high: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and abs(value) != math.inf

    def __str__(self) -> str:
        if self.low == -math.inf:
            return "a finite number" if self.high == math.inf else f"{self.high} at most"
        return f"{self.low} or more" if self.high == math.inf else f"{self.low} to {self.high}"


@dataclass(frozen=True, slots=True)
class Called:
    """What the help calls the value of an option: ``Annotated[Path, Called("DIR")]`` is a folder."""

    name: str


Count = Annotated[int, Between(1)]
"""How many of something that a recipe needs one of."""

Steps = Annotated[int, Between(1, 1000)]
"""Denoising steps. Schedulers have no more of them than the timesteps that models are trained with."""

Timestep = Annotated[int, Between(0, 999)]
"""A place in the schedule that models are trained with."""
