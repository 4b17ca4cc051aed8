"""What leaves the browser where the picture is not one channel: all channels in one, or many side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..export.sheet import Sheet, Taken, Tile
from ..planes import Colours, Maps, Projection, maps_of, project, value_range
from ..scene import Scene
from .image import ImageWish

if TYPE_CHECKING:
    from ..export.selection import Selection

__all__ = ["mosaic_taken", "projection_taken"]


def projection_taken(scene: Scene, projection: Projection) -> Taken:
    """All channels in one; the tensor is read anew, for what is on the screen may be of the step before."""

    def draw(selection: Selection) -> Sheet:
        maps = _maps(selection)
        found = project(maps.values, projection)
        caption = _caption(selection, maps, [ImageWish(projection).title, f"{len(maps.values)} channels"])
        if isinstance(found, Colours):
            share = f", red, green and blue hold {found.share:.0%} of the variance" if np.isfinite(found.share) else ""
            return Sheet((Tile(found.rgb),), caption, note=f"three principal components{share}")
        return Sheet((Tile(found, value_range(found, selection.look)),), caption)

    colours = {".plane.csv": "PCA gives colours; p shows one plane"} if projection == "pca" else {}
    return Taken(draw, colours, python=_python(scene, f"plane = project(maps, {projection!r})"))


def mosaic_taken(scene: Scene, first: int, count: int, across: int) -> Taken:
    """Many channels side by side, in one range, as many in a line as on the screen."""

    def draw(selection: Selection) -> Sheet:
        maps = _maps(selection)
        part = np.asarray(maps.values[first : first + count], dtype=np.float64)
        span = value_range(part, selection.look)
        tiles = tuple(Tile(plane, span, str(first + at)) for at, plane in enumerate(part))
        told = f"channels {first} to {first + len(part) - 1} of {len(maps.values)}"
        return Sheet(tiles, _caption(selection, maps, [told]), across)

    return Taken(draw, python=_python(scene, f"planes = maps[{first}:{first + count}]"))


def _maps(selection: Selection) -> Maps:
    assert selection.site is not None
    return maps_of(selection.tensor(), selection.site, selection.look.batch)


def _python(scene: Scene, last: str) -> str:
    site = scene.site
    assert site is not None
    step = f".sel(step={scene.step})" if site.stepped else ""
    names = "maps_of, project" if "project(" in last else "maps_of"
    return "\n".join(
        (
            f"from diffusion_xray.viewer.planes import {names}",
            "",
            f"tensor = trace[{site.name!r}][{site.array_name!r}]{step}",
            f"maps = maps_of(tensor.values, trace.site({site.key!r}), {scene.look.batch}).values",
            last,
        )
    )


def _caption(selection: Selection, maps: Maps, what: Sequence[str]) -> str:
    rows, columns = maps.values.shape[1:]
    batch = [f"batch {selection.look.batch % maps.batches} of {maps.batches}"] if maps.batches > 1 else []
    return ", ".join([f"{rows}x{columns} {maps.caption}".replace("×", "x"), *what, *batch])
