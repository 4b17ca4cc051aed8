"""Which texts a call of a denoiser is given, found by value; looked at again only where they may be others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..attention.roles import CONDITIONAL, UNCONDITIONAL, roles_of
from ..recording.asking import is_a
from ..recording.batches import DenoiserCall
from ..recording.provenance import Origin, Placement, Provenance
from .containers import tensors_in

__all__ = ["Given", "GivenTexts", "Seen"]

_LARGEST = 1 << 26
"""Elements of an argument that is still looked at for texts."""

_Rows = tuple[Tensor, ...]
"""An argument that may hold texts: one tensor with a row for each entry of the batch, or a tensor for each."""


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """The arguments of one call of a denoiser, as far as they matter here."""

    latents: Tensor | None
    batch: int
    """Entries."""
    rows: list[_Rows]
    """What may hold texts."""

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Given:
        """Find them among all arguments."""
        first = next((tensor for _, tensor in tensors_in((args, kwargs)) if tensor.dim() > 1), None)
        found: list[_Rows] = []
        for value in (*args, *kwargs.values()):
            if type(value) is list and value and all(is_a(row, Tensor) and row.dim() == 2 for row in value):
                found.append(tuple(row[None] for row in value))
            else:
                found.extend(
                    (tensor,) for _, tensor in tensors_in(value) if tensor is not first and tensor.dim() in (2, 3)
                )
        fit = [rows for rows in found if all(row.is_floating_point() and row.numel() < _LARGEST for row in rows)]
        return cls(first, _batch(first, args, kwargs), fit)


@dataclass(slots=True, eq=False)
class Seen:
    """The latest call of a denoiser with one number within the step."""

    call: DenoiserCall
    batch: int
    watched: tuple[int, ...]
    """Which of the arguments hold texts."""
    given: tuple[Tensor, ...]
    """Those; kept, so that their memory is not used again and their versions tell whether they are the same."""
    versions: tuple[Any, ...]
    first: Tensor | None = None
    """The latents that were given."""
    output: Tensor | None = None
    unsure: list[tuple[int, Tensor]] = field(default_factory=list)
    """Steps at which the texts were another tensor, and whether its values are the same, still on the device."""


class GivenTexts:
    """Matches what denoisers are given to what the texts of a run became.

    Args:
        known: What became of the texts.
    """

    def __init__(self, known: Provenance) -> None:
        self._known = known
        self._arguments: Mapping[str, Any] = {}
        self._roles: dict[Origin, str] = {}
        self._roles_of = -1

    def run_begins(self, arguments: Mapping[str, Any]) -> None:
        """The pipeline is called, perhaps with embeddings in place of texts."""
        self._arguments = arguments
        self._roles_of = -1
        for name, value in arguments.items():
            for path, tensor in tensors_in(value):
                if "embed" in name and not path:
                    self._known.note([tensor], [(Origin(name, -1, row),) for row in range(len(tensor))])

    def branches(self) -> set[str]:
        """Those that the texts of this run are for."""
        return {role for role in self._roles.values() if role}

    def look(self, number: int, given: Given) -> Seen:
        """Match what the call with this number in its step is given to what the texts became."""
        call, watched = DenoiserCall(number, 1), []
        if self._known:
            self._learn_roles()
            for at, rows in enumerate(given.rows):
                found = [placements for part in rows for placements in self._known.find(part)]
                if any(found):
                    watched.append(at)
                    call = self._with_texts(call, rows, found)
        held = tuple(tensor for at in watched for tensor in given.rows[at])
        return Seen(call, given.batch, tuple(watched), held, self._versions(held))

    def are_as_before(self, seen: Seen, given: Given, step: int) -> bool:
        """Whether a call is given the same texts as the one of the step before."""
        if seen.batch != given.batch or max(seen.watched, default=-1) >= len(given.rows):
            return False
        now = tuple(tensor for at in seen.watched for tensor in given.rows[at])
        return seen.versions == self._versions(now) or _defers(seen, now, step)

    def _versions(self, given: Sequence[Tensor]) -> tuple[Any, ...]:
        """What changes when the texts do; where none was found, when there are more to be found."""
        held = [(tensor.data_ptr(), tensor.shape, tensor.stride(), _version(tensor)) for tensor in given]
        return (*held,) if held else (len(self._known.texts),)

    def _with_texts(self, call: DenoiserCall, rows: _Rows, found: Sequence[tuple[Placement, ...]]) -> DenoiserCall:
        """Add what one argument tells."""
        own = [self._role(placements) for placements in found]
        if len(rows) == 1:  # where a text is left out there are zeros
            blank = [not placements and not bool(rows[0][at].any()) for at, placements in enumerate(found)]
            own = [UNCONDITIONAL if empty else role for empty, role in zip(blank, own, strict=True)]
        if len(call.roles) == len(own):
            own = [known or fresh for known, fresh in zip(call.roles, own, strict=True)]
        roles = call.roles if call.roles and all(call.roles) else tuple(own)
        given = all(placement.origins[-1].call < 0 for placements in found for placement in placements)
        evidence = call.evidence or ("" if not any(roles) else "arguments" if given else "embeddings")
        call = replace(call, roles=roles, evidence=evidence)
        if not any(placement.tokens for placements in found for placement in placements):
            return call
        length = rows[0].shape[-2] if len({row.shape[-2] for row in rows}) == 1 else 0
        return call.with_texts(found, length)

    def _learn_roles(self) -> None:
        """Tell prompts from negative ones, for each encoder."""
        texts = dict(self._known.texts)
        if self._roles_of == len(texts):
            return
        self._roles_of = len(texts)
        by_encoder: dict[str, list[Origin]] = {}
        for origin in texts:
            by_encoder.setdefault(origin.source, []).append(origin)
        for origins in by_encoder.values():
            own = roles_of([texts[origin] for origin in origins], self._arguments)
            self._roles.update(zip(origins, own, strict=True))

    def _role(self, placements: Sequence[Placement]) -> str:
        roles = set()
        for placement in placements:
            named = {
                self._roles.get(origin, "") if origin.call >= 0 else _role_of_argument(origin.source)
                for origin in placement.origins
            }
            roles.add(named.pop() if len(named) == 1 else "")
        roles.discard("")
        return roles.pop() if len(roles) == 1 else ""


def _batch(first: Tensor | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Entries of the batch: of a tensor, or of a list with one tensor for each."""
    value = next((value for value in (*args, *kwargs.values()) if type(value) is list or value is first), None)
    if type(value) is list and value and all(is_a(entry, Tensor) for entry in value):
        return len(value)
    return 0 if first is None else first.shape[0]


def _version(tensor: Tensor) -> int:
    try:
        return tensor._version
    except RuntimeError:  # an inference tensor keeps none
        return -1


def _defers(before: Seen, given: Sequence[Tensor], step: int) -> bool:
    """Whether texts in new memory on an accelerator hold what they held, as far as the host can tell without waiting.

    They are compared where they are, and looked at when the run is over.
    """
    if not given or not before.given or any(tensor.device.type == "cpu" for tensor in given):
        return False
    if [tensor.shape for tensor in given] != [tensor.shape for tensor in before.given]:
        return False
    same = torch.stack([(now == then).all() for now, then in zip(given, before.given, strict=True)]).all()
    before.unsure.append((step, same))
    return True


def _role_of_argument(name: str) -> str:
    """The branch of embeddings that the user gave, by the name of the argument."""
    return UNCONDITIONAL if "negative" in name or "uncond" in name else CONDITIONAL if "prompt" in name else ""
