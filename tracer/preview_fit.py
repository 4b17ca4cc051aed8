"""A linear map from latent channels to RGB: fitted to a decoded picture, or by principal components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["PreviewMap", "fit_preview", "has_spread", "unusable"]

Pixels = NDArray[np.float64]

_CONSTANT: Final = 1 / 255
"""Standard deviation below which a picture has nothing but rounding."""
_SATURATED: Final = 0.995
"""Share of values at the ends of the range, above which a picture was clipped and shows no more than that."""


@dataclass(frozen=True, slots=True)
class PreviewMap:
    """A linear map from latent pixels to RGB."""

    weight: Pixels
    """Shape (channel, 3)."""
    bias: Pixels
    """Shape (3,)."""
    method: str
    """ "linear fit" to the decoded picture, or "principal components"."""
    r2: float | None
    """Share of the colours' variance the fit explains, NaN-free; None for principal components."""
    reason: str = ""
    """Why there is no linear fit."""

    def __call__(self, latents: Pixels) -> NDArray[np.uint8]:
        """Draw latents (batch, y, x, channel) as uint8 (batch, y, x, 3)."""
        drawn = np.nan_to_num(latents, posinf=0, neginf=0) @ self.weight + self.bias
        return (drawn.clip(0, 1) * 255).round().astype(np.uint8)


def fit_preview(latents: Pixels, pictures: NDArray[Any] | None, reason: str = "no picture came back") -> PreviewMap:
    """Fit the map.

    A picture that shows nothing (of one colour, clipped, or not finite) is no target: a fit to it would draw every
    latent alike, and explain all of a spread that is none.

    Args:
        latents: The final latents, (batch, y, x, channel), some of them finite.
        pictures: What they were decoded to, (batch, height, width, 3), uint8 or floats in [0, 1]; None when unknown.
        reason: Why they are unknown.
    """
    if pictures is not None:
        pictures, latents_of = pictures[: len(latents)], latents[: len(pictures)]
        reasons = [unusable(picture) for picture in pictures]
        shown = [not why for why in reasons]
        if any(shown):
            fitted = _linear(latents_of[shown], _shrink(_unit(pictures[shown]), latents.shape[1:3]))
            if fitted is not None:
                return fitted
            reason = "the picture and its latents have too little in common to be fitted"
        else:
            reason = reasons[0] if reasons else reason
    return _principal(latents.reshape(-1, latents.shape[-1]), reason)


def unusable(picture: NDArray[Any]) -> str:
    """Why nothing can be fitted to a picture, (height, width, 3); "" where it can."""
    values = _unit(picture)
    if not np.isfinite(values).all(axis=-1).mean() >= 0.5:
        return "the picture is not finite"
    values = values[np.isfinite(values).all(axis=-1)]
    if values.std(axis=0).max() < _CONSTANT:
        colour = values.mean()
        named = "black" if colour < _CONSTANT else "white" if colour > 1 - _CONSTANT else "of one colour"
        return f"the picture is {named}"
    ends = (values <= 0) | (values >= 1)
    return "the picture is clipped to black and white" if ends.mean() > _SATURATED else ""


def has_spread(latents: Pixels) -> bool:
    """Whether latents (..., channel) are finite in at least half of their pixels, and not all alike."""
    flat = latents.reshape(-1, latents.shape[-1])
    finite = flat[np.isfinite(flat).all(axis=1)]
    return len(finite) >= max(len(flat) / 2, 2) and bool(finite.std(axis=0).max() > 1e-6 * np.abs(finite).max())


def _linear(latents: Pixels, colours: Pixels) -> PreviewMap | None:
    """Least squares over the pixels where both are finite; None where that leaves nothing to explain.

    Both are centred first: a channel that does not vary gets no weight, as it may vary at other steps.
    """
    inputs, wanted = latents.reshape(-1, latents.shape[-1]), colours.reshape(-1, 3)
    finite = np.isfinite(inputs).all(axis=1) & np.isfinite(wanted).all(axis=1)
    inputs, wanted = inputs[finite], wanted[finite]
    if len(inputs) <= inputs.shape[1] or wanted.std(axis=0).max() < _CONSTANT / 4:
        return None
    centre, mean = inputs.mean(axis=0), wanted.mean(axis=0)
    weight, *_ = np.linalg.lstsq(inputs - centre, wanted - mean, rcond=None)
    spread = ((wanted - mean) ** 2).sum()
    rest = ((wanted - mean - (inputs - centre) @ weight) ** 2).sum()
    weight = np.asarray(weight, np.float64)
    return PreviewMap(weight, mean - centre @ weight, "linear fit", float(1 - rest / spread))


def _principal(flat: Pixels, reason: str) -> PreviewMap:
    """The three strongest directions as colours, using most of the range."""
    flat = flat[np.isfinite(flat).all(axis=1)]
    centre = flat.mean(0)
    _, _, directions = np.linalg.svd(flat - centre, full_matrices=False)
    weight = np.zeros((flat.shape[1], 3))
    for component, direction in enumerate(directions[:3]):
        values = (flat - centre) @ direction
        low, high = np.percentile(values, [1, 99])
        if high - low > 1e-6 * np.abs(flat).max():  # else there is no such direction
            weight[:, component] = direction / (high - low)
    return PreviewMap(weight, 0.5 - centre @ weight, "principal components", None, reason)


def _unit(pictures: NDArray[Any]) -> Pixels:
    return pictures / 255.0 if pictures.dtype == np.uint8 else np.asarray(pictures, np.float64)


def _shrink(pictures: Pixels, size: tuple[int, ...]) -> Pixels:
    """Pictures (batch, height, width, 3) averaged over areas to (batch, *size, 3)."""
    for axis, wanted in zip((1, 2), size, strict=True):
        length = pictures.shape[axis]
        edges = np.linspace(0, length, wanted + 1).astype(int).clip(max=length - 1)
        widths = np.diff(np.append(edges[:-1], length)).clip(min=1)
        shape = [1] * pictures.ndim
        shape[axis] = wanted
        pictures = np.add.reduceat(pictures, edges[:-1], axis=axis) / widths.reshape(shape)
    return pictures
