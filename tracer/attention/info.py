"""The attention calls of a trace: what each was given, and what its positions, heads and batch entries stand for."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..batches import Batch, batch_at, batches_of, branches_at
from ..errors import SiteNotFoundError, near_matches
from ..info import ModuleInfo, SiteInfo, TraceInfo, printable
from ..layout import HAS_TENSOR, array_name, module_group
from ..prompts import Prompt
from ..storage.archive import Archive
from .inputs import Inputs
from .roles import CONDITIONAL, UNCONDITIONAL
from .texts import Text, proven_texts, texts_of
from .tokens import Kind, Part, kind_of, parts_from_attributes
from .use import Use, doubt_of, read_use

__all__ = ["AttentionInfo", "Attentions", "entry_of", "site_of"]


Captured = Callable[[SiteInfo], NDArray[np.uint8]]
"""What was captured of a site at each step, as the table of its component has it."""

_LONGEST = 1 << 24
"""A sequence that is longer is a lie, and its coordinates would fill the memory."""

_WHEN = ("step", "once")
"""What is added to a port that was seen both in the loop and outside of it."""


@dataclass(frozen=True, slots=True)
class AttentionInfo:
    """One attention call of a module."""

    module: str
    call: int
    """0 for the first within a step."""
    kind: Kind | Literal["none"]
    """ "none" where it has no map: see `reason`."""
    reason: str = ""
    """Why there is no map to read; "" where there is one."""
    door: str = ""
    """The function that computed it."""
    scale: float = 1.0
    causal: bool = False
    heads: tuple[int, ...] = ()
    """Numbers of the heads that were kept."""
    group: str = ""
    """Of the store, which describes it."""
    query_parts: tuple[Part, ...] = ()
    key_parts: tuple[Part, ...] = ()
    query: SiteInfo | None = None
    key: SiteInfo | None = None
    mask: SiteInfo | None = None
    denoiser_call: int = 0
    """In which call of its denoiser within the step it was made."""
    multiplied_in: str = ""
    """What float32 was rounded to before it was multiplied, "tfloat32" or "bfloat16"; "" where it was not."""
    use: Use = field(default_factory=Use)
    """Whether its maps are those that the run used."""

    @property
    def stepped(self) -> bool:
        """Whether it is of the denoising loop."""
        return self.query is not None and self.query.stepped

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of its map at one step: batch, heads, queries, keys."""
        assert self.query is not None and self.key is not None
        batch, heads, queries, _ = self.query.shape
        return batch, heads, queries, self.key.shape[2]


class Attentions:
    """All attention calls of a trace."""

    def __init__(
        self,
        archive: Archive,
        modules: Mapping[str, ModuleInfo],
        info: TraceInfo,
        prompts: Sequence[Prompt],
        captured: Captured,
    ) -> None:
        self._archive = archive
        self._captured = captured
        self._modules = modules
        self._info = info
        self.prompts = tuple(prompts)
        self._batches: dict[str, tuple[Batch, ...] | None] = {}

    @functools.cached_property
    def by_module(self) -> Mapping[str, tuple[AttentionInfo, ...]]:
        """The calls of every module that attends, in call order."""
        found = {name: self._calls_of(module) for name, module in self._modules.items()}
        return {name: calls for name, calls in found.items() if calls}

    def find(self, module: str, call: int = 0) -> AttentionInfo:
        """A call that has a map.

        Raises:
            SiteNotFoundError: There is no such module or call, or it has no map; the message says why.
        """
        path = self._archive.path
        if module not in self._modules:
            raise SiteNotFoundError(f"no module {module!r} in {path}.{near_matches(module, self._modules)}")
        calls = {found.call: found for found in self.by_module.get(module, ())}  # in the loop wins
        if not calls:
            raise SiteNotFoundError(
                f"no attention of {module!r} was recorded in {path}; if it attends, trace with "
                f"Capture(attention={module!r}).{near_matches(module, self.by_module)}"
            )
        if call not in calls:
            raise SiteNotFoundError(f"{module!r} has no attention call {call} in {path}; it has {_listed(calls)}")
        if calls[call].reason:
            raise SiteNotFoundError(f"{module!r} has no attention map in {path}: {calls[call].reason}")
        return calls[call]

    def inputs(self, call: AttentionInfo) -> Inputs:
        """Where to read what the kernel was given.

        Raises:
            TraceFormatError: An array has another shape than its site.
        """
        assert call.query is not None and call.key is not None
        masked = None if call.mask is None else self._captured(call.mask)
        return Inputs(self._archive, call.query, call.key, call.mask, masked)

    def doubt(self, calls: Sequence[AttentionInfo], steps: Sequence[int] | None = None) -> str:
        """What is to be said beside maps of these calls: that they are not, or not proven to be, those the run used.

        Args:
            calls: Those shown, or averaged.
            steps: Those shown; all that were kept by default.

        Returns:
            "" where the maps are proven.
        """
        if all(call.use.by_kernel for call in calls):
            return ""
        if not calls[0].stepped:
            return doubt_of([call.use for call in calls], [0])
        assert calls[0].query is not None
        kept = np.flatnonzero(self._captured(calls[0].query) >= HAS_TENSOR).tolist()
        return doubt_of([call.use for call in calls], kept if steps is None else [s for s in kept if s in set(steps)])

    def branches(self, call: AttentionInfo, step: int | None = None) -> tuple[str, ...]:
        """Guidance branch of each entry of the batch, "" where there are none, at a step; of the first by default."""
        assert call.query is not None
        size, own = call.shape[0], call.query.branch
        batches = self._batches_of(call)
        if batches is not None:
            batch = batch_at(batches, self._step_of(batches, call, step), call.denoiser_call)
            return branches_at(batch, size) if batch is not None and batch.parts else (own,) * size
        guidance = self._info.guidance.get(call.module.split(".", 1)[0])
        listed = guidance.get("batch") if isinstance(guidance, Mapping) else None
        one_branch = not call.stepped or own in (CONDITIONAL, UNCONDITIONAL)  # else the name is that of a whole batch
        if one_branch or not isinstance(listed, list) or not listed or size % len(listed):
            return (own,) * size
        return tuple(str(branch) for branch in listed for _ in range(size // len(listed)))

    def first_steps(self, calls: Sequence[AttentionInfo]) -> tuple[int, ...]:
        """Steps from which on entries of these calls may be other branches or texts than before."""
        listed = [batch.step for call in calls for batch in self._batches_of(call) or ()]
        return tuple(sorted({0, *listed}))

    def are_alike(self, call: AttentionInfo, step: int, other: int) -> bool:
        """Whether the entries of a call are the same branches and texts at two steps."""
        firsts = self.first_steps([call])
        one, two = (max(first for first in firsts if first <= max(at, 0)) for at in (step, other))
        return one == two or (
            self.branches(call, one) == self.branches(call, two) and self.texts(call, one) == self.texts(call, two)
        )

    def _batches_of(self, call: AttentionInfo) -> tuple[Batch, ...] | None:
        """What its denoiser was given, where the trace tells."""
        component = call.module.split(".", 1)[0]
        if not call.stepped:
            return None
        if component not in self._batches:
            self._batches[component] = batches_of(self._info.batches, component)
        return self._batches[component]

    @staticmethod
    def _step_of(batches: Sequence[Batch], call: AttentionInfo, step: int | None) -> int:
        own = [batch.step for batch in batches if batch.call == call.denoiser_call]
        return min(own, default=0) if step is None else step

    def texts(self, call: AttentionInfo, step: int | None = None) -> tuple[Text, ...]:
        """The texts behind the keys, at a step; at the first by default."""
        return self._texts(call, call.key_parts, step)

    def query_texts(self, call: AttentionInfo, step: int | None = None) -> tuple[Text, ...]:
        """The texts behind the queries."""
        return self._texts(call, call.query_parts, step)

    def _texts(self, call: AttentionInfo, parts: Sequence[Part], step: int | None) -> tuple[Text, ...]:
        batches = self._batches_of(call)
        spans = [(part.start, part.size) for part in parts if part.kind == "text"]
        if batches is None and call.stepped and self._info.batches:
            return ()  # of a component that is no denoiser
        if batches is None:
            component = call.module.split(".", 1)[0]
            own: dict[str, Any] = {"encoder": "" if call.stepped else component, "encoder_call": call.call}
            return tuple(
                text
                for start, length in spans
                for text in texts_of(
                    self.prompts, self._info.call, start=start, length=length, branches=self.branches(call), **own
                )
            )
        batch = batch_at(batches, self._step_of(batches, call, step), call.denoiser_call)
        if batch is None:
            return ()
        if not batch.texts and len(self._info.runs) < 2:  # what became of the texts could not be followed
            strict: dict[str, Any] = {"branches": self.branches(call, step), "assume": False}
            return tuple(
                text
                for start, length in spans
                for text in texts_of(self.prompts, self._info.call, start=start, length=length, **strict)
            )
        return tuple(
            text
            for start, length in spans
            for text in proven_texts(self.prompts, batch, start=start, length=length, entries=call.shape[0])
        )

    @functools.cached_property
    def _plain(self) -> Mapping[str, Mapping[str, Any]]:
        """The groups that describe attention; of the first format the path alone tells of which module."""
        return self._archive.groups_with("attention")

    @functools.cached_property
    def _described(self) -> Mapping[str, str]:
        """The group that describes the attention of each module, where groups say whose it is."""
        return {str(attributes["module"]): group for group, attributes in self._plain.items() if "module" in attributes}

    def _calls_of(self, module: ModuleInfo) -> tuple[AttentionInfo, ...]:
        group = self._described.get(module.name) or next(
            (
                group
                for inner in (True, False)
                if (group := module_group(module.name, has_children=inner)) in self._plain
            ),
            "",
        )
        listed = self._archive.group(group).get("attention")
        entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
        calls: dict[tuple[int, bool], AttentionInfo] = {}
        for at, entry in enumerate(entries):
            number = entry.get("call", at)
            if type(number) is int and number >= 0:
                read = _read_call(module, number, entry, group)
                calls[number, read.stepped] = read
        return tuple(calls[key] for key in sorted(calls))


def _read_call(module: ModuleInfo, number: int, entry: Mapping[str, Any], group: str) -> AttentionInfo:
    """Read an entry of a group's attributes, none of which is believed before it fits the arrays."""
    if entry.get("softmax", True) is not True:
        reason = printable(entry.get("reason") or "it has none, its weights are no softmax")
        return AttentionInfo(module.name, number, "none", reason)
    stepped = entry.get("stepped")
    query = site_of(module, "query", number, stepped=stepped if isinstance(stepped, bool) else None)
    key = None if query is None else site_of(module, "key", number, stepped=query.stepped)
    if query is None or key is None:
        reason = f"its queries and keys were not kept; trace with Capture(attention={module.name!r})"
        return AttentionInfo(module.name, number, "none", reason)
    mask = site_of(module, "mask", number, stepped=query.stepped)
    denoiser_call = entry.get("denoiser_call", 0)
    scale, heads = entry.get("scale"), entry.get("heads")
    if not _fit(query, key, mask):
        return AttentionInfo(module.name, number, "none", f"queries {query.shape} and keys {key.shape} do not fit")
    if not isinstance(scale, int | float) or isinstance(scale, bool) or not math.isfinite(scale):
        return AttentionInfo(module.name, number, "none", f"its scale is {printable(repr(scale))}, not a number")
    kept = isinstance(heads, list) and len(heads) == query.shape[1] and all(type(head) is int for head in heads)
    query_parts = parts_from_attributes(entry.get("query_parts"), query.shape[2])
    key_parts = parts_from_attributes(entry.get("key_parts"), key.shape[2])
    return AttentionInfo(
        module=module.name,
        call=number,
        kind=kind_of(query_parts, key_parts),
        door=str(entry.get("door", "")),
        scale=float(scale),
        causal=entry.get("causal") is True,
        heads=tuple(heads) if kept and heads else tuple(range(query.shape[1])),
        group=group,
        query_parts=query_parts,
        key_parts=key_parts,
        query=query,
        key=key,
        mask=mask,
        denoiser_call=denoiser_call if type(denoiser_call) is int and denoiser_call >= 0 else 0,
        multiplied_in=str(entry.get("multiplied_in", "")),
        use=read_use(entry),
    )


def site_of(module: ModuleInfo, port: str, call: int, *, stepped: bool | None) -> SiteInfo | None:
    """Where a stored tensor of a call is; of what was seen inside and outside of the loop, that inside."""
    name = array_name(port, call)
    names = {name, *(array_name(f"{port}_{when}", call) for when in _WHEN), *(f"{name}_{when}" for when in _WHEN)}
    found = [
        site for site in module.sites if site.array_name in names and site.array and stepped in (None, site.stepped)
    ]
    return max(found, key=lambda site: site.stepped, default=None)


def _fit(query: SiteInfo, key: SiteInfo, mask: SiteInfo | None) -> bool:
    if query.stepped != key.stepped or len(query.shape) != 4 or len(key.shape) != 4:
        return False
    if not all(0 < size <= _LONGEST for size in (*query.shape, *key.shape)):
        return False
    full = (*query.shape[:3], key.shape[2])
    grouped = query.shape[0] == key.shape[0] and not query.shape[1] % key.shape[1] and query.shape[3] == key.shape[3]
    return grouped and (
        mask is None
        or (len(mask.shape) == 4 and all(own in (1, size) for own, size in zip(mask.shape, full, strict=True)))
    )


def _listed(calls: Mapping[int, AttentionInfo]) -> str:
    return ", ".join(map(str, calls))


def entry_of(branches: Sequence[str], branch: str, image: int) -> int | None:
    """The entry of the batch that holds an image of a branch; without guidance everything is conditional."""
    own = [at for at, name in enumerate(branches) if name == branch or (branch == CONDITIONAL and name == "")]
    return own[image] if 0 <= image < len(own) else None
