"""What a trace says of itself: how the run went, what it was of, what is missing."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

from .prompts import Prompt
from .trace import Trace

__all__ = ["describe", "describe_in_lines"]


def describe(trace: Trace) -> dict[str, Any]:
    """What a trace holds, for programs: everything in it can be written as JSON."""
    info = dataclasses.asdict(trace.info)
    return {
        "path": str(trace.path),
        **info,
        "steps": len(trace),
        "modules": len(trace.modules),
        "modules_with_tensors": sum(module.stored for module in trace.modules.values()),
        "attention": Counter(call.kind for calls in trace.attention_modules.values() for call in calls),
        "bytes": trace.nbytes,
        "prompts": [
            {"encoder": prompt.encoder, "call": prompt.call, "text": list(prompt.text), "cut": list(prompt.cut)}
            for prompt in trace.prompts
        ],
        "first_fault": _fault_facts(trace),
    }


def describe_in_lines(trace: Trace) -> list[tuple[str, str]]:
    """The same for people: a word and what there is to say of it; not yet safe for a terminal, see `printable`."""
    info, known = trace.info, describe(trace)
    lines = [
        ("trace", f"{trace.path}  {_megabytes(known['bytes'])}format {info.format_version}"),
        ("status", info.status + (f", {info.seconds:.1f} s" if info.seconds is not None else "")),
        ("pipeline", info.pipeline or "modules"),
        *((f"  {name}", kind) for name, kind in info.components.items()),
        ("steps", f"{len(trace)}" + (f" of {info.planned_steps}" if info.planned_steps > len(trace) else "")),
        ("modules", f"{known['modules']} fired, tensors of {known['modules_with_tensors']} stored"),
        (
            "attention",
            ", ".join(
                f"{count} {'without a map' if kind == 'none' else kind}" for kind, count in known["attention"].items()
            ),
        ),
        ("call", ", ".join(f"{name}={value!r}" for name, value in info.call.items())),
        *(("prompt", f"{prompt.encoder}: {' | '.join(prompt.text)!r}{_cut(prompt)}") for prompt in trace.prompts),
        *(("guidance", f"{name}: {_guidance(layout)}") for name, layout in info.guidance.items()),
        ("preview", _preview(info.preview)),
        *(("gap", _gap(gap)) for gap in info.gaps),
        *(("tap failed", f"{entry.get('tap')}: {entry.get('error')}") for entry in info.tap_failures),
        ("error", _error(info.error)),
        ("first fault", _fault(known["first_fault"])),
        ("versions", ", ".join(f"{name} {version}" for name, version in info.versions.items())),
    ]
    return [(label, text) for label, text in lines if text]


def _fault_facts(trace: Trace) -> dict[str, Any] | None:
    fault = trace.first_fault()
    return None if fault is None else {"site": fault[0].key, "step": fault[1]}


def _gap(gap: Mapping[str, Any]) -> str:
    step = "" if gap.get("step") is None else f"step {gap['step']}"
    where = " ".join(part for part in (str(gap.get("site", "")), step) if part)
    return f"{where}: {gap.get('reason')}" if where else str(gap.get("reason"))


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.1f} MB, "


def _cut(prompt: Prompt) -> str:
    cut = " | ".join(rest for rest in prompt.cut if rest)
    return f", cut off: {cut!r}" if cut else ""


_PROOF = {
    "embeddings": "told by the text embeddings",
    "arguments": "told by the embeddings given",
    "output": "told by the result of guidance",
    "context": "as the pipeline names them",
    "": "which is which is not known",
}


def _guidance(layout: Any) -> str:
    known = layout if isinstance(layout, dict) else {}
    kinds = [(kind, branches) for kind, branches in known.items() if isinstance(branches, list)]
    told = "; ".join(f"{' | '.join(map(str, branches))} ({kind})" for kind, branches in kinds)
    proof = _PROOF.get(str(known["evidence"]), "") if "evidence" in known else ""
    return f"{told}, {proof}" if proof else told


def _preview(preview: Any) -> str:
    r2 = preview.get("r2")
    return str(preview.get("method", "")) + (f", R² {r2:.3f}" if isinstance(r2, float) else "")


def _error(error: Any) -> str:
    if not error:
        return ""
    where = f" in {error['module']}" if error.get("module") else ""
    step = f" at step {error['step']}" if error.get("step") is not None else ""
    return f"{error.get('type')}: {error.get('message')}{where}{step}"


def _fault(fault: dict[str, Any] | None) -> str:
    if fault is None:
        return "none, every value is finite"
    return f"{fault['site']}" + (f" at step {fault['step']}" if fault["step"] is not None else "")
