"""What a step looks like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Previews"]


@dataclass(frozen=True, slots=True, eq=False)
class Previews:
    """Pictures of one step, shape (y, x, 3); None is what the trace does not hold."""

    latents: NDArray[np.uint8] | None = None
    """The latents, decoded."""
    x0: NDArray[np.uint8] | None = None
    """The same of the latents that the model predicts for the end."""
