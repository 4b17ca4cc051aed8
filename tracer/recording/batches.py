"""What the entries of a denoiser's batch are called, and what is written of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..attention.roles import CONDITIONAL, UNCONDITIONAL
from .provenance import Placement

__all__ = ["DenoiserCall", "named", "without_doubles"]


@dataclass(frozen=True, slots=True)
class DenoiserCall:
    """One call of a denoiser within a step, as far as it is known what it was given."""

    number: int
    parts: int
    """Branches that share its batch."""
    roles: tuple[str, ...] = ()
    """Guidance branch of each text it was given, "" where that is not known; for each entry, or fewer that repeat."""
    texts: tuple[tuple[Placement, ...], ...] = ()
    """Of each entry."""
    length: int = 0
    """Tokens in the sequence of texts."""
    context: str = ""
    """What the pipeline itself calls it."""
    evidence: str = ""
    labels: tuple[str, ...] = ()
    """Branch of each part; empty without guidance."""

    def role(self, part: int) -> str:
        """The branch of a part, "" where its entries differ or it is not known."""
        if not self.roles:
            return ""
        if len(self.roles) < self.parts or len(self.roles) % self.parts:
            own = set(self.roles)
        else:
            each = len(self.roles) // self.parts
            own = set(self.roles[part * each : (part + 1) * each])
        return own.pop() if len(own) == 1 else ""

    def with_texts(self, texts: Sequence[tuple[Placement, ...]], length: int) -> DenoiserCall:
        """With the texts of one more argument; a denoiser puts several one behind the other."""
        if not self.texts:
            return replace(self, texts=tuple(texts), length=length)
        if len(texts) != len(self.texts) or not self.length or not length:
            return self
        moved = [tuple(replace(own, start=own.start + self.length) for own in entry) for entry in texts]
        joined = tuple((*before, *after) for before, after in zip(self.texts, moved, strict=True))
        return replace(self, texts=joined, length=self.length + length)

    def described(self, step: int) -> dict[str, Any]:
        """The form in which it is stored: see `docs/format.md`."""
        return {
            "step": step,
            "call": self.number,
            "parts": list(self.labels),
            "evidence": self.evidence,
            "length": self.length,
            "texts": [[_described(placement) for placement in entry if _is_text(placement)] for entry in self.texts],
        }


def named(calls: Sequence[DenoiserCall], twins: Sequence[int] = (), chosen: int | None = None) -> list[DenoiserCall]:
    """Name the parts of the calls of one step: a branch where it is proven, else by number.

    Args:
        calls: Those of one denoiser.
        twins: Numbers of calls that were given the same latents as another: of several with one text only one can be
            the prediction of that branch, and which is not known.
        chosen: The part or call that guidance moves towards, found from its result.
    """
    if len(calls) == 1 and calls[0].parts == 1:
        only = calls[0]
        return [replace(only, labels=(only.context,), evidence="context") if only.context else replace(only, labels=())]
    if any(call.parts > 1 for call in calls):
        return [_of_parts(call, chosen) for call in calls]
    roles = _settled([call.context or call.role(0) for call in calls], chosen)
    counts = Counter(role for role, call in zip(roles, calls, strict=True) if call.number in twins)
    found = []
    for role, call in zip(roles, calls, strict=True):
        doubtful = not role or (not call.context and call.number in twins and counts[role] > 1)
        evidence = "context" if call.context else call.evidence if role == call.role(0) else "output"
        found.append(
            replace(call, labels=(f"call {call.number}",), evidence="")
            if doubtful
            else replace(call, labels=(role,), evidence=evidence)
        )
    return found


def without_doubles(calls: Sequence[DenoiserCall], before: Sequence[tuple[str, ...]]) -> list[DenoiserCall]:
    """Number calls that were not made in the steps before, where one that was has their branch already.

    A prediction that is perturbed from some step on is given the text of another, and is not that branch.

    Args:
        calls: Those of one denoiser, named.
        before: Labels by the number of the call, as they held so far.
    """
    taken = {label for labels in before if len(labels) == 1 for label in labels}
    return [
        replace(call, labels=(f"call {call.number}",), evidence="")
        if call.number >= len(before) and len(call.labels) == 1 and call.labels[0] in taken and not call.context
        else call
        for call in calls
    ]


def _of_parts(call: DenoiserCall, chosen: int | None) -> DenoiserCall:
    if call.parts == 1:  # one beside those of guidance
        return replace(call, labels=(call.context or call.role(0) or f"call {call.number}",))
    alone = set(call.roles) == {CONDITIONAL, UNCONDITIONAL} and len(set(Counter(call.roles).values())) == 1
    own = [call.role(part) for part in range(call.parts)]
    if alone and not all(own):  # branches that alternate from entry to entry
        return replace(call, labels=call.roles)
    roles = _settled(own, chosen)
    counts = Counter(roles)
    labels = tuple(role if role and counts[role] == 1 else f"part {part}" for part, role in enumerate(roles))
    known = [part for part, label in enumerate(labels) if label == roles[part]]
    proven = call.evidence if any(own[part] for part in known) else "output" if known else ""
    return replace(call, labels=labels, evidence=proven)


def _settled(roles: Sequence[str], chosen: int | None) -> list[str]:
    """Roles, completed by what guidance moves towards where texts alone do not tell."""
    counts = Counter(roles)
    if all(roles) and all(count == 1 for count in counts.values()):
        return list(roles)
    found = list(roles)
    if chosen is None or chosen >= len(roles):
        return found
    if roles[chosen] == CONDITIONAL or (not roles[chosen] and CONDITIONAL not in roles):
        found = ["" if role == CONDITIONAL else role for role in roles]
        found[chosen] = CONDITIONAL
        if len(roles) == 2 and roles[1 - chosen] != CONDITIONAL:  # which would be a perturbed one
            found[1 - chosen] = UNCONDITIONAL
    return found


def _is_text(placement: Placement) -> bool:
    return placement.tokens and placement.origins[-1].call >= 0


def _described(placement: Placement) -> dict[str, Any]:
    origin = placement.origins[-1]
    return {
        "encoder": origin.source,
        "call": origin.call,
        "prompt": origin.row,
        "start": placement.start,
        "first": placement.first,
        "length": placement.length,
    }
