"""Did a module use the shares of attention it was handed, or did it edit them? Compared on a sample of rows.

`get_attention_scores` returns the shares, and its caller multiplies them with the values. Whatever it does between the
two cannot be listened at; but the result can be compared with the product of the shares as they were handed out.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from ..attention.rounding import product_error, unit_roundoff

__all__ = ["deviation", "largest_error", "multiplied_in", "rows_of"]

_ROWS: Final = 8
_GOLDEN: Final = 0.6180339887


def rows_of(queries: int, turn: int) -> slice:
    """About eight rows spread over all, others at each turn.

    The distance is odd, so that the rows do not stand below each other in a picture whose width is a power of two;
    the start moves by the golden ratio, which spreads any number of turns evenly.
    """
    stride = queries // _ROWS | 1
    return slice(int(turn * _GOLDEN % 1 * stride), None, stride)


def deviation(shares: Tensor, values: Tensor, result: Tensor) -> Tensor:
    """‖shares · values − result‖ / ‖shares · values‖, the largest over batch and heads.

    Args:
        shares: The sampled rows as they were handed out, shape (batch, head, row, key).
        values: Shape (batch, head, key, value_dim).
        result: The same rows of what the module made of them, shape (batch, head, row, value_dim).

    Returns:
        A number on their device; the host does not wait for it. NaN where nothing can be told: a value is not finite,
        or all are zero, so that any shares give the same.
    """
    expected = torch.matmul(shares.detach().float(), values.detach().float())
    wrong = torch.linalg.vector_norm(expected - result.detach(), dim=(-2, -1))
    relative: Tensor = wrong / torch.linalg.vector_norm(expected, dim=(-2, -1))
    return relative.amax()


def largest_error(shares: Tensor, *others: Tensor) -> float:
    """The deviation that rounding explains."""
    names = [str(tensor.dtype).removeprefix("torch.") for tensor in (shares, *others)]
    device = shares.device.type
    if torch.is_autocast_enabled(device):  # which also reaches the comparison
        names.append(str(torch.get_autocast_dtype(device)).removeprefix("torch."))
    if "float32" in names:
        names.append(multiplied_in() or "float32")
    return product_error(max(names, key=unit_roundoff), shares.shape[-1])


def multiplied_in() -> str:
    """What float32 matrices are rounded to before they are multiplied, "" where they are not."""
    return {"high": "tfloat32", "medium": "bfloat16"}.get(torch.get_float32_matmul_precision(), "")
