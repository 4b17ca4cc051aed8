"""What a trace says of itself: how the run went, what it was of, what is missing."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from .damage import told
from .errors import DxrayError
from .faults import born_text
from .info import LatentsChange, SchedulerInfo, TraceInfo, printable
from .process import is_gone
from .prompts import Prompt
from .trace import Trace

__all__ = ["describe", "describe_changes", "describe_in_lines", "tell_in_lines"]

T = TypeVar("T")
Lines = list[tuple[str, str]]

_MOST_CHANGES: Final = 4
_FEW_NAMES = 3
_PROOF: Final = {
    "embeddings": "told by the text embeddings",
    "arguments": "told by the embeddings given",
    "output": "told by the result of guidance",
    "context": "as the pipeline names them",
    "": "which is which is not known",
}
"""How the branches of guidance are known."""

_MOST_RUNS = 8
"""Runs of steps of one gap that a line has room for."""


class _Sections:
    """Parts of a description, each by itself: what cannot be told of one is noted, and the others are told."""

    def __init__(self, trace: Trace) -> None:
        self._where = str(trace.path)
        self.unknown: dict[str, str] = {}
        """Why a part is not known, by its name."""

    def of(self, name: str, tell: Callable[[], T], instead: T) -> T:
        """What `tell` says, or what stands for it where the trace is damaged."""
        try:
            with told(f"what is said of {name} in {self._where}"):
                return tell()
        except DxrayError as error:
            self.unknown[name] = printable(error)
            return instead

    def lines(self, label: str, tell: Callable[[], Lines]) -> Lines:
        """Lines of a part; one that says why where it cannot be told."""
        nothing: Lines = []
        found = self.of(label, tell, nothing)
        return [(label, f"unknown: {self.unknown[label]}")] if label in self.unknown else found

    def line(self, label: str, tell: Callable[[], str]) -> Lines:
        """The same of a part that is one line."""
        return self.lines(label, lambda: [(label, tell())])


def describe(trace: Trace) -> dict[str, Any]:
    """What a trace holds, for programs: everything in it can be written as JSON.

    Parts do not depend on one another: one that cannot be told is None, and `unknown` has the reason by its name.
    """
    sections = _Sections(trace)
    parts: dict[str, Callable[[], Any]] = {
        "status": lambda: _status(trace),
        "steps": lambda: trace.n_steps,
        "modules": lambda: len(trace.modules),
        "modules_with_tensors": lambda: sum(module.stored for module in trace.modules.values()),
        "attention": lambda: _attention(trace),
        "bytes": lambda: trace.nbytes,
        "prompts": lambda: [
            {"encoder": prompt.encoder, "call": prompt.call, "text": list(prompt.text), "cut": list(prompt.cut)}
            for prompt in trace.prompts
        ],
        "first_fault": lambda: _fault_facts(trace),
    }
    head = {"path": str(trace.path), **dataclasses.asdict(trace.info)}
    known = {name: sections.of(name, tell, None) for name, tell in parts.items()}
    return {**head, **known, "unknown": sections.unknown}


def describe_in_lines(trace: Trace) -> list[tuple[str, str]]:
    """The same for people: a word and what there is to say of it; not yet safe for a terminal, see `printable`.

    What cannot be told is a line "unknown" with the reason.
    """
    return tell_in_lines(trace)[0]


def tell_in_lines(trace: Trace) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """`describe_in_lines`, and why what it cannot tell is unknown, by what that is."""
    info, sections = trace.info, _Sections(trace)
    line, lines = sections.line, sections.lines
    fault = sections.of("first fault", lambda: _fault_facts(trace), None)
    if "first fault" in sections.unknown:
        faults: Lines = [("first fault", f"unknown: {sections.unknown['first fault']}")]
    else:
        faults = line("first fault", lambda: _fault(fault, modules=len(trace.modules)))
        faults += line("  born", lambda: _born(fault))
    found = [
        *line("trace", lambda: f"{trace.path}  {_megabytes(trace.nbytes)}format {info.format_version}"),
        *line("status", lambda: _status(trace) + (f", {info.seconds:.1f} s" if info.seconds is not None else "")),
        *line("pipeline", lambda: info.pipeline or "modules"),
        *((f"  {name}", _covered(kind, info.covers.get(name, ()))) for name, kind in info.components.items()),
        *((name, _scheduler(scheduler)) for name, scheduler in info.schedulers.items()),
        *line("steps", lambda: _progress(trace.n_steps, info.planned_steps)),
        *line("latents", lambda: _changed(describe_changes(info.latents_changed))),
        *line("modules", lambda: _modules(trace)),
        *line(
            "attention",
            lambda: ", ".join(
                f"{count} {'without a map' if kind == 'none' else kind}" for kind, count in _attention(trace).items()
            ),
        ),
        *lines("call", lambda: _calls(info)),
        *lines(
            "prompt",
            lambda: [("prompt", f"{p.encoder}: {' | '.join(p.text)!r}{_cut(p)}") for p in trace.prompts],
        ),
        *lines("guidance", lambda: [("guidance", f"{name}: {_guidance(own)}") for name, own in info.guidance.items()]),
        *line("preview", lambda: _preview(info.preview)),
        *line("memory", lambda: _memory(info.memory)),
        *line("compiled", lambda: _compiled(info.compiled)),
        *lines("changed", lambda: [("changed", _modules_changed(c)) for c in info.modules_changed[:_MOST_CHANGES]]),
        *lines("gap", lambda: [("gap", _gap(gap)) for gap in info.gaps]),
        *(("tap failed", f"{entry.get('tap')}: {entry.get('error')}") for entry in info.tap_failures),
        *line("error", lambda: _error(info.error)),
        *faults,
        ("versions", ", ".join(f"{name} {version}" for name, version in info.versions.items())),
    ]
    return [(label, text) for label, text in found if text], sections.unknown


def _progress(steps: int, planned: int) -> str:
    return f"{steps}" + (f" of {planned}" if planned > steps else "")


def _modules(trace: Trace) -> str:
    stored = sum(module.stored for module in trace.modules.values())
    return f"{len(trace.modules)} fired, tensors of {stored} stored"


def _attention(trace: Trace) -> Counter[str]:
    return Counter(call.kind for calls in trace.attention_modules.values() for call in calls)


def _calls(info: TraceInfo) -> list[tuple[str, str]]:
    """What the pipeline was called with; of several calls what they have in common, then what is each one's own."""
    calls = info.arguments
    if len(calls) == 1:
        return [("call", _arguments(info.call))]
    differ = [key for key in dict.fromkeys(key for call in calls for key in call) if _differ(calls, key)]
    common = {key: value for key, value in info.call.items() if key not in differ}
    lines = [("calls", f"{len(calls)}" + (f", each with {_arguments(common)}" if common else ""))]
    for run, call in list(zip(info.runs, calls, strict=False))[:_MOST_CHANGES]:
        lines.append((f"  step {run.get('step')}", _arguments({key: call.get(key) for key in differ}) or "alike"))
    return lines


def _differ(calls: Sequence[Mapping[str, Any]], key: str) -> bool:
    return any(call.get(key) != calls[0].get(key) for call in calls)


def _arguments(call: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in call.items())


def _covered(kind: str, covers: Sequence[str]) -> str:
    return " in ".join([kind, *reversed(covers)])


def _scheduler(scheduler: SchedulerInfo) -> str:
    config = ", ".join(f"{name}={value}" for name, value in scheduler.config.items() if value is not None)
    return f"{scheduler.kind}: {config}" if config else scheduler.kind


def _compiled(compiled: Mapping[str, Any]) -> str:
    names, unseen = compiled.get("modules"), compiled.get("unseen")
    if not isinstance(names, list):
        return ""
    told = _some(names, compiled.get("count"))
    if compiled.get("how") == "eager":
        return f"{told} ran eagerly, so that what is within could be seen"
    count = unseen.get("count") if isinstance(unseen, Mapping) else "?"
    return f"{told} ran as compiled; {count} modules within were not seen, nor was the attention of these components"


def _some(names: Sequence[Any], count: Any) -> str:
    """Some names, and how many more there are."""
    shown = ", ".join(map(str, names[:_FEW_NAMES]))
    more = count - _FEW_NAMES if isinstance(count, int) else 0
    return f"{shown} and {more} more" if more > 0 else shown


def _changed(changes: str) -> str:
    return f"changed {changes}" if changes else ""


def describe_changes(changes: Sequence[LatentsChange]) -> str:
    """Changes of latents between two steps, "before step 2, by 2.96"; the first of many."""
    told = [f"before step {change.step}{_by(change)}" for change in changes[:_MOST_CHANGES]]
    more = [f"and {len(changes) - len(told)} times more"] if len(changes) > len(told) else []
    return "; ".join([*told, *more])


def _modules_changed(change: Mapping[str, Any]) -> str:
    """Modules that came and went, "after step 1: 24 added (unet.conv_in.lora_A, …)"; nothing where little is told."""
    told = []
    for kind, word in (("added", "added"), ("moved", "replaced"), ("removed", "removed")):
        entry = change.get(kind)
        if isinstance(entry, Mapping) and isinstance(count := entry.get("count"), int) and count:
            names = entry.get("names")
            first = f" ({names[0]}{', …' if count > 1 else ''})" if isinstance(names, list) and names else ""
            told.append(f"{count} {word}{first}")
    step = change.get("after_step")
    return (
        f"{f'after step {step}' if isinstance(step, int) else 'before the first step'}: {', '.join(told)}"
        if told
        else ""
    )


def _by(change: LatentsChange) -> str:
    which = f" (call {change.call})" if change.call else ""
    return which if math.isnan(change.max_abs) else f"{which}, by {change.max_abs:.3g}"


def _fault_facts(trace: Trace) -> dict[str, Any] | None:
    fault = trace.first_fault()
    if fault is None:
        return None
    after = None if fault.after is None else {"site": fault.after.site.key, "step": fault.after.step}
    born = {"born": str(fault.born), "born_text": born_text(fault), "last_finite_before": after}
    return {"site": fault.site.key, "step": fault.step, **born}


def _gap(gap: Mapping[str, Any]) -> str:
    count, steps = gap["count"], _steps(gap["steps"])
    tensors = "" if count == 1 or f"{count} step" in steps else f"{count} tensors"
    facts = ", ".join(part for part in (tensors, steps) if part)
    return ": ".join(part for part in (gap["site"], facts, gap["reason"]) if part)


def _steps(steps: int | list[list[int]]) -> str:
    """Steps of a gap in words: how many, and which where these are few runs."""
    if isinstance(steps, int):
        return f"{steps} steps"
    number = sum(last - first + 1 for first, last in steps)
    if number <= 1:
        return f"step {steps[0][0]}" if number else ""
    listed = ", ".join(f"{first}" if first == last else f"{first}–{last}" for first, last in steps)
    return f"{number} steps ({listed})" if len(steps) <= _MOST_RUNS else f"{number} steps"


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.1f} MB, "


def _cut(prompt: Prompt) -> str:
    cut = " | ".join(rest for rest in prompt.cut if rest)
    return f", cut off: {cut!r}" if cut else ""


def _guidance(layout: Any) -> str:
    known = layout if isinstance(layout, dict) else {}
    kinds = [(kind, branches) for kind, branches in known.items() if isinstance(branches, list)]
    told = "; ".join(f"{' | '.join(map(str, branches))} ({kind})" for kind, branches in kinds)
    proof = _PROOF.get(str(known["evidence"]), "") if "evidence" in known else ""
    return f"{told}, {proof}" if proof else told


def _preview(preview: Any) -> str:
    r2, reason = preview.get("r2"), preview.get("reason")
    fit = f", R² {r2:.3f}" if isinstance(r2, float) else ""
    return str(preview.get("method", "")) + fit + (f", as {reason}" if reason else "")


def _memory(memory: Mapping[str, int]) -> str:
    if not memory:
        return ""
    peak, budget = memory["peak"] / 1e6, memory["budget"] / 1e6
    return f"at most {peak:.1f} MB on the way to the disk, budget {budget:.1f} MB"


def _status(trace: Trace) -> str:
    """How the run stands; "interrupted" where the process that wrote it is known to have ended without a word."""
    gone = trace.info.status == "recording" and is_gone(trace.info.process)
    return "interrupted" if gone else trace.info.status


def _error(error: Any) -> str:
    if not error:
        return ""
    where = f" in {error['module']}" if error.get("module") else ""
    step = f" at step {error['step']}" if error.get("step") is not None else ""
    kind, message = error.get("type"), error.get("message")
    return f"{kind}: {message}{where}{step}" if message else f"{kind}{where}{step}"


def _fault(fault: dict[str, Any] | None, *, modules: int) -> str:
    if fault is not None:
        return _place(fault)
    return "none, every value is finite" if modules else "unknown, no value was recorded"


def _born(fault: dict[str, Any] | None) -> str:
    if fault is None:
        return ""
    after = fault["last_finite_before"]
    return str(fault["born_text"]) + (f"; the last finite tensor before it: {_place(after)}" if after else "")


def _place(fault: dict[str, Any]) -> str:
    return f"{fault['site']}" + (f" at step {fault['step']}" if fault["step"] is not None else "")
