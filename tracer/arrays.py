"""A trace as numpy arrays: the tensors of its sites, its texts and its pictures; also while it is being written."""

from __future__ import annotations

import bisect
import functools
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .damage import check_chunk, reads_as_missing, told
from .errors import SiteNotFoundError, TraceFormatError
from .info import SiteInfo, printable
from .layout import IMAGES, LATENTS, NOT_CAPTURED, STATISTICS, array_name
from .prompts import Prompt, read_prompts
from .stored import Stored
from .tables import TraceTables

__all__ = ["TraceArrays"]

_COUNT = STATISTICS.index("count")


class TraceArrays(TraceTables):
    """The plain part of `Trace`: nothing here needs xarray."""

    def stored(self, site: SiteInfo, step: int = 0) -> Stored | None:
        """The array that holds the tensor of a site at a step, with its shape; None where none was kept.

        A site whose tensors always had one shape is taken to have kept it; `table` tells whether it did.
        """
        if not site.variants:
            return site.arrays[0] if site.array else None
        group, place = self._group_of(site), (self._check_step(step), site.row) if site.stepped else (site.row,)
        mark = int(self._archive.load(f"{group}/captured", place))
        if mark == NOT_CAPTURED and np.isfinite(self._archive.load(f"{group}/statistics", place)[_COUNT]):
            raise TraceFormatError(
                f"{printable(group)}/captured in {self.path} is damaged: what was written of step {step} is missing"
            )
        return site.stored(mark)

    def tensor(self, site: SiteInfo, step: int = 0) -> NDArray[Any]:
        """The stored tensor of one site at one step, in the shape it had; NaN where it was not captured.

        Raises:
            SiteNotFoundError: Only statistics were kept of it.
        """
        if not site.array:
            raise SiteNotFoundError(
                f"{site.key} was recorded as statistics only; trace with "
                f"Capture(modules={site.name!r}) to keep its tensors"
            )
        stored = self.stored(site, step)
        if stored is None:
            return self._missing(site)
        place = (self._check_step(step),) if site.stepped else ()
        found = self._archive.load(stored.array, place)
        if found.shape != stored.shape:
            raise TraceFormatError(
                f"{printable(stored.array)} in {self.path} is damaged: it has the shape {found.shape}, "
                f"and its site {stored.shape}"
            )
        if reads_as_missing(found):
            self._check_written(site, stored, step)
        return found

    def _check_written(self, site: SiteInfo, stored: Stored, step: int) -> None:
        """Make sure that what reads as missing was never written."""
        at = self._check_step(step) if site.stepped else None
        captured = int(
            self._archive.load(f"{self._group_of(site)}/captured", (site.row,) if at is None else (at, site.row))
        )
        if site.stored(captured) == stored:
            check_chunk(self._archive, stored.array, at)

    def elements(self, site: SiteInfo, step: int, start: int, count: int) -> NDArray[Any] | None:
        """Some elements of a stored tensor in row-major order; in a folder the rest of it is not decoded.

        Returns:
            Shape (count,); None where the step was not written, if that can be told.
        """
        stored = self.stored(site, step)
        if stored is None:
            return None
        place = self._check_step(step) if site.stepped else None
        found = self._archive.load_run(stored.array, place, start, count)
        if found is None or (len(found) and reads_as_missing(found)):
            self._check_written(site, stored, step)
        return found

    def step_array(self, name: str, step: int) -> NDArray[Any] | None:
        """One step of a variable of `steps` ("latents", "x0", "preview", ...), or None when there is none."""
        site = self._sites.get(f"{LATENTS}:{name}")
        if site is not None and site.variants:
            return self.tensor(site, step) if self.stored(site, step) else None
        path = f"{LATENTS}/{name}"
        return self._archive.load(path, (self._check_step(step),)) if path in self._archive else None

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """The texts as the encoders received them, in call order."""
        with told(f"what is said of the prompts in {self.path}"):
            return read_prompts(self._archive)

    @property
    def images(self) -> NDArray[Any] | None:
        """What the pipeline returned, shape (image, y, x, rgb) or (image, frame, y, x, rgb); None when no pictures."""
        return self._archive.load_if_there(f"{IMAGES}/images")

    def images_of(self, step: int) -> NDArray[Any] | None:
        """`images` of the call of the pipeline that made a step; of the first where calls and pictures do not pair."""
        starts = [run.get("step", 0) for run in self.info.runs]
        call = max(bisect.bisect_right(starts, step) - 1, 0)
        if f"{IMAGES}/{array_name('images', len(starts) - 1)}" not in self._archive:
            call = 0  # one of the calls returned none
        return self._archive.load_if_there(f"{IMAGES}/{array_name('images', call)}")

    def _missing(self, site: SiteInfo) -> NDArray[Any]:
        """What stands for a tensor that was not captured: its first shape, NaN or 0."""
        dtype = self._archive.dtype_of(site.array)
        return np.full(site.shape, np.nan if dtype.kind in "fc" else 0, dtype)

    def _is_shared(self, array: str) -> bool:
        """Whether several sites read their tensors from an array."""
        return self._users[array] > 1

    @functools.cached_property
    def _users(self) -> Counter[str]:
        return Counter(stored.array for site in self._sites.values() for stored in site.arrays)
