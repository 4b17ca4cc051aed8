"""What the latents of a step look like."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from textual.strip import Strip

from ..render import picture
from ..scene import Scene
from .canvas import Canvas, centred, to_strips

__all__ = ["Preview"]


class Preview(Canvas):
    """Decoded latents and the picture the model predicts, one above the other."""

    def parts_of(self, scene: Scene) -> tuple[object, ...]:
        """The pictures, and why there may be none."""
        latents, x0 = scene.previews.latents, scene.previews.x0
        waiting = scene.loading and latents is None and x0 is None
        return latents, x0, scene.snapshot, scene.look, scene.error, waiting

    def watch_scene(self) -> None:
        """Draw what is on show now."""
        if self.scene is not None:
            self.set_class(not self.scene.snapshot.has_previews, "-none")
        super().watch_scene()

    def paint(self, width: int, height: int) -> Sequence[Strip]:
        """Pictures with their titles, then how they were made."""
        scene = self.scene
        assert scene is not None
        if not scene.snapshot.has_previews:
            reason = scene.snapshot.info.preview.get("reason")
            if reason:
                return self.explain("No previews in this trace:", f"{reason}.")
            return self.explain(
                "No previews in this trace.",
                "They need latents: trace the pipeline, or its scheduler too, with",
                code="Capture(latents=True)",
            )
        pictures = [
            (title, pixels)
            for title, pixels in (
                ("latents", scene.previews.latents),
                ("x0, as predicted", scene.previews.x0),
            )
            if pixels is not None
        ]
        footer = [self.line((f" {line}", "muted")) for line in self._captions(scene, width - 2)]
        if not pictures:
            missing = "…" if scene.loading else (scene.error and "?") or "no preview at this step"
            return [self.line((f" {missing}", "muted")), *footer]
        rows = max((height - len(footer)) // len(pictures) - 1, 2)
        lines = [strip for title, pixels in pictures for strip in self._picture(scene, title, pixels, width, rows)]
        return [*lines[: height - len(footer)], *footer]

    def _picture(self, scene: Scene, title: str, pixels: NDArray[np.uint8], width: int, rows: int) -> list[Strip]:
        cells = picture(pixels, rows=rows, columns=max(width - 2, 1), shade=scene.look.shade)
        size = f"{pixels.shape[1]}×{pixels.shape[0]}"
        return [self.line((f" {title}", "accent"), (f" {size}", "muted")), *centred(to_strips(cells), width)]

    def _captions(self, scene: Scene, width: int) -> list[str]:
        preview = scene.snapshot.info.preview
        r2 = preview.get("r2")
        fit = f", R² {r2:.2f}" if isinstance(r2, float) and math.isfinite(r2) else ""
        reason = str(preview.get("reason") or "")
        why = textwrap.wrap(f"as {reason}", max(width, 8)) if reason else []
        prompt = next((line for step, line in reversed(scene.snapshot.prompts) if step <= scene.step), "")
        cut = prompt if len(prompt) <= width - 2 else f"{prompt[: width - 3]}…"
        return [f"by {preview.get('method', 'unknown')}{fit}", *why, *([f"“{cut}”"] if cut else [])]
