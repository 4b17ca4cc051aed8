"""Tap on attention: what every kernel was given, under the module that called it."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..capture import is_attention
from ..layout import array_name
from ..recording.attention_calls import AttentionCall, Scores
from ..recording.door_gate import DoorGate
from ..recording.doors import open_doors
from ..recording.edits import rows_of
from ..recording.sequence import Part, sequence_parts
from ..recording.sites import Source
from ..recording.target import Target
from .descriptions import Descriptions
from .frames import Frame, Frames
from .protocol import Emit, Undo
from .usage import Usages

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
        gate = DoorGate()
        listener = _Listener(target, emit, gate)
        emit.when_moved(listener.moved)
        with ExitStack() as undo:
            undo.callback(emit.guard(listener.usages.finish))  # last of all, when the run is over
            undo.callback(emit.follow(listener.attach))
            undo.callback(open_doors(emit.roster.modules.values(), emit.guard(listener.told), gate))
            return undo.pop_all().close


@functools.lru_cache(maxsize=1)
def _around(wanted: frozenset[str]) -> frozenset[str]:
    """Names of the wanted modules and of all that enclose them."""
    return frozenset(
        ".".join(parts[:end]) for name in wanted for parts in [name.split(".")] for end in range(1, len(parts) + 1)
    )


def _watch_projections(name: str, module: nn.Module, listener: _Listener, emit: Emit) -> Undo:
    """Follow value and result of processors that multiply them outside of `get_attention_scores`."""
    value, out = getattr(module, "to_v", None), getattr(module, "to_out", None)
    out = out[0] if isinstance(out, nn.ModuleList) and len(out) else out
    if not (
        hasattr(type(module), "get_attention_scores") and isinstance(value, nn.Module) and isinstance(out, nn.Module)
    ):
        return lambda: None
    with ExitStack() as undo:
        undo.callback(emit.watch(value, after=functools.partial(listener.projected, name)))
        undo.callback(emit.watch(out, before=functools.partial(listener.merged, name)))
        return undo.pop_all().close


class _Listener:
    """Turns what the doors tell into tensors and descriptions of the trace."""

    def __init__(self, target: Target, emit: Emit, gate: DoorGate) -> None:
        self.frames = Frames(gate)
        self._emit = emit
        self._capture = emit.selection.capture
        self._described: dict[str, Descriptions] = {}
        self.usages = Usages(lambda name, place, facts: self._of(name).used(emit, place, facts))
        self._lock = threading.RLock()
        parts = getattr(target.pipeline, "components", target.components)
        self._prompted = bool(target.tokenizers) or any("token" in name or "text_enc" in name for name in parts)

    def attach(self, name: str, module: nn.Module) -> Undo | None:
        """Follow a module that attends, or encloses one that does; layers that hold no other are left out."""
        wanted = self._emit.selection.attention
        if name not in _around(wanted) or ("." in name and next(module.children(), None) is None):
            return None
        with ExitStack() as undo:
            undo.callback(self.frames.attach(name, module, finished=self.finished, emit=self._emit))
            if name in wanted:
                undo.callback(_watch_projections(name, module, self, self._emit))
            return undo.pop_all().close

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
                rows = rows_of(told.query.shape[1], self._emit.clock.step_now() or 0)
                shares = told.shares.detach()[:, rows].clone()  # as they are now: their caller may edit them in place
                call = frame.add_scores(replace(told, shares=shares))
                if call is not None:
                    frame.scored.append((self._record(name, frame, call), call))

    def moved(self, component: str, into_loop: bool) -> None:  # noqa: FBT001 — as it is called
        """What a component did belongs into the loop, or out of it."""
        step = self._emit.clock.last_step if into_loop else None
        for name, known in self._described.items():
            if name.split(".", 1)[0] == component:
                known.move(self._emit, step)

    def projected(self, name: str, _: tuple[Any, ...], __: dict[str, Any], output: Any) -> None:
        """The value projection of a module returned."""
        frame = self.frames.of(name)
        if frame is not None and isinstance(output, Tensor):
            frame.values.append(output)

    def merged(self, name: str, args: tuple[Any, ...], _: dict[str, Any]) -> None:
        """The output projection of a module is called, with what all of its attention calls made together."""
        frame = self.frames.of(name)
        if frame is None or not frame.scored or not args:
            return
        frame.merged = True
        number, call = frame.scored[0]
        product = _product(frame, call, args[0])
        if len(frame.scored) > 1:
            self._cannot_tell(frame, "it adds up the results of several calls")
        elif product is None:
            self._cannot_tell(frame, "its values and result could not be followed")
        else:
            self._compare(name, number, call, product)

    def _compare(self, name: str, number: int, call: AttentionCall, product: tuple[Tensor, Tensor]) -> None:
        """Values and result of a call that handed its shares out are known: were those used?"""
        step, known, heads = self._emit.clock.step_now(), self._described[name], self._heads(call)
        with self._lock:
            if call.shares is not None and not call.foreign and heads != []:
                shown = replace(call, shares=_select(call.shares, call, heads))
                chosen = (_select(tensor, call, heads) for tensor in product)
                self.usages.compare(name, (step is not None, number), step, shown, *chosen)
            if self._capture.attention_output:
                further = dict(zip(("value", "attended"), product, strict=True))
                self._emit_further(known, number, call, further, keep=heads != [])

    def finished(self, frame: Frame) -> None:
        """A module returned: one that looks like attention and passed no door is said to have no map."""
        with self._lock:
            for call in frame.remaining_scores():
                frame.scored.append((self._record(frame.name, frame, call), call))
                frame.merged = False  # what was merged was not known to hold these
            if frame.scored and not frame.merged:
                self._cannot_tell(frame, "its values and result could not be followed")
            name, module = frame.name, frame.module
            if frame.called or name not in self._emit.selection.attention or not is_attention(module):
                return
            kind = type(getattr(module, "processor", module)).__name__
            reason = f"{kind} called none of the known functions of softmax attention"
            in_loop = self._emit.clock.step_now() is not None
            self._of(name).without_map(self._emit, in_loop=in_loop, reason=reason)

    def _cannot_tell(self, frame: Frame, reason: str) -> None:
        """What became of the shares that this call of a module was handed is not known."""
        stepped = self._emit.clock.step_now() is not None
        with self._lock:
            for number, _ in frame.scored:
                self.usages.cannot_tell(frame.name, (stepped, number), reason)

    def _record(self, name: str, frame: Frame, call: AttentionCall) -> int:
        """Emit a call's tensors, and its description where it is a new one; returns its number within the step."""
        known, step, heads = self._of(name), self._emit.clock.step_now(), self._heads(call)
        number = known.number(step)
        first = not known.knows((step is not None, number))
        described = heads != [] and known.describe(
            self._emit,
            (step is not None, number),
            call,
            step=step,
            heads=heads,
            situation=(self._emit.clock.planned, call.query.shape, call.key.shape, *self.frames.shapes()),
            parts=functools.partial(self._parts, frame.calls, call),
        )
        if heads != [] and not described:
            self._emit.gap(name, "attention that changes more often than can be described: statistics only")
        keep = described and not call.reason
        frame.calls += 1
        self.usages.called(name, (step is not None, number), step, call, first=first)
        self._emit(known.source, _select(call.query, call, heads), port="query", keep=keep, dims=_DIMS["query"])
        self._emit(known.source, _select(call.key, call, heads), port="key", keep=keep, dims=_DIMS["key"])
        further = {"mask": call.mask}
        if self._capture.attention_output and not call.dropout:
            further |= {"value": call.value, "attended": call.attended}
        self._emit_further(known, number, call, further, keep=keep)
        return number

    def _emit_further(
        self, known: Descriptions, number: int, call: AttentionCall, tensors: Mapping[str, Tensor | None], *, keep: bool
    ) -> None:
        """Emit tensors that not every call has; so the number is in the port."""
        heads = self._heads(call)
        for port, tensor in tensors.items():
            if tensor is not None:
                chosen, name = _select(tensor, call, heads), array_name(port, number)
                self._emit(known.source, chosen, port=name, keep=keep, dims=_DIMS[port])

    def _heads(self, call: AttentionCall) -> list[int] | None:
        wanted = self._capture.attention_heads
        return None if wanted is None else [head for head in wanted if head < call.query.shape[1]]

    def _parts(self, nth: int, call: AttentionCall) -> tuple[list[Part], list[Part]]:
        batch, _, queries, _ = call.query.shape
        return sequence_parts(
            self.frames.received(),
            batch=batch,
            queries=queries,
            keys=call.key.shape[2],
            nth=nth,
            prompted=self._prompted,
        )

    def _of(self, name: str) -> Descriptions:
        known = self._described.get(name)
        if known is None:
            module = self._emit.roster.modules[name]
            leaf = next(module.children(), None) is None
            known = self._described[name] = Descriptions(Source(name, type(module).__name__, leaf=leaf))
        return known


def _select(tensor: Tensor, call: AttentionCall, heads: list[int] | None) -> Tensor:
    """The wanted heads of a tensor; where heads are grouped or one serves all, that which each of them uses."""
    if not heads or tensor.shape[1] == 1:
        return tensor
    group = call.query.shape[1] // tensor.shape[1]
    index = torch.tensor([head // group for head in heads], device=tensor.device)
    return tensor.detach().index_select(1, index)


def _product(frame: Frame, call: AttentionCall, merged: Any) -> tuple[Tensor, Tensor] | None:
    """Values and result of the one call that a module made, by heads; None where they are of other shapes."""
    value = _by_heads(frame.values[0], call) if len(frame.values) == 1 else None
    attended = _by_heads(merged, call)
    if value is None or attended is None or len(value) != len(call.key) or len(attended) != len(call.query):
        return None
    fit = value.shape[2] == call.key.shape[2] and attended.shape[2] == call.query.shape[2]
    return (value, attended) if fit and value.shape[3] == attended.shape[3] else None


def _by_heads(tensor: Any, call: AttentionCall) -> Tensor | None:
    """(batch, token, head · dim) as (batch, head, token, dim)."""
    heads = call.query.shape[1]
    if not isinstance(tensor, Tensor) or tensor.dim() != 3 or tensor.shape[-1] % heads:
        return None
    return tensor.view(*tensor.shape[:2], heads, -1).transpose(1, 2)
