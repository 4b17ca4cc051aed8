"""Which part of a guided prediction is the conditional one, told by how the parts were put together.

Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598, equation 6) is ĝ = u + w (c − u) = (1 − w) u + w c.
Given ĝ and the two parts, w follows by least squares. Guidance proper has w > 1, so the conditional part is the one
whose weight is above 1, and the other's is negative. With weights between 0 and 1 it could be either. A rescaled ĝ
(Lin et al. 2023, arXiv:2305.08891, section 3.4), or one of which the sign was changed, has all weights times a number:
what is compared is their share of the sum.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["conditional_part"]

_TOLERANCE = 0.05
"""Part of the distance between the parts that may be left unexplained, such as rounding to 16 bit."""
_ABOVE_ONE = 1.01
_VIDEO = 5
"""Dimensions of (batch, frame, channel, height, width)."""


def conditional_part(parts: Sequence[Tensor], guided: Tensor) -> int | None:
    """Index of the part that guidance moves towards, None where that does not follow.

    Args:
        parts: What the denoiser predicted, each (batch, …), alike in shape.
        guided: What was made of them, the same shape.
    """
    shape = guided.shape
    if len(parts) < 2 or not shape or any(part.shape != shape for part in parts):
        return None
    found = _of_each(parts, guided, max(shape[0], 1))
    if set(found) == {None} and len(shape) == _VIDEO:  # each frame may have a weight of its own, the first often 1
        found = _of_each(parts, guided, max(shape[0] * shape[1], 1))
        guided_frames = sum(part is not None for part in found)
        found = [part for part in found if part is not None or 2 * guided_frames < len(found)]
    return found[0] if len(set(found)) == 1 else None


def _of_each(parts: Sequence[Tensor], guided: Tensor, entries: int) -> list[int | None]:
    """The conditional part of each of so many entries."""
    columns = torch.stack([part.detach().reshape(entries, -1).double() for part in (*parts, guided)], 1)
    products = (columns @ columns.transpose(1, 2)).cpu()  # (entry, part, part), with the guided one last
    return [_of_entry(gram) for gram in products]


def _of_entry(gram: Tensor) -> int | None:
    """The conditional part of one entry of the batch, from the inner products of its parts and the result."""
    count = len(gram) - 1
    if not torch.isfinite(gram).all():
        return None
    among, towards = gram[:count, :count], gram[:count, count]
    try:
        weights = torch.linalg.solve(among, towards)
    except RuntimeError:  # parts that are multiples of each other
        return None
    total = float(weights.sum())
    if abs(total) < _TOLERANCE or not torch.isfinite(weights).all():
        return None
    shares = weights / total
    best = int(shares.argmax())
    others = torch.cat([shares[:best], shares[best + 1 :]])
    if float(shares[best]) < _ABOVE_ONE or bool((others > 0).any()):
        return None
    left = float(gram[count, count] - 2 * weights @ towards + weights @ among @ weights)
    spread = sum(float(among[best, best] + among[at, at] - 2 * among[best, at]) for at in range(count) if at != best)
    explained = (float(shares[best]) * total) ** 2 * spread
    rounding = 1e-12 * float(gram.diagonal().sum())
    return best if max(left, 0.0) <= _TOLERANCE**2 * explained and explained > rounding else None
