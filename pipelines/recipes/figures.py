"""Figures in one style: grids of pictures, curves, heat maps, and the frames of a film."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor

from diffusion_xray.tracer.errors import RecipeError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["coloured", "curves", "film", "heat", "new_figure", "picture_grid", "pixels"]

_INK = "#24292f"
_EDGE = "#d0d7de"
"""Around pictures, so that a white one ends somewhere."""
_COLOURS = ("#0969da", "#cf222e", "#1a7f37", "#9a6700", "#8250df", "#0598bc", "#57606a", "#bf3989")
_STYLE: Any = {
    "axes.edgecolor": "#8c959f",
    "axes.grid": True,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.dpi": 110,
    "font.size": 9,
    "grid.color": "#eaeef2",
    "legend.frameon": False,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


def pixels(picture: Tensor | ArrayLike | Image.Image) -> NDArray[np.uint8]:
    """A picture as uint8 (height, width, 3).

    Args:
        picture: A tensor (3 or 1, height, width) or (height, width) in [0, 1]; an array (height, width, 3) or
            (height, width), floats in [0, 1] or uint8; or a picture of Pillow.
    """
    if isinstance(picture, Tensor):
        array = picture.detach().float().cpu().numpy()
        array = np.moveaxis(array, 0, -1) if array.ndim == 3 else array
    else:
        array = np.asarray(picture)
    if array.dtype.kind == "f":
        array = (np.nan_to_num(array).clip(0, 1) * 255).round()
    if array.ndim == 2:
        array = array[..., None]
    return np.broadcast_to(array, (*array.shape[:2], 3)).astype(np.uint8)


def new_figure(rows: int = 1, columns: int = 1, *, size: tuple[float, float] = (6.0, 3.6)) -> tuple[Figure, Any]:
    """An empty figure of matplotlib in the style of the others, and its axes: an array (rows, columns).

    Args:
        rows: Of axes.
        columns: Of axes.
        size: Width and height in inches.

    Raises:
        RecipeError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from cycler import cycler
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RecipeError('figures need matplotlib: pip install "diffusion-xray[recipes]"') from error
    with mpl.rc_context({**_STYLE, "axes.prop_cycle": cycler(color=_COLOURS)}):
        figure = Figure(figsize=size, layout="constrained")
        return figure, figure.subplots(rows, columns, squeeze=False)


def picture_grid(
    rows: Sequence[Sequence[Tensor | ArrayLike | Image.Image]],
    *,
    row_titles: Sequence[str] = (),
    column_titles: Sequence[str] = (),
    title: str = "",
    side: float = 1.1,
) -> Figure:
    """Pictures in rows and columns, their pixels as they are.

    Args:
        rows: Pictures as `pixels` takes them; rows may differ in length.
        row_titles: Left of the rows.
        column_titles: Above the first row.
        title: Above it all.
        side: Of a picture, in inches.
    """
    columns = max(map(len, rows))
    left = 1.2 if any(row_titles) else 0.0
    size = (columns * side + left, len(rows) * side + (0.5 if title else 0.2) + (0.2 if any(column_titles) else 0.0))
    figure, axes = new_figure(len(rows), columns, size=size)
    for axis in axes.flat:
        axis.axis("off")
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            axes[row, column].imshow(pixels(picture), interpolation="nearest")
            axes[row, column].set_axis_on()
            axes[row, column].set(xticks=[], yticks=[])
            axes[row, column].spines[:].set(visible=True, color=_EDGE, linewidth=0.5)
    for axis, text in zip(axes[0], column_titles, strict=False):
        axis.set_title(text, fontsize=8)
    for axis, text in zip(axes[:, 0], row_titles, strict=False):
        axis.text(-0.08, 0.5, text, transform=axis.transAxes, ha="right", va="center", fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def curves(
    lines: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    x_label: str,
    y_label: str,
    title: str = "",
    logarithmic: bool = False,
    axes: Axes | None = None,
) -> Figure:
    """Lines over one axis.

    Args:
        lines: x and y of each, by name.
        x_label: What x is, with its unit.
        y_label: What y is, with its unit.
        title: Above it.
        logarithmic: Draw y so.
        axes: Draw there and not in a figure of its own.
    """
    if axes is None:
        figure, made = new_figure()
        axes = made[0, 0]
    else:
        figure = cast("Figure", axes.get_figure(root=True))
    styles = itertools.cycle(["-", "--", "-.", ":"])
    repeated = {place: next(styles) for place in range(0, len(lines), len(_COLOURS))}
    for place, (name, (x, y)) in enumerate(lines.items()):
        style = repeated[place - place % len(_COLOURS)]
        axes.plot(np.asarray(x), np.asarray(y), style, label=name, linewidth=1.6)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.set_title(title, fontsize=10)
    if logarithmic:
        axes.set_yscale("log")
    if len(lines) > 1:
        axes.legend(fontsize=8, frameon=False)
    return figure


def heat(
    values: ArrayLike,
    *,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    title: str = "",
    written: str = "{:.2f}",
    low: float | None = None,
    high: float | None = None,
    scale: str = "viridis",
) -> Figure:
    """A matrix as colours, each cell with its number.

    Args:
        values: (rows, columns).
        row_labels: Left of the rows.
        column_labels: Below the columns.
        title: Above it.
        written: How a number is written; "" leaves them out.
        low: Value of the darkest colour; the least by default.
        high: Value of the brightest; the largest by default.
        scale: Matplotlib's name of the colours; "RdBu_r" for values on both sides of zero.
    """
    matrix = np.asarray(values, np.float64)
    rows, columns = matrix.shape
    figure, made = new_figure(size=(1.8 + 0.6 * columns, 1.0 + 0.42 * rows))
    axes = made[0, 0]
    axes.grid(visible=False)
    image = axes.imshow(matrix, cmap=scale, vmin=low, vmax=high, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(columns), column_labels or [""] * columns, rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(rows), row_labels or [""] * rows, fontsize=8)
    axes.set_title(title)
    if written:
        bright = image.cmap(image.norm(matrix))[..., :3] @ (0.3, 0.6, 0.1)
        for row, column in itertools.product(range(rows), range(columns)):
            colour = "white" if bright[row, column] < 0.5 else "black"
            text = written.format(matrix[row, column])
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    return figure


def coloured(values: Tensor | ArrayLike, *, low: float | None = None, high: float | None = None) -> NDArray[np.uint8]:
    """A matrix as a picture (height, width, 3): dark is low, bright is high.

    Args:
        values: (height, width).
        low: What is black; the least by default.
        high: What is brightest; the largest by default.
    """
    from matplotlib import colormaps

    matrix = np.asarray(values.detach().float().cpu() if isinstance(values, Tensor) else values, np.float64)
    low, high = (matrix.min() if low is None else low), (matrix.max() if high is None else high)
    shares = (matrix - low) / ((high - low) or 1.0)
    return np.asarray(colormaps["inferno"](shares, bytes=True)[..., :3], np.uint8)


def film(frames: Sequence[Sequence[Tensor | ArrayLike | Image.Image]], *, scale: int = 4) -> list[Image.Image]:
    """Frames for a GIF, the pictures of each side by side.

    Args:
        frames: For each frame its pictures, all of one height.
        scale: Pixels for each pixel.
    """
    joined = [np.concatenate([pixels(picture) for picture in pictures], axis=1) for pictures in frames]
    return [Image.fromarray(np.kron(array, np.ones((scale, scale, 1), np.uint8))) for array in joined]
