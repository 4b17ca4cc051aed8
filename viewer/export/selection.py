"""What is chosen in the browser, as everything that leaves the browser needs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_xray.tracer.errors import SiteNotFoundError
from diffusion_xray.tracer.info import SiteInfo

from ..look import Look
from ..model import Snapshot
from ..planes import Plane, plane_of, value_range
from .sheet import Sheet, Taken, Tile

__all__ = ["Selection"]


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """A place in a trace and how it is looked at.

    A view that shows something else than a plane of the tensor (an attention map, a mosaic) says so through `taken`.
    """

    trace: str
    """Where the trace is, as `open_trace` takes it; a folder by its full path."""
    snapshot: Snapshot
    site: SiteInfo | None
    step: int
    tab: str = "overview"
    look: Look = field(default_factory=Look)
    read: Callable[[], NDArray[Any] | None] = _nothing
    """Reads the tensor; may take long and may raise."""
    taken: Taken = field(default_factory=Taken)
    """What the view shows, where that is no plane of the tensor."""
    value: str = ""
    """The value under the cursor, where the view has one."""

    @property
    def layer(self) -> str:
        """The module, or its tensor in the form of `dxray ls` where that is not its first output; "" for none."""
        if self.site is None:
            return ""
        module = self.snapshot.layers[self.site.name].module if self.site.name in self.snapshot.layers else None
        return self.site.name if module is not None and module.site == self.site else self.site.key

    def why_no_tensor(self) -> str:
        """Why there is no tensor to export; "" where there is one."""
        if self.site is None:
            return "no layer is chosen"
        if not self.site.array:
            return "only statistics were kept of this layer"
        if self.site.stepped and not self.snapshot.steps:
            return "no step is complete yet"
        if not self.snapshot.has_tensor(self.site, self.step):
            return f"the tensor was not kept at step {self.step}"
        return ""

    def tensor(self) -> NDArray[Any]:
        """The tensor at the step, shape `site.shape`.

        Raises:
            SiteNotFoundError: There is none; the message says why.
        """
        why = self.why_no_tensor()
        values = None if why else self.read()
        if values is None:
            raise SiteNotFoundError(why or "the tensor could not be read")
        return values

    def shown(self) -> Plane:
        """The plane of the tensor that `look` chooses.

        Raises:
            SiteNotFoundError: There is none; the message says why.
        """
        values = self.tensor()
        assert self.site is not None
        plane = plane_of(values, self.site, self.look)
        if not plane.values.size:
            raise SiteNotFoundError("this tensor holds no values")
        return plane

    def sheet(self) -> Sheet:
        """What the view shows as a picture.

        Raises:
            SiteNotFoundError: There is none; the message says why.
        """
        if self.taken.draw is not None:
            return self.taken.draw(self)
        plane = self.shown()
        rows, columns = plane.values.shape
        parts = [f"{rows}x{columns} {plane.caption}".replace("×", "x")]
        if plane.channels > 1:
            parts.append(f"channel {self.look.channel % plane.channels} of {plane.channels}")
        if plane.batches > 1:
            parts.append(f"batch {self.look.batch % plane.batches} of {plane.batches}")
        return Sheet((Tile(plane.values, value_range(plane.values, self.look)),), ", ".join(parts))

    def number(self) -> str:
        """The value under the cursor, or the chosen statistic at the step; exact, "" where nothing was recorded."""
        if self.value or self.site is None:
            return self.value
        value = self.snapshot.at(self.site, self.step)[self.look.statistic]
        return "" if np.isnan(value) else repr(value)
