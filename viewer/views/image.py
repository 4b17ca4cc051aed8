"""A stored tensor as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from numpy.typing import NDArray

from ..bindings import hidden
from ..planes import Colours, Projection, maps_of, project
from ..reader import Reader
from ..scene import Scene
from .protocol import Request, View
from .tensors import missing_tensor

if TYPE_CHECKING:
    from textual.widget import Widget

__all__ = ["IMAGE", "ImageWish", "Picture"]

_TITLES: Final[dict[Projection, str]] = {"mean": "mean of channels", "max": "max |x| of channels", "pca": "PCA"}


@dataclass(frozen=True, slots=True)
class ImageWish:
    """How the channels are put together."""

    projection: Projection = ""
    """ "" for one channel at a time."""
    mosaic: bool = False
    """Many channels side by side."""
    batch: int = 0
    """Batch entry to project, as in `Look`."""

    @property
    def title(self) -> str:
        """For the line of the tabs."""
        return _TITLES.get(self.projection, "mosaic" if self.mosaic else "")


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """What was read."""

    tensor: NDArray[Any]
    """In its own dtype and shape."""
    projection: NDArray[Any] | Colours | None = None
    """The plane or the colours that were wished for; None without a wish, and where there is but one map."""


def _widget() -> Widget:
    from ..widgets.heatmap import HeatmapView

    return HeatmapView()


def _read(reader: Reader, request: Request) -> Picture | None:
    tensor = reader.tensor(request.site, request.step)
    wish = request.wish
    if tensor is None or request.site is None or not isinstance(wish, ImageWish) or not wish.projection:
        return None if tensor is None else Picture(tensor)
    maps = maps_of(tensor, request.site, wish.batch)
    if len(maps.values) < 2:
        return Picture(tensor)
    step = request.step if request.site.stepped else 0
    key = ("projection", request.site.key, step, wish.projection, wish.batch % maps.batches)
    return Picture(tensor, reader.once(key, lambda: project(maps.values, wish.projection)))


def _how(scene: Scene) -> str:
    title = scene.wish.title if isinstance(scene.wish, ImageWish) else ""
    clipped = "p1–p99" if scene.look.clipped else "min–max"
    return " · ".join(filter(None, (title, scene.look.colours, clipped)))


IMAGE = View(
    "image",
    "Image",
    "The tensor as a picture",
    _widget,
    missing=missing_tensor,
    read=_read,
    how=_how,
    keys=(
        hidden("comma", "walk(-1)", "Channel before", id="image.channel_back", display=","),
        hidden("full_stop", "walk(1)", "Next channel", id="image.channel_on", display="."),
        hidden("less_than_sign", "batch(-1)", "Batch entry before", id="image.batch_back", display="<"),
        hidden("greater_than_sign", "batch(1)", "Next batch entry", id="image.batch_on", display=">"),
        hidden("z", "mosaic", "Many channels side by side, or one", id="image.mosaic"),
        hidden("p", "project", "All channels in one: mean, largest magnitude, PCA in colours", id="image.project"),
    ),
    key="4",
)
