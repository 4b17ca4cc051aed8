"""One array that holds tensors of a site: those of one shape and stored type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Stored"]


@dataclass(frozen=True, slots=True)
class Stored:
    """An array of the trace, with what its tensors are like at one step."""

    array: str
    """Path in the trace."""
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    torch_dtype: str
    """Of the first of its tensors, as computed, without "torch."."""

    @classmethod
    def from_attributes(cls, values: Mapping[str, Any]) -> Stored:
        """Read an entry of a site's `variants`."""
        return cls(
            array=str(values.get("array", "")),
            shape=tuple(int(size) for size in values.get("shape", ())),
            dims=tuple(str(dim) for dim in values.get("dims", ())),
            torch_dtype=str(values.get("dtype", "")),
        )

    def to_attributes(self) -> dict[str, Any]:
        """The form in which the writer stores it."""
        return {
            "array": self.array,
            "shape": list(self.shape),
            "dims": list(self.dims),
            "dtype": self.torch_dtype,
        }
