"""What the browser knows of a trace: its layers as a tree, their statistics, where something is wrong. No I/O."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from diffusion_xray.tracer.faults import Fault, faulty, find_faults, find_narrow
from diffusion_xray.tracer.info import ModuleInfo, SiteInfo, TraceInfo
from diffusion_xray.tracer.layout import HAS_TENSOR, MEASURED
from diffusion_xray.tracer.moments import Moment, Moments
from diffusion_xray.tracer.trace import StatisticsTable

from .faults import OUTSIDE

__all__ = ["Layer", "Snapshot"]

_DEEPEST: Final = 60  # a trace is untrusted: a name of a million dots is no reason to run out of stack


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A row of the tree."""

    name: str
    """Full path of the module."""
    label: str
    """Name below its parent; holds a dot where the module between them never fired ("down_blocks.0")."""
    module: ModuleInfo | None
    """None for a group that was never called itself."""
    children: tuple[Layer, ...]
    own_fault: int | None
    """First step at which a value of its own was not finite."""
    fault: int | None
    """The same, of itself and everything below."""
    narrow: bool
    """Whether float16 could hardly hold a value of its own or below, see `faults.NARROW`."""

    def walk(self) -> Iterator[Layer]:
        """Itself and everything below, in call order."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """Everything that stored statistics tell of a trace at one moment."""

    title: str
    """Name of its folder."""
    info: TraceInfo
    steps: int
    timestep: NDArray[np.float64]
    sigma: NDArray[np.float64]
    roots: tuple[Layer, ...]
    layers: Mapping[str, Layer]
    """Every layer by name, in call order."""
    faults: tuple[Fault, ...]
    """The first fault of each site, causes before their consequences."""
    narrow: tuple[Fault, ...] = ()
    """Likewise where float16 could first hardly hold a value."""
    prompts: tuple[tuple[int, str], ...] = ()
    """The prompt that is drawn, from which step on."""
    has_previews: bool = False
    writer_gone: bool = False
    """Whether the process that wrote it has ended without a word."""
    quiet: float = 0.0
    """Seconds since it was last written to, where that is long ago and it still says that it is being written."""
    _searchable: list[tuple[str, Layer]] = field(default_factory=list, repr=False)
    _columns: Mapping[str, tuple[StatisticsTable, int]] = field(default_factory=dict, repr=False)
    _bad: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict, repr=False)
    """What is faulty of each table, by its identity."""
    _moments: Moments = field(default_factory=lambda: Moments.of(()), repr=False)

    @classmethod
    def of(
        cls,
        title: str,
        info: TraceInfo,
        *,
        modules: Mapping[str, ModuleInfo],
        tables: Sequence[StatisticsTable],
        timestep: NDArray[np.float64],
        sigma: NDArray[np.float64],
        prompts: Sequence[tuple[int, str]] = (),
        has_previews: bool = False,
    ) -> Snapshot:
        """Work out the tree and the faults from the tables; `modules` are in call order."""
        faults, narrow = find_faults(tables), find_narrow(tables)
        roots = _tree(modules, _Marks.of(faults, narrow))
        return cls(
            title=title,
            info=info,
            steps=len(timestep),
            timestep=timestep,
            sigma=sigma,
            roots=roots,
            layers={layer.name: layer for root in roots for layer in root.walk()},
            faults=faults,
            narrow=narrow,
            prompts=tuple(prompts),
            has_previews=has_previews,
            _bad={id(table): faulty(table) for table in tables},
            _moments=Moments.of(tables),
            _columns={site.key: (table, site.row) for table in tables for site in table.sites},
        )

    @property
    def planned_steps(self) -> int:
        """Steps the run has or will have."""
        return max(self.steps, self.info.planned_steps)

    @property
    def is_live(self) -> bool:
        """Whether it is still being written: it says so, and its writer has not died."""
        return self.info.status == "recording" and not self.writer_gone

    @property
    def status(self) -> str:
        """How the run stands; "interrupted" where its writer died, whatever the trace says."""
        return "interrupted" if self.info.status == "recording" and self.writer_gone else self.info.status

    @property
    def modules(self) -> int:
        """Number of layers that fired."""
        return sum(layer.module is not None for layer in self.layers.values())

    @property
    def tables(self) -> tuple[StatisticsTable, ...]:
        """The tables that the layers' statistics lie in."""
        return tuple({id(table): table for table, _ in self._columns.values()}.values())

    def column(self, site: SiteInfo) -> tuple[StatisticsTable, int]:
        """The table of a site, and its row there."""
        return self._columns[site.key]

    def series(self, site: SiteInfo, statistic: str) -> NDArray[np.float64]:
        """One statistic of a site at every step; of length 1 outside of the loop."""
        table, row = self._columns[site.key]
        return table.column(statistic)[:, row]

    def rows(self, site: SiteInfo) -> NDArray[np.float64]:
        """All statistics of a site, shape (step, statistic), in the order of `layout.MEASURED`."""
        table, row = self._columns[site.key]
        values: NDArray[np.float64] = table.values[:, row, : len(MEASURED)]
        return values

    def faulty(self, site: SiteInfo) -> NDArray[np.bool_]:
        """At which steps a site holds values that are not finite and should be."""
        table, row = self._columns[site.key]
        bad: NDArray[np.bool_] = self._bad[id(table)][:, row]
        return bad

    def at(self, site: SiteInfo, step: int) -> Mapping[str, float]:
        """The statistics of a site at a step; NaN where nothing was recorded."""
        rows = self.rows(site)
        row = rows[min(step if site.stepped else 0, len(rows) - 1)] if len(rows) else np.full(len(MEASURED), np.nan)
        return dict(zip(MEASURED, map(float, row), strict=True))

    def has_tensor(self, site: SiteInfo, step: int) -> bool:
        """Whether a site's tensor was kept at a step."""
        table, row = self._columns[site.key]
        at = step if site.stepped else 0
        return at >= len(table.captured) or bool(table.captured[at, row] >= HAS_TENSOR)

    def before(self, site: SiteInfo, step: int) -> Moment | None:
        """The tensor that was made right before a site's of a step."""
        return self._moments.before(self._moments.of_site(site, step))

    def kept_beside(self, site: SiteInfo) -> tuple[str, ...]:
        """Names of the other tensors of a site's layer that were kept."""
        layer = self.layers.get(site.name)
        sites = layer.module.sites if layer and layer.module else ()
        return tuple(other.array_name for other in sites if other.array and other != site)

    def matching(self, query: str) -> list[Layer]:
        """Layers by words of their name or class, in call order.

        Every word must be there, one that starts with "!" must not, and after "-f" a word's letters need only follow
        one another in this order.
        """
        words = query.lower().split()
        fuzzy = "-f" in words
        wanted = [word for word in words if word != "-f" and not word.startswith("!")]
        unwanted = [word[1:] for word in words if word.startswith("!") and len(word) > 1]
        patterns = [re.compile(".*?".join(map(re.escape, word))) for word in wanted] if fuzzy else []
        found = []
        for text, layer in self._texts():
            if any(word in text for word in unwanted):
                continue
            if all(pattern.search(text) for pattern in patterns) if fuzzy else all(word in text for word in wanted):
                found.append(layer)
        return found

    def _texts(self) -> list[tuple[str, Layer]]:
        """What words are looked for in, made once."""
        if not self._searchable:
            self._searchable.extend(
                (f"{layer.name} {layer.module.module_class}".lower(), layer)
                for layer in self.layers.values()
                if layer.module
            )
        return self._searchable


@dataclass(slots=True, eq=False)
class _Draft:
    module: ModuleInfo | None = None
    children: dict[str, _Draft] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Marks:
    """What is wrong, by the name of a layer."""

    own: Mapping[str, int]
    below: Mapping[str, int]
    """The first fault of a layer and of all that lies in it."""
    narrow: AbstractSet[str]

    @classmethod
    def of(cls, faults: Sequence[Fault], narrow: Sequence[Fault]) -> _Marks:
        own: dict[str, int] = {}
        below: dict[str, int] = {}
        for fault in faults:  # causes first
            step = OUTSIDE if fault.step is None else fault.step
            own.setdefault(fault.site.name, step)
            for name in itertools.accumulate(_segments(fault.site.name), "{}.{}".format):
                below.setdefault(name, step)
        return cls(own, below, {fault.site.name for fault in narrow})


def _segments(name: str) -> list[str]:
    return name.split(".", _DEEPEST)


def _tree(modules: Mapping[str, ModuleInfo], marks: _Marks) -> tuple[Layer, ...]:
    top = _Draft()
    for name, module in modules.items():
        node = top
        for segment in _segments(name):
            node = node.children.setdefault(segment, _Draft())
        node.module = module
    return tuple(_layer(draft, label, label, marks) for label, draft in top.children.items())


def _layer(draft: _Draft, name: str, label: str, marks: _Marks) -> Layer:
    children = tuple(_children(draft, name, "", marks))
    is_narrow = name in marks.narrow or any(child.narrow for child in children)
    return Layer(name, label, draft.module, children, marks.own.get(name), marks.below.get(name), is_narrow)


def _children(draft: _Draft, name: str, prefix: str, marks: _Marks) -> Iterator[Layer]:
    """Children of a node; a container that never fired, such as a `ModuleList`, gives way to its own children."""
    for segment, child in draft.children.items():
        path = f"{name}.{segment}"
        if child.module is None and child.children:
            yield from _children(child, path, f"{prefix}{segment}.", marks)
        else:
            yield _layer(child, path, prefix + segment, marks)
