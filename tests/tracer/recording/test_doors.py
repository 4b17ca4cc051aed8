"""The doors of attention: which calls are told, how often, and what stays behind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
import torch
from diffusers.models import attention_dispatch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from transformers.modeling_utils import AttentionInterface

from diffusion_xray.tracer.recording.attention_calls import AttentionCall, Scores, join_scores
from diffusion_xray.tracer.recording.doors import open_doors
from diffusion_xray.tracer.recording.patches import as_it_was

Told = AttentionCall | Scores


@contextmanager
def listening(*modules: nn.Module) -> Iterator[list[Any]]:
    """What the doors tell."""
    told: list[Told] = []
    undo = open_doors(modules, told.append)
    try:
        yield told
    finally:
        undo()


def tensors(*shape: int, count: int = 3) -> Any:
    """Random ones, always the same."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator) for _ in range(count)]


def attention(query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None = None) -> Tensor:
    """The textbook's, of (batch, head, token, dim)."""
    scores = query @ key.transpose(-1, -2) * scale
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1) @ value


def expected(call: AttentionCall) -> Tensor:
    """What the kernel must have returned."""
    assert call.value is not None
    groups = call.query.shape[1] // call.key.shape[1]
    key, value = (tensor.repeat_interleave(groups, 1) for tensor in (call.key, call.value))
    mask = call.mask
    if call.causal:
        mask = torch.ones(call.query.shape[2], key.shape[2], dtype=torch.bool).tril()
    return attention(call.query, key, value, call.scale, mask)


@pytest.fixture
def module() -> Iterator[ModuleType]:
    """A Python module that is loaded."""
    loaded = ModuleType("attention_of_my_own")
    sys.modules[loaded.__name__] = loaded
    yield loaded
    del sys.modules[loaded.__name__]


KERNEL_CALLS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "plain": lambda q, k, v: F.scaled_dot_product_attention(q, k, value=v),
    "scaled": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.7),
    "causal": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, None, 0.0, True),
    "masked": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, torch.arange(25).view(5, 5) % 3 > 0),
    "biased": lambda q, k, v: F.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=torch.eye(5)[None]),
    "grouped": lambda q, k, v: F.scaled_dot_product_attention(q, k[:, :2], v[:, :2], enable_gqa=True),
    "without heads": lambda q, k, v: F.scaled_dot_product_attention(
        q[:, 0], k[:, 0], v[:, 0], attn_mask=torch.randn(2, 5, 5)
    ),
    "five dimensions": lambda q, k, v: F.scaled_dot_product_attention(
        q[None], k[None], v[None], attn_mask=torch.randn(1, 1, 1, 5, 5)
    ),
}


@pytest.mark.parametrize("name", KERNEL_CALLS)
def test_the_kernel_is_told_as_it_was_called(name: str) -> None:
    """Scale, causal flag, masks, grouped heads and any number of dimensions are read from every way of calling."""
    arguments = tensors(2, 4, 5, 8)
    plain = KERNEL_CALLS[name](*arguments) if "out" not in name and "five" not in name else None
    with listening() as told:
        result = KERNEL_CALLS[name](*arguments)
    if plain is not None:
        assert torch.equal(plain, result)
    (call,) = told
    assert call.door == "scaled_dot_product_attention"
    assert call.query.dim() == call.key.dim() == 4
    torch.testing.assert_close(expected(call), call.attended)
    assert torch.equal(call.attended.reshape(result.shape), result)


def test_repeated_masks_are_cut() -> None:
    """What a mask merely repeats, over heads or samples, is told once."""
    query, key, value = tensors(2, 4, 5, 8)
    mask = torch.randn(2, 1, 1, 5).expand(2, 4, 5, 5)
    with listening() as told:
        F.scaled_dot_product_attention(query, key, value, mask)
    assert told[0].mask.shape == (2, 1, 1, 5)
    torch.testing.assert_close(expected(told[0]), told[0].attended)


def test_other_names_are_found_and_given_back(module: ModuleType) -> None:
    """A loaded module that imported the kernel under any name is listened at, and has the same object afterwards."""
    kernel = F.scaled_dot_product_attention
    vars(module).update(sdpa=kernel, other=len)
    arguments = tensors(1, 2, 3, 4)
    with listening() as told, listening() as again:
        module.sdpa(*arguments)
        assert module.other is len
    assert len(told) == len(again) == 1
    assert module.sdpa is kernel is F.scaled_dot_product_attention


def test_an_import_while_listening_leaves_nothing(module: ModuleType) -> None:
    """Whoever imports the kernel by name in the meantime is told of, and ends with the kernel itself."""
    kernel = F.scaled_dot_product_attention
    with listening() as told:
        with listening():
            vars(module)["sdpa"] = F.scaled_dot_product_attention
        module.sdpa(*tensors(1, 2, 3, 4))
        vars(module)["late"] = F.scaled_dot_product_attention
    assert module.sdpa is module.late is kernel
    assert told == []


def test_doors_close_in_any_order() -> None:
    """Each of several listeners hears until it stops, and the last one leaves the kernel itself."""
    kernel, arguments = F.scaled_dot_product_attention, tensors(1, 2, 3, 4)
    heard: list[list[Told]] = [[], [], []]
    undo = [open_doors((), listener.append) for listener in heard]
    for last in (1, 0, 2):
        F.scaled_dot_product_attention(*arguments)
        undo[last]()
    F.scaled_dot_product_attention(*arguments)
    assert [len(listener) for listener in heard] == [2, 1, 3]
    assert F.scaled_dot_product_attention is kernel


def test_a_replacement_that_escaped_is_silent() -> None:
    """A function kept from the time of listening still works and tells nothing more."""
    with listening() as told:
        escaped = F.scaled_dot_product_attention
    arguments = tensors(1, 2, 3, 4)
    assert torch.equal(escaped(*arguments), F.scaled_dot_product_attention(*arguments))
    assert told == []


def test_an_error_of_the_kernel_passes() -> None:
    """What the kernel raises comes through as it is, and nothing is told."""
    query, key, value = tensors(1, 2, 3, 4)
    with listening() as told, pytest.raises(RuntimeError, match=r"size|shape|match"):
        F.scaled_dot_product_attention(query, key[..., :3], value)
    assert told == []


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> AttentionBackendName:
    """A backend of diffusers that calls no other kernel, as flash attention does."""
    name = AttentionBackendName.FLASH

    def flash(
        query: Tensor, key: Tensor, value: Tensor, scale: float | None = None, window_size: tuple[int, int] = (-1, -1)
    ) -> Tensor:
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        return attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), scale).transpose(1, 2)

    monkeypatch.setitem(_AttentionBackendRegistry._backends, name, flash)
    monkeypatch.setitem(_AttentionBackendRegistry._supported_arg_names, name, {"query", "key", "value", "scale"})
    return name


def test_backends_of_diffusers_are_told_once(backend: AttentionBackendName) -> None:
    """A native backend is told by the kernel it calls, a foreign one itself, with its own order of dimensions."""
    query, key, value = tensors(2, 5, 4, 8)  # batch, token, head, dim
    native = _AttentionBackendRegistry._backends[AttentionBackendName.NATIVE]
    with listening() as told:
        ours = attention_dispatch.dispatch_attention_fn(query, key, value, backend=AttentionBackendName.NATIVE)
        theirs = attention_dispatch.dispatch_attention_fn(query, key, value, scale=0.25, backend=backend)
    assert [call.door for call in told] == ["scaled_dot_product_attention", "flash"]
    for call, result in zip(told, (ours, theirs), strict=True):
        assert call.query.shape == (2, 4, 5, 8)
        torch.testing.assert_close(expected(call), result.transpose(1, 2))
    assert told[1].scale == 0.25
    assert _AttentionBackendRegistry._backends[AttentionBackendName.NATIVE] is native


def test_what_gives_no_map_has_a_reason(backend: AttentionBackendName) -> None:
    """A window, or a mask that is no tensor, is told with the reason why the map cannot be had."""
    query, key, value = tensors(2, 5, 4, 8)
    flash = AttentionInterface._global_mapping
    before = dict(flash)
    flash["mine"] = lambda module, query, key, value, attention_mask, **_: (
        attention(query, key, value, 1.0).transpose(1, 2),
        None,
    )
    try:
        with listening() as told:
            _AttentionBackendRegistry._backends[backend](query, key, value, window_size=(3, 3))
            heads = (query, key, value)
            flash["mine"](None, *heads, attention_mask=None, scaling=1.0, sliding_window=4)
            flash["mine"](None, *heads, attention_mask=object(), scaling=1.0)
            flash["mine"](None, *heads, attention_mask=None, scaling=1.0, softcap=30.0)
            flash["mine"](None, *heads, attention_mask=None, scaling=1.0, is_causal=False)
    finally:
        del flash["mine"]
    assert flash == before
    reasons = [call.reason for call in told]
    assert [bool(reason) for reason in reasons] == [True, True, True, True, False]
    assert ["window" in reasons[0], "window" in reasons[1], "object" in reasons[2], "softcap" in reasons[3]] == [
        True
    ] * 4
    torch.testing.assert_close(expected(told[4]), told[4].attended)


def test_xformers_is_a_door(monkeypatch: pytest.MonkeyPatch) -> None:
    """`memory_efficient_attention` is told with tokens before heads, or with heads in the batch."""

    def memory_efficient_attention(query: Tensor, key: Tensor, value: Tensor, attn_bias: Any = None) -> Tensor:
        tokens_first = query.dim() == 4
        heads = [t.transpose(1, 2) if tokens_first else t for t in (query, key, value)]
        result = attention(heads[0], heads[1], heads[2], query.shape[-1] ** -0.5, attn_bias)
        return result.transpose(1, 2) if tokens_first else result

    xformers = ModuleType("xformers.ops")
    vars(xformers)["memory_efficient_attention"] = memory_efficient_attention
    monkeypatch.setitem(sys.modules, "xformers.ops", xformers)
    query, key, value = tensors(2, 5, 4, 8)
    with listening() as told:
        xformers.memory_efficient_attention(query, key, value)
        xformers.memory_efficient_attention(query[:, 0], key[:, 0], value[:, 0], attn_bias=torch.randn(2, 4, 4))
    assert [call.door for call in told] == ["memory_efficient_attention"] * 2
    assert [tuple(call.query.shape) for call in told] == [(2, 4, 5, 8), (2, 1, 4, 8)]
    for call in told:
        torch.testing.assert_close(expected(call), call.attended)
    assert xformers.memory_efficient_attention is memory_efficient_attention


def test_slices_of_scores_are_joined() -> None:
    """Rows of (batch · head), taken in pieces, become one call again."""
    query, key = tensors(6, 5, 8, count=2)
    shares = torch.rand(6, 5, 5)
    pieces = [Scores(3, query[i : i + 2], key[i : i + 2], None, 0.5, shares[i : i + 2]) for i in range(0, 6, 2)]
    call = join_scores(pieces)
    assert torch.equal(call.query, query.view(2, 3, 5, 8))
    assert torch.equal(call.key, key.view(2, 3, 5, 8))
    assert call.shares is not None and torch.equal(call.shares, shares.view(2, 3, 5, 5))
    assert (call.scale, call.mask) == (0.5, None)


class Identity(TorchFunctionMode):
    """Gives the value back in place of attention, as guidance by perturbed attention does."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Known by its public name."""
        return args[2] if func is F.scaled_dot_product_attention else func(*args, **kwargs or {})


def test_who_intercepts_the_kernel_knows_it(module: ModuleType) -> None:
    """A mode of torch that compares functions with the kernel finds it, under all its names, and is named."""
    kernel = vars(module)["sdpa"] = F.scaled_dot_product_attention
    query, key, value = tensors(1, 2, 3, 4)
    with listening() as told, listening() as again, Identity():
        assert torch.equal(module.sdpa(query, key, value), value)
        assert torch.equal(F.scaled_dot_product_attention(query, key, value), value)
    assert [call.foreign.rpartition(".")[2] for call in (*told, *again)] == ["Identity"] * 4
    assert module.sdpa is kernel is F.scaled_dot_product_attention


def test_names_set_aside_come_back_as_they_should(module: ModuleType) -> None:
    """Who begins or ends to listen while the kernel's names are set aside hears, or leaves, what is right."""
    kernel = vars(module)["sdpa"] = F.scaled_dot_product_attention
    heard: list[list[Told]] = [[], []]
    undo = open_doors((), heard[0].append)
    names: list[tuple[dict[Any, Any], Any]] = [(vars(nn.functional), "scaled_dot_product_attention")]
    with as_it_was(names, kernel):
        assert F.scaled_dot_product_attention is kernel
        late = open_doors((), heard[1].append)
        with as_it_was(names, kernel):
            undo()
        assert F.scaled_dot_product_attention is kernel
    F.scaled_dot_product_attention(*tensors(1, 2, 3, 4))
    late()
    assert [len(calls) for calls in heard] == [0, 1]
    assert module.sdpa is kernel is F.scaled_dot_product_attention
