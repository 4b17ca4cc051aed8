"""A tensor as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from textual.strip import Strip

from diffusion_xray.tracer.summary import number

from ..planes import Plane, plane_of, value_range
from ..render import colour_bar, heat_map
from ..scene import Scene
from .canvas import Canvas, centred, to_strips

__all__ = ["HeatmapView"]


class HeatmapView(Canvas):
    """One channel of the chosen tensor, with a colour bar that carries numbers."""

    def paint(self, width: int, height: int) -> Sequence[Strip]:
        """The picture, or why there is none."""
        scene = self.scene
        assert scene is not None
        tensor = scene.found
        if tensor is None or scene.site is None:
            return self.explain(f"? This tensor cannot be read: {scene.error}" if scene.error else "loading …")
        plane = plane_of(tensor, scene.site, scene.look)
        if not plane.values.size:
            return self.explain("This tensor holds no values: one of its dimensions is 0.")
        return self._picture(scene, plane, width, height)

    def _picture(self, scene: Scene, plane: Plane, width: int, height: int) -> list[Strip]:
        low, high = value_range(plane.values, scene.look)
        cells = heat_map(
            plane.values,
            rows=max(height - 3, 1),
            columns=max(width - 2, 1),
            low=low,
            high=high,
            colours=scene.look.colours,
            keep_aspect=plane.spatial,
            shade=scene.look.shade,
        )
        rows, columns = plane.values.shape
        where = [
            f" {rows}×{columns} {plane.caption}",
            *([f"channel {scene.look.channel % plane.channels} of {plane.channels}"] if plane.channels > 1 else []),
            *([f"batch {self._batch(scene, plane)} of {plane.batches}"] if plane.batches > 1 else []),
        ]
        bad = int((~np.isfinite(plane.values)).sum())
        caption = self.line((" · ".join(where), "muted"), (f" · {bad} not finite" if bad else "", "fault"))
        if np.isnan(low):
            scale = self.line((" no finite value", "fault"))
        else:
            bar = to_strips(colour_bar(min(width - 24, 40), colours=scene.look.colours, shade=scene.look.shade))
            scale = Strip.join([self.line(f" {number(low):>8} "), *bar, self.line(f" {number(high)}")])
        return [caption, *centred(to_strips(cells), width), self.line(), scale]

    def _batch(self, scene: Scene, plane: Plane) -> str:
        at = scene.look.batch % plane.batches
        assert scene.site is not None
        layout = scene.snapshot.info.guidance.get(scene.site.name.split(".", 1)[0])
        branches = layout.get("batch") if isinstance(layout, dict) else None
        if isinstance(branches, list) and branches and plane.batches % len(branches) == 0:
            return f"{at} ({branches[at * len(branches) // plane.batches]})"
        return str(at)
