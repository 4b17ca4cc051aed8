"""The attention calls of a trace: what each was given, and what its positions, heads and batch entries stand for."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..batches import Batch, batch_at, batches_of, branches_at
from ..errors import SiteNotFoundError, near_matches
from ..info import ModuleInfo, TraceInfo
from ..layout import HAS_TENSOR, module_group
from ..prompts import Prompt
from ..storage.archive import Archive
from .calls import AttentionInfo, site_of
from .forms import Captured, Forms
from .inputs import Inputs
from .roles import CONDITIONAL, UNCONDITIONAL
from .texts import Text, proven_texts, texts_of
from .tokens import Part
from .use import doubt_of

__all__ = ["AttentionInfo", "Attentions", "entry_of", "site_of"]


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
        self._forms: dict[tuple[str, int, bool], Forms] = {}

    @functools.cached_property
    def by_module(self) -> Mapping[str, tuple[AttentionInfo, ...]]:
        """The calls of every module that attends, in call order, each in its first form."""
        found = {name: self._calls_of(module) for name, module in self._modules.items()}
        return {name: calls for name, calls in found.items() if calls}

    def forms(self, call: AttentionInfo) -> tuple[AttentionInfo, ...]:
        """All that a call was like along the steps."""
        return self._forms_of(call).all

    @property
    def may_change(self) -> bool:
        """Whether a further step may tell of a call what is not known here."""
        return any(forms.may_differ for forms in self._forms.values())

    def at(self, call: AttentionInfo, step: int | None) -> AttentionInfo:
        """A call as it was at a step; as it is without one."""
        if step is None or call.steps is None or step in call.steps:
            return call
        return self._forms_of(call).at(step)

    def find(self, module: str, call: int = 0, step: int | None = None) -> AttentionInfo:
        """A call that has a map, at a step; the first of its forms that has one by default.

        Raises:
            SiteNotFoundError: There is no such module or call, or it has no map; the message says why.
        """
        path = self._archive.path
        if module not in self._modules:
            raise SiteNotFoundError(f"no module {module!r} in {path}.{near_matches(module, self._modules)}")
        known = sorted(self.by_module.get(module, ()), key=lambda found: not found.reason)
        calls = {found.call: found for found in known}  # one that has a map wins, then the one in the loop
        if not calls:
            raise SiteNotFoundError(
                f"no attention of {module!r} was recorded in {path}; if it attends, trace with "
                f"Capture(attention={module!r}).{near_matches(module, self.by_module)}"
            )
        if call not in calls:
            raise SiteNotFoundError(f"{module!r} has no attention call {call} in {path}; it has {_listed(calls)}")
        found = self.at(calls[call], step)
        if found.reason:
            when = "" if step is None or found.steps is None else f" at step {step}"
            raise SiteNotFoundError(f"{module!r} has no attention map{when} in {path}: {found.reason}")
        return found

    def inputs(self, call: AttentionInfo) -> Inputs:
        """Where to read what the kernel was given, at the steps that have this form.

        Raises:
            TraceFormatError: An array has another shape than its site.
        """
        assert call.query is not None and call.key is not None
        masked = None if call.mask is None else self._captured(call.mask)
        kept = self._captured(call.query) >= HAS_TENSOR
        return Inputs(self._archive, (call.query, call.key, call.mask), masked, call.steps, kept=kept)

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
        uses = [call.use for call in calls]
        if not calls[0].stepped:
            return doubt_of(uses, [0])
        assert calls[0].query is not None
        kept = np.flatnonzero(self._captured(calls[0].query) >= HAS_TENSOR).tolist()
        shown = kept if steps is None else [step for step in kept if step in set(steps)]
        return doubt_of(uses, shown, [call.steps for call in calls])

    def branches(self, call: AttentionInfo, step: int | None = None) -> tuple[str, ...]:
        """Guidance branch of each entry of the batch, "" where there are none, at a step; of the first by default."""
        call = self.at(call, step)
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
        """Steps from which on entries of these calls may be other branches or texts than before, or of another form."""
        listed = [batch.step for call in calls for batch in self._batches_of(call) or ()]
        formed = [step for call in calls for step in self._forms_of(call).changes]
        return tuple(sorted({0, *listed, *formed}))

    def are_alike(self, call: AttentionInfo, step: int, other: int) -> bool:
        """Whether the entries of a call are the same branches and texts at two steps."""
        firsts = self.first_steps([call])
        one, two = (max(first for first in firsts if first <= max(at, 0)) for at in (step, other))
        return one == two or (
            self.branches(call, one) == self.branches(call, two) and self.texts(call, one) == self.texts(call, two)
        )

    def _forms_of(self, call: AttentionInfo) -> Forms:
        _ = self.by_module  # which finds them
        return self._forms[call.module, call.call, call.stepped]

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
        call = self.at(call, step)
        return self._texts(call, call.key_parts, step)

    def query_texts(self, call: AttentionInfo, step: int | None = None) -> tuple[Text, ...]:
        """The texts behind the queries."""
        call = self.at(call, step)
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
        described: dict[tuple[int, bool | None], list[dict[str, Any]]] = {}
        for at, entry in enumerate(entries):
            number, stepped = entry.get("call", at), entry.get("stepped")
            if type(number) is int and number >= 0:
                key = number, stepped if isinstance(stepped, bool) else None
                described.setdefault(key, []).append(entry)
        calls: dict[tuple[int, bool], AttentionInfo] = {}
        for (number, _), own in described.items():
            forms = Forms(module, number, own, group, self._captured)
            first = calls[number, forms.stepped] = forms.first
            self._forms[module.name, number, first.stepped] = forms
        return tuple(calls[key] for key in sorted(calls))


def _listed(calls: Mapping[int, AttentionInfo]) -> str:
    return ", ".join(map(str, calls))


def entry_of(branches: Sequence[str], branch: str, image: int) -> int | None:
    """The entry of the batch that holds an image of a branch; without guidance everything is conditional."""
    own = [at for at, name in enumerate(branches) if name == branch or (branch == CONDITIONAL and name == "")]
    return own[image] if 0 <= image < len(own) else None
