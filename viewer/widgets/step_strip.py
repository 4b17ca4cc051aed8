"""The denoising loop from left to right: a statistic of the chosen layer at every step, to scrub in."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from textual.strip import Strip

from diffusion_xray.tracer.text import number

from ..model import Snapshot
from ..palette import DIVERGING
from ..render import FAULT_SIGN, heat_map
from ..scene import Scene
from .canvas import Part, Tone, to_strips
from .timeline import Timeline, tick_distance

__all__ = ["StepStrip"]

_SIGNS: Final[dict[str, tuple[str, Tone]]] = {
    "fault": (FAULT_SIGN, "fault"),
    "nothing": ("·", "muted"),
    "writing": ("◐", "good"),
}
"""What stands where there is no colour: not finite, not recorded, and not complete yet, which is no data."""


class StepStrip(Timeline):
    """Cells coloured by the statistic, with "✗" for what is not finite and "·" for what is not written yet."""

    DEFAULT_CSS = "StepStrip { height: 3; padding: 0 1; }"

    def parts_of(self, scene: Scene) -> tuple[object, ...]:
        """Where one is, not what was read there."""
        return scene.snapshot, scene.site, scene.step, scene.look, scene.playing, scene.following, scene.unseen

    def paint(self, width: int, height: int) -> Sequence[Strip]:  # noqa: ARG002 - its height is fixed
        """Cells, axis and status."""
        scene = self.scene
        assert scene is not None
        total = scene.snapshot.planned_steps
        if not total:
            return [self.line(("no step has been written", "muted")), self.line(), self.line(*self._status(scene))]
        first, last = _bounds(total, width)
        return [self._cells(scene, first, last), self._axis(scene, first, width), self.line(*self._status(scene))]

    @property
    def steps(self) -> int:
        """Those that the run has or will have."""
        return self.scene.snapshot.planned_steps if self.scene is not None else 0

    @property
    def choosable(self) -> int:
        """Those that are complete."""
        return self.scene.snapshot.steps if self.scene is not None else 0

    def _cells(self, scene: Scene, first: NDArray[np.intp], last: NDArray[np.intp]) -> Strip:
        snapshot, site = scene.snapshot, scene.site
        if site is not None and not site.stepped:
            value = snapshot.at(site, 0)[scene.look.statistic]
            return self.line((f"fired outside of the loop, {scene.look.statistic} {number(value)}", "muted"))
        values = np.full(snapshot.planned_steps, np.nan)
        faulty = np.zeros(snapshot.planned_steps, dtype=bool)
        if site is not None:
            values[: snapshot.steps] = snapshot.series(site, scene.look.statistic)[: snapshot.steps]
            faulty[: snapshot.steps] = snapshot.faulty(site)[: snapshot.steps]
        sampled = np.array([_mean(values[start:stop]) for start, stop in zip(first, last, strict=True)])
        finite = sampled[np.isfinite(sampled)]
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
        colours = to_strips(
            heat_map(
                np.nan_to_num(sampled)[None],
                rows=1,
                columns=len(sampled),
                low=low,
                high=high,
                colours="viridis" if scene.look.colours in DIVERGING else scene.look.colours,
                keep_aspect=False,
                shade=scene.look.shade,
            )
        )[0]
        being_written = snapshot.steps if snapshot.is_live else -1
        kinds = [
            "fault"
            if faulty[start:stop].any()
            else "writing"
            if start <= being_written < stop
            else "nothing"
            if blank
            else ""
            for start, stop, blank in zip(first.tolist(), last.tolist(), np.isnan(sampled).tolist(), strict=True)
        ]
        parts, at = [], 0
        for kind, run in itertools.groupby(kinds):
            end = at + len(list(run))
            sign, tone = _SIGNS.get(kind, ("", "plain"))
            parts.append(self.line((sign * (end - at), tone)) if kind else colours.crop(at, end))
            at = end
        return Strip.join(parts)

    def _axis(self, scene: Scene, first: NDArray[np.intp], width: int) -> Strip:
        total = scene.snapshot.planned_steps
        signs = [" "] * width
        tones: list[Tone] = ["muted"] * width
        every = tick_distance(total, width)
        label = f"▲{scene.step}" if scene.snapshot.steps else ""
        here = min(int(np.searchsorted(first, scene.step)), max(width - len(label), 0))
        for step in range(0, total, every):
            at = int(np.searchsorted(first, step))
            if not label or at + len(str(step)) < here or at > here + len(label):
                _write(signs, str(step), at)
        _write(signs, label, here)
        tones[here : here + len(label)] = ["accent"] * len(label[: width - here])
        return self.signs(signs, tones)

    def _status(self, scene: Scene) -> list[Part]:
        snapshot = scene.snapshot
        parts: list[Part] = [("▶ playing  ", "good")] if scene.playing else []
        if snapshot.is_live:
            new = (
                f"▲ {scene.unseen} new step{'s' if scene.unseen != 1 else ''} – F  "
                if scene.unseen
                else "F to follow  "
            )
            parts.append(("F following  ", "good") if scene.following else (new, "accent" if scene.unseen else "muted"))
        elif snapshot.writer_gone:
            parts.append(("the process that wrote this has ended  ", "fault"))
        parts.append((f"{scene.look.statistic} per step", "muted"))
        parts += _first_fault(snapshot)
        if snapshot.info.error:
            error = snapshot.info.error
            parts.append((f"   ended by {error.get('type')}: {error.get('message')}", "fault"))
        return parts


def _first_fault(snapshot: Snapshot) -> list[Part]:
    if not snapshot.faults:
        return []
    fault = snapshot.faults[0]
    where = "outside of the loop" if fault.step is None else f"step {fault.step}"
    return [(f"   first ✗ {where} {fault.site.name}", "fault"), (" (n to go there)", "muted")]


def _bounds(total: int, width: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and one past the last step of each column."""
    columns = np.arange(width)
    first = columns * total // width
    return first, np.maximum((columns + 1) * total // width, first + 1)


def _mean(values: NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def _write(signs: list[str], text: str, at: int) -> None:
    for offset, sign in enumerate(text):
        if at + offset < len(signs):
            signs[at + offset] = sign
