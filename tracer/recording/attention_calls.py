"""What an attention kernel was called with, read from the arguments of each kind of attention function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "AttentionCall",
    "Reader",
    "Scores",
    "dispatched",
    "eager",
    "interface",
    "join_scores",
    "memory_efficient",
    "scaled_dot_product",
    "scores",
]


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """One call of an attention kernel: softmax(query · keyᵀ · scale + mask) · value."""

    door: str
    """Name of the function that was called."""
    query: Tensor
    """Shape (batch, head, query, head_dim)."""
    key: Tensor
    """Shape (batch, head, key, head_dim); grouped heads are fewer, by a divisor."""
    scale: float
    value: Tensor | None = None
    """Shape (batch, head, key, value_dim), heads as in the key."""
    attended: Tensor | None = None
    """What the kernel returned, shape (batch, head, query, value_dim)."""
    mask: Tensor | None = None
    """Boolean (true where it may attend) or additive, four dimensions of full size or 1."""
    causal: bool = False
    """Whether query i sees only the keys up to i."""
    dropout: float = 0.0
    reason: str = ""
    """Why query, key and mask do not give the probabilities; "" when they do."""
    shares: Tensor | None = None
    """Some rows of the probabilities where they were handed to the caller, copied, shape (batch, head, row, key)."""
    foreign: str = ""
    """The function, where it is of no library that is known to compute what its name says; else ""."""


@dataclass(frozen=True, slots=True)
class Scores:
    """A call of diffusers' `Attention.get_attention_scores`: some or all rows of (batch · head)."""

    heads: int
    """Heads of the module."""
    query: Tensor
    """Shape (row, query, head_dim)."""
    key: Tensor
    """Shape (row, key, head_dim)."""
    mask: Tensor | None
    """Additive, shape (row, query or 1, key)."""
    scale: float
    shares: Tensor
    """What was returned, shape (row, query, key); the caller may edit it."""
    foreign: str = ""
    """As in `AttentionCall`."""


Reader = Callable[..., AttentionCall | Scores | None]
"""Takes the name of a function, the result and the arguments of a call; None when it is of a kind it does not know."""


def scaled_dot_product(
    _: str,
    result: Any,
    *,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **__: Any,
) -> AttentionCall:
    """`torch.nn.functional.scaled_dot_product_attention`: (…, head, token, head_dim)."""
    call = _call("scaled_dot_product_attention", (query, key, value, result), mask=attn_mask, scale=scale)
    return replace(call, causal=bool(is_causal), dropout=float(dropout_p))


def dispatched(
    door: str,
    result: Any,
    *,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    **_: Any,
) -> AttentionCall:
    """A backend of diffusers' `dispatch_attention_fn`: (batch, token, head, head_dim)."""
    result = result[0] if isinstance(result, tuple) else result
    queries, keys, values, attended = (tensor.transpose(1, 2) for tensor in (query, key, value, result))
    mask = attn_mask
    reason = "" if tuple(window_size) == (-1, -1) else f"a window of {tuple(window_size)} tokens limits it"
    if mask is not None and not isinstance(mask, Tensor):
        mask, reason = None, f"its mask is a {type(mask).__name__}"
    elif is_causal and queries.shape[-2] != keys.shape[-2]:
        reason = "backends differ in how they align a causal mask to queries and keys of different number"
    elif mask is not None and mask.shape == (query.shape[0], key.shape[1]):
        mask = mask[:, None, None]
    call = _call(door, (queries, keys, values, attended), mask=mask, scale=scale)
    return replace(call, causal=bool(is_causal), dropout=float(dropout_p), reason=reason)


def eager(
    door: str,
    result: Any,
    *,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_bias: Tensor | None = None,
    **options: Any,
) -> AttentionCall:
    """The eager attention of a transformers model: (batch, head, token, head_dim), result (batch, token, head, …)."""
    mask = attention_mask
    unusual = [name for name in ("softcap", "s_aux", "sinks") if options.get(name) is not None]
    reason = f"it is modified by {', '.join(unusual)}" if unusual else ""
    if mask is not None and not isinstance(mask, Tensor):
        mask, reason = None, f"its mask is a {type(mask).__name__}"
    if position_bias is not None:
        bias = position_bias.detach()
        mask = bias if mask is None else bias + mask.detach()
    call = _call(door, (query, key, value, result[0].transpose(1, 2)), mask=mask, scale=scaling)
    training = getattr(options.get("module"), "training", False)
    return replace(call, dropout=float(dropout) if training else 0.0, reason=reason)


def interface(door: str, result: Any, **arguments: Any) -> AttentionCall:
    """Another attention function of transformers, such as flash attention."""
    mask, causal, window = (arguments.get(name) for name in ("attention_mask", "is_causal", "sliding_window"))
    if isinstance(mask, Tensor) and mask.dim() == 2:  # of padding
        arguments["attention_mask"] = mask.bool()[:, None, None]
    call = eager(door, result, **arguments)
    causal = getattr(arguments.get("module"), "is_causal", True) if causal is None else causal
    causal = bool(causal) and not (isinstance(mask, Tensor) and mask.dim() == 4)
    reason = call.reason
    if window is not None:
        reason = f"a window of {window} tokens limits it"
    elif causal and call.query.shape[2] != call.key.shape[2]:
        reason = "a causal mask for queries and keys of different number"
    return replace(call, causal=causal, reason=reason)


def memory_efficient(
    door: str,
    result: Any,
    *,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_bias: Any = None,
    p: float = 0.0,
    scale: float | None = None,
    **_: Any,
) -> AttentionCall | None:
    """`xformers.ops.memory_efficient_attention`: (batch, token, head, head_dim), or (batch · head, token, head_dim)."""
    if query.dim() not in (3, 4):
        return None
    tensors = tuple(t.transpose(1, 2) if t.dim() == 4 else t for t in (query, key, value, result))
    causal = type(attn_bias).__name__ == "LowerTriangularMask"
    mask = attn_bias if isinstance(attn_bias, Tensor) else None
    unknown = attn_bias is not None and mask is None and not causal
    reason = f"its mask is a {type(attn_bias).__name__}" if unknown else ""
    return replace(_call(door, tensors, mask=mask, scale=scale), causal=causal, dropout=float(p), reason=reason)


def scores(
    _: str, result: Tensor, *, self: Any, query: Tensor, key: Tensor, attention_mask: Tensor | None = None
) -> Scores:
    """`Attention.get_attention_scores` of diffusers."""
    return Scores(max(int(self.heads), 1), query, key, attention_mask, float(self.scale), result)


def join_scores(pieces: Sequence[Scores]) -> AttentionCall:
    """Scores of consecutive rows of (batch · head) as one call of all heads."""
    heads, scale = pieces[0].heads, pieces[0].scale

    def join(tensors: list[Tensor]) -> Tensor:
        whole = tensors[0] if len(tensors) == 1 else torch.cat([tensor.detach() for tensor in tensors])
        return whole.reshape(-1, heads, *whole.shape[1:])

    query, key = join([piece.query for piece in pieces]), join([piece.key for piece in pieces])
    masks = [piece.mask for piece in pieces if piece.mask is not None]
    mask, shares = join(masks) if masks else None, join([piece.shares for piece in pieces])
    foreign = pieces[0].foreign
    return AttentionCall("get_attention_scores", query, key, scale, mask=mask, shares=shares, foreign=foreign)


def _call(door: str, tensors: Sequence[Tensor], *, mask: Tensor | None, scale: float | None) -> AttentionCall:
    """A call from query, key, value and result, (…, head, token, dim) or without heads."""
    query, key, value, attended = map(_by_head, tensors)
    if mask is not None:
        if tensors[0].dim() == 3 and mask.dim() == 3:
            mask = mask.unsqueeze(1)  # there is no dimension of heads
        elif mask.dim() > 4:
            mask = mask.expand(*tensors[0].shape[:-3], *mask.shape[-3:]).reshape(-1, *mask.shape[-3:])
        mask = _narrow(mask, key.shape[2])
    scale = query.shape[-1] ** -0.5 if scale is None else float(scale)
    return AttentionCall(door, query, key, scale, value, attended, mask)


def _by_head(tensor: Tensor) -> Tensor:
    """(batch, head, token, dim): one head where there are none, one dimension where the batch has several."""
    if tensor.dim() < 4:
        tensor = tensor.unsqueeze(-3)
    return tensor.reshape(-1, *tensor.shape[-3:])


def _narrow(mask: Tensor, keys: int) -> Tensor:
    """A mask in four dimensions, cut to one entry along those where it was only repeated."""
    mask = mask[(None,) * (4 - mask.dim())]
    if mask.shape[-1] > keys:  # as eager attention does
        mask = mask[..., :keys]
    for axis in range(4):
        if mask.shape[axis] > 1 and mask.stride(axis) == 0:
            mask = mask.narrow(axis, 0, 1)
    return mask
