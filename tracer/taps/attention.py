"""Tap on attention: what every kernel was given, under the module that called it."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..attention_calls import AttentionCall, Scores
from ..capture import is_attention
from ..doors import open_doors
from ..layout import array_name
from ..sequence import Part, sequence_parts
from ..sites import Source
from ..target import Target
from .frames import Frame, Frames
from .protocol import Emit, Undo

__all__ = ["AttentionTap"]

_DIMS = {  # not "query" and "key": a reader takes an array with the name of its own dimension for a coordinate
    "query": ("batch", "head", "query_token", "head_dim"),
    "key": ("batch", "head", "key_token", "head_dim"),
    "mask": ("batch", "head", "query_token", "key_token"),
    "value": ("batch", "head", "key_token", "value_dim"),
    "attended": ("batch", "head", "query_token", "value_dim"),
}


class AttentionTap:
    """Records query, key and mask of the attention calls asked for, and with `attention_output` value and result."""

    def attach(self, target: Target, emit: Emit) -> Undo:
        """Replace the doors, and follow the modules around the wanted ones; nothing where none is wanted."""
        wanted = emit.selection.attention
        if not wanted:
            return lambda: None
        modules = target.modules()
        listener = _Listener(target, modules, emit)
        with ExitStack() as undo:
            undo.callback(listener.frames.follow(_around(wanted, modules), finished=listener.finished))
            if emit.selection.capture.attention_output:
                for name in wanted:
                    undo.callback(_watch_projections(name, modules[name], listener))
            undo.callback(open_doors(modules.values(), emit.guard(listener.told)))
            return undo.pop_all().close


def _around(wanted: frozenset[str], modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """The wanted modules and all that enclose them, without the layers that hold no other."""
    names = {
        ".".join(parts[:end]) for name in wanted for parts in [name.split(".")] for end in range(1, len(parts) + 1)
    }
    return {
        name: module
        for name, module in modules.items()
        if name in names
        and ("." not in name or next(module.children(), None) is not None)
        and "_orig_mod" not in module._modules  # a compiled one is only a cover
    }


def _watch_projections(name: str, module: nn.Module, listener: _Listener) -> Undo:
    """Follow value and result of processors that multiply them outside of `get_attention_scores`."""
    value, out = getattr(module, "to_v", None), getattr(module, "to_out", None)
    out = out[0] if isinstance(out, nn.ModuleList) and len(out) else out
    if not (hasattr(module, "get_attention_scores") and isinstance(value, nn.Module) and isinstance(out, nn.Module)):
        return lambda: None
    with ExitStack() as undo:
        undo.callback(value.register_forward_hook(functools.partial(listener.projected, name)).remove)
        undo.callback(out.register_forward_pre_hook(functools.partial(listener.merged, name)).remove)
        return undo.pop_all().close


@dataclass(slots=True)
class _Described:
    """What the trace says of the calls of one module."""

    source: Source
    entries: dict[tuple[bool, int], dict[str, Any]] = field(default_factory=dict)
    """By whether it was in the loop, and the number of the call."""
    counts: dict[bool, tuple[int | None, int]] = field(default_factory=dict)
    """Step and number of the calls in it so far, in and outside of the loop."""


class _Listener:
    """Turns what the doors tell into tensors and descriptions of the trace."""

    def __init__(self, target: Target, modules: Mapping[str, nn.Module], emit: Emit) -> None:
        self.frames = Frames()
        self._emit = emit
        self._capture = emit.selection.capture
        self._modules = modules
        self._described: dict[str, _Described] = {}
        self._lock = threading.RLock()
        parts = getattr(target.pipeline, "components", target.components)
        self._prompted = bool(target.tokenizers) or any("token" in name or "text_enc" in name for name in parts)

    def told(self, told: AttentionCall | Scores) -> None:
        """A kernel was called in this thread."""
        frame = self.frames.innermost
        name = self._emit.stack.innermost
        if frame is None or not f"{name}.".startswith(f"{frame.name}."):
            return  # a module of another run, or none
        self.frames.mark()
        if name.endswith(".processor"):  # processors may be modules of their own
            name = name.removesuffix(".processor")
        if name not in self._emit.selection.attention:
            return
        with self._lock:
            if isinstance(told, AttentionCall):
                self._record(name, frame, told)
            else:
                call = frame.add_scores(told)
                if call is not None:
                    frame.scored.append((self._record(name, frame, call), call))

    def projected(self, name: str, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        """The value projection of a module returned."""
        frame = self.frames.of(name)
        if frame is not None and isinstance(output, Tensor):
            frame.values.append(output)

    def merged(self, name: str, _: nn.Module, args: tuple[Any, ...]) -> None:
        """The output projection of a module is called, with what all of its attention calls made together."""
        frame = self.frames.of(name)
        if frame is None or len(frame.scored) != 1 or len(frame.values) != 1 or not args:
            return  # of several calls only their sum is to be had
        number, call = frame.scored[0]
        value, attended = (_by_heads(tensor, call) for tensor in (frame.values[0], args[0]))
        if value is not None and attended is not None and value.shape[-2] == call.key.shape[-2]:
            self._emit_output(self._described[name], number, call, value, attended)

    def finished(self, frame: Frame) -> None:
        """A module returned: one that looks like attention and passed no door is said to have no map."""
        with self._lock:
            for call in frame.remaining_scores():
                self._record(frame.name, frame, call)
            name, module = frame.name, frame.module
            if frame.called or name not in self._emit.selection.attention or not is_attention(module):
                return
            known = self._known(name)
            if not known.entries:
                processor = type(getattr(module, "processor", module)).__name__
                reason = f"{processor} called none of the known functions of softmax attention"
                self._describe(
                    known, (self._emit.clock.step_now() is not None, 0), {"softmax": False, "reason": reason}
                )

    def _record(self, name: str, frame: Frame, call: AttentionCall) -> int:
        """Emit a call's tensors and, the first time, its description; returns its number within the step."""
        known = self._known(name)
        step = self._emit.clock.step_now()
        in_loop = step is not None
        last, number = known.counts.get(in_loop, (None, 0))
        number = number if last == step else 0
        known.counts[in_loop] = (step, number + 1)
        heads = self._heads(call)
        fresh = _entry(call, heads)
        entry = known.entries.get((in_loop, number))
        if entry is None or "door" not in entry:
            entry = fresh if call.reason else fresh | self._parts(frame, call)
            self._describe(known, (in_loop, number), entry)
        frame.calls += 1
        keep = bool(entry["softmax"]) and all(entry.get(key) == fresh.get(key) for key in ("scale", "causal", "heads"))
        keep = keep and heads != []
        tensors = {"query": call.query, "key": call.key}
        grouped = call.query.shape[1] // max(call.key.shape[1], 1)
        for port, tensor in tensors.items():
            chosen = _select(tensor, heads, grouped if port == "key" else 1)
            self._emit(known.source, chosen, port=port, keep=keep, dims=_DIMS[port])
        if call.mask is not None:  # numbered here, as not every call has one
            mask = call.mask if call.mask.shape[1] == 1 else _select(call.mask, heads, 1)
            self._emit(known.source, mask, port=array_name("mask", number), keep=keep, dims=_DIMS["mask"])
        if keep and self._capture.attention_output and call.value is not None and call.attended is not None:
            self._emit_output(known, number, call, call.value, call.attended)
        return number

    def _emit_output(
        self, known: _Described, number: int, call: AttentionCall, value: Tensor, attended: Tensor
    ) -> None:
        heads = self._heads(call)
        if heads == [] or call.dropout:
            return
        grouped = call.query.shape[1] // max(value.shape[1], 1)
        for port, tensor, group in (("value", value, grouped), ("attended", attended, 1)):
            chosen = _select(tensor, heads, group)
            self._emit(known.source, chosen, port=array_name(port, number), keep=True, dims=_DIMS[port])

    def _heads(self, call: AttentionCall) -> list[int] | None:
        wanted = self._capture.attention_heads
        return None if wanted is None else [head for head in wanted if head < call.query.shape[1]]

    def _parts(self, frame: Frame, call: AttentionCall) -> dict[str, Any]:
        query, key = sequence_parts(
            self.frames.received(),
            batch=call.query.shape[0],
            queries=call.query.shape[2],
            keys=call.key.shape[2],
            nth=frame.calls,
            prompted=self._prompted,
        )
        return {"query_parts": _placed(query), "key_parts": _placed(key)}

    def _known(self, name: str) -> _Described:
        known = self._described.get(name)
        if known is None:
            module = self._modules[name]
            leaf = next(module.children(), None) is None
            known = self._described[name] = _Described(Source(name, type(module).__name__, leaf=leaf))
        return known

    def _describe(self, known: _Described, place: tuple[bool, int], entry: dict[str, Any]) -> None:
        in_loop, number = place
        known.entries[place] = {"call": number, "stepped": in_loop, **entry}
        entries = [known.entries[key] for key in sorted(known.entries)]
        self._emit.describe({"attention": entries}, group=known.source.group)


def _entry(call: AttentionCall, heads: list[int] | None) -> dict[str, Any]:
    if call.reason:
        return {"door": call.door, "softmax": False, "reason": call.reason}
    entry = {"door": call.door, "scale": call.scale, "causal": call.causal, "softmax": True, "heads": heads}
    return entry | ({"dropout": call.dropout} if call.dropout else {})


def _placed(parts: list[Part]) -> list[dict[str, Any]]:
    """Parts as JSON, each with the number of its first token."""
    starts = [sum(part.tokens for part in parts[:index]) for index in range(len(parts))]
    return [
        {"kind": part.kind, "start": start, "shape": list(part.shape)}
        for part, start in zip(parts, starts, strict=True)
    ]


def _select(tensor: Tensor, heads: list[int] | None, group: int) -> Tensor:
    """The wanted heads; of a tensor with grouped heads the one that each of them uses."""
    if not heads:
        return tensor
    index = torch.tensor([head // group for head in heads], device=tensor.device)
    return tensor.detach().index_select(1, index)


def _by_heads(tensor: Any, call: AttentionCall) -> Tensor | None:
    """(batch, token, head · dim) as (batch, head, token, dim)."""
    heads = call.query.shape[1]
    if not isinstance(tensor, Tensor) or tensor.dim() != 3 or tensor.shape[-1] % heads:
        return None
    return tensor.view(*tensor.shape[:2], heads, -1).transpose(1, 2)
