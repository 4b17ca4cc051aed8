"""Traces with attention in them: of the embedded model, and made to measure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffusion_xray.pipelines.shapes.load import load_pipeline
from diffusion_xray.tracer import Trace, Tracer
from diffusion_xray.tracer.layout import array_name
from diffusion_xray.tracer.recording.sites import Source
from diffusion_xray.tracer.recording.target import Target
from diffusion_xray.tracer.taps import Emit, Undo

__all__ = ["CROSS", "PROMPT", "SELF", "Call", "made_trace", "record_embedded"]

PROMPT = "a red circle left of a blue square on white"
CROSS = "unet.mid_block.attentions.0.transformer_blocks.0.attn2"
SELF = "unet.mid_block.attentions.0.transformer_blocks.0.attn1"


def record_embedded(path: Path, *, prompt: str | list[str] = PROMPT, steps: int = 3, **options: Any) -> Trace:
    """A trace of the embedded model with every attention call in it."""
    pipe = load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    with Tracer(pipe, path, capture="attention") as tracer:
        pipe(prompt, num_inference_steps=steps, generator=torch.Generator().manual_seed(0), **options)
    return tracer.trace


class Call:
    """One attention call of a made trace: what the kernel was given, and what is said of it."""

    def __init__(
        self,
        module: str,
        query: NDArray[Any],
        key: NDArray[Any],
        query_parts: Sequence[tuple[str, Sequence[int]]],
        key_parts: Sequence[tuple[str, Sequence[int]]],
        mask: NDArray[Any] | Sequence[NDArray[Any] | None] | None = None,
        lost_masks: Sequence[int] = (),
        **entry: Any,
    ) -> None:
        """Queries, keys and masks of each step, shape (step, batch, head, position, head_dim); of one step without it.

        A mask may be None at a step that has none; `lost_masks` are steps at which it is not stored. `entry` replaces
        what the group's attributes say; call counts from 0 for each module.
        """
        self.module, self.query, self.key, self.mask, self.lost_masks = module, query, key, mask, lost_masks
        self.entry = {"door": "made", "scale": 0.5, "causal": False, "softmax": True, "heads": None}
        self.entry |= {"query_parts": _listed(query_parts), "key_parts": _listed(key_parts), **entry}


def made_trace(
    path: Path,
    calls: Sequence[Call],
    *,
    prompts: Sequence[tuple[str, str, Sequence[Sequence[str]]]] = (),
    arguments: Mapping[str, Any] | None = None,
    guidance: Mapping[str, Any] | None = None,
    captured: Sequence[int] | None = None,
    branches: Sequence[str] = (),
) -> Trace:
    """A trace with these attention calls; their modules are below "made".

    Args:
        path: Where it goes.
        calls: In call order within a step.
        prompts: Encoder, text and rows of tokens of each call of an encoder.
        arguments: Those of the pipeline's call.
        guidance: As in `TraceInfo`.
        captured: Steps with tensors; all by default.
        branches: Guidance branch of each call.
    """
    steps = next((len(call.query) for call in calls if call.query.ndim == 5), 0)
    tap = _MadeTap(calls, branches)
    with Tracer(torch.nn.Identity(), path, taps=[tap]) as tracer:
        tap.describe(prompts, {"call": dict(arguments or {}), "guidance": dict(guidance or {})})
        for step in range(steps):
            tracer.step(step, timestep=1000 - step)
            tap.emit_step(step, keep=captured is None or step in captured)
        tracer.step(None)
        tap.emit_step(None, keep=True)
    return tracer.trace


class _MadeTap:
    """Emits calls that never were."""

    def __init__(self, calls: Sequence[Call], branches: Sequence[str]) -> None:
        self._calls = calls
        self._branches = [*branches, *[""] * len(calls)]

    def attach(self, target: Target, emit: Emit) -> Undo:
        """Keep the emitter."""
        self._emit = emit
        return lambda: None

    def describe(self, prompts: Sequence[tuple[str, str, Sequence[Sequence[str]]]], head: Mapping[str, Any]) -> None:
        """Say what there is."""
        self._emit.describe(head)
        encoders: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for encoder, text, rows in prompts:
            texts = [text] * len(rows)
            encoders[encoder].append({"call": len(encoders[encoder]), "suffix": "", "text": texts, "tokens": rows})
        for encoder, entries in encoders.items():
            self._emit.describe({"calls": entries}, group=f"prompts/{encoder}")
        modules: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for call in self._calls:
            modules[call.module].append({"call": len(modules[call.module]), **call.entry})
        for module, listed in modules.items():
            self._emit.describe({"attention": listed}, group=Source(module).group)

    def emit_step(self, step: int | None, *, keep: bool) -> None:
        """Emit what is of one step, or of none."""
        for place, (call, branch) in enumerate(zip(self._calls, self._branches, strict=False)):
            self._emit.clock.branch = branch
            if (call.query.ndim == 5) != (step is not None):
                continue
            number = sum(other.module == call.module for other in self._calls[:place])
            mask = array_name("mask", number)  # not every call has one, so its number is in the name of the port
            for port, array in (("query", call.query), ("key", call.key), (mask, call.mask)):
                if array is not None and (step is None or array[step] is not None):
                    tensor = torch.from_numpy(np.ascontiguousarray(array if step is None else array[step]))
                    dims = ("batch", "head", *(("query", "key") if port == mask else (port, "head_dim")))
                    lost = port == mask and step in call.lost_masks
                    self._emit(Source(call.module, "Attention"), tensor, port=port, keep=keep and not lost, dims=dims)


def _listed(parts: Sequence[tuple[str, Sequence[int]]]) -> list[dict[str, Any]]:
    starts = [0]
    for _, shape in parts:
        starts.append(starts[-1] + int(np.prod(shape)))
    return [
        {"kind": kind, "start": start, "shape": list(shape)}
        for (kind, shape), start in zip(parts, starts, strict=False)
    ]
