"""What a trace tells without its tensors: its steps, its sites, their statistics and histograms; also as it grows."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .damage import check_chunk, check_table, told
from .errors import SiteNotFoundError, TraceFormatError, near_matches
from .faults import Fault, find_faults
from .histogram import Histogram
from .info import ModuleInfo, SiteInfo, TraceInfo, printable
from .layout import ROOT_CHUNK, STATISTICS, STATISTICS_GROUP
from .statistics_table import StatisticsTable
from .storage.archive import Archive
from .storage.library_store import LibraryStore

__all__ = ["TraceTables"]

_COUNT = STATISTICS.index("count")
_WHOLE_ROOT = 2
"""Format from which on the arrays along the steps at the root are written whole, so that a missing chunk is lost."""


class TraceTables:
    """The part of `Trace` that reads tables.

    Args:
        source: The folder, or the store.
    """

    def __init__(self, source: Path | LibraryStore) -> None:
        self._source = source
        self._archive = Archive(source)
        self._pulse = self._archive.pulse()
        with told(f"the head of {self.path}"):
            self.info = TraceInfo.from_attributes(self._archive.attributes)

    @property
    def path(self) -> Path | str:
        """Where it is: a folder, or what a store calls itself."""
        return self._archive.path

    @property
    def name(self) -> str:
        """The last part of its path."""
        path = self.path
        return path.resolve().name if isinstance(path, Path) else PurePosixPath(path.rstrip("/\"')>")).name

    @property
    def nbytes(self) -> int | None:
        """Bytes it takes where it is; None for a remote store."""
        return self._archive.size()

    def refresh(self) -> bool:
        """Look at the store again, for a trace that is still being written; whether there is anything new.

        While nothing happens this reads one small file.
        """
        pulse = self._archive.pulse()
        if pulse is not None and pulse == self._pulse:
            return False
        if pulse is None:
            self._archive = Archive(self._source)
            with told(f"the head of {self.path}"):
                self.info = TraceInfo.from_attributes(self._archive.attributes)
            self._forget("modules", "_sites", "_users", "attentions")
            pulse = self._archive.pulse()
        self._pulse = pulse
        if (known := self.__dict__.get("attentions")) is not None and known.may_change:
            self._forget("attentions")
        self._forget("_committed")
        return True

    def _forget(self, *cached: str) -> None:
        for name in cached:
            self.__dict__.pop(name, None)

    @functools.cached_property
    def modules(self) -> Mapping[str, ModuleInfo]:
        """Every module that fired, by name: the components in call order, and in each the modules in call order."""
        sites: dict[str, list[SiteInfo]] = {}
        for (component, _), group in self._table_groups().items():
            for site in self._group_sites(group):
                if site.name.split(".", 1)[0] == component:  # else it is not of this table, whatever it says
                    sites.setdefault(site.name, []).append(site)
        first = {name: min(site.order for site in found) for name, found in sites.items()}
        start: dict[str, int] = {}
        for name, order in first.items():
            component = name.split(".", 1)[0]
            start[component] = min(order, start.get(component, order))
        names = sorted(sites, key=lambda name: (start[component := name.split(".", 1)[0]], component, first[name]))
        return {name: ModuleInfo(name, sites[name][0].module_class, tuple(sites[name])) for name in names}

    @property
    def components(self) -> tuple[str, ...]:
        """Components with statistics, in call order."""
        return tuple(dict.fromkeys(module.component for module in self.modules.values()))

    @functools.cached_property
    def _committed(self) -> int:
        flags = self._archive.load_if_there("committed")
        if flags is None:
            return 0
        count = int(np.argmin(np.append(flags != 0, False)))
        if count < len(flags) and self.info.status == "complete":  # whose arrays were cut to what is complete
            raise TraceFormatError(
                f"committed in {self.path} is damaged: {count} steps are complete by it, and the trace has {len(flags)}"
            )
        return count

    @property
    def n_steps(self) -> int:
        """Number of complete steps."""
        return self._committed

    @property
    def timestep(self) -> NDArray[np.float64]:
        """Timestep of each complete step, NaN where there is none."""
        return self._along_steps("timestep")

    @property
    def sigma(self) -> NDArray[np.float64]:
        """Noise level of each complete step, NaN where there is none."""
        return self._along_steps("sigma")

    @property
    def stage(self) -> NDArray[np.int8]:
        """1 for the second model evaluation of a two-stage solver, else 0, for each complete step."""
        return self._along_steps("stage")

    def site(self, name: str, port: str = "output", call: int = 0) -> SiteInfo:
        """Where a tensor was seen.

        Args:
            name: Module path, or "module:port" as printed by `dxray ls`.
            port: Which of its tensors.
            call: Which of its calls within a step.

        Raises:
            SiteNotFoundError: The trace holds no such module or port; the message lists near matches.
        """
        key = SiteInfo.from_attributes({"name": name, "port": port, "call": call}, row=0, stepped=True).key
        if name not in self.modules and ":" in name:  # a module's own name may have a colon, too
            key = name
        if key in self._sites:
            return self._sites[key]
        module = key.rpartition(":")[0]
        if module not in self.modules:
            raise SiteNotFoundError(f"no module {module!r} in {self.path}.{near_matches(module, self.modules)}")
        ports = ", ".join(site.array_name for site in self.modules[module].sites)
        raise SiteNotFoundError(f"{module} has no {key.rpartition(':')[2]!r} in {self.path}; it has {ports}")

    @functools.cached_property
    def _sites(self) -> dict[str, SiteInfo]:
        return {site.key: site for module in self.modules.values() for site in module.sites}

    def table(self, component: str, *, stepped: bool = True) -> StatisticsTable:
        """Statistics of one component, read whole: one small chunk a step.

        Falls back to what fired outside of the loop where nothing fired inside, and the other way round.
        """
        groups = self._table_groups()
        group = groups.get((component, stepped)) or groups.get((component, not stepped))
        if group is None:
            known = self.components
            raise SiteNotFoundError(
                f"no component {component!r} in {self.path}; it has {', '.join(known) or 'none'}."
                f"{near_matches(component, known)}"
            )
        sites = self._group_sites(group)
        in_loop = group == groups.get((component, True))
        steps = self.n_steps if in_loop else None
        values, captured = (self._archive.load(f"{group}/{name}", steps=steps) for name in ("statistics", "captured"))
        if not in_loop:
            values, captured = values[None], captured[None]
        with told(f"{printable(group)} in {self.path}"):
            table = StatisticsTable(component, in_loop, sites, values[:, : len(sites)], captured[:, : len(sites)])
        check_table(table, group, self._archive, timestep=self.timestep, is_complete=self.info.status == "complete")
        return table

    def tables(self) -> Iterator[StatisticsTable]:
        """All tables, in and outside of the loop."""
        for component, stepped in self._table_groups():
            yield self.table(component, stepped=stepped)

    def first_fault(self) -> Fault | None:
        """Where a value that is not finite first came into being: the site, the step, and where it was born.

        Tensors rank by when they were made, over the whole run and all components. Masks of −∞ are no fault.
        """
        return next(iter(find_faults(tuple(self.tables()))), None)

    def histogram(self, site: SiteInfo, step: int = 0) -> Histogram:
        """Float-bit histogram of one site at one step (ignored for what fired outside of the loop)."""
        group = self._group_of(site)
        place = (self._check_step(step), site.row) if site.stepped else (site.row,)
        counts = self._archive.load(f"{group}/histogram", place)
        if not counts.any():
            self._check_histograms(group, place)
        return Histogram(counts)

    def histograms(self, sites: Sequence[SiteInfo], step: int = 0) -> NDArray[np.integer]:
        """Float-bit histograms of sites of one table at one step, shape (site, bin); 256 rows are one chunk."""
        group = self._table_groups()[sites[0].name.split(".", 1)[0], sites[0].stepped]
        rows = [site.row for site in sites]
        first = min(rows)
        span = slice(first, max(rows) + 1)
        place = (self._check_step(step), span) if sites[0].stepped else (span,)
        counts: NDArray[np.integer] = self._archive.load(f"{group}/histogram", place)[np.array(rows) - first]
        if not counts.any():
            self._check_histograms(group, place)
        return counts

    def _check_histograms(self, group: str, place: tuple[int | slice, ...]) -> None:
        """Make sure that tensors whose histograms are empty had no elements."""
        elements = np.atleast_2d(self._archive.load(f"{group}/statistics", place))[:, _COUNT]
        if (elements > 0).any():
            raise TraceFormatError(
                f"{printable(group)}/histogram in {self.path} is damaged: what was written is missing"
            )

    def _group_of(self, site: SiteInfo) -> str:
        """The group of the table that a site is in."""
        return self._table_groups()[site.name.split(".", 1)[0], site.stepped]

    def _table_groups(self) -> dict[tuple[str, bool], str]:
        found: dict[tuple[str, bool], str] = {}
        for group, attributes in self._archive.groups(STATISTICS_GROUP).items():
            component, stepped = attributes.get("component"), attributes.get("stepped")
            whose = f"{printable(group)} in {self.path} is damaged: it "
            if not isinstance(component, str) or not component or not isinstance(stepped, bool):
                raise TraceFormatError(whose + "does not say of which component it is, and whether of the loop")
            if (component, stepped) in found:
                raise TraceFormatError(whose + f"is of {printable(component)[:80]} as {found[component, stepped]} is")
            found[component, stepped] = group
        return found

    def _group_sites(self, group: str) -> tuple[SiteInfo, ...]:
        attributes = self._archive.groups(STATISTICS_GROUP)[group]
        stepped, entries = bool(attributes.get("stepped")), attributes.get("sites", ())
        with told(f"the list of sites of {printable(group)} in {self.path}"):
            return tuple(SiteInfo.from_attributes(entry, row=row, stepped=stepped) for row, entry in enumerate(entries))

    def _check_step(self, step: int) -> int:
        if not 0 <= step < self.n_steps:
            raise SiteNotFoundError(f"no step {step} in {self.path}; it has {self.n_steps} complete steps, from 0")
        return step

    def _along_steps(self, name: str) -> NDArray[Any]:
        values = self._archive.load_if_there(name)
        if values is None:
            return np.zeros(0)
        if self.info.format_version >= _WHOLE_ROOT:
            for chunk in range(0, self.n_steps, ROOT_CHUNK):
                check_chunk(self._archive, name, chunk)
        return values[: self.n_steps]
