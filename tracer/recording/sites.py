"""Which row, which array, which dimension names: the place of every tensor in the trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Size, Tensor

from ..info import SiteInfo
from ..layout import array_name, dimension_names, encode_segment, module_group
from .buffers import Kind
from .clock import Clock
from .statistics import Dense
from .tables import Table

__all__ = ["Known", "Port", "Sites", "Source"]


@dataclass(frozen=True, slots=True)
class Source:
    """Who emits a tensor: a module, or anything else with a name."""

    name: str
    """Path with its component, "unet.mid_block"."""
    kind: str = ""
    """Class of the module."""
    order: int | None = None
    """Position in call order; None for what is no module, which stands behind the latest module."""
    leaf: bool = True
    """Whether it has no children; decides where its arrays lie in the store."""

    @property
    def group(self) -> str:
        """Group of its arrays."""
        return module_group(self.name, has_children=not self.leaf)


@dataclass(frozen=True, slots=True)
class Known:
    """A tensor that has been recorded, as it is expected again in the next step."""

    row: int
    dtype: torch.dtype
    shape: Size
    stride: tuple[int, ...]
    """Without holes."""
    nbytes: int
    dense: Dense
    """Measures it from its address."""
    array: str
    """The array its tensors are kept in, if they are and have it to themselves."""
    stored_dtype: str
    buffers: Kind
    """What a copy needs."""


@dataclass(slots=True)
class Port:
    """One port of a source, in or outside of the loop."""

    table: Table
    rows: dict[int, int] = field(default_factory=dict)
    """Row of the table for each call within a step."""
    arrays: dict[int, str] = field(default_factory=dict)
    """Path of the array that each call's tensors have to themselves."""
    calls: int = 0
    """How often it has fired within the current step."""
    known: dict[int, Known] = field(default_factory=dict)
    """What each call is expected to be like."""


class Sites:
    """Gives every tensor its row, in the order in which the tensors first came into being."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tables: dict[tuple[str, bool], Table] = {}
        self._ports: dict[tuple[str, str, bool], Port] = {}
        self.fired: list[Port] = []
        """Ports of the loop that have fired in this step, once each."""
        self._dims: dict[str, dict[str, int]] = {}
        self._latest = -1

    @property
    def tables(self) -> list[Table]:
        """The tables of all components."""
        return list(self._tables.values())

    def fire(self, source: Source, port: str, *, stepped: bool) -> tuple[Port, int]:
        """The port a tensor comes out of, and the number of this call within the step."""
        place = self.port(source.name, port, stepped=stepped)
        if place is None:
            table = self._table(source.name.split(".", 1)[0], stepped=stepped)
            place = self._ports[source.name, port, stepped] = Port(table)
        call = place.calls
        if stepped and not call:
            self.fired.append(place)
        place.calls += 1
        return place, call

    def port(self, name: str, port: str, *, stepped: bool) -> Port | None:
        """A port that has fired before."""
        return self._ports.get((name, port, stepped))

    def leave(self, component: str, *, stepped: bool) -> Table | None:
        """Take a component's table on one side of the loop away, if there is one."""
        return self._tables.pop((component, stepped), None)

    def ports_of(self, table: Table) -> list[tuple[tuple[str, str, bool], Port]]:
        """The ports whose rows are in a table, with their names."""
        return [(key, port) for key, port in self._ports.items() if port.table is table]

    def forget(self, table: Table) -> None:
        """Drop the ports of a table; whoever still has one takes the long way from now on."""
        for _, port in self.ports_of(table):
            port.known.clear()
        self._ports = {key: port for key, port in self._ports.items() if port.table is not table}
        self.fired[:] = [port for port in self.fired if port.table is not table]

    def open_port(self, name: str, port: str, component: str, *, stepped: bool) -> Port:
        """A port, made where it is not known, for one more call."""
        place = self.port(name, port, stepped=stepped)
        if place is None:
            place = self._ports[name, port, stepped] = Port(self._table(component, stepped=stepped))
        if stepped and not place.calls:
            self.fired.append(place)
        return place

    def after_the_last_step(self) -> list[str]:
        """Components whose modules first fired in the loop after a scheduler had last stepped."""
        now = self._clock.scheduler_count
        return [name for (name, stepped), table in self._tables.items() if stepped and table.born == now]

    def next_step(self) -> None:
        """Calls are counted anew."""
        for place in self.fired:
            place.calls = 0
        self.fired.clear()

    def add(
        self, place: Port, source: Source, port: str, call: int, *, tensor: Tensor, dims: Sequence[str] | None
    ) -> int:
        """A new row for a call that has none yet."""
        table = place.table
        row = place.rows[call] = len(table.sites)
        other = self._ports.get((source.name, port, not table.stepped))
        if other is not None and call in other.rows:  # inside and outside of the loop are two places
            port = f"{port}_{'step' if table.stepped else 'once'}"
        if source.order is None:  # what is no module stays where it is said to be
            table.born = -1
        order = self._latest if source.order is None else source.order
        self._latest = max(self._latest, order)
        group, name = source.group, array_name(port, call)
        place.arrays[call] = f"{group}/{encode_segment(name)}"
        shape, names = tuple(tensor.shape), tuple(dims or dimension_names(tensor.dim()))
        table.add(
            SiteInfo(
                name=source.name,
                port=port,
                call=call,
                row=row,
                order=order,
                module_class=source.kind,
                torch_dtype=str(tensor.dtype).removeprefix("torch."),
                shape=shape,
                dims=self._free_dims(group, name, names, shape),
                branch=self._clock.branch if table.stepped else "",
                array="",
                stepped=table.stepped,
            )
        )
        return row

    def _table(self, component: str, *, stepped: bool) -> Table:
        table = self._tables.get((component, stepped))
        if table is None:
            table = self._tables[component, stepped] = Table(component, stepped, self._clock.scheduler_count)
        return table

    def _free_dims(self, group: str, array: str, names: tuple[str, ...], shape: tuple[int, ...]) -> tuple[str, ...]:
        """Dimension names that no other array of the group uses with another size; xarray insists on that."""
        sizes = self._dims.setdefault(group, {})
        free: list[str] = []
        for name, size in zip(names, shape, strict=True):
            chosen = name if sizes.get(name, size) == size and name not in free else f"{array}_{name}"
            sizes[chosen] = size
            free.append(chosen)
        return tuple(free)
