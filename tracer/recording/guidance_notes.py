"""What a trace says of its denoisers' batches and of guidance, kept in step with what becomes known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .batches import DenoiserCall

__all__ = ["GuidanceNotes"]


class GuidanceNotes:
    """The attributes "runs", "batches" and "guidance" of the root; see `docs/format.md`.

    Args:
        describe: Changes attributes of the root.
    """

    def __init__(self, describe: Callable[[Mapping[str, Any]], None]) -> None:
        self._describe = describe
        self._labels: dict[str, list[tuple[str, ...]]] = {}
        """As described last, by the number of the call."""
        self._batches: dict[str, list[dict[str, Any]]] = {}
        self._guidance: dict[str, dict[str, Any]] = {}
        self._runs: list[dict[str, Any]] = []

    def run(self, step: int, arguments: Mapping[str, Any]) -> None:
        """A run began with a step; of what it was called with, say what is plain."""
        plain = {key: value for key, value in arguments.items() if _is_plain(value)}
        self._runs.append({"step": step, "call": plain})
        self._describe({"runs": list(self._runs)})

    def labels(self, name: str) -> Sequence[tuple[str, ...]]:
        """The branches that share each call of a denoiser, by the number of the call, as said last."""
        return self._labels.get(name, ())

    def calls(self, name: str, step: int, calls: Sequence[DenoiserCall]) -> None:
        """Say what the calls of a denoiser are from a step on."""
        self._labels[name] = [call.labels for call in calls]
        self._append(name, [call.described(step) for call in calls])
        guidance = self._guidance.setdefault(name, {})
        labelled = [call for call in calls if call.labels]
        if any(call.parts > 1 for call in labelled):
            guidance["batch"] = list(next(call.labels for call in labelled if call.parts > 1))
        elif labelled:
            guidance["calls"] = [call.labels[0] for call in labelled]
        else:
            if not guidance:
                del self._guidance[name]
            return
        guidance["evidence"] = next((call.evidence for call in labelled if call.evidence), "")
        self._describe({"guidance": {key: dict(value) for key, value in self._guidance.items()}})

    def unknown(self, name: str, number: int, step: int) -> None:
        """Take back what was said of a call from a step on."""
        labels = self.labels(name)
        own = _unproven(number, labels[number] if number < len(labels) else ())
        self._append(name, [DenoiserCall(number, 1, labels=own).described(step)])

    def _append(self, name: str, fresh: Sequence[dict[str, Any]]) -> None:
        """Add what is new to the description; what holds from the same step on replaces what was said before."""
        known = self._batches.setdefault(name, [])
        changed = False
        for entry in fresh:
            last = next((old for old in reversed(known) if old["call"] == entry["call"]), None)
            if last is not None and {**last, "step": 0} == {**entry, "step": 0}:
                continue
            if last is not None and _refines(last, entry):
                known[known.index(last)] = {**entry, "step": last["step"]}
            else:
                known.append(entry)
            changed = True
        if changed:
            self._describe({"batches": {key: list(value) for key, value in self._batches.items()}})


def _unproven(number: int, labels: Sequence[str]) -> tuple[str, ...]:
    """Names for what is no longer known."""
    return (
        tuple(f"part {part}" for part in range(len(labels))) if len(labels) > 1 else (f"call {number}",) * len(labels)
    )


def _refines(last: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    """Whether the same texts are now better known: found at the same step, or from what the scheduler was given."""
    same = all(last[key] == entry[key] for key in ("texts", "length")) and len(last["parts"]) == len(entry["parts"])
    return bool(same and last["parts"] and not last["evidence"]) or last["step"] == entry["step"]


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(isinstance(entry, str | int | float) for entry in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | bool | int)
